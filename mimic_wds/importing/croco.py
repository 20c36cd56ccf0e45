"""CroCo's pairs: trees of `STEM_1.jpeg` and `STEM_2.jpeg`, and the lists that its training reads.

`pairs.txt` has two paths on each line, `listing.txt` a stem that stands for `STEM_1.jpg` and `STEM_2.jpg`; both are
relative to the list's folder, and lines that start with # are comments (arXiv 2210.10716 and 2211.10408, the released
code's documentation). Nothing is known of the pairs' overlap.
"""

import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import msgspec

from mimic_wds.importing import base
from mimic_wds.importing.base import Lost, Plan, RawPair, Settings, Unit, existing
from mimic_wds.importing.walk import walk
from mimic_wds.pairs import Kind, Scene

LISTS = ("pairs.txt", "listing.txt")

#: A view's file name: stem, number of the view, suffix.
_VIEW = re.compile(r"(.+)_([12])(\.jpe?g)", re.IGNORECASE)

#: Ends of the names of CroCo's folders that say nothing of their content.
_ENDS = re.compile(r"[-_](crops|release)$")


class _Files(NamedTuple):
    """The two files of a pair, relative to the root."""

    file0: str
    file1: str


class _Payload(msgspec.Struct, array_like=True):
    """The pairs of a unit."""

    root: str
    pairs: list[_Files]


@dataclass(frozen=True, kw_only=True)
class CrocoPairs:
    """Pairs of files, found by their names or in a list."""

    name: ClassVar[str] = "croco-pairs"
    reads: ClassVar[str] = "trees of STEM_1.jpeg, STEM_2.jpeg, or their pairs.txt or listing.txt"
    kind: ClassVar[Kind] = "pairs"
    default_size: ClassVar[int] = 256

    paths: tuple[str, ...]
    source: str = ""  #: name of the source; default: the folder's name without "_release" or "_crops"
    use_list: bool = True  #: follow a pairs.txt or listing.txt that lies in the folder; false: take all files
    licence: str = ""  #: goes into the manifest

    def plan(self, settings: Settings) -> Plan:
        """The pairs of each path in the order of its list, or of the names."""
        units: list[Unit] = []
        notes: list[str] = []
        roots: dict[str, Path] = {}
        for path in existing(self.paths):
            root, list_file = self._root(path)
            source = self.source or source_name(root)
            if source in roots:
                raise ValueError(f"{root} and {roots[source]} would both be source {source!r}: import them apart")
            roots[source] = root
            notes.append(f"{root}: {'all files' if list_file is None else f'the pairs of {list_file.name}'}")
            dropped: Counter[str] = Counter()
            found = _walked(root, dropped) if list_file is None else _listed(root, list_file, dropped)
            units += _units(source, root, list(_different(found, dropped)), dropped)
        return Plan(units=units, notes=notes)

    def pairs(self, unit: Unit, settings: Settings) -> Iterator[RawPair | Lost]:
        """Read the pairs of a unit."""
        payload = msgspec.msgpack.decode(zlib.decompress(unit.payload), type=_Payload)
        for files in payload.pairs:
            yield _read(unit.scene.source, Path(payload.root), files)

    def _root(self, path: Path) -> tuple[Path, Path | None]:
        """The folder that files are relative to, and the list to follow, if any."""
        if path.is_file():
            return path.parent, path
        lists = [path / name for name in LISTS if (path / name).is_file()] if self.use_list else []
        return path, lists[0] if lists else None


def source_name(root: Path) -> str:
    """Name of the source in a folder: "ARKitScenes_crops" -> "arkitscenes"."""
    return _ENDS.sub("", root.name.lower()) or "croco"


def _walked(root: Path, dropped: Counter[str]) -> Iterator[_Files]:
    """All pairs below a folder; counts those with one view."""
    is_empty = True
    for folder, names in walk(root):
        views: dict[tuple[str, str], dict[str, str]] = {}
        for name in names:
            if match := _VIEW.fullmatch(name):
                views.setdefault((match[1], match[3]), {})[match[2]] = os.path.join(folder, name)
        for found in views.values():
            is_empty = False
            if len(found) == 2:
                yield _Files(found["1"], found["2"])
            else:
                dropped[base.MISSING_VIEW] += 1
    if is_empty:
        raise ValueError(f"{root}: no pairs here or below; expected files STEM_1.jpeg and STEM_2.jpeg (or .jpg)")


def _listed(root: Path, list_file: Path, dropped: Counter[str]) -> Iterator[_Files]:
    """The pairs of a list; counts the lines that name none, and those whose files are not there."""
    try:
        lines = list_file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{list_file}: not a text file") from None
    lines = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise ValueError(f"{list_file}: names no pairs")
    for line in lines:
        files = _parse(line)
        if files is None or any(_leads_out(file) for file in files):
            dropped[base.BAD_LIST_ROW] += 1
        elif not all((root / file).is_file() for file in files):
            dropped[base.MISSING_FILES] += 1
        else:
            yield files


def _parse(line: str) -> _Files | None:
    """Two files, or the stem of two."""
    words = line.split()
    if len(words) == 1:
        return _Files(f"{words[0]}_1.jpg", f"{words[0]}_2.jpg")
    return _Files(words[0], words[1]) if len(words) == 2 else None


def _leads_out(file: str) -> bool:
    """True for a path that does not stay below the root."""
    return os.path.isabs(file) or ".." in Path(file).parts


def _different(found: Iterable[_Files], dropped: Counter[str]) -> Iterator[_Files]:
    """Each pair once."""
    seen: set[_Files] = set()
    for files in found:
        if files in seen:
            dropped[base.DUPLICATE_KEY] += 1
        else:
            seen.add(files)
            yield files


def _units(source: str, root: Path, pairs: list[_Files], dropped: Counter[str]) -> Iterator[Unit]:
    for start in range(0, max(1, len(pairs)), base.UNIT_PAIRS):
        part = pairs[start : start + base.UNIT_PAIRS]
        yield Unit(
            scene=Scene(source=source, name=f"pairs {start} to {start + len(part) - 1}", path=str(root)),
            payload=zlib.compress(msgspec.msgpack.encode(_Payload(str(root), part)), 1),
            num_pairs=len(part),
            dropped=dropped if start == 0 else {},
        )


def _read(source: str, root: Path, files: _Files) -> RawPair | Lost:
    """One pair; its scene is the folder of its first view, its frames are the names of the files without suffix."""
    try:
        image0, image1 = (root / files.file0).read_bytes(), (root / files.file1).read_bytes()
    except OSError as error:
        return Lost(base.UNREADABLE, str(error))
    scene, frame0 = os.path.split(os.path.splitext(files.file0)[0])
    other_scene, frame1 = os.path.split(os.path.splitext(files.file1)[0])
    return RawPair(
        source=source,
        scene=scene or root.name,
        frame0=_frame(frame0),
        frame1=_frame(frame1 if other_scene == scene else f"{other_scene}/{frame1}"),
        image0_jpg=image0,
        image1_jpg=image1,
    )


def _frame(stem: str) -> str:
    """ "00000012_1" as "00000012-1", which a key can hold as it is."""
    return re.sub(r"_([12])$", r"-\1", stem)
