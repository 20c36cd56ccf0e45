#!/usr/bin/env python3
"""How far the manifest carries: its size, the time and memory to read it, and what it adds to an `extend`.

    python tools/bench_manifest.py --json runs/bench-manifest.json
    python tools/bench_manifest.py --shards 1000 1000000

Builds a data set of one short video, and lets its manifest and scene lines say that it had so many shards and scenes
more (those shards are never opened). Each measurement is one of a process of its own; seconds are medians.
"""

import argparse
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from mimic_wds.cli.main import run
from mimic_wds.storage.manifest import Manifest, ShardInfo, read_manifest, write_manifest
from mimic_wds.storage.scenes import SceneOutcome, scene_lines, write_scenes

#: A shard of 256 MB, as `build` makes them from views of 224 x 224.
SHARD_BYTES, SHARD_SAMPLES = 2**28, 6000

#: What the measuring processes run: prints seconds, and megabytes that the process took at most.
MEASURE = """
import resource, sys, time
from pathlib import Path
from mimic_wds.cli.main import run
from mimic_wds.storage.manifest import read_manifest
folder, command = Path(sys.argv[1]), sys.argv[2:]
began = time.perf_counter()
code = run(command) if command else len(read_manifest(folder).shards) * 0
print(code, time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> int:
    """Measure each number of shards, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 10_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the report here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-manifest-") as scratch:
        report = [measure(Path(scratch), number, args.rounds) for number in args.shards]
    print(f"{'shards':>9} {'manifest':>10} {'read':>8} {'memory':>9} {'extend':>8} {'memory':>9}")
    for row in report:
        print(
            f"{row['shards']:9,} {row['manifest_mb']:7.1f} MB {row['read_s']:6.2f} s {row['read_mb']:6.0f} MB "
            f"{row['extend_s']:6.2f} s {row['extend_mb']:6.0f} MB"
        )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(scratch: Path, number: int, rounds: int) -> dict[str, float]:
    """What a data set costs whose manifest lists so many shards."""
    for name in ("old.avi", "new.avi"):
        write_pan(scratch / name)
    base = scratch / "base"
    shutil.rmtree(base, ignore_errors=True)
    assert run(["build", "--source", "video", str(scratch / "old.avi"), "--out", str(base)]) == 0
    manifest = grown(read_manifest(base), number)
    write_scenes(base / "scenes.jsonl", [*scene_lines(base, 0), *made_up_scenes(number)])
    write_manifest(base, manifest)
    read = [timed(base) for _ in range(rounds)]
    extend = []
    for _ in range(rounds):
        copy = scratch / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(base, copy)
        extend.append(timed(copy, "extend", str(copy), "--source", "video", str(scratch / "new.avi")))
    return {
        "shards": number,
        "manifest_mb": (base / "manifest.json").stat().st_size / 1e6,
        "read_s": statistics.median(seconds for seconds, _ in read),
        "read_mb": statistics.median(megabytes for _, megabytes in read),
        "extend_s": statistics.median(seconds for seconds, _ in extend),
        "extend_mb": statistics.median(megabytes for _, megabytes in extend),
    }


def grown(manifest: Manifest, number: int) -> Manifest:
    """The manifest of a data set that has so many shards more, one scene in each."""
    made_up = [
        ShardInfo(
            name=f"{manifest.name}-{i + len(manifest.shards):06d}.tar",
            bytes=SHARD_BYTES,
            sha256=hashlib.sha256(str(i).encode()).hexdigest(),
            samples=SHARD_SAMPLES,
            sources={"video": SHARD_SAMPLES},
        )
        for i in range(number)
    ]
    more = SHARD_SAMPLES * number
    return replace(
        manifest,
        shards=[*manifest.shards, *made_up],
        kept={"video": manifest.kept["video"] + more},
        candidates={"video": manifest.candidates["video"] + more},
        scenes={"video": manifest.scenes["video"] + number},
    )


def made_up_scenes(number: int) -> list[SceneOutcome]:
    """Lines of scenes that fill a shard each."""
    return [
        SceneOutcome(
            source="video", scene=f"made/up{i}.mp4", kept=SHARD_SAMPLES, dropped={}, faults={}, views=0, error=""
        )
        for i in range(number)
    ]


def timed(folder: Path, *command: str) -> tuple[float, float]:
    """Seconds and megabytes of reading a manifest, or of running a command."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), *command], capture_output=True, text=True, check=True
    )
    code, seconds, megabytes = done.stdout.split()[-3:]
    assert code == "0", done.stderr
    return float(seconds), float(megabytes)


def write_pan(path: Path) -> None:
    """A short video of a camera that turns: a window that slides over noise."""
    rng = np.random.default_rng(sum(path.name.encode()))
    wall = cv2.resize(rng.integers(0, 256, (60, 200, 3), dtype=np.uint8), (1200, 360))
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (480, 360))
    for x in range(0, 700, 20):
        video.write(np.ascontiguousarray(wall[:, x : x + 480]))
    video.release()


if __name__ == "__main__":
    sys.exit(main())
