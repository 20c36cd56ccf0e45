#!/usr/bin/env python3
"""What builds of millions of scenes and of 4K videos need: time and peak memory, each in a process of its own.

    python tools/bench_scale.py --scenes 10000000 --staged 100000 --json runs/bench-scale.json

- plan: list that many scenes, write the plan, open it, check it on resume, find what is left to do, read scenes.
- merge, real files: pack that many staged scenes with one small pair each (written without fsync to save time).
- merge, simulated: pack that many scenes whose outcomes are made up in memory and whose samples are not copied: the
  time and memory of deciding what goes where. What reading the files adds per scene, the real one says.
- worker: mine a video of 100 frames of moving texture; the target is 600 MiB on 4K.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from mimic_wds.curation.build import WHOLE, Task, run_scene, unfinished
from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.plan import Plan, write_plan
from mimic_wds.curation.recipe import Recipe
from mimic_wds.pairs import Counts, PairSample, Scene
from mimic_wds.sources.video import Video
from mimic_wds.storage import packing
from mimic_wds.storage.layout import sample_key
from mimic_wds.storage.manifest import ShardInfo
from mimic_wds.storage.staging import SceneStage, StagedScene

#: What the manifest of a measured data set says.
DESCRIPTION: dict[str, dict[str, str]] = {"criteria": {}, "versions": {}, "licences": {}}

#: Bytes of a simulated sample, about those of a real pair.
SAMPLE_BYTES = 50_000

#: Width and height of the videos.
SIDES = {"480p": (854, 480), "1080p": (1920, 1080), "4K": (3840, 2160)}

FRAMES = 100


@dataclass(frozen=True)
class Many:
    """A source of made-up scenes with names like those of a large collection of videos."""

    name: ClassVar[str] = "video"
    count: int
    licence: str = ""

    def scenes(self) -> list[Scene]:
        """All of them, of many sizes."""
        return [made_up_scene(number) for number in range(self.count)]


def made_up_scene(number: int) -> Scene:
    """A scene with a name of 41 characters and a path of 55."""
    name = f"videos/part-{number % 1000:04d}/clip-{number * 2654435761 % 2**64:016x}.mp4"
    return Scene(source="video", name=name, path=f"/data/web-crawl/{name}", num_bytes=number * 7919 % 10**8)


def main() -> int:
    """Measure what was asked for; print and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=100_000, help="scenes of the plan and of the simulated merge")
    parser.add_argument("--staged", type=int, default=10_000, help="staged scenes of the merge of real files")
    parser.add_argument("--json", type=Path, help="where to write the results")
    args = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as name:
        folder = Path(name)
        show(results, f"plan of {args.scenes:,} scenes", in_own_process(measure_plan, folder, args.scenes))
        merged = in_own_process(measure_merge, folder, args.staged)
        show(results, f"merge of {args.staged:,} scenes, real files", merged)
        simulated = in_own_process(simulate_merge, folder, args.scenes)
        show(results, f"merge of {args.scenes:,} scenes, simulated", simulated)
        for what, sides in SIDES.items():
            path = write_video(folder / f"{what}.mp4", *sides)
            show(results, f"worker on {what} video", in_own_process(measure_worker, folder, path))
            path.unlink()
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**machine(), "results": results}, indent=1) + "\n")
    return 0


def machine() -> dict[str, Any]:
    """Where and when this was measured."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processors": os.cpu_count(),
        "type": platform.machine(),
        "python": platform.python_version(),
        "opencv": cv2.__version__,
    }


def show(results: dict[str, dict[str, float]], what: str, figures: dict[str, float]) -> None:
    """Print a measurement and keep it."""
    results[what] = figures
    print(what)
    for name, value in figures.items():
        print(f"    {name:<44}{value:>14,.3f}" if value < 10 else f"    {name:<44}{value:>14,.0f}", flush=True)


def in_own_process(measure: Callable[..., dict[str, float]], *args: Any) -> dict[str, float]:
    """Run a measurement in a fresh process, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *args).result()


def peak_mib() -> float:
    """Most memory that this process has had so far, in MiB (getrusage would count its parent's, too)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@contextmanager
def timed(figures: dict[str, float], what: str) -> Iterator[None]:
    """Note the seconds that the block takes."""
    start = time.perf_counter()
    yield
    figures[what] = time.perf_counter() - start


def measure_plan(folder: Path, count: int) -> dict[str, float]:
    """Time and memory of a plan's life."""
    figures: dict[str, float] = {"MiB before": peak_mib()}
    recipe = Recipe(name="x", out=folder, preset="default", criteria=Criteria(), sources=(Many(count),))
    staging = folder / "plan"
    staging.mkdir()
    with timed(figures, "s to list the scenes and write the plan"):
        write_plan(staging, recipe).__exit__()
    with timed(figures, "s to list them again and check (resume)"):
        write_plan(staging, recipe).__exit__()
    figures["MiB at most, with the source's list"] = peak_mib()
    figures |= in_own_process(measure_open_plan, staging)
    figures["MB of the file"] = (staging / "plan.jsonl").stat().st_size / 1e6
    shutil.rmtree(staging)
    return figures


def measure_open_plan(staging: Path) -> dict[str, float]:
    """Time and memory of a plan that is there."""
    figures: dict[str, float] = {}
    with timed(figures, "s to open it"):
        plan = Plan(staging)
    with plan:
        with timed(figures, "s to order what is left, largest first"):
            todo = plan.largest_first(unfinished(plan, staging, WHOLE))
        some = todo[: min(len(todo), 100_000)]
        with timed(figures, "µs to read a scene"):
            for number in some.tolist():
                plan.scene(number)
    figures["µs to read a scene"] *= 1e6 / len(some)
    figures["MiB at most, open"] = peak_mib()
    return figures


def small_sample(scene: Scene, jpeg: bytes) -> PairSample:
    """A pair of small pictures."""
    return PairSample(
        key=sample_key(scene.source, scene.name, "000000", "000010"),
        image0_jpg=jpeg,
        image1_jpg=jpeg,
        corr_0to1=np.arange(196, dtype=np.int16),
        overlap=0.6,
        H_0to1=np.eye(3),
        num_inliers=30,
        size=(224, 224),
        patch_size=16,
        source=scene.source,
        scene=scene.name,
        frame0="000000",
        frame1="000010",
    )


def measure_merge(folder: Path, count: int) -> dict[str, float]:
    """Stage scenes with one pair each, then pack them."""
    staging, out = folder / "staging", folder / "out"
    staging.mkdir()
    out.mkdir()
    jpeg = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    sync, os.fsync = os.fsync, lambda descriptor: None  # staging is not what is measured
    for number in range(count):
        scene = made_up_scene(number)
        with SceneStage(staging, number) as stage:
            stage.add(small_sample(scene, jpeg))
            stage.finish(scene, Counts(kept=1, dropped={"too_few_matches": 3}, views=5))
    os.fsync = sync
    figures: dict[str, float] = {"MiB before": peak_mib()}
    with timed(figures, "s to pack"):
        packing.pack(staging, count, out, "x", 256 * 2**20, DESCRIPTION)
    figures["µs a scene"] = figures["s to pack"] / count * 1e6
    figures["MiB at most"] = peak_mib()
    shutil.rmtree(staging)
    shutil.rmtree(out)
    return figures


def simulate_merge(folder: Path, count: int) -> dict[str, float]:
    """Pack scenes that are made up when they are read; nothing is copied."""
    out = folder / "out"
    out.mkdir()
    packing._read = made_up_outcome
    packing._write_shard = made_up_shard
    packing.remove_samples = lambda staging, number: None
    figures: dict[str, float] = {"MiB before": peak_mib()}
    with timed(figures, "s to decide what goes where"):
        packing.pack(out, count, out, "x", 256 * 2**20, DESCRIPTION)
    figures["µs a scene"] = figures["s to decide what goes where"] / count * 1e6
    figures["MiB at most"] = peak_mib()
    figures["MB of scenes.jsonl"] = (out / "scenes.jsonl").stat().st_size / 1e6
    shutil.rmtree(out)
    return figures


def made_up_outcome(staging: Path, number: int) -> StagedScene:
    """A scene with one kept pair."""
    scene = made_up_scene(number)
    return StagedScene(
        scene=scene,
        counts=Counts(kept=1, dropped={"too_few_matches": 3}, views=5),
        error="",
        keys=(f"video_clip-{number:010}_000000_000010",),
        overlaps=(0.6,),
        sizes=(SAMPLE_BYTES,),
    )


def made_up_shard(path: Path, staging: Path, samples: list[Any], generation: int) -> ShardInfo:
    """A shard that was not written."""
    return ShardInfo(name=path.name, bytes=1, sha256="0" * 64, samples=len(samples), sources={"video": len(samples)})


def write_video(path: Path, width: int, height: int) -> Path:
    """Noise at several scales that moves by a twentieth of the picture a frame."""
    rng = np.random.default_rng(0)
    canvas = np.zeros((height, 2 * width, 3), np.float32)
    for cells in (8, 32, 128):
        noise = rng.random((cells, 2 * cells, 3), np.float32)
        canvas += cv2.resize(noise, (2 * width, height), interpolation=cv2.INTER_CUBIC) * 85
    picture = np.clip(canvas, 0, 255).astype(np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (width, height))
    assert writer.isOpened()
    for number in range(FRAMES):
        left = number * width // 20 % width
        writer.write(picture[:, left : left + width])
    writer.release()
    return path


def measure_worker(folder: Path, path: Path) -> dict[str, float]:
    """Mine one video, every fifth frame."""
    source = Video(paths=(str(path),), every_frames=5)
    (scene,) = source.scenes()
    seconds = []
    before = peak_mib()
    for attempt in range(3):
        staging = folder / f"worker{attempt}"
        staging.mkdir()
        start = time.perf_counter()
        run_scene(Task(0, scene, source, Criteria(), staging))
        seconds.append(time.perf_counter() - start)
        shutil.rmtree(staging)
    return {"MiB before": before, "MiB at most": peak_mib(), "s a video, median of 3": statistics.median(seconds)}


if __name__ == "__main__":
    raise SystemExit(main())
