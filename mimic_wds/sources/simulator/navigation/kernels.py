"""The loops over triangles, compiled by numba: what they are, which voxels they fill. Import only when needed.

A grid of columns (rows along z, columns along x) holds a bit for each voxel of a column: `num_words` words of 64 bits,
lowest voxel first; column (j, i) begins at word (j * width + i) * num_words. *Grid units*: x and z in cells, y in
voxels, so a column's middle is at (i + 0.5, j + 0.5), and a height y lies in voxel floor(y).

**What makes a voxel solid.** Every column has a cross in plan: the two lines through its middle, as long as the cell is
wide. A voxel is solid when a triangle meets its cross. The crosses of neighbours touch, so they are the way from middle
to middle, and no connected surface, however thin, lies between two columns without closing one of them. Compared with
"the triangle touches the column", walls come out equally thick in all directions, so that areas do not depend on how a
scene is turned. Things so small that they lie between the crosses (a table leg) are put in afterwards (`add_small`).
"""

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.kernels import compiled

#: What a triangle is: of no use (not finite, no area), too steep to walk on, facing up, facing down.
USELESS, STEEP, UP, DOWN = 0, 1, 2, 3

ONES = np.uint64(0xFFFFFFFFFFFFFFFF)

Words = NDArray[np.uint64]


@compiled
def classify(vertices: NDArray[np.float32], triangles: NDArray[np.int32], slope_cos: float) -> NDArray[np.int8]:
    """What each triangle is, (T,)."""
    kinds = np.zeros(len(triangles), np.int8)
    for t in range(len(triangles)):
        a, b, c = vertices[triangles[t, 0]], vertices[triangles[t, 1]], vertices[triangles[t, 2]]
        ux, uy, uz = np.float64(b[0]) - a[0], np.float64(b[1]) - a[1], np.float64(b[2]) - a[2]
        vx, vy, vz = np.float64(c[0]) - a[0], np.float64(c[1]) - a[1], np.float64(c[2]) - a[2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        length = np.sqrt(nx * nx + ny * ny + nz * nz)
        if not 1e-12 < length < np.inf:  # false for NaN, too
            continue
        kinds[t] = STEEP if abs(ny) < slope_cos * length else (UP if ny > 0 else DOWN)
    return kinds


@compiled
def level_areas(
    vertices: NDArray[np.float32], triangles: NDArray[np.int32], kinds: NDArray[np.int8]
) -> tuple[float, float]:
    """Areas in plan, in square metres, of the triangles that face up and of those that face down."""
    up, down = 0.0, 0.0
    for t in range(len(triangles)):
        a, b, c = vertices[triangles[t, 0]], vertices[triangles[t, 1]], vertices[triangles[t, 2]]
        area = 0.5 * ((b[2] - a[2]) * (c[0] - a[0]) - (b[0] - a[0]) * (c[2] - a[2]))
        if kinds[t] == UP:
            up += area
        elif kinds[t] == DOWN:
            down -= area
    return up, down


@compiled
def bounds(vertices: NDArray[np.float32], triangles: NDArray[np.int32], kinds: NDArray[np.int8]) -> NDArray[np.float64]:
    """Lowest and highest corner (2, 3) of all triangles that are of use; (inf, -inf) when none is."""
    box = np.empty((2, 3))
    box[0], box[1] = np.inf, -np.inf
    for t in range(len(triangles)):
        if kinds[t] != USELESS:
            for i in range(3):
                for axis in range(3):
                    value = np.float64(vertices[triangles[t, i], axis])
                    box[0, axis] = min(box[0, axis], value)
                    box[1, axis] = max(box[1, axis], value)
    return box


@compiled
def set_range(words: Words, base: int, first: int, last: int) -> None:
    """Set the bits first..last of the column that begins at word `base`."""
    word0, word1 = first >> 6, last >> 6
    head = ONES << np.uint64(first & 63)
    tail = ONES >> np.uint64(63 - (last & 63))
    if word0 == word1:
        words[base + word0] |= head & tail
        return
    words[base + word0] |= head
    for word in range(word0 + 1, word1):
        words[base + word] = ONES
    words[base + word1] |= tail


@compiled
def window(words: Words, base: int, num_words: int, first: int) -> np.uint64:
    """The 64 bits of a column from voxel `first` on, lowest first; 0 beyond its end."""
    word, shift = first >> 6, first & 63
    if word >= num_words:
        return np.uint64(0)
    bits = words[base + word] >> np.uint64(shift)
    if shift > 0 and word + 1 < num_words:
        bits |= words[base + word + 1] << np.uint64(64 - shift)
    return bits


@compiled
def lowest(bits: np.uint64) -> int:
    """The place of the lowest bit that is set; bits must not be 0."""
    place, half = 0, 32
    while half > 0:
        if bits & ((np.uint64(1) << np.uint64(half)) - np.uint64(1)) == np.uint64(0):
            bits >>= np.uint64(half)
            place += half
        half >>= 1
    return place


@compiled
def to_grid(
    vertices: NDArray[np.float32],
    triangle: NDArray[np.int32],
    origin: NDArray[np.float64],
    units: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Write a triangle's corners (3, 3) in grid units to `out`."""
    for i in range(3):
        for axis in range(3):
            out[i, axis] = (vertices[triangle[i], axis] - origin[axis]) / units[axis]


@compiled
def cut(p: NDArray[np.float64], axis: int, at: float, out: NDArray[np.float64]) -> bool:
    """Cut triangle p (3, 3) by the plane where coordinate `axis` (0 or 2) is `at`.

    Writes (v0, y0, v1, y1) to out, v0 <= v1 the other coordinate in plan. Returns False when it is not cut. A corner in
    the plane counts as beyond it, so of the triangles round a corner neither none nor all are cut.
    """
    other = 2 - axis
    count = 0
    for i in range(3):
        k = (i + 1) % 3
        before, after = p[i, axis] - at, p[k, axis] - at
        if (before >= 0) != (after >= 0):
            part = before / (before - after)
            out[2 * count] = p[i, other] + part * (p[k, other] - p[i, other])
            out[2 * count + 1] = p[i, 1] + part * (p[k, 1] - p[i, 1])
            count += 1
    if count < 2:
        return False
    if out[0] > out[2]:
        out[0], out[2] = out[2], out[0]
        out[1], out[3] = out[3], out[1]
    return True


@compiled
def mark_slices(
    p: NDArray[np.float64], axis: int, strides: tuple[int, int], num_words: int, solid: Words, level: Words
) -> bool:
    """Set the voxels whose crosses triangle p meets on their arms across `axis`, in `solid` and in `level`.

    strides: columns from one plane to the next, and along a plane. Returns whether there were any planes to meet.
    """
    low, high = min(p[0, axis], p[1, axis], p[2, axis]), max(p[0, axis], p[1, axis], p[2, axis])
    first_plane, last_plane = int(np.ceil(low - 0.5)), int(np.floor(high - 0.5))
    top = 64 * num_words - 1
    line = np.empty(4)
    for plane in range(first_plane, last_plane + 1):
        if not cut(p, axis, plane + 0.5, line):
            continue
        v0, y0, v1, y1 = line
        first, last = int(np.floor(v0)), int(np.floor(v1))
        slope = (y1 - y0) / (v1 - v0) if last > first else 0.0
        for n in range(first, last + 1):
            start = y0 if n == first else y0 + slope * (n - v0)
            end = y1 if n == last else y0 + slope * (n + 1 - v0)
            bottom = min(max(int(np.floor(min(start, end))), 0), top)
            ceiling = min(max(int(np.floor(max(start, end))), 0), top)
            base = (plane * strides[0] + n * strides[1]) * num_words
            set_range(solid, base, bottom, ceiling)
            set_range(level, base, bottom, ceiling)
    return first_plane <= last_plane


@compiled
def add_small(p: NDArray[np.float64], width: int, num_words: int, solid: Words) -> None:
    """Make solid what triangle p, which meets no cross, takes up, unless a column around it is solid there already.

    It lies in the square between the middles of four columns. A surface that goes on beyond this square has closed one
    of the four; only what ends within it is missing, and goes to the column that the triangle's centre is in.
    """
    low, high = min(p[0, 1], p[1, 1], p[2, 1]), max(p[0, 1], p[1, 1], p[2, 1])
    bottom, top = int(np.floor(low)), int(np.floor(high))
    x, z = (p[0, 0] + p[1, 0] + p[2, 0]) / 3, (p[0, 2] + p[1, 2] + p[2, 2]) / 3
    corner = int(np.floor(z - 0.5)) * width + int(np.floor(x - 0.5))
    for k in range(bottom, top + 1):
        word, bit = k >> 6, np.uint64(1) << np.uint64(k & 63)
        near = solid[corner * num_words + word] | solid[(corner + 1) * num_words + word]
        near |= solid[(corner + width) * num_words + word] | solid[(corner + width + 1) * num_words + word]
        if near & bit == np.uint64(0):
            set_range(solid, (int(np.floor(z)) * width + int(np.floor(x))) * num_words, bottom, top)
            return


@compiled
def voxelise(
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    kinds: NDArray[np.int8],
    origin: NDArray[np.float64],
    units: NDArray[np.float64],
    shape: tuple[int, int, int],
) -> tuple[Words, Words, Words]:
    """The voxels of all triangles, of those that face up, and of those that face down: flat arrays of words.

    origin (3,) metres, units (3,) metres per cell, voxel and cell; shape is (rows, columns, words per column). All
    triangles of use must lie within, a cell away from the borders.
    """
    height, width, num_words = shape
    size = height * width * num_words
    solid, up, down = np.zeros(size, np.uint64), np.zeros(size, np.uint64), np.zeros(size, np.uint64)
    small = np.zeros(len(triangles), np.bool_)
    p = np.empty((3, 3))
    for t in range(len(triangles)):
        if kinds[t] == USELESS:
            continue
        to_grid(vertices, triangles[t], origin, units, p)
        level = up if kinds[t] == UP else (down if kinds[t] == DOWN else solid)
        across = mark_slices(p, 2, (width, 1), num_words, solid, level)
        along = mark_slices(p, 0, (1, width), num_words, solid, level)
        small[t] = not across and not along
    for t in range(len(triangles)):
        if small[t]:
            to_grid(vertices, triangles[t], origin, units, p)
            add_small(p, width, num_words, solid)
    return solid, up, down


@compiled
def column_tops(
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    kinds: NDArray[np.int8],
    origin: NDArray[np.float64],
    column_m: float,
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """The greatest height in metres (rows, columns) of the triangles along the middle line of each column, or -inf."""
    tops = np.full(shape, -np.inf, np.float32)
    units = np.array([column_m, 1.0, column_m])
    p, line = np.empty((3, 3)), np.empty(4)
    for t in range(len(triangles)):
        if kinds[t] == USELESS:
            continue
        to_grid(vertices, triangles[t], origin, units, p)
        low, high = min(p[0, 2], p[1, 2], p[2, 2]), max(p[0, 2], p[1, 2], p[2, 2])
        for j in range(int(np.ceil(low - 0.5)), int(np.floor(high - 0.5)) + 1):
            if not cut(p, 2, j + 0.5, line):
                continue
            for i in range(int(np.floor(line[0])), int(np.floor(line[2])) + 1):
                part = (i + 0.5 - line[0]) / (line[2] - line[0]) if line[2] > line[0] else 0.0
                y = line[1] + min(max(part, 0.0), 1.0) * (line[3] - line[1])
                tops[j, i] = max(tops[j, i], np.float32(origin[1] + y))
    return tops


@compiled
def list_triangles(
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    kinds: NDArray[np.int8],
    origin: NDArray[np.float64],
    bucket_m: float,
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    places: NDArray[np.int64],
    out: NDArray[np.int32],
) -> None:
    """List the triangles of each square of the plan whose boxes meet its range of heights low..high (rows, columns).

    With an empty `out` they are counted only: places[1 + square] grows by one for each. Otherwise places[square] is
    where the square's next triangle goes in `out`.
    """
    height, width = low.shape
    box = np.empty((2, 3))
    for t in range(len(triangles)):
        if kinds[t] == USELESS:
            continue
        for axis in range(3):
            a, b, c = vertices[triangles[t, 0], axis], vertices[triangles[t, 1], axis], vertices[triangles[t, 2], axis]
            box[0, axis], box[1, axis] = min(a, b, c), max(a, b, c)
        last_row = min(int(np.floor((box[1, 2] - origin[2]) / bucket_m)), height - 1)
        last_col = min(int(np.floor((box[1, 0] - origin[0]) / bucket_m)), width - 1)
        for row in range(int(np.floor((box[0, 2] - origin[2]) / bucket_m)), last_row + 1):
            for col in range(int(np.floor((box[0, 0] - origin[0]) / bucket_m)), last_col + 1):
                if box[1, 1] >= low[row, col] and box[0, 1] <= high[row, col]:
                    square = row * width + col
                    if len(out) == 0:
                        places[square + 1] += 1
                    else:
                        out[places[square]] = t
                        places[square] += 1
