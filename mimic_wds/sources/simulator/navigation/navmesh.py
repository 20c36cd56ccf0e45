"""Reader of habitat-sim's `.navmesh` files: Recast's polygons as Detour stores them, little endian.

A file is a header, in version 2 the settings it was made with, then tiles. A tile holds convex polygons of three to six
corners that name their neighbours, and for each polygon the triangles of its true heights. Links, the bounding volume
tree and off-mesh connections are not needed here. Coordinates are those of the world: metres, y up.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SET_MAGIC = int.from_bytes(b"MSET", "big")
TILE_MAGIC, TILE_VERSION = int.from_bytes(b"DNAV", "big"), 7

SET_HEADER, TILE_ENTRY, TILE_HEADER = struct.Struct("<3i3f2f2i"), struct.Struct("<Ii"), struct.Struct("<15i10f")

#: Bytes of the settings in version 2: 13 float32 (cell size to detail sample error), then 4 bool.
SETTINGS_BYTES = 56

#: Corners of a polygon, at most.
MAX_CORNERS = 6

#: Bytes of a link between polygons.
LINK_BYTES = 12

POLYGON = np.dtype(
    [
        ("link", "<u4"),
        ("corners", "<u2", MAX_CORNERS),
        ("neighbours", "<u2", MAX_CORNERS),
        ("flags", "<u2"),
        ("num_corners", "u1"),
        ("area_and_type", "u1"),
    ]
)
DETAIL = np.dtype(
    [("vertex", "<u4"), ("triangle", "<u4"), ("vertices", "u1"), ("triangles", "u1"), ("padding", "u1", 2)]
)

#: Bit of a neighbour that lies in another tile.
OTHER_TILE = 0x8000


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """A navigation mesh: P convex polygons over V vertices, and D triangles of their heights."""

    vertices: NDArray[np.float64]  #: (V, 3) metres
    corners: NDArray[np.int64]  #: (P, 6) rows of `vertices`, in order round the polygon; -1 after the last
    neighbours: NDArray[np.int64]  #: (P, 6) the polygon beyond the side from corner i to the next, -1 = none
    detail: NDArray[np.float64]  #: (D, 3, 3) corners of the triangles, metres
    detail_starts: NDArray[np.int64]  #: (P + 1,) where each polygon's triangles begin


def parse(data: bytes, name: str = "navmesh") -> Polygons:
    """Read a `.navmesh` file, version 1 or 2; `name` is for messages.

    habitat-sim writes one tile; of several, borders between tiles count as borders of the floor. Off-mesh connections
    are left out. Raises ValueError when the bytes are no such file, or it is cut short or names what it does not hold.
    """
    reader = _Reader(data, name)
    magic, version, num_tiles = reader.unpack(SET_HEADER)[:3]
    if magic != SET_MAGIC or version not in (1, 2):
        raise ValueError(f"{name}: not a navigation mesh of habitat-sim (magic MSET, version 1 or 2)")
    if version == 2:
        reader.array(np.dtype("u1"), SETTINGS_BYTES)
    tiles = []
    for _ in range(reader.count(num_tiles, TILE_ENTRY.size)):
        _, size = reader.unpack(TILE_ENTRY)
        tiles.append(_tile(_Reader(reader.array(np.dtype("u1"), size).tobytes(), name)))
    return _joined(tiles)


@dataclass(slots=True)
class _Reader:
    """Takes one thing after the other from bytes, and never more than there is."""

    data: bytes
    name: str
    at: int = 0

    def count(self, number: int, size: int) -> int:
        """`number`, if so many things of `size` bytes are still to come. Raises ValueError otherwise."""
        if not 0 <= number * size <= len(self.data) - self.at:
            left = len(self.data) - self.at
            raise ValueError(
                f"{self.name}: cut short or damaged: {number} x {size} bytes expected where {left} are left"
            )
        return number

    def unpack(self, form: struct.Struct) -> tuple:
        """The next values of the given form."""
        self.count(1, form.size)
        self.at += form.size
        return form.unpack_from(self.data, self.at - form.size)

    def array(self, dtype: np.dtype, number: int) -> np.ndarray:
        """The next `number` values of a type."""
        self.count(number, dtype.itemsize)
        self.at += number * dtype.itemsize
        return np.frombuffer(self.data, dtype, number, self.at - number * dtype.itemsize)


def _tile(reader: _Reader) -> Polygons:
    """One tile. Raises ValueError when its numbers do not fit together."""
    header = reader.unpack(TILE_HEADER)
    if header[:2] != (TILE_MAGIC, TILE_VERSION):
        raise ValueError(f"{reader.name}: a tile is not Detour's (magic DNAV, version 7)")
    num_polygons, num_vertices, num_links, num_details, num_detail_vertices, num_triangles = header[6:12]
    real = np.dtype("<f4")
    vertices = reader.array(real, 3 * reader.count(num_vertices, 12)).reshape(-1, 3).astype(np.float64)
    polygons = reader.array(POLYGON, num_polygons)
    reader.array(np.dtype("u1"), LINK_BYTES * reader.count(num_links, LINK_BYTES))
    details = reader.array(DETAIL, num_details)
    detail_vertices = reader.array(real, 3 * reader.count(num_detail_vertices, 12)).reshape(-1, 3).astype(np.float64)
    triangles = reader.array(np.dtype("u1"), 4 * reader.count(num_triangles, 4)).reshape(-1, 4)
    if not (np.isfinite(vertices).all() and np.isfinite(detail_vertices).all()):
        raise ValueError(f"{reader.name}: vertices that are not finite")
    ground = polygons["area_and_type"] >> 6 == 0  # the others are off-mesh connections
    numbers = np.where(ground, np.cumsum(ground) - 1, -1)
    corners, neighbours = _sides(polygons[ground], numbers, num_vertices, reader.name)
    if len(details) < len(polygons[ground]):
        raise ValueError(f"{reader.name}: {len(details)} detail meshes for {int(ground.sum())} polygons")
    detail = [
        _detail(vertices, corners[numbers[n]], detail_vertices, triangles, details[n], reader.name)
        for n in np.flatnonzero(ground)[: len(details)]
    ]
    starts = np.cumsum([0, *map(len, detail)])
    return Polygons(vertices, corners, neighbours, np.concatenate([np.empty((0, 3, 3)), *detail]), starts)


def _sides(
    polygons: np.ndarray, numbers: NDArray[np.int64], num_vertices: int, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Corners and neighbours (P, 6) as `Polygons` has them; numbers: the new number of each polygon of the file."""
    counts = polygons["num_corners"].astype(np.int64)
    if ((counts < 3) | (counts > MAX_CORNERS)).any():
        raise ValueError(f"{name}: a polygon without 3 to {MAX_CORNERS} corners")
    used = np.arange(MAX_CORNERS) < counts[:, None]
    corners = np.where(used, polygons["corners"].astype(np.int64), -1)
    beyond = polygons["neighbours"].astype(np.int64)
    beyond = np.where(used & (beyond & OTHER_TILE == 0), beyond, 0)
    if corners.max(initial=-1) >= num_vertices or beyond.max(initial=0) > len(numbers):
        raise ValueError(f"{name}: a polygon names a vertex or a neighbour that is not there")
    return corners, np.append(numbers, -1)[beyond - 1]  # 0 = none picks the last


def _detail(
    vertices: NDArray[np.float64],
    corners: NDArray[np.int64],
    detail_vertices: NDArray[np.float64],
    triangles: NDArray[np.uint8],
    entry: np.void,
    name: str,
) -> NDArray[np.float64]:
    """The height triangles (d, 3, 3) of one polygon: their corners are the polygon's, then its own of the detail."""
    first, last = int(entry["vertex"]), int(entry["vertex"]) + int(entry["vertices"])
    rows = triangles[int(entry["triangle"]) : int(entry["triangle"]) + int(entry["triangles"]), :3]
    own = np.concatenate([vertices[corners[corners >= 0]], detail_vertices[first:last]])
    if len(rows) < entry["triangles"] or last > len(detail_vertices) or rows.max(initial=0) >= len(own):
        raise ValueError(f"{name}: a detail mesh names a vertex or a triangle that is not there")
    return own[rows]


def _joined(tiles: list[Polygons]) -> Polygons:
    """All tiles in one."""
    vertex0 = np.cumsum([0, *(len(tile.vertices) for tile in tiles)])
    polygon0 = np.cumsum([0, *(len(tile.corners) for tile in tiles)])
    detail0 = np.cumsum([0, *(len(tile.detail) for tile in tiles)])
    none = np.empty((0, MAX_CORNERS), np.int64)
    return Polygons(
        np.concatenate([np.empty((0, 3)), *(tile.vertices for tile in tiles)]),
        np.concatenate([none, *(_moved(t.corners, first) for t, first in zip(tiles, vertex0, strict=False))]),
        np.concatenate([none, *(_moved(t.neighbours, first) for t, first in zip(tiles, polygon0, strict=False))]),
        np.concatenate([np.empty((0, 3, 3)), *(tile.detail for tile in tiles)]),
        np.concatenate([[0], *(t.detail_starts[1:] + first for t, first in zip(tiles, detail0, strict=False))]),
    )


def _moved(numbers: NDArray[np.int64], first: np.int64) -> NDArray[np.int64]:
    """Numbers counted from `first` on; -1 stays."""
    return np.where(numbers >= 0, numbers + first, -1)
