#!/usr/bin/env python3
"""Score an overlap estimator against the true overlap of views with known depth and poses, by kind of motion.

    python tools/bench_overlap_truth.py FOLDER --plot runs/overlap-truth.png --markdown runs/overlap-truth.md
    python tools/bench_overlap_truth.py FOLDER --estimator my_package.my_module:MyEstimator --json runs/mine.json

FOLDER holds cameras.json, pairs.json, rgb/ and depth/ (docs/overlap-truth.md describes them and every figure). Pictures
are squashed to the size of the patch grid, as in a build; pairs are read and scored one by one. Times are processor
times: set OMP_NUM_THREADS=1, or they count threads that wait.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from importlib import import_module, util
from pathlib import Path
from typing import TypeAlias, TypeVar

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.fitting import fit_image
from mimic_wds.geometry.estimator import ESTIMATORS, OverlapEstimator
from mimic_wds.geometry.features import Features
from mimic_wds.geometry.truth import (
    BOUNDS,
    Figures,
    PairScore,
    PosedDepth,
    correspondence_errors,
    score_figures,
    true_overlap,
)
from mimic_wds.pairs import DropReason, Image
from mimic_wds.settings import from_mapping, nearest, parse_assignments

T = TypeVar("T")

#: The row of all pairs together.
ALL = "all"

#: Views kept in memory with their features: the pairs of a view are mostly neighbours in the list.
VIEWS_KEPT = 32

#: Seconds between two progress lines.
REPORT_EVERY_S = 5.0

#: Colours of kinds that colour-blind people tell apart, too (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

#: Rows of text; the first is the heading.
Table: TypeAlias = list[list[str]]

#: Columns of the tables: figure -> heading and format.
OVERLAP = {
    "pairs": ("pairs", "d"),
    "measured": ("measured", "d"),
    "true": ("true overlap", ".1f"),
    "estimated": ("estimated", ".1f"),
    "bias": ("bias", "+.1f"),
    "mean_error": ("mean error", ".1f"),
    "median_error": ("median", ".1f"),
    "p90_error": ("90 %", ".1f"),
    "worst_error": ("worst", ".1f"),
    "measure_ms": ("ms a pair", ".1f"),
}
PATCHES = {
    "mapped": ("patches mapped", "d"),
    "mean_distance": ("mean distance", ".2f"),
    "exact": ("exact", ".0%"),
    "within_1": ("within 1", ".0%"),
    "phantom": ("phantom", ".1%"),
    "missed": ("missed", ".0%"),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cameras:
    """What cameras.json says; other keys are left alone."""

    width: int
    height: int
    K: list[list[float]]  #: intrinsics of all views
    views: dict[str, list[list[float]]]  #: camera-to-world pose of each view


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PairRecord:
    """An entry of pairs.json; other keys are left alone."""

    a: str  #: view 0
    b: str  #: view 1
    kind: str  #: of motion: "rotate", "forward", ...
    true_overlap: float | None = None  #: in points, to compare with


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DescribedView:
    """A view with what the estimator and the truth need of it."""

    image: Image
    features: Features
    posed: PosedDepth


class TruthFolder:
    """Reads the views and pairs of one folder. Raises ValueError, naming the file, on what it cannot use."""

    def __init__(self, path: Path, estimator: OverlapEstimator, criteria: Criteria):
        self.path, self._estimator, self._criteria = path, estimator, criteria
        self._cameras = read_json(path / "cameras.json", Cameras)
        self.pairs = read_json(path / "pairs.json", list[PairRecord])
        if unknown := sorted({name for p in self.pairs for name in (p.a, p.b)} - set(self._cameras.views)):
            raise ValueError(f"{path}/pairs.json names views without a pose in cameras.json: {', '.join(unknown[:5])}")
        self.describe_ms: dict[str, float] = {}
        self.view = lru_cache(VIEWS_KEPT)(self._read)

    def _read(self, name: str) -> DescribedView:
        """Read a view and describe it."""
        picture = self._picture("rgb", name, (".jpg", ".png"), cv2.IMREAD_COLOR)
        depth = self._picture("depth", name, (".png",), cv2.IMREAD_UNCHANGED)
        if depth.ndim != 2 or depth.dtype != np.uint16:
            raise ValueError(f"{self.path}/depth/{name}.png: expected one channel of 16 bits, in millimetres")
        try:
            pose = np.array(self._cameras.views[name], np.float64)
            posed = PosedDepth(depth_m=depth / 1000.0, K=np.array(self._cameras.K, np.float64), camera_to_world=pose)
        except ValueError as error:
            raise ValueError(f"{self.path}/cameras.json, view {name}: {error}") from None
        image = fit_image(np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8), self._criteria)
        features, self.describe_ms[name] = timed(lambda: self._estimator.describe(image))
        return DescribedView(image=image, features=features, posed=posed)

    def _picture(self, folder: str, name: str, suffixes: Sequence[str], mode: int) -> NDArray[np.generic]:
        """The picture of a view, of the size that cameras.json states."""
        paths = [self.path / folder / f"{name}{suffix}" for suffix in suffixes]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise ValueError(f"{' or '.join(map(str, paths))}: no such file")
        picture = cv2.imread(str(path), mode)
        expected = (self._cameras.height, self._cameras.width)
        if picture is None or picture.shape[:2] != expected:
            found = "not a picture" if picture is None else "{} x {} pixels".format(*picture.shape[:2])
            raise ValueError(f"{path}: {found}; cameras.json says {expected[0]} x {expected[1]} (height x width)")
        return picture


def main() -> int:
    """Score all pairs of all folders, print the tables, write what was asked for."""
    args = parse_args()
    cv2.setNumThreads(1)
    if args.plot and util.find_spec("matplotlib") is None:
        print("bench_overlap_truth: matplotlib is missing; install it with: pip install matplotlib", file=sys.stderr)
        return 2
    try:
        estimator = load_estimator(args.estimator, args.set)
        criteria = Criteria(size=args.size, patch_size=args.patch_size)
        folders = [TruthFolder(path, estimator, criteria) for path in args.folders]
        total = sum(len(folder.pairs) for folder in folders)
        scores = list(progress(score_all(folders, estimator, criteria, args.seed), total))
    except ValueError as error:
        print(f"bench_overlap_truth: {error}", file=sys.stderr)
        return 2
    if not scores:
        print("bench_overlap_truth: pairs.json lists no pairs", file=sys.stderr)
        return 2
    describe_ms = [ms for folder in folders for ms in folder.describe_ms.values()]
    report = {"estimator": repr(estimator), **summary(scores, describe_ms), **surroundings(args)}
    write_all(report, scores, args)
    return 0


def parse_args() -> argparse.Namespace:
    """The command line."""
    description, _, notes = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=notes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="views with depth, poses and pairs")
    parser.add_argument(
        "--estimator", default="homography", metavar="NAME", help=f"{', '.join(ESTIMATORS)}, or package.module:Class"
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options of the estimator")
    parser.add_argument("--size", type=int, default=224, help="pictures are squashed to it (default: 224 pixels)")
    parser.add_argument("--patch-size", type=int, default=16, help="in pixels (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of estimators that draw (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures and every pair's score")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables in Markdown")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write estimated against true overlap (.png or .svg)")
    return parser.parse_args()


def load_estimator(name: str, options: Sequence[str]) -> OverlapEstimator:
    """The named estimator, or a class given as package.module:Class. Raises ValueError naming what is known."""
    module, colon, class_name = name.partition(":")
    if not colon and name not in ESTIMATORS:
        raise ValueError(f"unknown estimator {name!r}{nearest(name, list(ESTIMATORS))}")
    try:
        cls = getattr(import_module(module), class_name) if colon else ESTIMATORS[name]
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--estimator {name}: {error}") from error
    values = parse_assignments(options, "--set")
    return from_mapping(cls, values, "--set") if dataclasses.is_dataclass(cls) else cls(**values)


def read_json(path: Path, expected: type[T]) -> T:
    """A JSON file as `expected`. Raises ValueError naming file and key."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=expected)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; docs/overlap-truth.md describes the folder") from None
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: {error}; docs/overlap-truth.md describes the file") from None


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns, and the processor time it took in ms."""
    start = time.process_time()
    result = work()
    return result, 1e3 * (time.process_time() - start)


def progress(scores: Iterable[PairScore], total: int) -> Iterator[PairScore]:
    """Pass the scores on, saying every few seconds how far it is."""
    last = time.monotonic()
    for number, score in enumerate(scores, start=1):
        yield score
        if time.monotonic() - last > REPORT_EVERY_S:
            last = time.monotonic()
            print(f"{number} of {total} pairs", file=sys.stderr, flush=True)


def score_all(
    folders: Iterable[TruthFolder], estimator: OverlapEstimator, criteria: Criteria, seed: int
) -> Iterator[PairScore]:
    """Score the pairs of all folders in order, one at a time; a pair draws the same numbers wherever it is listed."""
    for folder in folders:
        for number, pair in enumerate(folder.pairs):
            rng = np.random.default_rng((seed, number))
            yield score_pair(folder, pair, estimator, criteria, rng)


def score_pair(
    folder: TruthFolder, pair: PairRecord, estimator: OverlapEstimator, criteria: Criteria, rng: np.random.Generator
) -> PairScore:
    """Measure one pair and compare it with the truth."""
    view0, view1, grid = folder.view(pair.a), folder.view(pair.b), criteria.grid
    measured, measure_ms = timed(
        lambda: estimator.measure(view0.image, view0.features, view1.image, view1.features, grid, rng)
    )
    truth = true_overlap(view0.posed, view1.posed, grid)
    score = PairScore(
        folder=str(folder.path),
        view0=pair.a,
        view1=pair.b,
        kind=pair.kind,
        true=100 * truth.ratio,
        measure_ms=measure_ms,
        stored=pair.true_overlap,
        num_true=int(np.count_nonzero(truth.corr_0to1 >= 0)),
    )
    if isinstance(measured, DropReason):
        return dataclasses.replace(score, dropped=measured.value)
    errors = correspondence_errors(measured.corr_0to1, truth, grid)
    return dataclasses.replace(
        score,
        estimated=100 * measured.ratio,
        distances=dict(sorted(Counter(errors.distances.tolist()).items())),
        phantom=errors.num_phantom,
        missed=errors.num_missed,
    )


def summary(scores: Sequence[PairScore], describe_ms: Sequence[float]) -> dict[str, object]:
    """The figures of every kind, in order of appearance, and of all pairs."""
    kinds = {kind: [s for s in scores if s.kind == kind] for kind in dict.fromkeys(s.kind for s in scores)}
    stored = [abs(s.true - s.stored) for s in scores if s.stored is not None]
    return {
        "kinds": {kind: score_figures(group) for kind, group in {**kinds, ALL: list(scores)}.items()},
        "dropped": dict(Counter(s.dropped for s in scores if s.dropped)),
        "describe_ms_per_view": statistics.median(describe_ms),
        "largest_difference_from_stored_truth": max(stored, default=None),
    }


def surroundings(args: argparse.Namespace) -> dict[str, object]:
    """On what it ran."""
    return {
        "folders": [str(path) for path in args.folders],
        "settings": {"size": args.size, "patch_size": args.patch_size, "seed": args.seed},
        "machine": {"processors": os.cpu_count(), "type": platform.machine(), "python": platform.python_version()},
        "versions": {"opencv": cv2.__version__, "numpy": np.__version__},
    }


def write_all(report: dict[str, object], scores: Sequence[PairScore], args: argparse.Namespace) -> None:
    """Print the tables, write the files that were asked for."""
    tables = [make_table(columns, report["kinds"]) for columns in (OVERLAP, *map(acceptance_columns, BOUNDS), PATCHES)]
    notes = make_notes(report)
    print("\n\n".join([f"\n{report['estimator']}", *map(as_text, tables), notes]))
    for path in filter(None, (args.json, args.markdown, args.plot)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if args.json:
        everything = {**report, "scores": [dataclasses.asdict(score) for score in scores]}
        args.json.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    if args.markdown:
        args.markdown.write_text("\n\n".join([*map(as_markdown, tables), notes]) + "\n", encoding="utf-8")
    if args.plot:
        plot(scores, args.estimator, args.plot)


def acceptance_columns(name: str) -> dict[str, tuple[str, str]]:
    """The columns of the table of one pair of bounds."""
    shares = {f"{key} {name}": (key, ".0%") for key in ("precision", "recall")}
    return {
        f"in_range {name}": (f"true in {name}", "d"),
        f"accepted {name}": (f"accepted at {name}", "d"),
        f"right {name}": ("of these true", "d"),
        **shares,
    }


def make_table(columns: dict[str, tuple[str, str]], kinds: dict[str, Figures]) -> Table:
    """A heading and a row for every kind."""
    rows = [["kind", *(heading for heading, _ in columns.values())]]
    for kind, figures in kinds.items():
        values = ((figures[key], form) for key, (_, form) in columns.items())
        rows.append([kind, *("-" if value is None else format(value, form) for value, form in values)])
    return rows


def make_notes(report: dict[str, object]) -> str:
    """What stands in no table."""
    dropped = ", ".join(f"{reason} {count}" for reason, count in report["dropped"].items()) or "none"
    difference = report["largest_difference_from_stored_truth"]
    stored = "" if difference is None else f" The truth is within {difference:.2f} points of the one stated there."
    return f"Describing a view took {report['describe_ms_per_view']:.1f} ms. Not measured: {dropped}.{stored}"


def as_text(table: Table) -> str:
    """Columns set flush for a terminal."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in table)
    return "\n".join("  ".join(cells) for cells in lines)


def as_markdown(table: Table) -> str:
    """The same for Markdown."""
    rule = ["---"] + ["---:"] * (len(table[0]) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in [table[0], rule, *table[1:]])


def plot(scores: Sequence[PairScore], title: str, path: Path) -> None:
    """Estimated against true overlap, and the error of every kind."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys(score.kind for score in scores))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 5), width_ratios=(1, 1), layout="constrained")
    left.plot((0, 100), (0, 100), color="0.6", linewidth=1, zorder=1)
    right.axhline(0, color="0.6", linewidth=1, zorder=1)
    for low, high in (BOUNDS["50-75"],):
        left.fill_between((low, high), low, high, color="0.92", zorder=0)
    rng = np.random.default_rng(0)  # spreads points that would lie on each other
    for place, kind in enumerate(kinds):
        colour = COLOURS[place % len(COLOURS)]
        both = np.array([(s.true, s.estimated) for s in scores if s.kind == kind and s.estimated is not None])
        lost = [s.true for s in scores if s.kind == kind and s.estimated is None]
        both = both.reshape(-1, 2)
        left.scatter(*both.T, s=28, color=colour, alpha=0.85, label=kind, zorder=2)
        left.scatter(lost, np.full(len(lost), -6) + rng.uniform(-2, 2, len(lost)), s=22, marker="x", color=colour)
        errors = both[:, 1] - both[:, 0]
        right.scatter(place + rng.uniform(-0.15, 0.15, len(errors)), errors, s=28, color=colour, alpha=0.85, zorder=2)
        if len(errors):
            right.hlines(errors.mean(), place - 0.3, place + 0.3, color=colour, linewidth=3, zorder=3)
    left.set(xlabel="true overlap", ylabel="estimated overlap (crosses: not measured)", xlim=(-3, 103), ylim=(-10, 103))
    left.set(title=f"{title}: {len(scores)} pairs; grey square: 50-75 by both", aspect="equal")
    left.legend(frameon=False, loc="upper left")
    right.set(xticks=range(len(kinds)), xticklabels=kinds, ylabel="estimated - true, points (bar: mean)")
    right.set(title="error by kind of motion", xlim=(-0.5, len(kinds) - 0.5))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
