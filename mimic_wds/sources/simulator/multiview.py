"""Pairs of views as the Multiview-Habitat generator of CroCo (Weinzaepfel et al., arXiv 2210.10716) draws them.

1. Reference view: a random point of the floor, a random height and heading, noise. Enough of it must show a surface;
   the mean of what it shows is the target.
2. Second view: a random walk from the *same* point of the floor, another height, a look at the target, noise. It is
   taken if enough of it shows a surface and the co-visibility of both views is high enough; else it is drawn again.
3. When all attempts failed, another reference view is drawn, a stated number of times.

All randomness comes from the scene's name and the pair's number. How co-visibility is measured is an argument:
`mimic_wds.geometry.covisibility.shares` does it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.base import Lens, Picture, Point, Pose, Simulator

#: (4,) float64 w, x, y, z of unit length: takes the camera's axes (right, up, back) to those of the world.
Quaternion: TypeAlias = NDArray[np.float64]

#: (H, W) metres along the optical axis, 0 = no surface.
Depth: TypeAlias = NDArray[np.float32]

#: (3, 3): takes x right, y down, z forward to pixels (column, row).
Intrinsics: TypeAlias = NDArray[np.float64]

#: depth0, pose0, depth1, pose1, intrinsics of both, radius in metres within which two points are the same place -> the
#: share of all pixels of view 0 that view 1 sees, and the other way round.
Measure: TypeAlias = Callable[[Depth, Pose, Depth, Pose, Intrinsics, float], tuple[float, float]]

#: Metres to a target that is too near to give a direction; and sideways, of a metre, too little to give a heading.
NO_DIRECTION = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiviewSettings:
    """How pairs are drawn; the defaults are those of the Multiview-Habitat release (CroCo, arXiv 2210.10716)."""

    size: tuple[int, int] = (256, 256)  #: (height, width) of the views
    hfov_deg: float = 60.0
    pan_noise_deg: float = 3.0  #: noise of a direction is uniform in +- this: to the side, ...
    tilt_noise_deg: float = 10.0  #: ... up and down, ...
    roll_noise_deg: float = 5.0  #: ... and round the optical axis
    camera_height_m: tuple[float, float] = (1.2, 1.8)  #: uniform, drawn for each view
    walk_steps: int = 5
    step_std_m: float = 2.0  #: of a step's normal displacement in x and in z (the release calls it the variance)
    min_valid: float = 0.7  #: share of a view's pixels that must show a surface
    min_covisibility: float = 0.5
    radius_m: float = 0.05  #: nearer points are the same place
    second_attempts: int = 100  #: second views tried for a reference view
    reference_attempts: int = 50  #: reference views tried for a pair; the release goes on until Python's recursion ends

    def __post_init__(self) -> None:
        low, high = self.camera_height_m
        if not 0 <= low <= high:
            raise ValueError(f"camera_height_m must be two heights, low and high, got {self.camera_height_m}")
        for name in ("min_valid", "min_covisibility"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        for name in ("second_attempts", "reference_attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")

    @property
    def lens(self) -> Lens:
        """The sensor that a simulator needs for these views."""
        return Lens(size=self.size, hfov_deg=self.hfov_deg, depth=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PosedView:
    """One view, from where it was taken, and how much of it shows a surface."""

    picture: Picture
    position: Point  #: of the camera
    orientation: Quaternion
    valid: float  #: share of the pixels that show a surface

    @property
    def pose(self) -> Pose:
        """Camera to world."""
        return pose_of(self.position, self.orientation)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MultiviewPair:
    """Two views of the same things."""

    view0: PosedView  #: the reference
    view1: PosedView
    seen0: float  #: share of all pixels of view 0 that view 1 sees
    seen1: float  #: and the other way round
    intrinsics: Intrinsics  #: of both; whole numbers are pixel centres

    @property
    def covisibility(self) -> float:
        """CroCo's: the smaller of the two shares."""
        return min(self.seen0, self.seen1)


def sample_pair(
    simulator: Simulator, measure: Measure, scene: str, number: int, settings: MultiviewSettings
) -> MultiviewPair | None:
    """Pair `number` of the scene that is loaded; `scene` is its name. The same for the same name and number.

    None when none was found within the attempts that the settings allow. Raises ValueError when the simulator has
    another lens than `settings.lens`.
    """
    rng = np.random.default_rng(seed_of(scene, number))
    for _ in range(settings.reference_attempts):
        foot = simulator.random_point(int(rng.integers(2**31)))
        if foot is None:
            continue
        view0 = reference_view(simulator, foot, rng, settings)
        if view0.valid >= settings.min_valid:
            pair = _pair_with(simulator, measure, view0, foot, rng, settings)
            if pair is not None:
                return pair
    return None


def seed_of(scene: str, number: int) -> int:
    """What seeds the draw of a pair."""
    return int.from_bytes(hashlib.blake2b(f"{scene}\n{number}".encode(), digest_size=16).digest(), "little")


def reference_view(
    simulator: Simulator, foot: Point, rng: np.random.Generator, settings: MultiviewSettings
) -> PosedView:
    """A view from above `foot` in a random direction near the horizontal."""
    position = above(foot, rng, settings)
    heading = turned(np.eye(3), 0.0, rng.uniform(0, 360), 0.0)
    return take(simulator, position, quaternion_of(heading @ noise(rng, settings)), settings)


def second_view(
    simulator: Simulator, foot: Point, target: Point, rng: np.random.Generator, settings: MultiviewSettings
) -> PosedView:
    """A view of `target` from the end of a random walk from `foot`."""
    position = above(random_walk(simulator, foot, rng, settings), rng, settings)
    return take(simulator, position, quaternion_of(look_at(position, target) @ noise(rng, settings)), settings)


def _pair_with(
    simulator: Simulator,
    measure: Measure,
    view0: PosedView,
    foot: Point,
    rng: np.random.Generator,
    settings: MultiviewSettings,
) -> MultiviewPair | None:
    """The first second view that is good enough, with the reference view."""
    unprojected = croco_intrinsics(settings)
    depth0 = depth_of(view0.picture)
    target = mean_point(depth0, unprojected, view0.pose)
    for _ in range(settings.second_attempts):
        view1 = second_view(simulator, foot, target, rng, settings)
        if view1.valid < settings.min_valid:
            continue
        seen0, seen1 = measure(depth0, view0.pose, depth_of(view1.picture), view1.pose, unprojected, settings.radius_m)
        if min(seen0, seen1) >= settings.min_covisibility:
            return MultiviewPair(view0=view0, view1=view1, seen0=seen0, seen1=seen1, intrinsics=intrinsics(settings))
    return None


def above(foot: Point, rng: np.random.Generator, settings: MultiviewSettings) -> Point:
    """The camera's place over a point of the floor, at a random height."""
    return foot + np.array([0.0, rng.uniform(*settings.camera_height_m), 0.0])


def random_walk(simulator: Simulator, foot: Point, rng: np.random.Generator, settings: MultiviewSettings) -> Point:
    """Where a random walk from `foot` ends; a step that leads nowhere near the floor is not taken."""
    for _ in range(settings.walk_steps):
        dx, dz = rng.normal(0.0, settings.step_std_m, 2)
        snapped = simulator.snap(foot + np.array([dx, 0.0, dz]))
        foot = foot if snapped is None else snapped
    return foot


def take(simulator: Simulator, position: Point, orientation: Quaternion, settings: MultiviewSettings) -> PosedView:
    """Render a view. Raises ValueError when it has no depth or another size than the settings say."""
    picture = simulator.render(pose_of(position, orientation))
    depth = depth_of(picture)
    if depth.shape != settings.size or picture.image.shape[:2] != settings.size:
        raise ValueError(f"the simulator renders {depth.shape} pixels, expected {settings.size}: open it with its lens")
    valid = float(np.count_nonzero(depth) / depth.size)
    return PosedView(picture=picture, position=position, orientation=orientation, valid=valid)


def depth_of(picture: Picture) -> Depth:
    """The depth of a picture. Raises ValueError when it has none."""
    if picture.depth is None:
        raise ValueError("the simulator renders no depth: open it with Lens(depth=True)")
    return picture.depth


def croco_intrinsics(settings: MultiviewSettings) -> Intrinsics:
    """(3, 3) with which CroCo unprojects whole pixel numbers: principal point (width / 2, height / 2)."""
    height, width = settings.size
    focal = width / 2 / np.tan(np.radians(settings.hfov_deg) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def intrinsics(settings: MultiviewSettings) -> Intrinsics:
    """(3, 3) with which the views are truly taken: whole numbers are pixel centres, the middle is half a pixel less."""
    return croco_intrinsics(settings) - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


def mean_point(depth: Depth, unprojected: Intrinsics, pose: Pose) -> Point:
    """The mean (3,) of the points of the world that a view shows; it must show one."""
    rows, columns = np.nonzero(depth)
    assert len(rows), "the view shows nothing"
    forward = depth[rows, columns].astype(np.float64)
    right = (columns - unprojected[0, 2]) / unprojected[0, 0] * forward
    down = (rows - unprojected[1, 2]) / unprojected[1, 1] * forward
    return np.asarray(pose[:3, :3] @ (right.mean(), -down.mean(), -forward.mean()) + pose[:3, 3])


def noise(rng: np.random.Generator, settings: MultiviewSettings) -> NDArray[np.float64]:
    """A small random turn (3, 3) in the camera's own axes."""
    spread = np.array([settings.tilt_noise_deg, settings.pan_noise_deg, settings.roll_noise_deg])
    tilt, pan, roll = rng.uniform(-spread, spread)
    return turned(np.eye(3), tilt, pan, roll)


def turned(rotation: NDArray[np.float64], tilt_deg: float, pan_deg: float, roll_deg: float) -> NDArray[np.float64]:
    """A camera's axes (3, 3) after panning to the left, then tilting up, then rolling to the left, in its own axes."""
    (ct, st), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in np.radians([tilt_deg, pan_deg, roll_deg]))
    pan = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    tilt = np.array([[1, 0, 0], [0, ct, -st], [0, st, ct]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(rotation @ pan @ tilt @ roll)


def look_at(eye: Point, target: Point) -> NDArray[np.float64]:
    """The axes (3, 3) of an upright camera at `eye` that looks at `target`; along -z when they are one point."""
    back = eye - target
    if np.linalg.norm(back) < NO_DIRECTION:
        return np.eye(3)
    back = back / np.linalg.norm(back)
    right = np.array([back[2], 0.0, -back[0]])  # up x back
    if np.linalg.norm(right) < NO_DIRECTION:  # straight up or down: any heading will do
        back, right = np.array([0.0, np.sign(back[1]), 0.0]), np.array([1.0, 0.0, 0.0])
    right = right / np.linalg.norm(right)
    up = np.cross(back, right)
    return np.stack([right, up / np.linalg.norm(up), back], axis=1)


def quaternion_of(rotation: NDArray[np.float64]) -> Quaternion:
    """The unit quaternion, w not negative, of a rotation (3, 3)."""
    m = rotation
    # Of the four ways to compute it the one that divides by the largest component is exact to the last digits.
    squares = 1 + np.array([m[0, 0] + m[1, 1] + m[2, 2], *(2 * np.diag(m) - np.trace(m))])
    (wx, wy, wz) = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    (xy, xz, yz) = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
    products = np.array([[0, wx, wy, wz], [wx, 0, xy, xz], [wy, xy, 0, yz], [wz, xz, yz, 0]])
    largest = int(squares.argmax())
    quaternion = products[largest]
    quaternion[largest] = squares[largest]
    quaternion /= np.linalg.norm(quaternion)
    return np.asarray(-quaternion if quaternion[0] < 0 else quaternion)


def pose_of(position: Point, orientation: Quaternion) -> Pose:
    """Camera to world from where it is and how it is turned."""
    w, x, y, z = orientation
    result = np.eye(4)
    result[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    result[:3, 3] = position
    return result
