#!/usr/bin/env python3
"""Compare this package's geometry with the published per-point algorithm, stage by stage and in whole loops.

    python tools/bench_curation.py --data PHOTOS VIDEOS --json runs/bench-curation.json
    python tools/bench_curation.py --data PHOTOS VIDEOS --below-floor
    python tools/bench_curation.py --data PHOTOS VIDEOS --processes

Both sides run in one process on one thread, take turns pair by pair, and are given the same random points. Times are
CPU time, so other programs disturb them little; read the ratios, which are medians of ratios within a pair (or within
a window, a location, ...). Every decision and map is compared; the exit status is 1 if one differs.
--below-floor: what cheaper keypoints gain, and how many decisions they change. --processes: two of them, wall time.
Without --data pictures are generated on the spot; their numbers say little about photographs.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # read when numpy is imported

import cv2
import numpy as np
from curation_bench.floor import below_floor
from curation_bench.pictures import (
    GOP,
    HEADS,
    TAILS,
    at_least,
    collect_pairs,
    made_up_scenes,
    read_scenes,
    rendered_location,
    write_pan,
)
from curation_bench.scaling import processes
from curation_bench.sides import (
    CRITERIA,
    ESTIMATOR,
    Clock,
    Measured,
    Outcome,
    Pair,
    comparable,
    draw,
    ours,
    timed,
)
from numpy.typing import NDArray

from mimic_wds.curation.fitting import fit_image
from mimic_wds.curation.selection import select
from mimic_wds.geometry import features, homography, literal, overlap
from mimic_wds.geometry.features import Features
from mimic_wds.pairs import Chain, DropReason, Image, Overlap, Policy, View, Windows
from mimic_wds.sources.video import Video

PAIR = "pair with a homography"

#: A pair on its own costs at most so many times two SIFT calls.
MAX_COST = 1.1

#: How many times faster than the literal algorithm each stage should be.
TARGETS: dict[str, float] = {
    PAIR: 4,
    "match and ratio test": 3,
    "votes of 100 points": 90,
    "votes of all pixels": 90,
    "video chain": 6,
    "window of 10 x 10": 27,
    "location of 8 x 16": 20,
    f"1 frame/s, 480p, GOP {GOP}": 9,
}


def main() -> int:
    """Collect pictures, run the benchmark that is asked for, report."""
    args = parse_args()
    cv2.setNumThreads(1)
    try:
        scenes = [scene for folder in args.data for scene in read_scenes(folder)] if args.data else made_up_scenes()
    except ValueError as error:
        print(f"bench_curation: {error}", file=sys.stderr)
        return 2
    pairs = collect_pairs(scenes, args.pairs)
    print(f"{len(pairs)} pairs of {sum(map(len, scenes))} pictures: {' '.join(args.data) or 'generated on the spot'}")
    if len(pairs) < args.pairs:
        print(f"(only {len(pairs)} of the {args.pairs} pairs asked for are there)")
    report, status = {**description(args), "pairs": len(pairs)}, 0
    if args.below_floor:
        report["below_floor"] = below_floor(pairs)
    elif args.processes:
        report["processes"] = processes(pairs, args.repetitions)
    else:
        clock = Clock()
        compare(clock, pairs, scenes, args.repetitions)
        report["stages"] = print_stages(clock)
        report |= {"compared": clock.compared, "different": clock.different}
        print(f"\n{clock.compared} results compared, {clock.different} differ")
        status = int(clock.different > 0)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return status


def parse_args() -> argparse.Namespace:
    """The command line."""
    head, _, notes = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=notes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=[], metavar="FOLDER", help="folders of photographs or videos")
    parser.add_argument("--pairs", type=int, default=640, help="pairs that are compared (default: 640)")
    parser.add_argument("--repetitions", type=int, default=3, help="windows, locations, chains (default: 3)")
    parser.add_argument("--below-floor", action="store_true", help="measure ways to spend less than SIFT costs")
    parser.add_argument("--processes", action="store_true", help="measure two processes beside one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    return parser.parse_args()


def description(args: argparse.Namespace) -> dict[str, object]:
    """What was run, when and where."""
    versions = {"python": platform.python_version(), "opencv": cv2.__version__, "numpy": np.__version__}
    machine = {"processors": os.cpu_count(), "type": platform.machine(), "model": processor_name()}
    command = " ".join(["python", "tools/bench_curation.py", *sys.argv[1:]])
    return {"command": command, "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine, "versions": versions}


def processor_name() -> str:
    """As Linux names it; elsewhere as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def compare(clock: Clock, pairs: Sequence[Pair], scenes: Sequence[Sequence[Image]], repetitions: int) -> None:
    """Run every comparison, with a line to tell where it is."""
    for number, pair in enumerate(pairs):
        if number % 100 == 0:
            print(f"pair {number} ...", flush=True)
        compare_pair(clock, number, *pair)
    long = sorted(scenes, key=len, reverse=True)
    near, far = by_overlap(long)
    for number in range(repetitions):
        print(f"chain, window and location {number + 1} of {repetitions} ...", flush=True)
        compare_loop(clock, "video chain", Chain(retry=False), near[number % len(near)])
        compare_loop(clock, "window of 10 x 10", Windows(heads=10, tails=10), at_least(20, near, number))
        if far:
            compare_loop(clock, "window that drifts apart", Windows(heads=10, tails=10), at_least(20, far, number))
        views = rendered_location(number) or at_least(HEADS + TAILS, long, number)
        compare_loop(clock, "location of 8 x 16", Windows(heads=HEADS, tails=TAILS), views)
    print("video ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-curation-") as folder:
        compare_video(clock, Path(folder) / "pan.mp4", max(long[0], key=np.size), repetitions)


def by_overlap(scenes: Sequence[Sequence[Image]]) -> tuple[list[Sequence[Image]], list[Sequence[Image]]]:
    """Scenes whose first view has a homography to the 20th, as slow videos have (all, if there is none), and others."""
    near, far = [], []
    for scene in scenes:
        if len(scene) >= 20:
            ends = (fit_image(scene[i], CRITERIA) for i in (0, 19))
            (near if isinstance(ours(*ends, 0), Overlap) else far).append(scene)
    return near or list(scenes), far


def compare_pair(clock: Clock, number: int, image0: Image, image1: Image) -> None:
    """One pair on its own; every fourth is also taken stage by stage, every eighth with all pixels voting."""
    points = draw(number)
    swap = number % 2 == 1
    whole = partial(literal.literal_overlap, image0, image1, *points)
    expected, found = clock.both("pair", whole, lambda: ours(image0, image1, number), swap=swap)
    clock.check(comparable(expected), comparable(found))
    before_s, after_s = clock.last("pair")
    if not isinstance(expected, Overlap):
        clock.add("pair without", before_s, after_s)
        return
    clock.add(PAIR, before_s, after_s)
    timed(lambda: [literal.literal_sift(image) for image in (image0, image1)], clock.stages[PAIR].floor)
    if number % 4 == 0:
        compare_stages(clock, image0, image1, expected.H_0to1, number)


def compare_stages(clock: Clock, image0: Image, image1: Image, H_0to1: NDArray[np.float64], number: int) -> None:
    """The stages of a pair that has a homography. Who is second finds warm caches, so they take turns."""
    both = partial(clock.both, swap=number // 4 % 2 == 1)
    both("SIFT of one image", lambda: literal.literal_sift(image0), lambda: features.extract(image0))
    f0, f1 = features.extract(image0), features.extract(image1)
    wide = [f.descriptors.astype(np.float32) for f in (f0, f1)]
    matches, found = both(
        "match and ratio test", lambda: literal.literal_matches(*wide), lambda: features.match(f0, f1)
    )
    clock.check([[m.queryIdx, m.trainIdx] for m in matches], found.tolist())
    matched = f0.points[found[:, 0]], f1.points[found[:, 1]]
    both("homography (same code)", lambda: homography.fit(*matched), lambda: homography.fit(*matched))
    both("drawing points (same code)", lambda: draw(number), lambda: draw(number))
    compare_votes(clock, "votes of 100 points", H_0to1, draw(number), swap=number // 4 % 2 == 1)
    if number % 8 == 0:
        points = overlap.vote_points(CRITERIA.grid)
        compare_votes(clock, "votes of all pixels", H_0to1, points, swap=number // 8 % 2 == 1)


def compare_votes(
    clock: Clock, name: str, H_0to1: NDArray[np.float64], points: Sequence[NDArray[np.float32]], *, swap: bool
) -> None:
    """Both directions of the patch map."""
    (kept, _), corr = clock.both(
        name,
        lambda: literal.literal_map(H_0to1, *points),
        lambda: overlap.correspondences(H_0to1, CRITERIA.grid, *points),
        swap=swap,
    )
    clock.check(kept, {int(i): int(corr[i]) for i in np.flatnonzero(corr >= 0)})


@dataclass(frozen=True)
class Described:
    """A view with its features, computed once."""

    frame: str
    image: Image
    features: Features


def compare_loop(clock: Clock, name: str, policy: Policy, images: Sequence[Image]) -> None:
    """A policy on views that are JPEGs: each pair read and described anew, beside each view read and described once."""
    jpegs = [cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]))[1] for image in images]
    expected, found = clock.both(name, lambda: literal_loop(policy, jpegs), lambda: our_loop(policy, jpegs))
    clock.check(expected, found)
    timed(lambda: [literal.literal_sift(read(jpeg)) for jpeg in jpegs], clock.stages[name].floor)


def literal_loop(policy: Policy, jpegs: Sequence[NDArray[np.uint8]]) -> list[tuple[object, ...]]:
    """Every candidate in turn with its outcome, as nested loops over files do it."""

    def judge(i: int, j: int) -> Outcome:
        image0, image1 = read(jpegs[i]), read(jpegs[j])
        return CRITERIA.judge(literal.literal_overlap(image0, image1, *draw(pair_number(i, j))))

    if isinstance(policy, Chain):
        return [(i, i + 1, comparable(judge(i, i + 1))) for i in range(len(jpegs) - 1)]
    assert isinstance(policy, Windows)
    outcomes = [
        (i, policy.heads + j, judge(i, policy.heads + j)) for i in range(policy.heads) for j in range(policy.tails)
    ]
    kept = [(outcome.ratio, number) for number, (_, _, outcome) in enumerate(outcomes) if isinstance(outcome, Overlap)]
    best = min(kept, default=(0, -1))[1]
    return sorted(
        (i, j, DropReason.NOT_SELECTED if isinstance(outcome, Overlap) and number != best else comparable(outcome))
        for number, (i, j, outcome) in enumerate(outcomes)
    )


def our_loop(policy: Policy, jpegs: Sequence[NDArray[np.uint8]]) -> list[tuple[object, ...]]:
    """The same through the package's own selection."""

    def judge(view0: Described, view1: Described) -> Outcome:
        rng = np.random.default_rng(pair_number(int(view0.frame), int(view1.frame)))
        measured = ESTIMATOR.measure(view0.image, view0.features, view1.image, view1.features, CRITERIA.grid, rng)
        return CRITERIA.judge(measured)

    images = map(read, jpegs)
    views = (Described(str(i), image, ESTIMATOR.describe(image)) for i, image in enumerate(images))
    candidates = select(policy, views, judge)
    return sorted((int(c.view0.frame), int(c.view1.frame), comparable(c.outcome)) for c in candidates)


def compare_video(clock: Clock, path: Path, picture: Image, repetitions: int) -> None:
    """One frame a second of a 480p file: two seeks for each pair of neighbours, beside the package's one pass."""
    gop = write_pan(path, picture, seconds=60)
    name = f"1 frame/s, 480p, GOP {gop}"
    source = Video(paths=(str(path),))
    (scene,) = source.scenes()
    for _ in range(repetitions):
        seeked, passed = clock.both(
            name,
            lambda: list(seek_pairs(path, 60)),
            lambda: [fit_image(view.image, CRITERIA) for view in source.views(scene) if isinstance(view, View)],
        )
        same = [np.array_equal(a, passed[i]) and np.array_equal(b, passed[i + 1]) for i, (a, b) in enumerate(seeked)]
        print(f"{name}: {sum(same)} of {len(same)} pairs of frames are the same both ways")


def seek_pairs(path: Path, seconds: int) -> Iterator[Pair]:
    """Frames at t and t + 1 for every t, each found by its time stamp."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    for second in range(seconds - 1):
        pair = []
        for stamp in (second, second + 1):
            capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * stamp)
            pair.append(fit_image(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB), CRITERIA))
        yield pair[0], pair[1]
    capture.release()


def pair_number(i: int, j: int) -> int:
    """Seeds the points of the pair of views i and j."""
    return 1000 * i + j


def read(jpeg: NDArray[np.uint8]) -> Image:
    """JPEG -> (224, 224, 3) RGB."""
    return fit_image(cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), CRITERIA)


def print_stages(clock: Clock) -> dict[str, dict[str, object]]:
    """A line for every stage; returns the numbers."""
    header = ("CPU ms, medians", "times", "literal", "ours", "ratio", "target", "SIFT alone", "ours / SIFT", "at most")
    print("\n{:26}{:>6}{:>11}{:>10}{:>8}{:>8}{:>12}{:>13}{:>9}".format(*header))
    report = {name: summary(stage) for name, stage in clock.stages.items()}
    for name, numbers in report.items():
        target = f"{TARGETS[name]:8g}" if name in TARGETS else " " * 8
        line = f"{name:26}{numbers['times']:6}{numbers['literal_ms']:11.3f}{numbers['ours_ms']:10.3f}"
        line += f"{numbers['ratio']:8.3g}" + target
        if "floor_ms" in numbers:
            line += f"{numbers['floor_ms']:12.3f}{numbers['ours_by_floor']:13.3f}{numbers['ratio_at_most']:9.3g}"
        print(line)
    print(f"'at most' is the ratio that SIFT alone would leave; a pair may cost {MAX_COST} times two SIFT calls")
    return report


def summary(stage: Measured) -> dict[str, float]:
    """Medians in milliseconds, and medians of ratios."""
    numbers = {
        "times": len(stage.ours),
        "literal_ms": 1000 * statistics.median(stage.baseline),
        "ours_ms": 1000 * statistics.median(stage.ours),
        "ratio": median_ratio(stage.baseline, stage.ours),
    }
    if not stage.floor:
        return numbers
    return numbers | {
        "floor_ms": 1000 * statistics.median(stage.floor),
        "ours_by_floor": median_ratio(stage.ours, stage.floor),
        "ratio_at_most": median_ratio(stage.baseline, stage.floor),
        "left_over_ms": 1000 * statistics.median(a - b for a, b in zip(stage.ours, stage.floor, strict=True)),
    }


def median_ratio(seconds: Sequence[float], others: Sequence[float]) -> float:
    """Of ratios within each time."""
    return statistics.median(a / b for a, b in zip(seconds, others, strict=True))


if __name__ == "__main__":
    sys.exit(main())
