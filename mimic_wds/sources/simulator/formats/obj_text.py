"""The lines of an OBJ file as arrays, a block of text at a time, without a loop over lines."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.formats.ply import fans
from mimic_wds.sources.simulator.formats.ply_layout import Lists

#: Bytes of text that are read together.
BLOCK_BYTES = 1 << 22

_SPACE, _NEWLINE, _SLASH, _BACKSLASH = (ord(c) for c in " \n/\\")


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What a block of lines adds. Faces are numbered in the whole file, from 0; -1 = none."""

    positions: NDArray[np.float32]  #: (V, 3)
    colors: NDArray[np.uint8]  #: (V, 3), or (0, 3) when the vertices have none
    coordinates: NDArray[np.float32]  #: (U, 2), (0, 0) top left: OBJ counts from the bottom
    faces: tuple[tuple[str, NDArray[np.int32], NDArray[np.int32]], ...]  #: material, positions and coordinates (T, 3)
    libraries: tuple[str, ...]


@dataclass(slots=True)
class _State:
    """What a block must know of those before it."""

    num_positions: int = 0
    num_coordinates: int = 0
    material: str = ""


def blocks(path: Path) -> Iterator[Block]:
    """The file, block by block. Raises ValueError where a line holds no numbers."""
    state = _State()
    with path.open("rb") as file:
        rest = b""
        while data := file.read(BLOCK_BYTES):
            whole, rest = _at_a_line_end(rest + data)
            if whole:
                yield _block(whole, state)
        if rest.strip():
            yield _block(rest + b"\n", state)


def _at_a_line_end(text: bytes) -> tuple[bytes, bytes]:
    """The text up to its last newline, and what follows; a newline after a backslash does not end a line."""
    end = text.rfind(b"\n")
    while end >= 0 and text[:end].endswith((b"\\", b"\\\r")):
        end = text.rfind(b"\n", 0, end)
    return text[: end + 1], text[end + 1 :]


def _block(text: bytes, state: _State) -> Block:
    text = text.replace(b"\r\n", b"\n").replace(b"\\\n", b"  ").replace(b"\r", b" ").replace(b"\t", b" ")
    lines = _Lines(np.frombuffer(text, np.uint8))
    positions, colors = _positions(lines.numbers(lines.begin_with(b"v ")))
    texcoords = _columns(lines.numbers(lines.begin_with(b"vt ")), "vt")[:, :2]
    flat = np.zeros((len(texcoords), 2), np.float32)
    flat[:, : texcoords.shape[1]] = texcoords
    flat[:, 1] = 1 - flat[:, 1]
    used = lines.texts(lines.begin_with(b"usemtl"))
    faces = tuple(_faces(lines, state, used))
    state.num_positions += len(positions)
    state.num_coordinates += len(flat)
    state.material = used[-1][1] if used else state.material
    libraries = tuple(name for _, name in lines.texts(lines.begin_with(b"mtllib")))
    return Block(positions, colors, flat, faces, libraries)


class _Lines:
    """The lines of a text, which ends with a newline."""

    def __init__(self, text: NDArray[np.uint8]):
        ends = np.flatnonzero(text == _NEWLINE) + 1
        self.text = text
        self.starts = np.concatenate([[0], ends[:-1]])
        self.lengths = ends - self.starts

    def begin_with(self, word: bytes) -> NDArray[np.int64]:
        """The numbers of the lines that begin with a word."""
        (found,) = np.nonzero(self.lengths > len(word))
        for place, letter in enumerate(word):
            found = found[self.text[self.starts[found] + place] == letter]
        return found

    def bytes_of(self, lines: NDArray[np.int64], skip: int) -> NDArray[np.uint8]:
        """The text of some lines without their first `skip` bytes, one after the other."""
        lengths = self.lengths[lines] - skip
        begins = np.cumsum(lengths) - lengths
        steps = np.ones(int(lengths.sum()), np.int64)
        firsts = self.starts[lines] + skip
        steps[begins] = firsts - np.concatenate([[0], firsts[:-1] + lengths[:-1] - 1])
        return self.text[np.cumsum(steps)] if len(steps) else self.text[:0]

    def numbers(self, lines: NDArray[np.int64]) -> Lists:
        """The numbers in some lines after their first word (of one or two letters)."""
        text = self.bytes_of(lines, 2)
        return Lists(_words(text), _parse(text, np.float64))

    def texts(self, lines: NDArray[np.int64]) -> list[tuple[int, str]]:
        """Some lines without their first word, each with its number."""
        return [(n, self.text_of(n).partition(" ")[2].strip()) for n in lines.tolist()]

    def text_of(self, line: int) -> str:
        """A line."""
        start = self.starts[line]
        return bytes(self.text[start : start + self.lengths[line]]).decode("utf-8", "replace").strip()


def _words(text: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many words each line of a text has."""
    if not len(text):
        return np.zeros(0, np.int64)
    blank = text <= _SPACE
    begins = ~blank & np.concatenate([[True], blank[:-1]])
    ends = np.flatnonzero(text == _NEWLINE)
    return np.diff(np.cumsum(begins, dtype=np.int32)[ends], prepend=0).astype(np.int64)


def _parse(text: NDArray[np.uint8], dtype: type) -> NDArray:
    """All numbers of a text. Raises ValueError when there is anything else in it."""
    if not len(text):
        return np.zeros(0, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # how numpy reports that it had to stop
        try:
            return np.fromstring(text.tobytes().decode("latin-1"), dtype, sep=" ")
        except (DeprecationWarning, ValueError):  # the latter from numpy 2.3 on
            return np.array(text.tobytes().split(), dtype)  # slower; raises ValueError naming the word


def _columns(numbers: Lists, what: str) -> NDArray[np.float32]:
    """Lines of numbers as a table; longer lines lose what the shortest does not have. Raises ValueError if empty."""
    counts = numbers.counts
    if not len(counts):
        return np.zeros((0, 3), np.float32)
    width = int(counts.min())
    if width < 1:
        raise ValueError(f"a line {what!r} without numbers")
    if counts.max() == width:
        return numbers.values.reshape(-1, width).astype(np.float32)
    starts = np.cumsum(counts) - counts
    return numbers.values[starts[:, None] + np.arange(width)].astype(np.float32)


def _positions(numbers: Lists) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Vertices, and their colours when every line has six numbers (0..1, or 0..255 as some programs write)."""
    table = _columns(numbers, "v")
    if table.shape[1] < 3:
        raise ValueError("a line 'v' with fewer than three numbers")
    colors = np.zeros((0, 3), np.uint8)
    if table.shape[1] in (6, 7) and len(table):
        shares = np.nan_to_num(table[:, 3:6])
        colors = np.rint(np.clip(shares * (255 if shares.max() <= 1 else 1), 0, 255)).astype(np.uint8)
    return np.ascontiguousarray(table[:, :3]), colors


def _faces(
    lines: _Lines, state: _State, used: list[tuple[int, str]]
) -> Iterator[tuple[str, NDArray[np.int32], NDArray[np.int32]]]:
    """Triangles by material. Lines are read together that write their corners alike: 1, 1/2, 1/2/3 or 1//3."""
    faces = lines.begin_with(b"f ")
    if not len(faces):
        return
    changes = np.array([n for n, _ in used], np.int64)
    names = [state.material, *(name for _, name in used)]
    text = lines.bytes_of(faces, 2)
    words, slashes, doubled = _words(text), _per_line(text, text == _SLASH), _doubles(text) > 0
    each = np.where(words > 0, slashes // np.maximum(words, 1), 0)
    bad = (slashes != each * words) | (each > 2) | (words < 3)
    if bad.any():
        raise ValueError(f"the face {lines.text_of(int(faces[np.argmax(bad)]))!r}")
    before = (lines.begin_with(b"v "), lines.begin_with(b"vt "))
    keys = (np.searchsorted(changes, faces) * 3 + each) * 2 + doubled
    groups, group_of = np.unique(keys, return_inverse=True)
    for group, key in enumerate(groups.tolist()):
        material, num_slashes, double = key // 6, key // 2 % 3, bool(key % 2)
        chosen = faces[group_of == group]
        corners = _corners(lines, chosen, 1 + num_slashes - int(double))
        # Positions follow the slash rules of the format: v, v/vt, v/vt/vn, v//vn.
        textured = num_slashes > 0 and not double
        positions = _absolute(corners, 0, chosen, before[0], state.num_positions)
        coordinates = _absolute(corners, 1, chosen, before[1], state.num_coordinates) if textured else None
        triangles = _fans(corners.counts, positions)
        empty = np.full(triangles.shape, -1, np.int32)
        yield names[material], triangles, empty if coordinates is None else _fans(corners.counts, coordinates)


@dataclass(frozen=True, slots=True, eq=False)
class _Corners:
    counts: NDArray[np.int64]  #: (F,) corners of each face
    numbers: NDArray[np.int64]  #: (corners, width) as written


def _corners(lines: _Lines, chosen: NDArray[np.int64], width: int) -> _Corners:
    text = lines.bytes_of(chosen, 2).copy()
    counts = _words(text)
    text[text == _SLASH] = _SPACE
    return _Corners(counts, _parse(text, np.int64).reshape(-1, width))


def _absolute(
    corners: _Corners, column: int, faces: NDArray[np.int64], before: NDArray[np.int64], start: int
) -> NDArray[np.int32]:
    """Rows from 0: numbers count from 1; negative ones back from the line that they stand in; -1 = 0 was written."""
    numbers = corners.numbers[:, column]
    rows = numbers - 1
    if (numbers < 0).any():
        there = start + np.searchsorted(before, faces)
        rows = np.where(numbers < 0, np.repeat(there, corners.counts) + numbers, rows)
    return np.where((rows >= 0) & (rows < 2**31), rows, -1).astype(np.int32)


def _fans(counts: NDArray[np.int64], values: NDArray[np.int32]) -> NDArray[np.int32]:
    return fans(Lists(counts, values))[0].astype(np.int32)


def _per_line(text: NDArray[np.uint8], marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many bytes of each line are marked."""
    return np.diff(np.cumsum(marked, dtype=np.int32)[text == _NEWLINE], prepend=0).astype(np.int64)


def _doubles(text: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many double slashes each line has."""
    slash = text == _SLASH
    return _per_line(text, slash & np.concatenate([[False], slash[:-1]]))
