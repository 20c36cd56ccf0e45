"""True heights: of the triangle that lies under a point of the floor."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.navigation import cell_kernels, kernels
from mimic_wds.sources.simulator.raster import Mesh

#: Columns, each way, that share a list of triangles.
BUCKET = 4

#: Metres: how far below its cell's height a place of the floor may lie (half a cell down 45 degrees, and some).
BELOW_M = 0.06


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """The triangles at or just above the floor, listed by squares of `BUCKET` columns."""

    origin: NDArray[np.float64]  #: (3,) metres, of the grid
    bucket_m: float  #: side of a square
    shape: tuple[int, int]  #: squares along z and x
    starts: NDArray[np.int64]  #: (squares + 1,) where each square's list begins
    members: NDArray[np.int32]  #: rows of `triangles`
    triangles: NDArray[np.float32]  #: (T, 3, 3) corners in metres

    def height(self, x: float, z: float, low: float, high: float) -> float | None:
        """The highest y between low and high at which (x, z) meets a triangle, None = nowhere."""
        column, row = int((x - self.origin[0]) // self.bucket_m), int((z - self.origin[2]) // self.bucket_m)
        if not (0 <= row < self.shape[0] and 0 <= column < self.shape[1]):
            return None
        square = row * self.shape[1] + column
        members = self.members[self.starts[square] : self.starts[square + 1]]
        heights = heights_at(self.triangles[members].astype(np.float64), x, z)
        heights = heights[(heights >= low) & (heights <= high)]
        return float(heights.max()) if heights.size else None


def heights_at(triangles: NDArray[np.float64], x: float, z: float) -> NDArray[np.float64]:
    """The heights at which the vertical line through (x, z) meets triangles (T, 3, 3); those it misses are left out."""
    a = triangles[:, 0]
    u, v = triangles[:, 1] - a, triangles[:, 2] - a
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        twice_area = u[:, 0] * v[:, 2] - u[:, 2] * v[:, 0]
        px, pz = x - a[:, 0], z - a[:, 2]
        s = (px * v[:, 2] - pz * v[:, 0]) / twice_area
        t = (u[:, 0] * pz - u[:, 2] * px) / twice_area
        slack = 1e-9  # a line through a shared edge meets at least one of both
        met = (s >= -slack) & (t >= -slack) & (s + t <= 1 + slack) & (np.abs(twice_area) > 1e-14)
    return np.asarray(a[met, 1] + s[met] * u[met, 1] + t[met] * v[met, 1])


def under(
    mesh: Mesh,
    kinds: NDArray[np.int8],
    origin: NDArray[np.float64],
    cell_m: float,
    width: int,
    columns: NDArray[np.int32],
    heights: NDArray[np.float32],
    climb_m: float,
) -> Surface:
    """The surface under floor cells in `columns` (N,) of a grid `width` columns wide, at `heights` (N,) in metres."""
    shape = (int(columns.max()) // width // BUCKET + 1, (width - 1) // BUCKET + 1)
    low, high = (np.full(shape, value, np.float32) for value in (np.inf, -np.inf))
    cell_kernels.height_ranges(columns, heights, width, BUCKET, low, high)
    low, high = low - np.float32(BELOW_M), high + np.float32(climb_m + BELOW_M)
    counts = np.zeros(shape[0] * shape[1] + 1, np.int64)
    bucket_m = BUCKET * cell_m
    args = (mesh.vertices, mesh.triangles, kinds, origin, bucket_m, low, high)
    kernels.list_triangles(*args, counts, np.empty(0, np.int32))
    starts = np.cumsum(counts)
    members = np.empty(starts[-1], np.int32)
    kernels.list_triangles(*args, starts[:-1].copy(), members)
    used = np.zeros(len(mesh.triangles), np.bool_)
    used[members] = True
    renumber = np.cumsum(used, dtype=np.int32) - 1
    return Surface(origin, bucket_m, shape, starts, renumber[members], mesh.vertices[mesh.triangles[used]])
