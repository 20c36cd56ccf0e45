"""Which places of a navigation mesh are indoors: those with something overhead."""

import dataclasses
import logging

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import Body, Point
from mimic_wds.sources.simulator.navigation import kernels
from mimic_wds.sources.simulator.navigation.navmesh import Polygons
from mimic_wds.sources.simulator.navigation.polygons import PolygonFloor
from mimic_wds.sources.simulator.raster import Mesh

#: Metres: the columns in which something overhead is looked for, and how many there may be (a square of 400 m).
COLUMN_M, MAX_COLUMNS = 0.1, 16_000_000

#: Random points that tell how much of an island is covered, and the share below which it is a roof or a garden.
PROBES, MIN_COVERED = 200, 0.1

log = logging.getLogger(__name__)


class Tops:
    """How high a scene reaches in every column. Raises SceneError when the scene is too large."""

    def __init__(self, mesh: Mesh, name: str = "scene"):
        kinds = kernels.classify(mesh.vertices, mesh.triangles, 1.0)
        box = kernels.bounds(mesh.vertices, mesh.triangles, kinds)
        if not kinds.any():
            raise SceneError(f"{name}: no triangles with an area")
        cells = np.ceil((box[1] - box[0]) / COLUMN_M) + 2
        if cells[0] * cells[2] > MAX_COLUMNS:
            size = box[1] - box[0]
            raise SceneError(f"{name}: {size[0]:.4g} x {size[2]:.4g} m wide; its units look wrong (set scale_m)")
        self._origin = box[0] - 0.5 * COLUMN_M
        shape = int(cells[2]), int(cells[0])
        self._tops = kernels.column_tops(mesh.vertices, mesh.triangles, kinds, self._origin, COLUMN_M, shape)

    def above(self, point: Point, height_m: float) -> bool:
        """Whether there is anything `height_m` or more above the point."""
        column, row = np.floor((point[[0, 2]] - self._origin[[0, 2]]) / COLUMN_M).astype(int)
        inside = 0 <= row < self._tops.shape[0] and 0 <= column < self._tops.shape[1]
        return bool(inside and self._tops[row, column] >= point[1] + height_m)


def roofed(polygons: Polygons, mesh: Mesh, body: Body, *, name: str) -> PolygonFloor:
    """The floor of a navigation mesh without its roofs and gardens; random points have something overhead.

    habitat-sim's own meshes have the roofs in them. An island stays when at least `MIN_COVERED` of it has something
    `body.height_m` or more above it. Where no island has, all stay, and a line is logged. Raises SceneError as
    `PolygonFloor` and `Tops` do.
    """
    floor, tops = PolygonFloor(polygons, name), Tops(mesh, name)
    covered = np.array([_covered(floor, island, tops, body) for island in range(len(floor.islands))])
    if (covered < MIN_COVERED).all():
        log.info("%s: no floor has something overhead; floor under the open sky counts, too", name)
        return floor
    indoors = np.append(covered >= MIN_COVERED, False)[floor.labels]
    return PolygonFloor(_only(polygons, indoors), name, allowed=lambda point: tops.above(point, body.height_m))


def _covered(floor: PolygonFloor, island: int, tops: Tops, body: Body) -> float:
    """The share of an island that has something overhead, by random points that are the same every time."""
    alone = PolygonFloor(_only(floor.polygons, floor.labels == island))
    rng = np.random.default_rng(0)
    return float(np.mean([tops.above(alone.random_point(rng), body.height_m) for _ in range(PROBES)]))


def _only(polygons: Polygons, kept: NDArray[np.bool_]) -> Polygons:
    """The polygons without those that are not kept (P,): these lose their corners' extent, so have no area."""
    corners = np.where(kept[:, None] | (polygons.corners < 0), polygons.corners, polygons.corners[:, :1])
    return dataclasses.replace(polygons, corners=corners)
