"""A smooth walk of a hand-held camera through the rooms of a scene.

The walker goes along straight lines from one way point to the next, turns where it must, and looks around inside the
rooms; a cubic B-spline smooths position and direction over time. The camera is held at arm's length, so that it
moves also while the walker only turns: every pair of frames has true parallax.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.raster import pose

#: Metres above the floor.
EYE_M = 1.5

#: Metres from the walker's axis to the camera.
ARM_M = 0.2

#: Metres that the walker's axis keeps from everything that could be run into.
CLEARANCE_M = 0.42

#: Metres: lower things are stepped over, higher ones walked under.
STEP_OVER_M, HEADROOM_M = 0.1, 1.9

#: Seconds between the points of the script, and how many of them each pass of the smoothing averages.
TICK_S, SMOOTH_TICKS = 0.1, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Gait:
    """How the walker moves."""

    speed_m_s: float = 0.6
    turn_deg_s: float = 18.0
    variety: float = 0.35  #: by which share each turn and each stretch is slower or faster
    sway_deg: float = 5.0  #: how far the camera nods, and a third of it tilts
    tilt_deg: float = -6.0  #: mean pitch; negative looks down


def walk(
    solids: NDArray[np.float64],
    stops: Sequence[tuple[float, float]],
    passages: Sequence[tuple[float, float]] = (),
    *,
    seconds: float,
    fps: float,
    seed: int = 0,
    gait: Gait | None = None,
) -> NDArray[np.float64]:
    """Camera-to-world poses (N, 4, 4) of a walk, N = round(seconds * fps).

    solids (B, 2, 3) are boxes not to be run into. The stops (x, z) are visited in random order (`seed`), again and
    again, by the shortest way over other stops and passages; at each the walker looks around. Raises ValueError when
    one of them is too near to something, or cannot be reached.
    """
    gait = gait or Gait()
    rng = np.random.default_rng(seed)
    num_frames = round(seconds * fps)
    points = np.array([*stops, *passages], np.float64)
    ways = visible_ways(points, obstacles(solids))
    track = _script(points, len(stops), ways, seconds + 2, gait, rng)
    smooth = _b_spline(track)
    times = np.arange(num_frames) / fps
    ticks = TICK_S * np.arange(len(smooth))
    x, z, yaw = (np.interp(times, ticks, column) for column in smooth.T)
    nod, roll = (_sway(times, gait.sway_deg * size, rng) for size in (1, 1 / 3))
    return np.array([_held(*now, gait.tilt_deg) for now in zip(x, z, yaw, nod, roll, strict=True)]).reshape(-1, 4, 4)


def obstacles(solids: NDArray[np.float64]) -> NDArray[np.float64]:
    """The boxes that block a walker's body, in plan: (B, 2, 2), lowest and highest (x, z)."""
    blocking = (solids[:, 1, 1] > STEP_OVER_M) & (solids[:, 0, 1] < HEADROOM_M)
    return solids[blocking][:, :, [0, 2]]


def clearance(points: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance (N,) of each point (N, D) to the nearest box (B, 2, D); 0 inside one."""
    outside = np.maximum(boxes[None, :, 0] - points[:, None], points[:, None] - boxes[None, :, 1])
    return np.asarray(np.linalg.norm(np.maximum(outside, 0), axis=-1).min(axis=1))


def visible_ways(points: NDArray[np.float64], boxes: NDArray[np.float64]) -> list[dict[int, float]]:
    """For each way point the others that can be walked to in a straight line, and how far they are.

    Raises ValueError for a way point that is closer than `CLEARANCE_M` to a box.
    """
    near = clearance(points, boxes)
    if near.min() < CLEARANCE_M:
        x, z = points[near.argmin()]
        raise ValueError(f"way point ({x:g}, {z:g}) is {near.min():.2f} m from an obstacle; keep {CLEARANCE_M} m")
    ways: list[dict[int, float]] = [{} for _ in points]
    for i in range(len(points)):
        for j in range(i):
            length = float(np.linalg.norm(points[i] - points[j]))
            steps = np.linspace(points[i], points[j], 2 + int(length / 0.05))
            if clearance(steps, boxes).min() >= CLEARANCE_M:
                ways[i][j] = ways[j][i] = length
    return ways


def shortest(ways: Sequence[dict[int, float]], start: int, goal: int) -> list[int]:
    """The way points from start to goal, without the start (Dijkstra). Raises ValueError when there is no way."""
    queue: list[tuple[float, int, list[int]]] = [(0.0, start, [])]
    seen: set[int] = set()
    while queue:
        length, here, path = heapq.heappop(queue)
        if here == goal:
            return path
        if here in seen:
            continue
        seen.add(here)
        for there, step in ways[here].items():
            heapq.heappush(queue, (length + step, there, [*path, there]))
    raise ValueError(f"way point {goal} cannot be reached from way point {start}")


def _script(
    points: NDArray[np.float64],
    num_stops: int,
    ways: Sequence[dict[int, float]],
    seconds: float,
    gait: Gait,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Where the walker is at every tick, (N, 3): x, z, yaw in degrees, in straight pieces. The stops come first."""
    here, yaw = 0, 0.0
    track = [np.array([[*points[0], yaw]])]
    visits: list[int] = []
    while TICK_S * sum(len(piece) for piece in track) < seconds:
        visits = visits or [int(i) for i in rng.permutation(num_stops) if i != here]
        for there in shortest(ways, here, visits.pop()):
            piece = _leg(points[here], points[there], yaw, gait, rng)
            track.append(piece)
            here, yaw = there, float(piece[-1, 2])
        piece = _look_around(points[here], yaw, gait, rng)
        track.append(piece)
        yaw = float(piece[-1, 2]) if len(piece) else yaw
    return np.concatenate(track)


def _leg(
    start: NDArray[np.float64], end: NDArray[np.float64], yaw: float, gait: Gait, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Go from start to end and come to look ahead or, half of the time, to one side.

    The walker turns on the way, no faster than half the gait's rate; what that leaves to turn comes before.
    """
    step = end - start
    ahead = float(np.degrees(np.arctan2(-step[0], -step[1])))
    aside = float(rng.choice([-1, 1]) * rng.uniform(35, 75)) if rng.random() < 0.5 else float(rng.uniform(-12, 12))
    target = yaw + (ahead + aside - yaw + 180) % 360 - 180
    speed = gait.speed_m_s * float(rng.uniform(1 - gait.variety, 1 + gait.variety))
    num = max(2, round(float(np.linalg.norm(step)) / speed / TICK_S))
    most = gait.turn_deg_s / 2 * TICK_S * num
    before = target - float(np.clip(target - yaw, -most, most))
    part = np.arange(1, num + 1)[:, None] / num
    line = np.hstack([start + part * step, before + part * (target - before)])
    return np.concatenate([_turn(start, yaw, before, gait, rng), line])


def _look_around(place: NDArray[np.float64], yaw: float, gait: Gait, rng: np.random.Generator) -> NDArray[np.float64]:
    """Turn by 40 to 140 degrees to one side."""
    return _turn(place, yaw, yaw + float(rng.choice([-1, 1]) * rng.uniform(40, 140)), gait, rng)


def _turn(
    place: NDArray[np.float64], yaw: float, target: float, gait: Gait, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Turn on the spot, (N, 3); N is 0 when there is next to nothing to turn."""
    rate = gait.turn_deg_s * float(rng.uniform(1 - gait.variety, 1 + gait.variety))
    num = round(abs(target - yaw) / rate / TICK_S)
    angles = yaw + (target - yaw) * np.arange(1, num + 1) / max(1, num)
    return np.column_stack([np.tile(place, (num, 1)), angles])


def _b_spline(track: NDArray[np.float64]) -> NDArray[np.float64]:
    """Three passes of a running mean: the cubic B-spline of the track. Stays within the hull of neighbouring ticks."""
    kernel = np.ones(SMOOTH_TICKS) / SMOOTH_TICKS
    reach = SMOOTH_TICKS // 2
    for _ in range(3):
        padded = np.pad(track, ((reach, reach), (0, 0)), mode="edge")
        track = np.stack([np.convolve(column, kernel, mode="valid") for column in padded.T], axis=1)
    return track


def _sway(times: NDArray[np.float64], size: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A slow irregular swing of at most `size`: two sines of unlike periods (7 and 17 s)."""
    phases = rng.uniform(0, 2 * np.pi, 2)
    return np.asarray(size * sum(np.sin(2 * np.pi * times / p + f) for p, f in zip((7, 17), phases, strict=True)) / 2)


def _held(x: float, z: float, yaw: float, nod: float, roll: float, tilt: float) -> NDArray[np.float64]:
    """The camera in the outstretched hand of a walker at (x, z)."""
    ahead = np.radians(yaw)
    position = (x - ARM_M * np.sin(ahead), EYE_M, z - ARM_M * np.cos(ahead))
    return pose(position, yaw, tilt + nod, roll)


def turns_and_steps(poses: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Between consecutive poses (N, 4, 4): the turn in degrees and the distance in metres, (N - 1,) each."""
    turns = [np.trace(a[:3, :3].T @ b[:3, :3]) for a, b in pairwise(poses)]
    angles = np.degrees(np.arccos(np.clip((np.array(turns) - 1) / 2, -1, 1)))
    return angles, np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
