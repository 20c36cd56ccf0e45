#!/usr/bin/env python3
"""How near `mimic-shard verify` comes to its floors: hashing the shards, and decoding every picture.

    python tools/bench_verify.py --json runs/bench-verify.json
    python tools/bench_verify.py --data shards/demo --workers 4

Verifying (in processes) and its floor (in threads) take turns with the same number of them; read the ratios, medians
over the rounds of ratios within a round: 1 is as fast as the floor. Without --data a synthetic data set of 224 x 224
views is made in a temporary folder. Files are read from the page cache.
"""

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from mimic_wds.cli.verify import make_recompute
from mimic_wds.storage.manifest import Manifest, read_manifest
from mimic_wds.storage.reader import Shard
from mimic_wds.storage.threads import in_threads
from mimic_wds.storage.verify import verify


def main() -> int:
    """Make or open the data set, let them take turns, report."""
    args = parse_args()
    cv2.setNumThreads(1)
    with ExitStack() as stack:
        folder = args.data
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-verify-")))
            _make(folder, args.pairs)
        try:
            manifest = read_manifest(folder)
        except ValueError as error:
            print(f"bench_verify: {error}", file=sys.stderr)
            return 2
        seconds = take_turns(folder, manifest, args.workers, args.repetitions)
    report = summary(seconds, manifest, args.workers)
    print_report(report)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _make(folder: Path, pairs: int) -> None:
    from bench_loader import make_data_set  # which imports torch: not wanted in every process that is started

    make_data_set(folder, pairs)


def parse_args() -> argparse.Namespace:
    """The command line."""
    description, _, notes = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=notes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of a data set (default: make one)")
    parser.add_argument("--pairs", type=int, default=6000, help="of the synthetic data set (default: 6000)")
    parser.add_argument("--workers", type=int, default=2, help="processes and threads (default: 2)")
    parser.add_argument("--repetitions", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all numbers to this file")
    return parser.parse_args()


def take_turns(folder: Path, manifest: Manifest, workers: int, repetitions: int) -> dict[str, list[float]]:
    """Seconds of each way through the data set, in each round."""
    recompute = make_recompute(manifest.criteria)
    ways: dict[str, Callable[[], object]] = {
        "sha256": lambda: list(in_threads(lambda info: _hash(folder / info.name), manifest.shards, workers)),
        "verify": lambda: _sound(verify(folder, depth="default", workers=workers)),
        "decode": lambda: list(in_threads(lambda info: _decode(folder / info.name), manifest.shards, workers)),
        "verify --deep, no homographies": lambda: _sound(verify(folder, depth="deep", workers=workers)),
        "verify --deep": lambda: _sound(verify(folder, recompute, depth="deep", workers=workers)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def _sound(problems: object) -> None:
    found = [problem for problem in problems if problem.kind not in ("overlap", "correspondences")]  # made-up pairs
    assert not found, found[:3]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decode(path: Path) -> None:
    """Both pictures of every sample."""
    with Shard(path) as shard:
        for number in range(len(shard)):
            members = shard.read(number)
            for name in ("0.jpg", "1.jpg"):
                cv2.imdecode(np.frombuffer(members[name], np.uint8), cv2.IMREAD_COLOR)


def summary(seconds: dict[str, list[float]], manifest: Manifest, workers: int) -> dict:
    """All numbers, as JSON."""

    def share(floor: str, name: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[floor], seconds[name], strict=True))

    return {
        "command": " ".join(sys.argv),
        "megabytes": sum(shard.bytes for shard in manifest.shards) / 1e6,
        "samples": manifest.num_samples,
        "shards": len(manifest.shards),
        "workers": workers,
        "seconds": seconds,
        "of_floor": {
            "verify": share("sha256", "verify"),
            "verify --deep, no homographies": share("decode", "verify --deep, no homographies"),
            "verify --deep": share("decode", "verify --deep"),
        },
    }


def print_report(report: dict) -> None:
    """The table."""
    samples, shards, workers = (report[name] for name in ("samples", "shards", "workers"))
    print(f"{samples:,} samples, {report['megabytes']:.0f} MB in {shards} shards, {workers} workers")
    for name, times in report["seconds"].items():
        middle = statistics.median(times)
        share = f"{report['of_floor'][name]:.2f} of its floor" if name in report["of_floor"] else ""
        rate = f"{report['megabytes'] / middle:>8.0f} MB/s {report['samples'] / middle:>8.0f} samples/s"
        print(f"{name:<32}{middle:>8.2f} s{rate}   {share}")


if __name__ == "__main__":
    sys.exit(main())
