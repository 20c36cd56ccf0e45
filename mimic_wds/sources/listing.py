"""What sources share when they list a data set as it was downloaded: folders, archives, and what is there instead."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mimic_wds.pairs import Scene
from mimic_wds.sources.archives import folders, is_archive, is_compressed_tar, join_path
from mimic_wds.sources.base import natural_key

#: Enough files to say of what kinds a folder is.
FILES_LOOKED_AT = 100_000


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that holds files of the wanted kinds, on disk or in an archive."""

    name: str  #: relative to the path that was searched, an archive counting as a folder; "" is that path itself
    path: str  #: of a scene that is this folder
    sizes: dict[str, int]  #: file name -> bytes


def walk(root: Path, skip: frozenset[str] = frozenset()) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    """Every folder at or below `root` with its files; hidden ones and folders named in `skip` are passed over.

    One folder is held at a time. Links to folders are not followed.
    """
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
        below = [entry for entry in visible if entry.is_dir(follow_symlinks=False) and entry.name not in skip]
        waiting += [Path(entry.path) for entry in below]
        yield folder, [entry for entry in visible if entry.is_file()]


def walk_folders(root: Path, suffixes: frozenset[str]) -> Iterator[Folder]:
    """The folders at or below `root` (or in it, if it is an archive) with files that end in one of `suffixes`.

    Raises ArchiveError for an archive that cannot be listed, and ValueError for one that lies unpacked beside itself.
    """
    if root.is_file():
        yield from _in_archive(root, "", suffixes)
        return
    for folder, files in walk(root):
        name = "" if folder == root else folder.relative_to(root).as_posix()
        wanted = [file for file in files if Path(file.name).suffix.lower() in suffixes]
        if wanted:
            yield Folder(name, str(folder), {file.name: file.stat().st_size for file in wanted})
        for archive in (Path(file.path) for file in files if is_archive(Path(file.name))):
            if archive.with_suffix("").is_dir():
                raise ValueError(f"{archive}: lies beside {archive.with_suffix('')}, unpacked as it seems; keep one")
            yield from _in_archive(archive, f"{name}/{archive.name}".lstrip("/"), suffixes)


def _in_archive(archive: Path, name: str, suffixes: frozenset[str]) -> Iterator[Folder]:
    for inner, held in folders(archive, suffixes).items():
        sizes = {file: member.size for file, member in held.items()}
        yield Folder(f"{name}/{inner}".strip("/"), join_path(archive, inner), sizes)


def what_is_there(root: Path) -> str:
    """What a path holds, for the message that it is not what was expected: "found 12 .mp4 and 3 .txt files"."""
    if root.is_file():
        names = [root.name]
    else:
        names = list(islice((file.name for _, files in walk(root) for file in files), FILES_LOOKED_AT))
    if not names:
        return "found no files"
    kinds = Counter(Path(name).suffix.lower() or "nameless" for name in names)
    *others, last = (f"{count} {kind}" for kind, count in kinds.most_common(4))
    found = f"found {', '.join(others)}{' and ' if others else ''}{last} file{'s' if len(names) > 1 else ''}"
    packed = [name for name in names if is_compressed_tar(Path(name))]
    return f"{found}; a compressed tar cannot be read in place, unpack {packed[0]}" if packed else found


def unique(scenes: list[Scene], hint: str) -> list[Scene]:
    """The scenes sorted by name, one of each. Raises ValueError with the `hint` when two places hold one name."""
    first: dict[str, Scene] = {}
    for scene in scenes:
        other = first.setdefault(scene.name, scene)
        if other.path != scene.path:
            raise ValueError(f"{scene.name} is in {_short(other.path)} and in {_short(scene.path)}; {hint}")
    return sorted(first.values(), key=lambda scene: natural_key(scene.name))


def _short(path: str) -> str:
    """A path that lists its files (see streetview.py) with the first of them only."""
    first, more, _ = path.partition("|")
    return f"{first}|..." if more else first
