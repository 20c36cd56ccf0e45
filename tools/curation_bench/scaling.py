"""Two processes beside one: through the package's own executor, and two that share nothing. Wall time and CPU time."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import cv2
import numpy as np

from curation_bench.sides import Pair, ours
from mimic_wds.executors.base import make_executor

#: The executor gets the pairs in so many tasks.
NUM_TASKS = 16


@dataclass(frozen=True)
class Share:
    """Some of the pairs that lie in a file; says in another file when it was worked on."""

    pairs_npy: Path
    start: int
    step: int
    times_npy: Path


def processes(pairs: Sequence[Pair], repetitions: int) -> dict[str, dict[str, list[float]]]:
    """Pairs per second of wall time, and CPU time per pair, in every round. Starting up is left out."""
    ways = {"one process": run_here, "two, executor": run_on_executor, "two that share nothing": run_apart}
    report: dict[str, dict[str, list[float]]] = {name: {"pairs_per_s": [], "cpu_ms": []} for name in ways}
    with tempfile.TemporaryDirectory(prefix="bench-curation-") as folder:
        pairs_npy = Path(folder) / "pairs.npy"
        np.save(pairs_npy, np.array(pairs))
        for _ in range(repetitions):
            for name, run in ways.items():
                wall_s, cpu_s = run(pairs_npy)
                report[name]["pairs_per_s"].append(len(pairs) / wall_s)
                report[name]["cpu_ms"].append(1000 * cpu_s / len(pairs))
    best = max(report["one process"]["pairs_per_s"])
    print(f"\n{'of all rounds the best':26}{'pairs/s':>9}{'beside one':>12}{'CPU ms a pair':>15}")
    for name, numbers in report.items():
        rate = max(numbers["pairs_per_s"])
        print(f"{name:26}{rate:9.1f}{rate / best:12.2f}{min(numbers['cpu_ms']):15.2f}")
    return report


def run_here(pairs_npy: Path) -> tuple[float, float]:
    """Wall seconds and CPU seconds of this process."""
    return measured(shares(pairs_npy, 1), lambda todo: [work(share) for share in todo])


def run_on_executor(pairs_npy: Path) -> tuple[float, float]:
    """Seconds from the start of the first task to the end of the last one on two workers."""
    executor = make_executor("local", workers=2)
    return measured(shares(pairs_npy, NUM_TASKS), lambda todo: list(executor.run(work, todo)))


def run_apart(pairs_npy: Path) -> tuple[float, float]:
    """The same for two processes with half of the pairs each."""
    return measured(shares(pairs_npy, 2), start_apart)


def start_apart(todo: list[Share]) -> None:
    """One process per share, waiting for each other before they begin."""
    context = get_context("spawn")
    barrier = context.Barrier(len(todo))
    workers = [context.Process(target=work_after, args=(share, barrier)) for share in todo]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def shares(pairs_npy: Path, count: int) -> list[Share]:
    """The pairs, dealt to `count` shares."""
    return [Share(pairs_npy, i, count, pairs_npy.with_name(f"times-{i}.npy")) for i in range(count)]


def measured(todo: list[Share], run: Callable[[list[Share]], object]) -> tuple[float, float]:
    """Seconds between the first start and the last end that the shares report, and the CPU seconds of all."""
    run(todo)
    times = np.array([np.load(share.times_npy) for share in todo])
    return float(times[:, 1].max() - times[:, 0].min()), float(times[:, 2].sum())


def work(share: Share) -> None:
    """Measure every pair of a share on its own, on one thread."""
    cv2.setNumThreads(1)
    pairs = np.load(share.pairs_npy, mmap_mode="r")[share.start :: share.step]
    start, cpu = time.monotonic(), time.process_time()
    for number, (image0, image1) in enumerate(pairs):
        ours(np.ascontiguousarray(image0), np.ascontiguousarray(image1), number)
    np.save(share.times_npy, [start, time.monotonic(), time.process_time() - cpu])


def work_after(share: Share, barrier: Barrier) -> None:
    """The same, when the others are ready, too."""
    barrier.wait()
    work(share)
