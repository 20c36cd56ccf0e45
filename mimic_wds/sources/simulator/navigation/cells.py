"""A floor made of square cells in layers: what `voxels.flood` returns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.base import Point
from mimic_wds.sources.simulator.navigation.base import MAX_Y_DELTA_M, SNAP_HEIGHT_M, SNAP_M, Island
from mimic_wds.sources.simulator.navigation.surface import BELOW_M, Surface

#: Metres by which a walk stops short of the border of the floor.
SHORT_M = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellFloor:
    """A floor of N cells, sorted by column and height. Column j * width + i begins at origin + cell_m * (i, -, j)."""

    origin: NDArray[np.float64]  #: (3,) metres
    cell_m: float
    width: int  #: columns in a row
    columns: NDArray[np.int32]  #: (N,)
    heights: NDArray[np.float32]  #: (N,) metres, at the cell's middle
    links: NDArray[np.int32]  #: (N, 4) the cells next to it at x + 1, x - 1, z + 1, z - 1; -1 = none
    labels: NDArray[np.int32]  #: (N,) a place in `islands`
    drawn: NDArray[np.int64]  #: cells that random points are drawn from
    islands: tuple[Island, ...]
    surface: Surface
    climb_m: float

    @property
    def area_m2(self) -> float:
        """Area in plan that random points are drawn from."""
        return len(self.drawn) * self.cell_m**2

    def random_point(self, rng: np.random.Generator) -> Point:
        """A point of the floor, uniform over its area in plan."""
        cell = int(self.drawn[rng.integers(len(self.drawn))])
        x, z = self._corner(cell) + self.cell_m * rng.random(2)
        return self._at(cell, x, z)

    def island(self, point: Point) -> int:
        """The island that the point is on, -1 = none."""
        cell = self._cell(point)
        return int(self.labels[cell]) if cell >= 0 else -1

    def island_radius(self, point: Point) -> float:
        """Radius in metres of the island that the point is on; 0 off the floor."""
        island = self.island(point)
        return self.islands[island].radius_m if island >= 0 else 0.0

    def snap(self, point: Point) -> Point | None:
        """The nearest point of the floor; None when there is none near."""
        if not np.isfinite(point).all():
            return None
        near = self._near(point)
        if not len(near):
            return None
        corners = self._corner(near)
        place = np.clip(point[[0, 2]], corners + SHORT_M, corners + self.cell_m - SHORT_M)
        away = np.column_stack([place - point[[0, 2]], self.heights[near] - point[1]])
        away_m = np.linalg.norm(away, axis=1)
        away_m[(np.abs(away[:, :2]) > SNAP_M).any(axis=1) | (np.abs(away[:, 2]) > SNAP_HEIGHT_M)] = np.inf
        best = int(away_m.argmin())
        return self._at(int(near[best]), *place[best]) if np.isfinite(away_m[best]) else None

    def step(self, start: Point, end: Point) -> Point:
        """Where an agent gets to that walks from `start` straight towards `end`."""
        cell = self._cell(start)
        way = (end - start)[[0, 2]]
        if cell < 0 or not SHORT_M / 1000 < np.linalg.norm(way) < np.inf:  # false for NaN, too
            return np.array(start, np.float64)
        cell, part = self._walk(cell, start[[0, 2]], way)
        return self._at(cell, *(start[[0, 2]] + part * way))

    def _walk(self, cell: int, start: NDArray[np.float64], way: NDArray[np.float64]) -> tuple[int, float]:
        """Go from `cell` along `way` (x, z) from link to link: the cell where that ends, and the share of the way."""
        length = float(np.linalg.norm(way))
        begin = [
            float(value) for value in (start - self._corner(cell)) / self.cell_m
        ]  # in cells, from the first's corner
        speed = [float(value) for value in way / self.cell_m]
        place, done = [0, 0], 0.0  # columns gone in x and z
        while True:
            parts = [
                (place[axis] + (speed[axis] > 0) - begin[axis]) / speed[axis] if speed[axis] else np.inf
                for axis in (0, 1)
            ]
            axis = int(parts[1] < parts[0])
            if parts[axis] >= 1:
                return cell, 1.0
            following = int(self.links[cell, 2 * axis + int(speed[axis] < 0)])
            if following < 0:
                return cell, max(done, parts[axis] - SHORT_M / length)
            place[axis] += 1 if speed[axis] > 0 else -1
            cell, done = following, max(done, parts[axis])

    def _at(self, cell: int, x: float, z: float) -> Point:
        """The point of a cell's floor at (x, z)."""
        middle = float(self.heights[cell])
        height = self.surface.height(x, z, middle - BELOW_M, middle + self.climb_m + BELOW_M)
        return np.array([x, middle if height is None else height, z])

    def _corner(self, cells: int | NDArray[np.int64]) -> NDArray[np.float64]:
        """The lowest x and z (..., 2) of cells."""
        columns = self.columns[cells]
        return self.origin[[0, 2]] + self.cell_m * np.stack([columns % self.width, columns // self.width], axis=-1)

    def _cell(self, point: Point) -> int:
        """The cell that the point is in, at most `MAX_Y_DELTA_M` from its floor; -1 = none."""
        if not np.isfinite(point).all():
            return -1
        i, j = np.floor((point[[0, 2]] - self.origin[[0, 2]]) / self.cell_m)
        if not 0 <= i < self.width:
            return -1
        first, last = self._first(j * self.width + i), self._first(j * self.width + i + 1)
        away = np.abs(self.heights[first:last] - point[1])
        return int(first + away.argmin()) if len(away) and away.min() <= MAX_Y_DELTA_M else -1

    def _near(self, point: Point) -> NDArray[np.int64]:
        """The cells of all columns within `SNAP_M` of the point."""
        (i0, j0), (i1, j1) = (
            np.floor((point[[0, 2]] + sign * SNAP_M - self.origin[[0, 2]]) / self.cell_m) for sign in (-1, 1)
        )
        i0, i1 = np.clip((i0, i1), 0, self.width - 1)
        rows = np.arange(max(j0, 0), min(j1, self.columns[-1] // self.width) + 1) * self.width
        ranges = [np.arange(self._first(row + i0), self._first(row + i1 + 1)) for row in rows]
        return np.concatenate([np.empty(0, np.int64), *ranges])

    def _first(self, column: float) -> int:
        """The first cell that is in `column` or a later one."""
        column = min(max(column, -1), np.iinfo(np.int32).max)
        return int(np.searchsorted(self.columns, np.int32(column)))  # of the same type, or all N would be converted
