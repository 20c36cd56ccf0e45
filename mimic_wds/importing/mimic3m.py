"""MIMIC as it was published: zips or folders of pairs, each with the pickled map of its patches.

Layout: `names.py`. A zip is read in place. The files of a pair may even lie in different archives, as in the parts of a
folder downloaded from Google Drive.
"""

import csv
import os
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from sys import intern
from typing import ClassVar, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from mimic_wds.importing import base
from mimic_wds.importing.base import Lost, Plan, RawPair, Settings, Unit, existing
from mimic_wds.importing.names import PairName, pair_name, sort_key
from mimic_wds.importing.npy import DictReader, RefusedPickle
from mimic_wds.importing.walk import is_leftover, walk
from mimic_wds.importing.zips import Zip, is_zip
from mimic_wds.pairs import Kind, Scene

#: The files of a pair: view 0, view 1, map from the patches of view 0 to those of view 1.
MEMBERS = ("0000.jpg", "0001.jpg", "corresponding.npy")
_MEMBER = {name: number for number, name in enumerate(MEMBERS)}

#: The maps are of patches of this many pixels (arXiv 2306.15128, appendix C).
PATCH_SIZE = 16

#: Where a file is: its path, or the number of its zip and its place there, or nowhere.
Where: TypeAlias = str | tuple[int, int] | None


class _Listed(msgspec.Struct, array_like=True):
    """A pair of a unit."""

    scene: str
    pair: str
    image0: Where
    image1: Where
    corr: Where


class _Payload(msgspec.Struct, array_like=True):
    """The pairs of a unit and the archives that they lie in."""

    roots: list[str]
    pairs: list[_Listed]


@dataclass(frozen=True, kw_only=True)
class Mimic3M:
    """The released pairs: 0000.jpg, 0001.jpg and corresponding.npy in a folder of their own, at any depth."""

    name: ClassVar[str] = "mimic3m"
    reads: ClassVar[str] = "MIMIC's zips or folders: 0000.jpg, 0001.jpg, corresponding.npy; -o csv=FILE chooses, orders"
    kind: ClassVar[Kind] = "pairs"
    default_size: ClassVar[int] = 224

    paths: tuple[str, ...]
    csv: str = ""  #: a list with columns path1 and path2: only its pairs, in its order within each source
    source: str = ""  #: name of the source, where the folders' names do not tell
    licence: str = ""  #: goes into the manifest

    def plan(self, settings: Settings) -> Plan:
        """All pairs, sorted by source, scene and number, or in the order of the list."""
        if settings.patch_size != PATCH_SIZE:
            raise ValueError(f"mimic3m: its maps are of patches of {PATCH_SIZE} pixels, not {settings.patch_size}")
        table = scan(existing(self.paths), self.source)
        dropped = table.dropped()
        if self.csv:
            rows = _in_order_of(Path(self.csv), table, self.source, dropped)
        else:
            rows = [table.rows[name] for name in sorted(table.rows, key=sort_key) if table.is_whole(table.rows[name])]
        return Plan(units=list(_units(table, rows, dropped)), notes=table.notes)

    def pairs(self, unit: Unit, settings: Settings) -> Iterator[RawPair | Lost]:
        """Read the pairs of a unit."""
        payload = msgspec.msgpack.decode(zlib.decompress(unit.payload), type=_Payload)
        num_patches = (settings.size // settings.patch_size) ** 2
        reader = DictReader()
        with _Files(payload.roots) as files:
            for listed in payload.pairs:
                name = PairName(unit.scene.source, listed.scene, listed.pair)
                yield _read(name, listed, files, reader, num_patches)


class Table:
    """All pairs that were found, and where their files are: some 250 bytes each."""

    def __init__(self, origin: str) -> None:
        self.origin = origin  #: first path that was given
        self.roots: list[str] = []
        self.notes: list[str] = []
        self.rows: dict[PairName, int] = {}
        self.names: list[PairName] = []
        self.folders: list[str] = []
        self._root = array("i")  #: three per row: number of a zip, -1 for a plain file, -2 for none
        self._place = array("q")  #: three per row: place in the zip, or number of a folder
        self._duplicates: Counter[str] = Counter()

    def add(self, name: PairName, member: int, root: int, place: int) -> None:
        """One file of a pair. The first of several in its place stays."""
        row = self.rows.get(name)
        if row is None:
            name = PairName(intern(name.source), intern(name.scene), name.pair)
            row = self.rows[name] = len(self.rows)
            self.names.append(name)
            self._root.extend((-2, -2, -2))
            self._place.extend((0, 0, 0))
        at = 3 * row + member
        if self._root[at] != -2:
            self._duplicates[name.source] += member == 0
            return
        self._root[at], self._place[at] = root, place

    def is_whole(self, row: int) -> bool:
        """True if both views are there."""
        return self._root[3 * row] != -2 and self._root[3 * row + 1] != -2

    def where(self, row: int, member: int) -> Where:
        """Where a file of a pair is."""
        root, place = self._root[3 * row + member], self._place[3 * row + member]
        if root == -1:
            return os.path.join(self.folders[place], MEMBERS[member])
        return (root, place) if root >= 0 else None

    def dropped(self) -> dict[str, Counter[str]]:
        """Source -> reason -> pairs that are lost for what was found of them."""
        dropped: dict[str, Counter[str]] = {}
        for source, number in self._duplicates.items():
            dropped.setdefault(source, Counter())[base.DUPLICATE_KEY] = number
        for row, name in enumerate(self.names):
            if not self.is_whole(row) and (self.where(row, 0) or self.where(row, 1)):
                dropped.setdefault(name.source, Counter())[base.MISSING_VIEW] += 1
        return dropped


def scan(paths: Sequence[Path], source: str = "") -> Table:
    """Find all pairs below `paths`: zips, folders, and zips in folders. Raises ValueError when there are none."""
    table = Table(str(paths[0]))
    for path in paths:
        if is_zip(path):
            _scan_zip(path, table, source)
        elif path.is_dir():
            _scan_folder(path, table, source)
        else:
            raise ValueError(f"{path}: neither a folder nor a .zip")
    if not any(table.is_whole(row) for row in range(len(table.names))):
        raise ValueError(f"{paths[0]}: no pairs here or below; expected folders (or zips) with 0000.jpg and 0001.jpg")
    return table


def _scan_zip(path: Path, table: Table, source: str) -> None:
    """Add the pairs of a zip."""
    number = len(table.roots)
    table.roots.append(str(path))
    root, last, name = PurePosixPath(path), None, None
    with Zip(path) as archive:
        for entry in archive.entries():
            folder, _, file = entry.name.rpartition("/")
            member = _MEMBER.get(file)
            if member is None:
                continue
            if folder != last:
                parts = [part for part in folder.split("/") if part not in ("", ".")]
                name = None if any(map(is_leftover, parts)) else pair_name(root, PurePosixPath(*parts), source)
                last = folder
            if name is not None:
                table.add(name, member, number, entry.position)


def _scan_folder(path: Path, table: Table, source: str) -> None:
    """Add the pairs of a tree, and of the zips in it."""
    root = PurePosixPath(path)
    for folder, files in walk(path):
        members = [_MEMBER[file] for file in files if file in _MEMBER]
        if members:
            table.folders.append(os.path.join(path, folder))
            name = pair_name(root, PurePosixPath(folder), source)
            for member in members:
                table.add(name, member, -1, len(table.folders) - 1)
        for file in files:
            if is_zip(path / folder / file):
                _scan_zip(path / folder / file, table, source)


def _in_order_of(path: Path, table: Table, source: str, dropped: dict[str, Counter[str]]) -> list[int]:
    """The rows of the table that a list names, in its order; counts what has no files, or no row, in `dropped`."""
    rows: list[int] = []
    seen = bytearray(len(table.names))
    names = _ListedNames(table, source)
    for paths in _csv_rows(path):
        name = names.name(paths)
        if name is None:
            dropped.setdefault(source or _source_in(paths), Counter())[base.BAD_LIST_ROW] += 1
            continue
        row = table.rows.get(name)
        counter = dropped.setdefault(name.source, Counter())
        if row is None:
            counter[base.MISSING_FILES] += 1
        elif seen[row]:
            counter[base.DUPLICATE_KEY] += 1
        else:
            seen[row] = 1
            if table.is_whole(row):
                rows.append(row)
    for row, name in enumerate(table.names):
        if not seen[row] and table.is_whole(row):
            dropped.setdefault(name.source, Counter())[base.NOT_LISTED] += 1
    return rows


def _csv_rows(path: Path) -> Iterator[tuple[str, str]]:
    """The columns path1 and path2 of a list. Raises ValueError naming the file when it has none, or is no text."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [column.strip().lower() for column in next(reader, [])]
            if not {"path1", "path2"} <= set(header):
                raise ValueError(f"{path}: expected columns path1 and path2, has {', '.join(header)[:200] or 'none'}")
            at = header.index("path1"), header.index("path2")
            for row in reader:
                if row:
                    yield (row[at[0]], row[at[1]]) if len(row) > max(at) else ("", "")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file (option csv)") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable list: {error}") from None


class _ListedNames:
    """The pairs that the rows of a list name. What their paths begin with is learnt from rows whose files are there."""

    def __init__(self, table: Table, source: str):
        self._table = table
        self._source = source
        self._skip = 0  #: folders at the start of a path that say nothing

    def name(self, paths: tuple[str, str]) -> PairName | None:
        """The pair of a row, or None if the row names none."""
        first, second = (PurePosixPath("/", *path.replace("\\", "/").split("/")) for path in paths)
        if first.parent != second.parent or (first.name, second.name) != MEMBERS[:2]:
            return None
        parts = first.parent.parts[1:]
        for skip in (self._skip, *range(len(parts))):
            name = self._from(parts, skip)
            if name in self._table.rows:
                self._skip = skip
                return name
        return self._from(parts, self._skip)

    def _from(self, parts: tuple[str, ...], skip: int) -> PairName:
        return pair_name(PurePosixPath("/"), PurePosixPath(*parts[skip:]), self._source)


def _source_in(paths: tuple[str, str]) -> str:
    """The source that a row that names no pair is counted under."""
    return pair_name(PurePosixPath("/"), PurePosixPath(*paths[0].split("/"))).source


def _units(table: Table, rows: list[int], dropped: dict[str, Counter[str]]) -> Iterator[Unit]:
    """The rows in pieces of one source each, sources by their first row; then sources of which nothing is left."""
    by_source: dict[str, list[int]] = {}
    for row in rows:
        by_source.setdefault(table.names[row].source, []).append(row)
    for source in dropped:
        by_source.setdefault(source, [])
    for source, own in by_source.items():
        for start in range(0, max(1, len(own)), base.UNIT_PAIRS):
            part = own[start : start + base.UNIT_PAIRS]
            listed = [
                _Listed(*table.names[row][1:], *(table.where(row, member) for member in range(3))) for row in part
            ]
            yield Unit(
                scene=Scene(source=source, name=f"pairs {start} to {start + len(part) - 1}", path=table.origin),
                payload=zlib.compress(msgspec.msgpack.encode(_Payload(table.roots, listed)), 1),
                num_pairs=len(part),
                dropped=dropped.pop(source, {}),
            )


class _Files:
    """Reads files from zips, opened when they are first needed, and from the disk."""

    def __init__(self, roots: list[str]):
        self._roots = roots
        self._zips: dict[int, Zip] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, where: Where) -> bytes | None:
        """The file, or None if it cannot be read."""
        try:
            if where is None:
                return None
            if isinstance(where, str):
                return Path(where).read_bytes()
            root, place = where
            if root not in self._zips:
                self._zips[root] = self._stack.enter_context(Zip(Path(self._roots[root])))
            return self._zips[root].read(place)
        except (OSError, ValueError):
            return None

    def describe(self, where: Where) -> str:
        """For people."""
        return where if isinstance(where, str) else self._roots[where[0]] if where else ""


def _read(name: PairName, listed: _Listed, files: _Files, reader: DictReader, num_patches: int) -> RawPair | Lost:
    """One pair."""
    image0, image1 = files.read(listed.image0), files.read(listed.image1)
    if image0 is None or image1 is None:
        return Lost(base.UNREADABLE, f"{files.describe(listed.image0)}: {name.scene}/{name.pair}")
    corr, fault = _correspondences(files.read(listed.corr), reader, num_patches)
    return RawPair(
        source=name.source,
        scene=name.scene,
        frame0=name.frames[0],
        frame1=name.frames[1],
        image0_jpg=image0,
        image1_jpg=image1,
        corr_0to1=corr,
        faults=(fault,) if fault else (),
    )


def _correspondences(data: bytes | None, reader: DictReader, num_patches: int) -> tuple[NDArray[np.int16] | None, str]:
    """The map in a corresponding.npy, (L,) or None; and what was wrong with it, or ""."""
    if data is None:
        return None, base.MISSING_CORRESPONDENCES
    try:
        corr = patch_map(reader.read(data), num_patches)
    except RefusedPickle:
        return None, base.REFUSED_PICKLE
    except ValueError:
        return None, base.BAD_CORRESPONDENCES
    return corr, ""


def patch_map(numbers: dict[int, int], num_patches: int) -> NDArray[np.int16]:
    """{patch of view 0: patch of view 1} as (L,) int16, -1 = none.

    Raises ValueError when it is empty, leaves the grid of `num_patches`, or is not one-to-one.
    """
    if not numbers or len(set(numbers.values())) != len(numbers):
        raise ValueError("the map is empty, or not one-to-one")
    every = (*numbers, *numbers.values())
    if min(every) < 0 or max(every) >= num_patches:
        raise ValueError(f"the map leaves the grid of {num_patches} patches")
    corr = [-1] * num_patches
    for patch0, patch1 in numbers.items():
        corr[patch0] = patch1
    return np.array(corr, np.int16)
