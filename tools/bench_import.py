#!/usr/bin/env python3
"""Measure the import of MIMIC's zips: pairs per second on one core, and how memory grows with their number.

    python tools/bench_import.py --pairs 5000 20000 --json runs/bench-import.json

Makes a zip in the published layout with so many pairs (JPEGs of noise, as heavy as photographs, and maps written by
numpy), then imports it in a process of its own with the serial executor: reading, staging and packing are all counted.
The same bytes are copied with a plain read and write beside it, to tell a slow disk from a slow program.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np

from mimic_wds.executors.serial import SerialExecutor
from mimic_wds.importing.base import Plan
from mimic_wds.importing.registry import make_format
from mimic_wds.importing.run import Target, Watcher, import_data_set

SIZE, NUM_PATCHES = 224, 196

#: Random colours on grids of so many cells a side, with these weights: at quality 95 they have 25 KB, like photographs.
DETAIL = {7: 0.6, 28: 0.25, 112: 0.15}

#: Pictures that the pairs are made from.
NUM_PICTURES = 64

PAIRS_PER_SCENE = 1000


def main() -> int:
    """Make each zip, import it, report."""
    args = parse_args()
    if args.run:
        print(json.dumps(run(args.run, args.out)))
        return 0
    results = []
    with tempfile.TemporaryDirectory(prefix="bench-import-", dir=args.dir) as folder:
        for pairs in args.pairs:
            archive = Path(folder) / "Gibson.zip"
            make_zip(archive, pairs)
            for _ in range(args.repetitions):
                results.append({"pairs": pairs, **measure(archive, Path(folder))})
                print_result(results[-1])
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def parse_args() -> argparse.Namespace:
    """The command line."""
    description, _, notes = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=notes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, nargs="+", default=[5000, 20000], help="sizes (default: 5000 20000)")
    parser.add_argument("--repetitions", type=int, default=1, help="imports of each size (default: 1)")
    parser.add_argument("--dir", type=Path, help="where the files are made (default: the system's)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all numbers to this file")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_zip(path: Path, pairs: int) -> None:
    """A zip of `pairs` pairs, stored as JPEGs in zips mostly are: the maps deflated, the pictures not."""
    print(f"making {pairs} pairs ...", flush=True)
    rng = np.random.default_rng(0)
    pictures = [make_picture(rng) for _ in range(NUM_PICTURES)]
    maps = [make_map(rng) for _ in range(NUM_PICTURES)]
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(pairs):
            scene, pair = divmod(number, PAIRS_PER_SCENE)
            folder = f"Gibson/Scene{scene:04d}/{pair}"
            first, second, chosen = rng.integers(0, NUM_PICTURES, 3)
            archive.writestr(f"{folder}/0000.jpg", pictures[first])
            archive.writestr(f"{folder}/0001.jpg", pictures[second])
            archive.writestr(f"{folder}/corresponding.npy", maps[chosen], zipfile.ZIP_DEFLATED)


def make_picture(rng: np.random.Generator) -> bytes:
    """A JPEG as heavy as a photograph's."""
    grids = ((weight, rng.random((cells, cells, 3), np.float32)) for cells, weight in DETAIL.items())
    image = sum(weight * cv2.resize(grid, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for weight, grid in grids)
    pixels = np.clip(np.asarray(image) * 255, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def make_map(rng: np.random.Generator) -> bytes:
    """A map of 99 to 146 patches as the published files hold it."""
    length = int(rng.integers(99, 147))
    keys = sorted(rng.permutation(NUM_PATCHES)[:length].tolist())
    values = rng.permutation(NUM_PATCHES)[:length].tolist()
    file = io.BytesIO()
    np.save(file, np.array(dict(zip(keys, values, strict=True)), dtype=object), allow_pickle=True)
    return file.getvalue()


def measure(archive: Path, folder: Path) -> dict[str, float]:
    """Import a zip in a process of its own."""
    out = Path(tempfile.mkdtemp(dir=folder)) / "imported"
    command = [sys.executable, __file__, "--run", str(archive), "--out", str(out)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    started = time.perf_counter()
    with archive.open("rb") as source, (folder / "copy").open("wb") as target:
        while chunk := source.read(1 << 22):
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    result["copy_s"] = time.perf_counter() - started
    (folder / "copy").unlink()
    return result


class _Stopwatch(Watcher):
    """When planning and reading were done."""

    def __init__(self) -> None:
        self.started = self.planned_at = self.read_at = time.perf_counter()

    def planned(self, plan: Plan, done: int) -> None:
        """The units are known."""
        self.planned_at = time.perf_counter()

    def packing(self) -> None:
        """All units are read."""
        self.read_at = time.perf_counter()


def run(archive: Path, out: Path) -> dict[str, float]:
    """Import a zip here."""
    before = peak_rss_mib()
    start = resource.getrusage(resource.RUSAGE_SELF)
    watch = _Stopwatch()
    target = Target(out=out, name="bench", size=SIZE)
    manifest = import_data_set(make_format("mimic3m", [str(archive)], {}), target, SerialExecutor(), watcher=watch)
    done = time.perf_counter()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "kept": manifest.num_samples,
        "plan_s": watch.planned_at - watch.started,
        "read_s": watch.read_at - watch.planned_at,
        "pack_s": done - watch.read_at,
        "total_s": done - watch.started,
        "user_s": usage.ru_utime - start.ru_utime,
        "system_s": usage.ru_stime - start.ru_stime,
        "peak_rss_mib": peak_rss_mib(),
        "rss_before_mib": before,
    }


def peak_rss_mib() -> float:
    """Most memory that this program has had (`getrusage` would count what its parent had, too)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def print_result(result: dict[str, float]) -> None:
    """One line."""
    print(
        f"{result['pairs']:,} pairs: {result['kept'] / result['total_s']:,.0f} pairs/s on one core "
        f"(plan {result['plan_s']:.1f} s, read {result['read_s']:.1f} s, pack {result['pack_s']:.1f} s; "
        f"user {result['user_s']:.1f} s, system {result['system_s']:.1f} s; plain copy {result['copy_s']:.1f} s); "
        f"peak RSS {result['peak_rss_mib']:.0f} MiB ({result['rss_before_mib']:.0f} before)",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
