#!/usr/bin/env python3
"""Measure the mining of 3D scenes: pictures per second by renderer, locations per second, where the time goes, workers.

    python tools/bench_sim.py SCENES... --locations 12 --workers 2 --json runs/bench-sim.json

Every figure is a median over rounds, by the process's own wall clock. The named baseline of the end-to-end rate is
SIFT alone: what 24 calls of it per location would take if rendering, matching and voting were free.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.scene import Tally, describe, judge, make_estimator
from mimic_wds.curation.selection import select
from mimic_wds.geometry import features
from mimic_wds.pairs import Scene, View
from mimic_wds.sources.scenes import Meshes
from mimic_wds.sources.simulator.backends import open_simulator
from mimic_wds.sources.simulator.base import Simulator
from mimic_wds.sources.simulator.location import Walk, locations

CRITERIA = Criteria()

#: Workers should keep this share of one worker's rate each.
MIN_SCALING = 0.85


def main() -> int:
    """Run what is asked for, print it, write it."""
    args = parse_args()
    cv2.setNumThreads(1)
    sources = {
        backend: Meshes(
            paths=tuple(args.scenes), backend=backend, attempts=args.locations, min_texture=args.min_texture
        )
        for backend in args.backends
    }
    report: dict[str, Any] = {"command": " ".join(sys.argv), "date": f"{datetime.now(UTC):%Y-%m-%d}", **machine()}
    report["scenes"] = {}
    for scene in next(iter(sources.values())).scenes():
        report["scenes"][scene.name] = {name: measure_scene(source, scene, args) for name, source in sources.items()}
    print_scenes(report["scenes"])
    if args.workers > 1:
        report["scaling"] = scaling(sources[args.backends[0]], args.workers)
        print_scaling(report["scaling"])
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def parse_args() -> argparse.Namespace:
    """The command line."""
    head, _, notes = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=notes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", nargs="+", metavar="SCENE", help="scene files, or folders of them")
    parser.add_argument("--backends", nargs="+", default=["opengl", "numba"], help="auto, opengl, numba or habitat")
    parser.add_argument("--locations", type=int, default=12, help="random places of each scene (default: 12)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each picture is rendered (default: 3)")
    parser.add_argument("--min-texture", type=float, default=1000.0, help="as of the source (default: 1000)")
    parser.add_argument("--workers", type=int, default=0, help="also measure so many processes beside one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    return parser.parse_args()


def machine() -> dict[str, object]:
    """Where this runs."""
    return {
        "processors": os.cpu_count(),
        "type": platform.machine(),
        "opencv": cv2.__version__,
        "numpy": np.__version__,
    }


def measure_scene(source: Meshes, scene: Scene, args: argparse.Namespace) -> dict[str, float]:
    """Seconds to load, pictures per second, and what the stages of a location take, in milliseconds."""
    start = time.perf_counter()
    simulator = open_simulator(source.backend_settings(source.lens))
    simulator.load(source.file(scene))
    load_s = time.perf_counter() - start
    walk = Walk(attempts=args.locations, min_island_m=source.min_island_m)
    found = [seen for seen in locations(simulator, scene.name, walk) if isinstance(seen, list)]
    poses = [view.agent.camera for seen in found for view in seen]
    rounds = [timed(lambda: [simulator.render(pose) for pose in poses]) for _ in range(args.rounds)]
    stages = [stages_of(source, scene, [source.view(v.name, v) for v in seen]) for seen in found]
    simulator.close()
    per_location = {name: 1000 * statistics.median(s[name] for s in stages) for name in stages[0]}
    render_ms = 1000 * statistics.median(rounds) / len(found)
    total_ms = render_ms + per_location["describe"] + per_location["match"]
    return {
        "load_s": load_s,
        "pictures_per_s": len(poses) / statistics.median(rounds),
        "locations": len(found),
        "pairs": sum(s["kept"] for s in stages),
        "render_ms": render_ms,
        "features_ms": per_location["describe"],
        "matching_ms": per_location["match"],
        "locations_per_s": 1000 / total_ms,
        "beside_sift": total_ms / per_location["sift"] if per_location["sift"] else float("nan"),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def stages_of(source: Meshes, scene: Scene, views: list[View]) -> dict[str, float]:
    """Seconds for features and for matching of one location, for SIFT alone of its usable views, and pairs kept."""
    estimator = make_estimator(CRITERIA)
    described: list[Any] = []
    describe_s = timed(lambda: described.extend(describe(views, CRITERIA, estimator, Tally())))
    kept: list[Any] = []
    policy = source.policy(scene)
    match_s = timed(
        lambda: kept.extend(select(policy, described, lambda a, b: judge(scene, a, b, CRITERIA, estimator)))
    )
    usable = [view.image for view in described if view.unusable is None]
    sift_s = timed(lambda: [features.extract(image) for image in usable])
    return {"describe": describe_s, "match": match_s, "sift": sift_s, "kept": sum(c.kept for c in kept)}


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def scaling(source: Meshes, workers: int) -> dict[str, float]:
    """Locations per second of one process and of several at once, each on all the scenes; loading is left out."""
    alone = side_by_side(source, 1)
    together = side_by_side(source, workers)
    return {"workers": workers, "one": alone, "all": together, "per_worker": together / workers / alone}


def side_by_side(source: Meshes, number: int) -> float:
    """Locations per second of so many processes that begin together."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(number), context.Queue()
    processes = [context.Process(target=run_worker, args=(source, barrier, results)) for _ in range(number)]
    for process in processes:
        process.start()
    rates = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return float(sum(rates))


def run_worker(source: Meshes, barrier: Any, results: Any) -> None:
    """Mine every scene twice; report the rate of the second time."""
    cv2.setNumThreads(1)
    simulator, found, seconds = open_simulator(source.backend_settings(source.lens)), 0, 0.0
    for scene in source.scenes():
        simulator.load(source.file(scene))
        walk = Walk(attempts=source.attempts, min_island_m=source.min_island_m)
        mine(simulator, source, scene, walk)
        barrier.wait()
        start = time.perf_counter()
        found += mine(simulator, source, scene, walk)
        seconds += time.perf_counter() - start
    results.put(found / seconds)


def mine(simulator: Simulator, source: Meshes, scene: Scene, walk: Walk) -> int:
    """Render, describe and match all locations of a scene; returns how many there were."""
    found = 0
    for seen in locations(simulator, scene.name, walk):
        if isinstance(seen, list):
            stages_of(source, scene, [source.view(view.name, view) for view in seen])
            found += 1
    return found


def print_scenes(scenes: dict[str, dict[str, dict[str, float]]]) -> None:
    """One line per scene and renderer."""
    columns = f"{'load s':>8}{'pict/s':>8}{'loc.':>6}{'pairs':>6}{'render':>9}{'features':>10}{'matching':>10}"
    print(f"{'ms per location':24}{'by':8}{columns}{'loc./s':>8}{'/ SIFT':>8}{'MiB':>7}")
    for name, backends in scenes.items():
        for backend, f in backends.items():
            shares = f"{f['render_ms']:9.0f}{f['features_ms']:10.0f}{f['matching_ms']:10.0f}"
            rates = f"{f['load_s']:8.1f}{f['pictures_per_s']:8.1f}{f['locations']:6}{f['pairs']:6.0f}"
            print(
                f"{name[-24:]:24}{backend:8}{rates}{shares}{f['locations_per_s']:8.2f}{f['beside_sift']:8.2f}{f['peak_mib']:7.0f}"
            )


def print_scaling(found: dict[str, float]) -> None:
    """Workers beside one."""
    print(
        f"\n{found['workers']:.0f} workers: {found['all']:.2f} locations/s, one alone {found['one']:.2f}: "
        f"{found['per_worker']:.2f} of it each (target {MIN_SCALING})"
    )


if __name__ == "__main__":
    sys.exit(main())
