#!/usr/bin/env python3
"""Render pairs of views of 3D scenes by kind of motion, with depth and poses, for tools/bench_overlap_truth.py.

    python tools/render_overlap_pairs.py SCENES... --out runs/overlap-pairs --pairs 50
    python tools/bench_overlap_truth.py runs/overlap-pairs --plot runs/overlap.png

Kinds, by how far the camera moves (baseline) beside the median depth of what it sees: `rotate` only turns; `planar`
moves before a plane (least-squares plane within 2 % of the median depth); `distant` moves by less than 8 % of the
depth; `parallax` by more than 25 %. Pairs that share less than 20 % of their patches in truth are drawn again.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.geometry.patches import PatchGrid
from mimic_wds.geometry.truth import PosedDepth, true_overlap
from mimic_wds.sources.scenes import FLIP, Meshes
from mimic_wds.sources.simulator.backends import open_simulator
from mimic_wds.sources.simulator.base import Lens, Picture, Pose, Simulator
from mimic_wds.sources.simulator.location import EYE_M, generator
from mimic_wds.sources.simulator.raster import Camera, pose
from mimic_wds.sources.texture import laplacian_variance
from mimic_wds.storage.files import atomic_write
from mimic_wds.storage.maps import encode_depth

SIDE, HFOV_DEG = 256, 60.0
KINDS = ("rotate", "planar", "distant", "parallax")
GRID = PatchGrid(224, 224, 16)

#: Shares of the median depth: off a plane, moved little, moved much.
FLAT, LITTLE, MUCH = 0.02, 0.08, 0.25

#: Pairs must share so much, and views have so much texture and surface, to say anything.
MIN_SHARED, MIN_TEXTURE, MIN_SURFACE = 0.2, 1000.0, 0.95

#: How the camera moves, by turns: it turns on the spot, looks down on the floor and walks, walks.
MOTIONS = ("turn", "down", "walk", "walk")

#: Motions drawn for a scene before it is left.
MAX_DRAWS = 4000


@dataclass(frozen=True, eq=False)
class Shot:
    """A view and from where it was taken."""

    pose: Pose
    picture: Picture

    @property
    def depth(self) -> NDArray[np.float32]:
        """(H, W) metres."""
        assert self.picture.depth is not None
        return self.picture.depth

    @property
    def posed(self) -> PosedDepth:
        """As the measure of the truth takes it."""
        K = Camera(self.pose, HFOV_DEG, (SIDE, SIDE)).intrinsics + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
        return PosedDepth(depth_m=self.depth.astype(np.float64), K=K, camera_to_world=self.pose @ FLIP)


def main() -> int:
    """Render all kinds in all scenes and write them in the layout of docs/overlap-truth.md."""
    args = parse_args()
    source = Meshes(paths=tuple(args.scenes), backend=args.backend)
    views: dict[str, list[list[float]]] = {}
    pairs: list[dict[str, str]] = []
    for folder in ("rgb", "depth"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    for scene in source.scenes():
        simulator = open_simulator(source.backend_settings(Lens(size=(SIDE, SIDE), hfov_deg=HFOV_DEG, depth=True)))
        simulator.load(source.file(scene))
        numbers = count()
        found = dict.fromkeys(KINDS, 0)
        for kind, shots in draw(simulator, scene.name, args.pairs):
            found[kind] += 1
            names = [f"{Path(scene.name).stem}-{next(numbers):05d}" for _ in shots]
            for name, shot in zip(names, shots, strict=True):
                save(args.out, name, shot)
                views[name] = (shot.pose @ FLIP).tolist()
            pairs.append({"a": names[0], "b": names[1], "kind": kind})
        simulator.close()
        print(f"{scene.name}: " + ", ".join(f"{number} {kind}" for kind, number in found.items()))
    write(args.out / "cameras.json", {"width": SIDE, "height": SIDE, "K": intrinsics(), "views": views})
    write(args.out / "pairs.json", pairs)
    return 0 if pairs else 1


def parse_args() -> argparse.Namespace:
    """The command line."""
    head, _, notes = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=notes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", nargs="+", metavar="SCENE", help="scene files, or folders of them")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--pairs", type=int, default=50, help="of each kind and scene, at most (default: 50)")
    parser.add_argument("--backend", default="auto", help="auto, opengl, numba or habitat (default: auto)")
    return parser.parse_args()


def draw(simulator: Simulator, scene: str, wanted: int) -> Iterator[tuple[str, tuple[Shot, Shot]]]:
    """Pairs of every kind, `wanted` of each if so many turn up."""
    found = dict.fromkeys(KINDS, 0)
    for number in range(MAX_DRAWS):
        if min(found.values()) >= wanted:
            return
        rng = generator(scene, number)
        shots = draw_pair(simulator, rng, MOTIONS[number % len(MOTIONS)])
        kind = kind_of(*shots) if shots else ""
        if shots and kind and found[kind] < wanted and shared(*shots) > MIN_SHARED:
            found[kind] += 1
            yield kind, shots


def draw_pair(simulator: Simulator, rng: np.random.Generator, motion: str) -> tuple[Shot, Shot] | None:
    """Two views of a random motion, both with texture and surfaces everywhere; None where there are none."""
    foot = simulator.random_point(int(rng.integers(2**31)))
    if foot is None:
        return None
    heading, pitch = rng.uniform(0, 360), rng.uniform(-90, -70) if motion == "down" else rng.uniform(-15, 5)
    eye = np.array([0, rng.uniform(*EYE_M), 0])
    turn, nod = (
        (rng.uniform(10, 45) * rng.choice([-1, 1]), rng.uniform(-5, 5)) if motion == "turn" else rng.uniform(-12, 12, 2)
    )
    moved = foot
    if motion != "turn":
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 1.2)
        moved = simulator.step(foot, foot + length * np.array([np.sin(angle), 0, np.cos(angle)]))
    shots = (
        shoot(simulator, pose(foot + eye, heading, pitch)),
        shoot(simulator, pose(moved + eye, heading + turn, pitch + nod)),
    )
    return shots if all(is_good(shot) for shot in shots) else None


def shoot(simulator: Simulator, where: Pose) -> Shot:
    """A view."""
    return Shot(where, simulator.render(where))


def is_good(shot: Shot) -> bool:
    """True if there is something to see all over the view."""
    return (
        np.count_nonzero(shot.depth) >= MIN_SURFACE * shot.depth.size
        and laplacian_variance(shot.picture.image) >= MIN_TEXTURE
    )


def kind_of(shot0: Shot, shot1: Shot) -> str:
    """The kind of motion, "" for one in between."""
    middle = float(np.median(shot0.depth[shot0.depth > 0]))
    baseline = float(np.linalg.norm(shot0.pose[:3, 3] - shot1.pose[:3, 3]))
    if baseline < 1e-9:
        return "rotate"
    if max(off_plane(shot0), off_plane(shot1)) < FLAT * middle:
        return "planar"
    return "distant" if baseline < LITTLE * middle else "parallax" if baseline > MUCH * middle else ""


def off_plane(shot: Shot) -> float:
    """Metres (root mean square) of what is seen off the plane that fits it best."""
    rows, columns = np.nonzero(shot.depth)
    depth = shot.depth[rows, columns].astype(np.float64)
    focal, middle = SIDE / 2 / np.tan(np.radians(HFOV_DEG) / 2), (SIDE - 1) / 2
    points = np.stack([(columns - middle) / focal * depth, (rows - middle) / focal * depth, depth], axis=1)
    return float(np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[-1] / np.sqrt(len(points)))


def shared(shot0: Shot, shot1: Shot) -> float:
    """The true overlap."""
    return true_overlap(shot0.posed, shot1.posed, GRID).ratio


def save(out: Path, name: str, shot: Shot) -> None:
    """Picture (lossless) and depth of a view."""
    cv2.imwrite(str(out / "rgb" / f"{name}.png"), shot.picture.image[..., ::-1])
    (out / "depth" / f"{name}.png").write_bytes(encode_depth(shot.depth))


def intrinsics() -> list[list[float]]:
    """K of all views, pixel centres half a pixel from whole numbers."""
    K = Camera(np.eye(4), HFOV_DEG, (SIDE, SIDE)).intrinsics + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return K.tolist()


def write(path: Path, content: Any) -> None:
    """JSON, whole or not at all."""
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
