"""What can be asked about the walkable floor of a scene, and how to get it: the data set's own map, or our own.

World: metres, y up. Points are (3,) float64 (x, y, z), on the floor where not said otherwise.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import Body, Point, SceneFile
from mimic_wds.sources.simulator.raster import Mesh

#: Metres: a point this far above or below the floor still counts as on it (habitat-sim's `is_navigable`).
MAX_Y_DELTA_M = 0.5

#: Metres, in plan and in height: how far `snap` looks (the box in which habitat-sim looks for the nearest polygon).
SNAP_M, SNAP_HEIGHT_M = 2.0, 4.0


@dataclass(frozen=True, slots=True)
class Island:
    """A piece of floor that can be walked from end to end."""

    area_m2: float  #: in plan
    radius_m: float  #: from its middle to the farthest corner; what is its middle depends on the kind of floor


class Floor(Protocol):
    """All the places of a scene where an agent can stand, in islands that no walk joins."""

    @property
    def islands(self) -> tuple[Island, ...]:
        """The islands; `island` gives a place in this tuple."""
        ...

    @property
    def area_m2(self) -> float:
        """Area in plan of all islands, which random points are drawn from."""
        ...

    def random_point(self, rng: np.random.Generator) -> Point:
        """A point of the floor, uniform over its area in plan."""
        ...

    def island(self, point: Point) -> int:
        """The island that the point is on (at most `MAX_Y_DELTA_M` above or below it), -1 = none."""
        ...

    def island_radius(self, point: Point) -> float:
        """Radius in metres of the island that the point is on; 0 off the floor."""
        ...

    def snap(self, point: Point) -> Point | None:
        """The nearest point of the floor, at most `SNAP_M` away in plan and `SNAP_HEIGHT_M` in height; else None."""
        ...

    def step(self, start: Point, end: Point) -> Point:
        """Where an agent gets to that walks from `start` straight towards `end`: no farther than its island goes.

        It never passes a wall, and changes height by slopes and steps of at most `Body.climb_m`. The height of `end` is
        of no account. Off the floor one cannot walk: `start` comes back.
        """
        ...


def make_floor(mesh: Mesh, scene: SceneFile, body: Body, *, open_sky: bool = False) -> Floor:
    """The floor of a scene: read from `scene.navmesh` when it names one, else found in the triangles.

    Places with nothing overhead (roofs, the upper sides of ceilings, gardens) are left out unless open_sky=True, or
    there is hardly any other floor: see `regions.indoors` and `overhead.roofed`. A navigation mesh was made for a body
    of its own; `body` then only says how much room is left below what is overhead.

    Raises SceneError when there is nowhere to walk, the scene is so large that its units must be wrong, or the
    navigation mesh cannot be read; ImportError with the install command when numba is missing.
    """
    # They need numba, and this package is imported by installations that have none.
    from mimic_wds.sources.simulator.navigation import navmesh, overhead, polygons, voxels

    if not scene.navmesh:
        return voxels.flood(mesh, body, name=scene.path, open_sky=open_sky)
    try:
        parsed = navmesh.parse(Path(scene.navmesh).read_bytes(), scene.navmesh)
    except OSError as error:
        raise SceneError(f"{scene.navmesh}: cannot read the navigation mesh: {error.strerror}") from None
    except ValueError as error:
        raise SceneError(str(error)) from None
    if open_sky:
        return polygons.PolygonFloor(parsed, scene.navmesh)
    return overhead.roofed(parsed, mesh, body, name=scene.navmesh)
