#!/usr/bin/env python3
"""Compare this package's co-visibility with nearest neighbours from k-d trees, on pairs drawn in a rendered house.

    python tools/bench_covisibility.py --json runs/bench-covisibility.json
    python tools/bench_covisibility.py --pairs 50 --size 512

Views are drawn as Multiview-Habitat does, the refused ones included, since every attempt is measured. Both sides run in
one process on one thread, take turns, and unproject depth themselves. Times are processor times; read the ratios, which
are medians of ratios within a pair. All counts are compared; the exit status is 1 if one differs. "cells" is the search
that is used without numba. Needs the packages of `pip install 'mimic-wds[demo]'`.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # read when numpy is imported

import numpy as np
from numpy.typing import NDArray

from mimic_wds.geometry import covisibility
from mimic_wds.sources.simulator import walk
from mimic_wds.sources.simulator.base import Picture, Point, Pose, SceneFile
from mimic_wds.sources.simulator.house import ROOMS, build_house
from mimic_wds.sources.simulator.multiview import Depth, Intrinsics, MultiviewSettings, sample_pair
from mimic_wds.sources.simulator.raster import Camera, Renderer

#: How many times faster than k-d trees co-visibility should be.
TARGET = 20

#: Names of the ways, the literal one first.
WAYS = ("literal", "ours", "cells")


class House:
    """The house of the demo as a simulator: one can stand wherever nothing is, in any room."""

    def __init__(self, settings: MultiviewSettings):
        house = build_house()
        self._settings, self._renderer = settings, Renderer(house.mesh)
        self._boxes = walk.obstacles(house.solids)

    def load(self, scene: SceneFile) -> None:
        """There is one scene."""

    def random_point(self, seed: int) -> Point | None:
        """Uniform over the rooms."""
        rng = np.random.default_rng(seed)
        while True:
            room = list(ROOMS.values())[rng.integers(len(ROOMS))]
            point = np.array([rng.uniform(*room.x), 0.0, rng.uniform(*room.z)])
            if self.snap(point) is not None:
                return point

    def island_radius(self, point: Point) -> float:
        """Of the whole house, about."""
        return 7.0

    def snap(self, point: Point) -> Point | None:
        """The point itself, if there is room to stand."""
        inside = any(r.x[0] < point[0] < r.x[1] and r.z[0] < point[2] < r.z[1] for r in ROOMS.values())
        return point if inside and walk.clearance(point[None, [0, 2]], self._boxes)[0] > 0.15 else None

    def step(self, start: Point, end: Point) -> Point:
        """Not walked here."""
        return start if self.snap(end) is None else end

    def render(self, pose: Pose) -> Picture:
        """With depth."""
        image, depth = self._renderer.render(Camera(pose, self._settings.hfov_deg, self._settings.size))
        return Picture(image=image, depth=depth)

    def close(self) -> None:
        """Nothing is held."""


class Enough(Exception):
    """As many pairs as were asked for are measured."""


class Bench:
    """A measure of co-visibility that measures all ways, and keeps what it found."""

    def __init__(self, limit: int):
        self.limit, self.different = limit, 0
        self.seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        self.ratios: list[float] = []

    def __call__(
        self, depth0: Depth, pose0: Pose, depth1: Depth, pose1: Pose, intrinsics: Intrinsics, radius_m: float
    ) -> tuple[float, float]:
        """The shares; raises Enough when there are."""
        if len(self.ratios) == self.limit:
            raise Enough

        def clouds() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            return tuple(covisibility.unproject(d, intrinsics, p) for d, p in ((depth0, pose0), (depth1, pose1)))  # type: ignore[return-value]

        def literal() -> tuple[float, float]:
            counts = covisibility.literal_counts(*clouds(), radius_m)
            return counts[0] / depth0.size, counts[1] / depth1.size

        def ours() -> tuple[float, float]:
            return covisibility.shares(depth0, pose0, depth1, pose1, intrinsics, radius_m)

        def cells() -> tuple[float, float]:
            cloud0, cloud1 = clouds()
            counts = (covisibility.near_by_cells(*pair, radius_m) for pair in ((cloud0, cloud1), (cloud1, cloud0)))
            first, second = (count / depth0.size for count in counts)
            return first, second

        ways = dict(zip(WAYS, (literal, ours, cells), strict=True))
        order = WAYS if len(self.ratios) % 2 else WAYS[::-1]  # who is second finds warm caches, so they take turns
        found = {way: self._timed(way, ways[way]) for way in order}
        self.different += len(set(found.values())) > 1
        self.ratios.append(min(found["literal"]))
        if len(self.ratios) % 20 == 0:
            print(f"{len(self.ratios)} of {self.limit} pairs ...", flush=True)
        return found["literal"]

    def _timed(self, way: str, function: Callable[[], tuple[float, float]]) -> tuple[float, float]:
        start_s = time.process_time()
        result = function()
        self.seconds[way].append(time.process_time() - start_s)
        return result

    def figures(self, chosen: NDArray[np.bool_]) -> dict[str, float]:
        """Medians over the chosen pairs: milliseconds of each way, and ratios within a pair."""
        seconds = {way: np.array(times)[chosen] for way, times in self.seconds.items()}
        milliseconds = {f"{way}_ms": 1000 * statistics.median(times) for way, times in seconds.items()}
        ratio, cells = seconds["literal"] / seconds["ours"], seconds["literal"] / seconds["cells"]
        spread = {"ratio_p10": float(np.quantile(ratio, 0.1)), "ratio_worst": float(ratio.min())}
        whole = float(seconds["literal"].sum() / seconds["ours"].sum())
        medians = {"ratio": float(np.median(ratio)), **spread, "ratio_of_sums": whole, "cells": float(np.median(cells))}
        return {"pairs": int(chosen.sum()), **milliseconds, **medians}


def main() -> int:
    """Draw pairs, measure each in all ways, report."""
    args = parse_args()
    settings = MultiviewSettings(size=(args.size, args.size))
    house = House(settings)
    warm_up(house, settings)
    bench = Bench(args.pairs)
    draw_pairs(house, bench, settings)
    ratios = np.array(bench.ratios)
    groups = {"all": np.full(len(ratios), True), "taken": ratios >= settings.min_covisibility}
    groups["refused"] = ~groups["taken"]
    report = {**description(), "size": args.size, "compared": len(ratios), "different": bench.different}
    report |= {name: bench.figures(chosen) for name, chosen in groups.items() if chosen.any()}
    print_table({name: report[name] for name in groups if name in report})
    print(f"\n{len(ratios)} pairs of {args.size} x {args.size} compared, {bench.different} differ; target {TARGET}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(bench.different > 0)


def parse_args() -> argparse.Namespace:
    """The command line."""
    head, _, notes = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=notes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=200, help="pairs that are measured (default: 200)")
    parser.add_argument("--size", type=int, default=256, help="pixels along a side of the views (default: 256)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    return parser.parse_args()


def warm_up(house: House, settings: MultiviewSettings) -> None:
    """Compile what numba compiles."""
    draw_pairs(house, Bench(1), settings)


def draw_pairs(house: House, bench: Bench, settings: MultiviewSettings) -> None:
    """Draw pairs until the bench has enough."""
    number = 0
    try:
        while True:
            sample_pair(house, bench, "house", number, settings)
            number += 1
    except Enough:
        return


def description() -> dict[str, object]:
    """What was run, when and where."""
    machine = {"processors": os.cpu_count(), "type": platform.machine()}
    command = " ".join(["python", "tools/bench_covisibility.py", *sys.argv[1:]])
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    return {"command": command, "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine, "versions": versions}


def print_table(groups: dict[str, dict[str, float]]) -> None:
    """A line for every group of pairs."""
    columns = (
        "pairs",
        "literal_ms",
        "cells_ms",
        "ours_ms",
        "cells",
        "ratio",
        "ratio_p10",
        "ratio_worst",
        "ratio_of_sums",
    )
    print("\n" + "CPU, medians".ljust(14) + "".join(name.rjust(15) for name in columns))
    for group, figures in groups.items():
        print(group.ljust(14) + "".join(f"{figures[name]:15.4g}" for name in columns))
    print("'cells', 'ratio': literal / cells, literal / ours, medians of ratios within a pair")


if __name__ == "__main__":
    sys.exit(main())
