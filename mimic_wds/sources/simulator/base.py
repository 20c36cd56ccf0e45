"""What a simulator of 3D scenes does: the small interface that every backend offers and all walks are written above.

World: metres, y up, whatever the file says (`SceneFile.up`, `SceneFile.scale_m`). Points are (3,) float64 (x, y, z).
Poses are (4, 4) float64 camera-to-world with OpenGL's axes: x right, y up, the camera looks along -z (habitat-sim's).
"""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: (3,) float64, metres; where an agent's foot stands, when it is one of the floor.
Point: TypeAlias = NDArray[np.float64]

#: (4, 4) float64, camera to world.
Pose: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneFile:
    """A scene on disk and how to read it."""

    path: str  #: .glb, .gltf, .obj or .ply
    up: Literal["y", "z"] = (
        "y"  #: which axis of the file points up; z: front is +y, as habitat-sim takes bare .glb files
    )
    scale_m: float = 1.0  #: metres per unit of the file
    navmesh: str = ""  #: the data set's own navigation mesh, "" = compute one
    stage_config: str = ""  #: habitat-sim's scene data set configuration, "" = none; read by the habitat backend only


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """The pinhole sensor of a simulator, fixed for its life."""

    size: tuple[int, int] = (256, 256)  #: (height, width)
    hfov_deg: float = 90.0  #: horizontal field of view; pixels are square
    depth: bool = False  #: whether pictures come with their depth


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What has to fit where an agent walks: the defaults of Recast as habitat-sim sets them (NavMeshSettings)."""

    height_m: float = 1.5
    radius_m: float = 0.1
    climb_m: float = 0.2  #: highest step
    slope_deg: float = 45.0  #: steepest floor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """What a camera sees."""

    image: NDArray[np.uint8]  #: (H, W, 3) RGB, unlit
    depth: NDArray[np.float32] | None = None  #: (H, W) metres along the optical axis, 0 = nothing there; if asked for


class Simulator(Protocol):
    """A renderer and a map of where one can walk, for one scene at a time. Not shared between processes or threads."""

    def load(self, scene: SceneFile) -> None:
        """Make `scene` the current one; the same scene twice in a row is loaded once.

        Raises SceneError when it cannot be read, is empty, or has nowhere to walk.
        """
        ...

    def random_point(self, seed: int) -> Point | None:
        """A point of the floor, uniform over its area; the same for the same seed. None when none was found."""
        ...

    def island_radius(self, point: Point) -> float:
        """Metres from the middle of the floor connected with `point` to its farthest corner; 0 off the floor."""
        ...

    def snap(self, point: Point) -> Point | None:
        """The nearest point of the floor; None when there is none near."""
        ...

    def step(self, start: Point, end: Point) -> Point:
        """Where an agent gets to that walks from `start` straight to `end`: it stops where it would leave the floor."""
        ...

    def render(self, pose: Pose) -> Picture:
        """What a camera at `pose` sees."""
        ...

    def close(self) -> None:
        """Free what is held; the simulator is of no use afterwards."""
        ...
