"""CroCo's 3D co-visibility of two views, from their depth and poses.

Every pixel with a surface is a point of the world. A point is *seen by the other view* if that view has a point nearer
than `RADIUS_M`, strictly. Co-visibility is the smaller of the two counts of such points over the number of all pixels,
those without a surface included (CroCo, Weinzaepfel et al., arXiv 2210.10716, and its Multiview-Habitat generator). It
is a measure in 3D, unlike the overlap of patches.

`shares` and `covisibility` give exactly the counts of `covisible_literal`, which asks k-d trees for nearest neighbours
as the definition says, in a small part of the time. With numba the two pictures themselves are the index: most points
are found where they project to in the other view, the rest are searched for in those of its tiles whose boxes are near
enough. Without numba a grid of cells does the same in numpy.

Conventions: depth is (H, W) in metres along the optical axis, 0 = no surface. Poses are (4, 4) camera to world with
OpenGL's axes: x right, y up, the camera looks along -z. Intrinsics are (3, 3): they take x right, y down, z forward to
pixels (column, row), and whole numbers are what is unprojected, be they pixel centres or, as in CroCo, corners.
"""

from importlib.util import find_spec
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

#: Two points that are nearer than this are the same place (Multiview-Habitat's generator).
RADIUS_M = 0.05

#: (H, W) metres along the optical axis, 0 = no surface.
Depth: TypeAlias = NDArray[np.floating]

#: Floats in the shape that the context says.
Floats: TypeAlias = NDArray[np.float64]

#: Cells of the numpy search are so much wider than the radius: rounding never parts neighbours by two cells.
CELL_SLACK = 1.001


def covisibility(
    depth0: Depth, pose0: Floats, depth1: Depth, pose1: Floats, intrinsics: Floats, radius_m: float = RADIUS_M
) -> float:
    """CroCo's co-visibility of two views through one lens, in [0, 1]; see `shares`."""
    return min(shares(depth0, pose0, depth1, pose1, intrinsics, radius_m))


def shares(
    depth0: Depth, pose0: Floats, depth1: Depth, pose1: Floats, intrinsics: Floats, radius_m: float = RADIUS_M
) -> tuple[float, float]:
    """The share of all pixels of view 0 that view 1 sees, and the other way round.

    Raises ValueError when the pictures differ in size, and on what `unproject` refuses.
    """
    clouds = _both_clouds(depth0, pose0, depth1, pose1, intrinsics)
    seen0, seen1 = counts(*clouds, pixels_from_world(intrinsics, pose0), pixels_from_world(intrinsics, pose1), radius_m)
    return seen0 / depth0.size, seen1 / depth1.size


def covisible_literal(
    depth0: Depth, pose0: Floats, depth1: Depth, pose1: Floats, intrinsics: Floats, radius_m: float = RADIUS_M
) -> float:
    """`covisibility` with k-d trees, as the definition says: slow, to check against. Needs scipy."""
    clouds = _both_clouds(depth0, pose0, depth1, pose1, intrinsics)
    return min(literal_counts(*clouds, radius_m)) / depth0.size


def valid_fraction(depth: Depth) -> float:
    """The share of pixels that show a surface, in [0, 1]."""
    return float(np.count_nonzero(depth) / depth.size)


def pinhole(size: tuple[int, int], hfov_deg: float) -> Floats:
    """CroCo's intrinsics (3, 3) of a picture (height, width) with a horizontal field of view.

    The focal length is (width / 2) / tan(hfov / 2), the principal point (width / 2, height / 2): there is no half pixel
    between it and the whole numbers at which pixels are unprojected.
    """
    if not 0 < hfov_deg < 180:
        raise ValueError(f"hfov_deg must lie between 0 and 180, got {hfov_deg}")
    height, width = size
    focal = width / 2 / np.tan(np.radians(hfov_deg) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def unproject(depth: Depth, intrinsics: Floats, pose: Floats) -> Floats:
    """The point of the world that each pixel shows, (H, W, 3) metres; NaN where there is no surface.

    Raises ValueError when depth is not (H, W) of finite numbers from 0, or the camera is impossible.
    """
    _check(depth, intrinsics, pose)
    height, width = depth.shape
    right = (np.arange(width) - intrinsics[0, 2]) / intrinsics[0, 0]
    down = ((np.arange(height) - intrinsics[1, 2]) / intrinsics[1, 1])[:, None]
    forward = np.where(depth > 0, depth, np.nan).astype(np.float64, copy=False)
    points = np.empty((height, width, 3))
    for axis in range(3):
        x, y, z, origin = pose[axis]
        np.add(right * x, -down * y - z, out=points[..., axis])
        points[..., axis] *= forward
        points[..., axis] += origin
    return points


def pixels_from_world(intrinsics: Floats, pose: Floats) -> Floats:
    """(3, 4): takes a point (x, y, z, 1) of the world to (column d, row d, d), d its depth."""
    return np.asarray(intrinsics @ np.diag((1.0, -1.0, -1.0, 1.0))[:3] @ np.linalg.inv(pose), np.float64)


def counts(
    cloud0: Floats, cloud1: Floats, to_pixels0: Floats, to_pixels1: Floats, radius_m: float = RADIUS_M
) -> tuple[int, int]:
    """How many points of each cloud (H, W, 3) the other one has a point near to; NaN = no point.

    to_pixels (3, 4) of `pixels_from_world` say where to look first; wrong ones cost time and change no result.
    """
    if find_spec("numba") is None:
        near = near_by_cells(cloud0, cloud1, radius_m), near_by_cells(cloud1, cloud0, radius_m)
        return near[0], near[1]
    from mimic_wds.geometry import covisibility_kernels as kernels

    limit = square_limit(radius_m)
    tiles0, tiles1 = kernels.tile_boxes(cloud0), kernels.tile_boxes(cloud1)
    seen0 = kernels.near_points(cloud0, cloud1, tiles1, to_pixels1, limit)
    seen1 = kernels.near_points(cloud1, cloud0, tiles0, to_pixels0, limit)
    return int(np.count_nonzero(seen0)), int(np.count_nonzero(seen1))


def literal_counts(cloud0: Floats, cloud1: Floats, radius_m: float = RADIUS_M) -> tuple[int, int]:
    """`counts` with k-d trees: the nearest neighbour of every point, both ways. Needs scipy."""
    points0, points1 = present(cloud0), present(cloud1)
    return _literal(points0, points1, radius_m), _literal(points1, points0, radius_m)


def _literal(points: Floats, others: Floats, radius_m: float) -> int:
    """How many points (N, 3) have one of the others (M, 3) nearer than the radius."""
    from scipy.spatial import cKDTree

    if not len(points) or not len(others):
        return 0
    distances, _ = cKDTree(others).query(points)
    return int(np.count_nonzero(distances < radius_m))


def near_by_cells(cloud: Floats, others: Floats, radius_m: float = RADIUS_M) -> int:
    """How many points of a cloud (..., 3) have one of the others (..., 3) nearer than the radius; NaN = no point.

    The search without numba. Cells are a little wider than the radius, so what is near lies in one of the 27 around.
    """
    points, others = present(cloud), present(others)
    if not len(points) or not len(others):
        return 0
    limit = square_limit(radius_m)
    low = np.minimum(points.min(axis=0), others.min(axis=0))
    cells, other_cells = (np.floor((p - low) / (radius_m * CELL_SLACK)).astype(np.int64) + 1 for p in (points, others))
    extent = np.maximum(cells.max(axis=0), other_cells.max(axis=0)) + 2
    if float(np.prod(extent.astype(np.float64))) >= 2**62:
        raise ValueError(f"the points are spread over {extent.tolist()} cells of {radius_m} m: is depth in metres?")
    strides = np.array([extent[1] * extent[2], extent[2], 1])
    order = np.argsort(other_cells @ strides, kind="stable")
    others, keys = others[order], (other_cells @ strides)[order]
    left, left_keys = points, cells @ strides
    for dx, dy in sorted(np.ndindex(3, 3), key=lambda d: abs(d[0] - 1) + abs(d[1] - 1)):
        # Three cells in a row along z have keys in a row, so they are one range of the sorted points.
        middle = left_keys + (dx - 1) * strides[0] + (dy - 1) * strides[1]
        first, last = np.searchsorted(keys, middle - 1, "left"), np.searchsorted(keys, middle + 1, "right")
        far = ~_any_near(left, others, first, last, limit)
        left, left_keys = left[far], left_keys[far]
    return len(points) - len(left)


def _any_near(
    points: Floats, others: Floats, first: NDArray[np.intp], last: NDArray[np.intp], limit: float
) -> NDArray[np.bool_]:
    """Which points (N, 3) have one of others[first:last], each its own range, at a squared distance below limit."""
    near = np.zeros(len(points), bool)
    (open_,) = np.nonzero(last > first)
    places = first.copy()
    while len(open_):
        # One step of all ranges at a time: most points are settled by the first others that they meet.
        steps = others[places[open_]] - points[open_]
        hit = steps[:, 0] ** 2 + steps[:, 1] ** 2 + steps[:, 2] ** 2 < limit
        near[open_[hit]] = True
        open_ = open_[~hit]
        places[open_] += 1
        open_ = open_[places[open_] < last[open_]]
    return near


def present(cloud: Floats) -> Floats:
    """The points (N, 3) of a cloud (..., 3) that are there."""
    points = cloud.reshape(-1, 3)
    return points[~np.isnan(points[:, 0])]


def square_limit(radius: float) -> float:
    """The least number whose root is not below the radius: root(s) < radius just if s < limit, rounding included."""
    limit = radius * radius
    while np.sqrt(limit) >= radius:
        limit = float(np.nextafter(limit, 0.0))
    while np.sqrt(limit) < radius:
        limit = float(np.nextafter(limit, np.inf))
    return limit


def _both_clouds(
    depth0: Depth, pose0: Floats, depth1: Depth, pose1: Floats, intrinsics: Floats
) -> tuple[Floats, Floats]:
    """The points of both views. Raises ValueError when the pictures differ in size."""
    if depth0.shape != depth1.shape:
        raise ValueError(f"both depths must have one size, got {depth0.shape} and {depth1.shape}")
    return unproject(depth0, intrinsics, pose0), unproject(depth1, intrinsics, pose1)


def _check(depth: Depth, intrinsics: Floats, pose: Floats) -> None:
    """Raise ValueError when depth or camera cannot be used."""
    if depth.ndim != 2 or not depth.size:
        raise ValueError(f"depth must be (height, width), got shape {depth.shape}")
    if not (depth.min() >= 0 and depth.max() < np.inf):  # NaN fails the first
        raise ValueError("depth must be finite metres from 0 (no surface) on")
    for name, matrix, side in (("intrinsics", intrinsics, 3), ("the pose", pose, 4)):
        if matrix.shape != (side, side) or not np.isfinite(matrix).all():
            raise ValueError(f"{name} must be {side} x {side} finite numbers, got shape {matrix.shape}")
    zeros = intrinsics[[0, 1, 2, 2], [1, 0, 0, 1]]
    if zeros.any() or intrinsics[2, 2] != 1 or min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
        raise ValueError("intrinsics must be fx 0 cx, 0 fy cy, 0 0 1 with fx and fy above 0")
