"""The loops over floor cells, compiled by numba: where they are, how they hang together. Import only when needed.

Grids, columns and grid units are those of `kernels`. A *cell* is a place where a body can stand, one voxel of a column;
a column may have several, one above the other. *Links* say which cells one can go to: (N, 4) in the order of `STEPS`,
-1 = none.
"""

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.kernels import compiled
from mimic_wds.sources.simulator.navigation.kernels import DOWN, UP, Words, cut, lowest, to_grid, window

#: Steps to the four neighbours, in the order of a cell's links: x + 1, x - 1, z + 1, z - 1.
STEPS = ((1, 0), (-1, 0), (0, 1), (0, -1))


@compiled
def next_solid(solid: Words, base: int, num_words: int, first: int) -> int:
    """The lowest solid voxel of a column from `first` on, -1 = none."""
    while first < 64 * num_words:
        bits = window(solid, base, num_words, first)
        if bits != np.uint64(0):
            return first + lowest(bits)
        first += 64
    return -1


@compiled
def find_cells(solid: Words, level: Words, num_words: int, climb: int, head: int, out: NDArray[np.int32]) -> int:
    """Floor cells: voxels of `level` with room for a body above. Returns their number and writes as many as fit.

    A row of out (N, 4): column, voxel, highest solid voxel at most `climb` above it (what lies there is stepped on or
    over), next solid voxel above that, -1 = none. `head` voxels must be free in between; climb + head <= 62. Sorted by
    column, then from below.
    """
    count = 0
    below = (np.uint64(1) << np.uint64(climb)) - np.uint64(1)
    room = (np.uint64(1) << np.uint64(head)) - np.uint64(1)
    for column in range(len(level) // num_words):
        base = column * num_words
        for word in range(num_words):
            bits = level[base + word]
            while bits != np.uint64(0):
                voxel = 64 * word + lowest(bits)
                bits &= bits - np.uint64(1)
                above = window(solid, base, num_words, voxel + 1)
                rise, low = 0, above & below
                while low != np.uint64(0):
                    low >>= np.uint64(1)
                    rise += 1
                higher = window(level, base, num_words, voxel + 1) & ((np.uint64(1) << np.uint64(rise)) - np.uint64(1))
                if higher != np.uint64(0) or (above >> np.uint64(rise)) & room != np.uint64(0):
                    continue
                if count < len(out):
                    out[count, 0], out[count, 1], out[count, 2] = column, voxel, voxel + rise
                    out[count, 3] = next_solid(solid, base, num_words, voxel + rise + 1)
                count += 1
    return count


@compiled
def meets(cells: NDArray[np.int32], level: Words, num_words: int) -> NDArray[np.bool_]:
    """Which floor cells (N, 4) have a voxel of `level` at their own or, things being thin, one below or above."""
    found = np.zeros(len(cells), np.bool_)
    for n in range(len(cells)):
        first = max(0, cells[n, 1] - 1)
        found[n] = window(level, cells[n, 0] * num_words, num_words, first) & np.uint64(7) != np.uint64(0)
    return found


@compiled
def column_starts(cells: NDArray[np.int32], num_columns: int) -> NDArray[np.int32]:
    """Where each column's cells begin among all cells (N, 4): (num_columns + 1,)."""
    starts = np.zeros(num_columns + 1, np.int32)
    for n in range(len(cells)):
        starts[cells[n, 0] + 1] += 1
    for column in range(num_columns):
        starts[column + 1] += starts[column]
    return starts


@compiled
def settle(
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    kinds: NDArray[np.int8],
    origin: NDArray[np.float64],
    units: NDArray[np.float64],
    width: int,
    cells: NDArray[np.int32],
    starts: NDArray[np.int32],
) -> NDArray[np.float32]:
    """True heights (N,) in metres of the floor cells at their middles: of the highest level triangle there.

    Where none meets the middle it is the middle of the voxel.
    """
    heights = np.full(len(cells), -np.inf, np.float32)
    p, line = np.empty((3, 3)), np.empty(4)
    for t in range(len(triangles)):
        if kinds[t] != UP and kinds[t] != DOWN:
            continue
        to_grid(vertices, triangles[t], origin, units, p)
        low, high = min(p[0, 2], p[1, 2], p[2, 2]), max(p[0, 2], p[1, 2], p[2, 2])
        for j in range(int(np.ceil(low - 0.5)), int(np.floor(high - 0.5)) + 1):
            if not cut(p, 2, j + 0.5, line):
                continue
            for i in range(int(np.ceil(line[0] - 0.5)), int(np.floor(line[2] - 0.5)) + 1):
                part = (i + 0.5 - line[0]) / (line[2] - line[0]) if line[2] > line[0] else 0.0
                y = line[1] + part * (line[3] - line[1])
                for n in range(starts[j * width + i], starts[j * width + i + 1]):
                    if cells[n, 1] - 1 <= y < cells[n, 2] + 2:
                        heights[n] = max(heights[n], np.float32(origin[1] + y * units[1]))
    for n in range(len(cells)):
        if heights[n] == -np.inf:
            heights[n] = origin[1] + (cells[n, 1] + 0.5) * units[1]
    return heights


@compiled
def link(
    cells: NDArray[np.int32],
    heights: NDArray[np.float32],
    starts: NDArray[np.int32],
    width: int,
    climb_m: float,
    head: int,
) -> NDArray[np.int32]:
    """The cells one can go to, (N, 4) in the order of `STEPS`, -1 = none.

    Between both there is a step of at most climb_m, and `head` free voxels above the higher of them.
    """
    links = np.full((len(cells), 4), -1, np.int32)
    for n in range(len(cells)):
        for way in range(4):
            column = cells[n, 0] + STEPS[way][0] + width * STEPS[way][1]
            if not 0 <= column < len(starts) - 1:
                continue
            for m in range(starts[column], starts[column + 1]):
                top = max(cells[n, 2], cells[m, 2])
                low_n = cells[n, 3] >= 0 and cells[n, 3] <= top + head
                low_m = cells[m, 3] >= 0 and cells[m, 3] <= top + head
                if abs(heights[n] - heights[m]) <= climb_m + 1e-3 and not low_n and not low_m:
                    links[n, way] = m
    return links


@compiled
def go(links: NDArray[np.int32], cell: int, dx: int, dz: int) -> int:
    """The cell that is reached by going dx columns, then dz rows; -1 = one cannot."""
    for _ in range(abs(dx)):
        if cell >= 0:
            cell = links[cell, 0 if dx > 0 else 1]
    for _ in range(abs(dz)):
        if cell >= 0:
            cell = links[cell, 2 if dz > 0 else 3]
    return cell


@compiled
def go_other(links: NDArray[np.int32], cell: int, dx: int, dz: int) -> int:
    """The same, rows first."""
    cell = go(links, cell, 0, dz)
    return go(links, cell, dx, 0) if cell >= 0 else -1


@compiled
def too_near(links: NDArray[np.int32], reach: float) -> NDArray[np.bool_]:
    """Cells (N,) whose middle is nearer than `reach` cells to that of a column where they cannot be continued."""
    near = np.zeros(len(links), np.bool_)
    size = int(np.ceil(reach))
    for n in range(len(links)):
        for way in range(4):
            if links[n, way] >= 0:
                continue
            for dz in range(-size, size + 1):
                for dx in range(-size, size + 1):
                    x, z = dx + STEPS[way][0], dz + STEPS[way][1]
                    if dx * dx + dz * dz >= reach * reach:
                        continue
                    for cell in (go(links, n, x, z), go_other(links, n, x, z)):
                        if cell >= 0:
                            near[cell] = True
    return near


@compiled
def label(links: NDArray[np.int32], member: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number the connected pieces of the member cells, (N,): 0, 1, ... in the order of their first cells; else -1."""
    labels = np.full(len(links), -1, np.int32)
    stack = np.empty(len(links), np.int32)
    number = 0
    for seed in range(len(links)):
        if not member[seed] or labels[seed] >= 0:
            continue
        labels[seed], stack[0], size = number, seed, 1
        while size > 0:
            size -= 1
            cell = stack[size]
            for way in range(4):
                other = links[cell, way]
                if other >= 0 and member[other] and labels[other] < 0:
                    labels[other], stack[size] = number, other
                    size += 1
        number += 1
    return labels


@compiled
def drops(
    cells: NDArray[np.int32],
    heights: NDArray[np.float32],
    starts: NDArray[np.int32],
    links: NDArray[np.int32],
    labels: NDArray[np.int32],
    areas: NDArray[np.int64],
    solid: Words,
    width: int,
    num_words: int,
    head: int,
    deepest_m: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each piece its border, and how much of that drops to a larger piece at most deepest_m below it.

    Both are numbers of cell sides, one for each of `areas`, the pieces' cells. What is below may be up to three
    columns away (things overhang), but not behind a wall.
    """
    border, dropping = np.zeros(len(areas), np.int64), np.zeros(len(areas), np.int64)
    room = (np.uint64(1) << np.uint64(head)) - np.uint64(1)
    for n in range(len(cells)):
        for way in range(4):
            if links[n, way] >= 0:
                continue
            border[labels[n]] += 1
            found = False
            for far in range(1, 4):
                column = cells[n, 0] + far * (STEPS[way][0] + width * STEPS[way][1])
                if found or not 0 <= column < len(starts) - 1:
                    break
                if window(solid, column * num_words, num_words, cells[n, 2] + 1) & room != np.uint64(0):
                    break
                for m in range(starts[column], starts[column + 1]):
                    depth = heights[n] - heights[m]
                    found |= 0 < depth <= deepest_m and areas[labels[m]] > areas[labels[n]]
            dropping[labels[n]] += found
    return border, dropping


@compiled
def height_ranges(
    columns: NDArray[np.int32], heights: NDArray[np.float32], width: int, bucket: int, low: NDArray[np.float32],
    high: NDArray[np.float32],
) -> None:  # fmt: skip
    """Widen the ranges low..high (rows, columns of squares) to hold the heights (N,) of cells in these columns (N,)."""
    for n in range(len(columns)):
        row, col = columns[n] // width // bucket, columns[n] % width // bucket
        low[row, col] = min(low[row, col], heights[n])
        high[row, col] = max(high[row, col], heights[n])


@compiled
def radii(
    cells: NDArray[np.int32],
    heights: NDArray[np.float32],
    labels: NDArray[np.int32],
    num: int,
    width: int,
    cell_m: float,
) -> NDArray[np.float64]:
    """For each island (num,) the distance in metres from the mean of its cells to the farthest corner of one."""
    sums, counts, squares = np.zeros((num, 3)), np.zeros(num), np.zeros(num)
    for n in range(len(cells)):
        if labels[n] >= 0:
            sums[labels[n], 0] += cells[n, 0] % width
            sums[labels[n], 1] += heights[n]
            sums[labels[n], 2] += cells[n, 0] // width
            counts[labels[n]] += 1
    for n in range(len(cells)):
        if labels[n] >= 0:
            mean = sums[labels[n]] / counts[labels[n]]
            dx, dz = abs(cells[n, 0] % width - mean[0]) + 0.5, abs(cells[n, 0] // width - mean[2]) + 0.5
            square = (dx * dx + dz * dz) * cell_m**2 + (heights[n] - mean[1]) ** 2
            squares[labels[n]] = max(squares[labels[n]], square)
    return np.sqrt(squares)
