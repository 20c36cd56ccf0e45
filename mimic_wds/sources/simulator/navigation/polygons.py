"""A floor made of convex polygons: what a navigation mesh gives."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import Point
from mimic_wds.sources.simulator.navigation.base import MAX_Y_DELTA_M, SNAP_HEIGHT_M, SNAP_M, Island
from mimic_wds.sources.simulator.navigation.navmesh import MAX_CORNERS, Polygons
from mimic_wds.sources.simulator.navigation.surface import heights_at

#: Square metres: smaller polygons are no floor (habitat-sim disables them).
MIN_POLYGON_M2 = 1e-5

#: Metres by which a walk stops short of the border of the floor, and by which a point may lie outside its polygon.
SHORT_M, SLACK_M = 1e-4, 1e-6

#: Attempts at a random point that is allowed, before one that is not is returned.
MAX_DRAWS = 1000


class PolygonFloor:
    """The floor of a navigation mesh.

    An island is what neighbours join, the largest first. Its radius is habitat-sim's: the greatest distance of its
    polygons' corners from their mean, where corners that polygons share are counted for each. Heights are the mesh's
    own: habitat-sim's lie up to 0.2 m above the true floor. Only points that `allowed` agrees with are drawn at random.

    Raises SceneError, with `name` in it, when there is no polygon with an area.
    """

    def __init__(
        self, polygons: Polygons, name: str = "navmesh", *, allowed: Callable[[Point], bool] = lambda point: True
    ):
        self.polygons = polygons
        self._allowed = allowed
        used = polygons.corners >= 0
        # Polygons of fewer corners repeat their first: sides without length at the end.
        self._corners = polygons.vertices[np.where(used, polygons.corners, polygons.corners[:, :1])]
        self._sides = np.roll(self._corners, -1, axis=1) - self._corners
        fans = _fan_areas(self._corners)
        self._turn = np.where(fans.sum(axis=1) < 0, -1.0, 1.0)
        self._fans = np.abs(fans)
        self._areas = self._fans.sum(axis=1)
        self.labels = _components(polygons.neighbours, self._areas >= MIN_POLYGON_M2, self._areas)
        if not (self.labels >= 0).any():
            raise SceneError(f"{name}: a navigation mesh without any floor")
        self._neighbours = np.where(self.labels[polygons.neighbours] >= 0, polygons.neighbours, -1)
        self._reach = np.cumsum(np.where(self.labels >= 0, self._areas, 0))
        self.islands = tuple(self._island(self.labels == k, used) for k in range(self.labels.max() + 1))

    @property
    def area_m2(self) -> float:
        """Area in plan of all islands."""
        return float(self._reach[-1])

    def random_point(self, rng: np.random.Generator) -> Point:
        """A point of the floor, uniform over its area in plan."""
        for _ in range(MAX_DRAWS):
            point = self._draw(rng)
            if self._allowed(point):
                break
        return point

    def island(self, point: Point) -> int:
        """The island that the point is on, -1 = none."""
        polygon = self._polygon(point)
        return int(self.labels[polygon]) if polygon >= 0 else -1

    def island_radius(self, point: Point) -> float:
        """Radius in metres of the island that the point is on; 0 off the floor."""
        island = self.island(point)
        return self.islands[island].radius_m if island >= 0 else 0.0

    def snap(self, point: Point) -> Point | None:
        """The nearest point of the floor; None when there is none near."""
        if not np.isfinite(point).all():
            return None
        places, away_m = self._nearest(point[[0, 2]])
        best, best_m = None, np.inf
        for polygon in np.argsort(away_m, kind="stable"):
            if away_m[polygon] >= best_m or away_m[polygon] > SNAP_M * np.sqrt(2):
                break
            found = self._at(int(polygon), *places[polygon])
            away = np.abs(found - point)
            near = away[0] <= SNAP_M and away[2] <= SNAP_M and away[1] <= SNAP_HEIGHT_M
            if near and np.linalg.norm(away) < best_m:
                best, best_m = found, float(np.linalg.norm(away))
        return best

    def step(self, start: Point, end: Point) -> Point:
        """Where an agent gets to that walks from `start` straight towards `end`."""
        polygon = self._polygon(start)
        way = (end - start)[[0, 2]]
        if polygon < 0 or not SHORT_M / 1000 < np.linalg.norm(way) < np.inf:  # false for NaN, too
            return np.array(start, np.float64)
        polygon, part = self._walk(polygon, start[[0, 2]], way)
        return self._at(polygon, *(start[[0, 2]] + part * way))

    def _island(self, members: NDArray[np.bool_], used: NDArray[np.bool_]) -> Island:
        """Area and radius of the polygons `members` (P,)."""
        corners = self._corners[members][used[members]]
        radius = np.linalg.norm(corners - corners.mean(axis=0), axis=1).max()
        return Island(float(self._areas[members].sum()), float(radius))

    def _draw(self, rng: np.random.Generator) -> Point:
        """A random point: of a polygon by its area, of a triangle of its fan by its area, then uniform in that."""
        polygon = int(np.searchsorted(self._reach, rng.random() * self._reach[-1], side="right"))
        reach = np.cumsum(self._fans[polygon])
        fan = int(np.searchsorted(reach, rng.random() * reach[-1], side="right"))
        s, t = rng.random(2)
        if s + t > 1:
            s, t = 1 - s, 1 - t
        a, b, c = self._corners[polygon, [0, fan + 1, fan + 2]][:, [0, 2]]
        return self._at(polygon, *(a + s * (b - a) + t * (c - a)))

    def _walk(self, polygon: int, start: NDArray[np.float64], way: NDArray[np.float64]) -> tuple[int, float]:
        """Go from `polygon` along `way` (x, z) from neighbour to neighbour: where it ends, what share was gone."""
        length, done = float(np.linalg.norm(way)), 0.0
        for _ in range(2 * len(self.labels)):
            sides, corners = self._sides[polygon][:, [0, 2]], self._corners[polygon][:, [0, 2]]
            outward = -self._turn[polygon] * _cross(sides, way)  # how fast each side is approached
            inside = self._turn[polygon] * _cross(sides, start - corners)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                parts = np.where(outward > 1e-12 * length, inside / outward, np.inf)
            side = int(parts.argmin())
            if parts[side] >= 1:
                return polygon, 1.0
            following = int(self._neighbours[polygon, side])
            if following < 0:
                return polygon, max(done, float(parts[side]) - SHORT_M / length)
            polygon, done = following, max(done, float(parts[side]))
        return polygon, done

    def _polygon(self, point: Point) -> int:
        """The polygon that the point is in, at most `MAX_Y_DELTA_M` from its floor; -1 = none."""
        if not np.isfinite(point).all():
            return -1
        heights = {int(n): self._at(int(n), point[0], point[2])[1] for n in self._around(point[[0, 2]])}
        nearest = min(heights, key=lambda n: abs(heights[n] - point[1]), default=-1)
        return nearest if nearest >= 0 and abs(heights[nearest] - point[1]) <= MAX_Y_DELTA_M else -1

    def _around(self, place: NDArray[np.float64]) -> NDArray[np.int64]:
        """The polygons of the floor that (x, z) is in."""
        sides = self._sides[:, :, [0, 2]]
        depth = self._turn[:, None] * _cross(sides, place - self._corners[:, :, [0, 2]])
        inside = (depth >= -SLACK_M * np.linalg.norm(sides, axis=2)).all(axis=1)
        return np.flatnonzero(inside & (self.labels >= 0))

    def _nearest(self, place: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The nearest place (P, 2) in each polygon to (x, z), and its distance in metres (P,); inf off the floor."""
        sides, corners = self._sides[:, :, [0, 2]], self._corners[:, :, [0, 2]]
        lengths = np.maximum((sides**2).sum(axis=2), 1e-18)
        along = np.clip(((place - corners) * sides).sum(axis=2) / lengths, 0, 1)
        feet = corners + along[:, :, None] * sides
        away_m = np.linalg.norm(feet - place, axis=2)
        every, best = np.arange(len(feet)), away_m.argmin(axis=1)
        places, nearest_m = feet[every, best], away_m[every, best]
        around = self._around(place)
        places[around], nearest_m[around] = place, 0
        return places, np.where(self.labels >= 0, nearest_m, np.inf)

    def _at(self, polygon: int, x: float, z: float) -> Point:
        """The point of a polygon's floor at (x, z): on its height triangles, or as high as the nearest of them."""
        first, last = self.polygons.detail_starts[[polygon, polygon + 1]]
        triangles = self.polygons.detail[first:last]
        if not len(triangles):
            triangles = np.stack([self._corners[polygon, [0, n + 1, n + 2]] for n in range(MAX_CORNERS - 2)])
        heights = heights_at(triangles, x, z)
        return np.array([x, heights.max() if heights.size else _nearest_height(triangles, x, z), z])


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cross product of vectors in plan (..., 2)."""
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def _fan_areas(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed areas in plan (P, 4) of the triangles from the first corner of polygons (P, 6, 3)."""
    spokes = (corners[:, 1:] - corners[:, :1])[:, :, [0, 2]]
    return _cross(spokes[:, :-1], spokes[:, 1:]) / 2


def _components(
    neighbours: NDArray[np.int64], alive: NDArray[np.bool_], areas: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The connected piece (P,) of each polygon that is alive, numbered from the largest; -1 for the others."""
    labels = np.full(len(neighbours), -1)
    number = 0
    for seed in np.flatnonzero(alive):
        if labels[seed] >= 0:
            continue
        labels[seed], stack = number, [seed]
        while stack:
            for other in neighbours[stack.pop()]:
                if other >= 0 and alive[other] and labels[other] < 0:
                    labels[other] = number
                    stack.append(other)
        number += 1
    sizes = np.bincount(labels[alive], weights=areas[alive], minlength=number)
    rank = np.empty(number + 1, np.int64)
    rank[np.argsort(-sizes, kind="stable")], rank[-1] = np.arange(number), -1
    return rank[labels]


def _nearest_height(triangles: NDArray[np.float64], x: float, z: float) -> float:
    """The height of triangles (T, 3, 3) at the corner or side nearest to (x, z) in plan."""
    corners = triangles.reshape(-1, 3)
    sides = (np.roll(triangles, -1, axis=1) - triangles).reshape(-1, 3)
    lengths = np.maximum((sides[:, [0, 2]] ** 2).sum(axis=1), 1e-18)
    along = np.clip(((np.array([x, z]) - corners[:, [0, 2]]) * sides[:, [0, 2]]).sum(axis=1) / lengths, 0, 1)
    feet = corners + along[:, None] * sides
    return float(feet[((feet[:, [0, 2]] - (x, z)) ** 2).sum(axis=1).argmin(), 1])
