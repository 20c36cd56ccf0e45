"""The loops of `mimic_wds.geometry.covisibility`, compiled by numba. Import this module only to measure something.

A cloud (H, W, 3) is cut in square tiles of its picture, and each tile has a box around its points. No test prunes too
much: the distance between boxes, computed with the same operations in the same order as that of two points in them, is
never above it, since rounding keeps the order of numbers. A missing point is NaN, for which every comparison is false.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., object])

#: Pixels along a tile's side, and tiles along a block's.
TILE, BLOCK = 8, 4

#: With more tiles near to a tile than this each of its points looks for those that are near to itself.
MANY = 64


def compiled(function: F) -> F:
    """Compile `function` on its first call; keep the machine code on disk where there is a place to write it."""
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # numba found no folder that it may write to
        return cast(F, numba.njit(nogil=True, error_model="numpy")(function))


@compiled
def tile_boxes(cloud: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lowest and highest corner of what is in each tile, (rows, columns, 2, 3); inf and -inf where nothing is."""
    height, width = cloud.shape[:2]
    boxes = np.empty(((height + TILE - 1) // TILE, (width + TILE - 1) // TILE, 2, 3))
    boxes[:, :, 0], boxes[:, :, 1] = np.inf, -np.inf
    for row in range(height):
        for column in range(width):
            box = boxes[row // TILE, column // TILE]
            for axis in range(3):
                value = cloud[row, column, axis]
                if value < box[0, axis]:
                    box[0, axis] = value
                if value > box[1, axis]:
                    box[1, axis] = value
    return boxes


@compiled
def block_boxes(tiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """The boxes around the boxes of each block of tiles, in the same layout."""
    rows, columns = tiles.shape[:2]
    boxes = np.empty(((rows + BLOCK - 1) // BLOCK, (columns + BLOCK - 1) // BLOCK, 2, 3))
    boxes[:, :, 0], boxes[:, :, 1] = np.inf, -np.inf
    for row in range(rows):
        for column in range(columns):
            box = boxes[row // BLOCK, column // BLOCK]
            for axis in range(3):
                box[0, axis] = min(box[0, axis], tiles[row, column, 0, axis])
                box[1, axis] = max(box[1, axis], tiles[row, column, 1, axis])
    return boxes


@compiled
def longest_side(box: NDArray[np.float64]) -> tuple[int, float, float]:
    """The axis along which a box (2, 3) is longest, its middle there, and its length."""
    axis = 0
    for k in range(1, 3):
        if box[1, k] - box[0, k] > box[1, axis] - box[0, axis]:
            axis = k
    return axis, (box[0, axis] + box[1, axis]) / 2, box[1, axis] - box[0, axis]


@compiled
def half_boxes(cloud: NDArray[np.float64], tiles: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Two boxes for each tile, of its points below and above the middle of its longest side, (rows, columns, 2, 2, 3).

    Where something stands before a wall far behind it, the tile's box spans the void between them; these two do not.
    Tiles that are not longer than two radii, whose square is limit, are not worth it: both halves are the tile's box.
    """
    halves = np.empty((tiles.shape[0], tiles.shape[1], 2, 2, 3))
    halves[:, :, :, 0], halves[:, :, :, 1] = np.inf, -np.inf
    for row in range(tiles.shape[0]):
        for column in range(tiles.shape[1]):
            axis, middle, length = longest_side(tiles[row, column])
            if length * length <= 4 * limit:
                halves[row, column, 0], halves[row, column, 1] = tiles[row, column], tiles[row, column]
                continue
            for r in range(row * TILE, min((row + 1) * TILE, cloud.shape[0])):
                for c in range(column * TILE, min((column + 1) * TILE, cloud.shape[1])):
                    half = 0 if cloud[r, c, axis] < middle else 1
                    for k in range(3):
                        value = cloud[r, c, k]
                        if value < halves[row, column, half, 0, k]:
                            halves[row, column, half, 0, k] = value
                        if value > halves[row, column, half, 1, k]:
                            halves[row, column, half, 1, k] = value
    return halves


@compiled
def square_gap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Squared distance of two boxes (2, 3); 0 where they meet, infinite from an empty one."""
    total = 0.0
    for axis in range(3):
        gap = max(a[0, axis] - b[1, axis], b[0, axis] - a[1, axis])
        if gap > 0:
            total += gap * gap
    return total


@compiled
def look_where_it_projects(
    cloud: NDArray[np.float64],
    others: NDArray[np.float64],
    to_pixels: NDArray[np.float64],
    limit: float,
    near: NDArray[np.bool_],
) -> None:
    """Mark in near (H, W) the points that are near to the one of `others` at the pixel where they project to.

    Written as one loop without calls: this is where nearly all points are settled, and most of the time is spent.
    """
    a, b, c = to_pixels[0, 0], to_pixels[0, 1], to_pixels[0, 2]
    d, e, f = to_pixels[1, 0], to_pixels[1, 1], to_pixels[1, 2]
    g, h, i = to_pixels[2, 0], to_pixels[2, 1], to_pixels[2, 2]
    j, k, m = to_pixels[0, 3], to_pixels[1, 3], to_pixels[2, 3]
    height, width = others.shape[:2]
    for row in range(cloud.shape[0]):
        for column in range(cloud.shape[1]):
            x, y, z = cloud[row, column, 0], cloud[row, column, 1], cloud[row, column, 2]
            depth = g * x + h * y + i * z + m
            if not depth > 0:
                continue
            inverse = 1 / depth
            u = (a * x + b * y + c * z + j) * inverse + 0.5
            v = (d * x + e * y + f * z + k) * inverse + 0.5
            if u >= 0 and v >= 0 and u < width and v < height:
                r, s = np.uint64(v), np.uint64(u)  # without a sign there is no index from the end to look out for
                dx, dy, dz = others[r, s, 0] - x, others[r, s, 1] - y, others[r, s, 2] - z
                near[row, column] = dx * dx + dy * dy + dz * dz < limit


@compiled
def point_gap(x: float, y: float, z: float, box: NDArray[np.float64]) -> float:
    """Squared distance of a point from a box (2, 3)."""
    gx = max(box[0, 0] - x, x - box[1, 0], 0.0)
    gy = max(box[0, 1] - y, y - box[1, 1], 0.0)
    gz = max(box[0, 2] - z, z - box[1, 2], 0.0)
    return float(gx * gx + gy * gy + gz * gz)


@compiled
def near_in_tile(x: float, y: float, z: float, cloud: NDArray[np.float64], row: int, column: int, limit: float) -> bool:
    """Whether the tile at (row, column) has a point near this one."""
    for r in range(row * TILE, min((row + 1) * TILE, cloud.shape[0])):
        for c in range(column * TILE, min((column + 1) * TILE, cloud.shape[1])):
            dx, dy, dz = cloud[r, c, 0] - x, cloud[r, c, 1] - y, cloud[r, c, 2] - z
            if dx * dx + dy * dy + dz * dz < limit:
                return True
    return False


@compiled
def near_tiles(
    box: NDArray[np.float64],
    tiles: NDArray[np.float64],
    blocks: NDArray[np.float64],
    limit: float,
    out: NDArray[np.int64],
) -> int:
    """Write the places (row, column) of all tiles near a box to `out`; returns how many."""
    found = 0
    for block_row in range(blocks.shape[0]):
        for block_column in range(blocks.shape[1]):
            if square_gap(box, blocks[block_row, block_column]) >= limit:
                continue
            for row in range(block_row * BLOCK, min((block_row + 1) * BLOCK, tiles.shape[0])):
                for column in range(block_column * BLOCK, min((block_column + 1) * BLOCK, tiles.shape[1])):
                    if square_gap(box, tiles[row, column]) < limit:
                        out[found, 0], out[found, 1] = row, column
                        found += 1
    return found


@compiled
def box_of_the_rest(cloud: NDArray[np.float64], near: NDArray[np.bool_], row: int, column: int) -> NDArray[np.float64]:
    """The box (2, 3) around the points that are not marked of the tile whose first pixel is (row, column)."""
    box = np.empty((2, 3))
    box[0], box[1] = np.inf, -np.inf
    for r in range(row, min(row + TILE, cloud.shape[0])):
        for c in range(column, min(column + TILE, cloud.shape[1])):
            if not near[r, c]:
                for axis in range(3):
                    value = cloud[r, c, axis]
                    if value < box[0, axis]:
                        box[0, axis] = value
                    if value > box[1, axis]:
                        box[1, axis] = value
    return box


@compiled
def near_in_tiles(
    x: float,
    y: float,
    z: float,
    cloud: NDArray[np.float64],
    tiles: NDArray[np.float64],
    halves: NDArray[np.float64],
    places: NDArray[np.int64],
    limit: float,
) -> bool:
    """Whether one of the tiles at `places` (N, 2) has a point near this one."""
    for i in range(len(places)):
        r, c = places[i, 0], places[i, 1]
        if point_gap(x, y, z, tiles[r, c]) >= limit:
            continue
        if point_gap(x, y, z, halves[r, c, 0]) >= limit and point_gap(x, y, z, halves[r, c, 1]) >= limit:
            continue
        if near_in_tile(x, y, z, cloud, r, c, limit):
            return True
    return False


@compiled
def search_tiles(
    cloud: NDArray[np.float64],
    others: NDArray[np.float64],
    tiles: NDArray[np.float64],
    blocks: NDArray[np.float64],
    halves: NDArray[np.float64],
    limit: float,
    near: NDArray[np.bool_],
) -> None:
    """Mark in near (H, W) every point that has one of `others`, whose boxes are given, near it."""
    places = np.empty((tiles.shape[0] * tiles.shape[1], 2), np.int64)
    point = np.empty((2, 3))
    for first_row in range(0, cloud.shape[0], TILE):
        for first_column in range(0, cloud.shape[1], TILE):
            box = box_of_the_rest(cloud, near, first_row, first_column)
            num_places = near_tiles(box, tiles, blocks, limit, places)
            if num_places == 0:
                continue
            together = num_places <= MANY
            for row in range(first_row, min(first_row + TILE, cloud.shape[0])):
                for column in range(first_column, min(first_column + TILE, cloud.shape[1])):
                    if near[row, column]:
                        continue
                    if not together:
                        point[0], point[1] = cloud[row, column], cloud[row, column]
                        num_places = near_tiles(point, tiles, blocks, limit, places)
                    x, y, z = cloud[row, column, 0], cloud[row, column, 1], cloud[row, column, 2]
                    near[row, column] = near_in_tiles(x, y, z, others, tiles, halves, places[:num_places], limit)


@compiled
def near_points(
    cloud: NDArray[np.float64],
    others: NDArray[np.float64],
    tiles: NDArray[np.float64],
    to_pixels: NDArray[np.float64],
    limit: float,
) -> NDArray[np.bool_]:
    """Which points of a cloud have one of `others` at a squared distance below limit, (H, W).

    tiles, of `tile_boxes`, and to_pixels (3, 4) are those of `others`.
    """
    near = np.zeros(cloud.shape[:2], np.bool_)
    look_where_it_projects(cloud, others, to_pixels, limit, near)
    search_tiles(cloud, others, tiles, block_boxes(tiles), half_boxes(others, tiles, limit), limit, near)
    return near
