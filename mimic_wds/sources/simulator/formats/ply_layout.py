"""The tables of a PLY file: its header, and its elements as numpy arrays (Greg Turk's format 1.0, text or binary)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.formats.contents import describe

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip

_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}

#: A header has at most so many lines.
MAX_HEADER = 1000


@dataclass(frozen=True, slots=True)
class Property:
    """A column of an element."""

    name: str
    dtype: str
    count_dtype: str = ""  #: of the length in front of a list; "" = a single number


@dataclass(frozen=True, slots=True)
class Element:
    """A table of a file."""

    name: str
    count: int
    properties: tuple[Property, ...]

    @property
    def has_lists(self) -> bool:
        """Whether its rows may differ in length."""
        return any(p.count_dtype for p in self.properties)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself."""

    order: str  #: of bytes, "" = text
    elements: tuple[Element, ...]
    texture: str  #: name of a picture that a comment gives (MeshLab), "" = none


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """A column of lists: all values one after the other, and how many each row has."""

    counts: NDArray[np.int64]  #: (R,)
    values: NDArray[np.generic]  #: (sum of counts,)


#: The columns of an element by name.
Table = Mapping[str, NDArray | Lists]


def read_tables(path: Path, wanted: frozenset[str]) -> tuple[Header, dict[str, Table]]:
    """The header, and the tables of the `wanted` elements. Raises SceneError when the file is damaged."""
    with path.open("rb") as file:
        header = read_header(file, path)
        tables: dict[str, Table] = {}
        data = file.read()
    rows = _TextRows(data) if not header.order else _BinaryRows(data, header.order)
    for element in header.elements:
        try:
            tables[element.name] = rows.take(element)
        except (ValueError, IndexError) as error:
            raise SceneError(f"{path}: is cut short or damaged: element {element.name}: {error}") from error
        if wanted <= tables.keys():
            break
    return header, {name: table for name, table in tables.items() if name in wanted}


def read_header(file: BinaryIO, path: Path) -> Header:
    """The header; the file is left at the first byte of data. Raises SceneError when it is none."""
    start = file.readline(256)
    if start.strip() != b"ply":
        raise SceneError(f"{path}: is no PLY file, {describe(start)}")
    order: str | None = None
    elements: list[Element] = []
    texture = ""
    for _ in range(MAX_HEADER):
        words = file.readline(4096).decode("latin-1").split()
        match words:
            case ["format", kind, _]:
                order = _ORDERS.get(kind)
            case ["comment", "TextureFile", *name]:
                texture = " ".join(name)
            case ["element", name, count] if count.isdigit():
                elements.append(Element(name, int(count), ()))
            case ["property", "list", count_type, kind, name] if elements and {count_type, kind} <= _TYPES.keys():
                elements[-1] = _with(elements[-1], Property(name, _TYPES[kind], _TYPES[count_type]))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1] = _with(elements[-1], Property(name, _TYPES[kind]))
            case ["end_header"]:
                if order is None:
                    raise SceneError(f"{path}: is damaged: its PLY header names no known format")
                return Header(order, tuple(elements), texture)
            case ["comment" | "obj_info", *_] | []:
                pass
            case _:
                raise SceneError(f"{path}: is damaged: PLY header line {' '.join(words)!r}")
    raise SceneError(f"{path}: is damaged: its PLY header does not end")


def _with(element: Element, column: Property) -> Element:
    return Element(element.name, element.count, (*element.properties, column))


class _BinaryRows:
    """Takes one element after the other from the bytes after the header."""

    def __init__(self, data: bytes, order: str):
        self._data = data
        self._order = order
        self._at = 0

    def take(self, element: Element) -> Table:
        """The next element's table. Raises ValueError when the bytes do not suffice."""
        if not element.has_lists or not element.count:
            return self._uniform(element, {})
        lengths = self._lengths_of_row(element, self._at)
        try:
            table = self._uniform(element, lengths)
        except ValueError:
            return self._ragged(element)
        if all(np.all(table[name] == n) for name, n in ((_count(name), n) for name, n in lengths.items())):
            return {
                name: Lists(np.full(element.count, lengths[name]), np.ravel(column)) if name in lengths else column
                for name, column in table.items()
                if not name.startswith("#")
            }
        self._at -= self._dtype(element, lengths).itemsize * element.count
        return self._ragged(element)

    def _uniform(self, element: Element, lengths: Mapping[str, int]) -> dict[str, NDArray]:
        """The table if every row's lists have these lengths; columns are views. Lengths are columns named "#name"."""
        dtype = self._dtype(element, lengths)
        if self._at + dtype.itemsize * element.count > len(self._data):
            raise ValueError(f"{element.count} rows expected, the file ends before")
        table = np.frombuffer(self._data, dtype, element.count, self._at)
        self._at += table.nbytes
        return {name: table[name] for name in table.dtype.names or ()}

    def _dtype(self, element: Element, lengths: Mapping[str, int]) -> np.dtype:
        fields: list[tuple] = []
        for column in element.properties:
            if column.count_dtype:
                fields.append((_count(column.name), self._order + column.count_dtype))
                fields.append((column.name, self._order + column.dtype, (lengths.get(column.name, 0),)))
            else:
                fields.append((column.name, self._order + column.dtype))
        return np.dtype(fields)

    def _lengths_of_row(self, element: Element, at: int) -> dict[str, int]:
        """How long the lists are in the row that begins at a byte."""
        lengths: dict[str, int] = {}
        for column in element.properties:
            if column.count_dtype:
                (length,) = np.frombuffer(self._data, self._order + column.count_dtype, 1, at)
                lengths[column.name] = int(length)
                at += np.dtype(column.count_dtype).itemsize
            at += np.dtype(column.dtype).itemsize * lengths.get(column.name, 1)
        return lengths

    def _ragged(self, element: Element) -> Table:
        """The table whatever the lengths: the rows are found one by one, and read together by their lengths."""
        starts, shapes, self._at = self._find_rows(element)
        lists = [column.name for column in element.properties if column.count_dtype]
        kinds, kind_of = np.unique(shapes, axis=0, return_inverse=True)
        data = np.frombuffer(self._data, np.uint8)
        single: dict[str, NDArray] = {}
        flat: dict[str, NDArray] = {}
        for kind, shape in enumerate(kinds.tolist()):
            (rows,) = np.nonzero(kind_of.ravel() == kind)
            dtype = self._dtype(element, dict(zip(lists, shape, strict=True)))
            block = data[starts[rows][:, None] + np.arange(dtype.itemsize)].view(dtype)[:, 0]
            for column in element.properties:
                values = block[column.name]
                if column.count_dtype:
                    ends = np.cumsum(shapes[:, lists.index(column.name)])
                    places = ends[rows][:, None] - values.shape[1] + np.arange(values.shape[1])
                    flat.setdefault(column.name, np.empty(int(ends[-1]), values.dtype))[places] = values
                else:
                    single.setdefault(column.name, np.empty(element.count, values.dtype))[rows] = values
        return {**single, **{name: Lists(shapes[:, i], flat[name]) for i, name in enumerate(lists)}}

    def _find_rows(self, element: Element) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Where each row starts (R,), how long its lists are (R, lists), and where the last row ends."""
        order: Literal["big", "little"] = "big" if self._order == ">" else "little"
        steps = [
            (np.dtype(c.count_dtype).itemsize if c.count_dtype else 0, np.dtype(c.dtype).itemsize)
            for c in element.properties
        ]
        starts: list[int] = []
        shapes: list[list[int]] = []
        at, data = self._at, self._data
        for _ in range(element.count):
            starts.append(at)
            shape = []
            for head, size in steps:
                if not head:
                    at += size
                    continue
                length = data[at] if head == 1 else int.from_bytes(data[at : at + head], order)
                shape.append(length)
                at += head + size * length
            shapes.append(shape)
            if at > len(data):
                raise ValueError(f"row {len(starts)} of {element.count} ends after the file")
        return np.array(starts), np.array(shapes), at


class _TextRows:
    """Takes one element after the other from the lines after the header."""

    def __init__(self, data: bytes):
        self._lines = data.decode("latin-1").splitlines()
        self._at = 0

    def take(self, element: Element) -> Table:
        """The next element's table. Raises ValueError when there are too few lines or numbers."""
        lines = self._lines[self._at : self._at + element.count]
        self._at += element.count
        if len(lines) < element.count:
            raise ValueError(f"{element.count} rows expected, the file has {len(lines)}")
        if not element.has_lists:
            table = np.array([line.split() for line in lines], np.float64).reshape(element.count, -1)
            return {column.name: table[:, i].astype(column.dtype) for i, column in enumerate(element.properties)}
        values: dict[str, list[float]] = {column.name: [] for column in element.properties}
        counts: dict[str, list[int]] = {column.name: [] for column in element.properties if column.count_dtype}
        for line in lines:
            words = iter(line.split())
            for column in element.properties:
                length = int(next(words, "x")) if column.count_dtype else 1
                if column.count_dtype:
                    counts[column.name].append(length)
                values[column.name] += [float(next(words, "x")) for _ in range(length)]
        arrays = {column.name: np.array(values[column.name]).astype(column.dtype) for column in element.properties}
        return {n: Lists(np.array(counts[n], np.int64), a) if n in counts else a for n, a in arrays.items()}


def _count(name: str) -> str:
    return "#" + name
