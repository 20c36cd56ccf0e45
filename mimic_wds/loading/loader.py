"""Batches of pairs in an exact, resumable order; JPEGs are decoded by threads while the model computes.

Threads, not processes: decoding releases Python's lock, and handing pixels from one process to another costs more than
decoding them.
"""

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mimic_wds.loading.batch import PairBatch
from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.order import Order, rank_rows, swap_views
from mimic_wds.pairs import invert_correspondences
from mimic_wds.storage.sample import decode_array

#: Micro-batches that are decoded ahead of the one the model works on.
LOOK_AHEAD = 3

#: A bad sample is replaced by the next good one; after so many in a row the data set is broken.
MAX_TRIES = 100


class BadSample(ValueError):
    """A sample that cannot be used; `args[0]` is the reason that is counted."""


class PairLoader:
    """Gives one rank its share of every global batch, in micro-batches.

    The order is `Order`'s: it does not depend on ranks, accumulation or threads. A sample that cannot be decoded is
    counted in `faults` by reason and replaced by the next good one of the data set (by number); more than `max_faults`
    different ones raise RuntimeError. Never hand a loader to `accelerator.prepare()`: it shares out the data itself.
    """

    def __init__(
        self,
        dataset: PairDataset,
        *,
        global_batch: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
        num_threads: int = 2,
        swap: bool = True,
        pin_memory: bool = False,
        max_faults: int | None = None,
    ):
        """Raises ValueError when the data set is smaller than a global batch, or ranks do not divide it."""
        self.dataset = dataset
        self.order = Order(len(dataset), global_batch, seed)
        self.rows = rank_rows(global_batch, world_size, rank, accumulation)
        self.num_threads = num_threads
        self.swap = swap
        self.pin_memory = pin_memory
        self.max_faults = max(10, len(dataset) // 1000) if max_faults is None else max_faults
        self._bad: dict[int, str] = {}
        self._lock = Lock()
        self._position = (0, 0)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in an epoch."""
        return self.order.steps_per_epoch

    @property
    def faults(self) -> Counter[str]:
        """Samples that could not be used, by reason; each counts once however often it was met."""
        with self._lock:
            return Counter(self._bad.values())

    def state(self) -> dict[str, Any]:
        """Where the loader is: epoch and next step, with what they refer to. Plain JSON."""
        epoch, step = self._position
        return {
            "manifest": self.dataset.hash,
            "seed": self.order.seed,
            "global_batch": self.order.global_batch,
            "epoch": epoch,
            "step": step,
        }

    def load_state(self, state: dict[str, Any]) -> tuple[int, int]:
        """Take up a state; returns (epoch, step) to go on from.

        Raises ValueError when it belongs to another data set, seed or global batch.
        """
        own = self.state()
        for name in ("manifest", "seed", "global_batch"):
            if state.get(name) != own[name]:
                raise ValueError(
                    f"this run was at another {name} ({state.get(name)}) than the one given now ({own[name]}): "
                    f"resume with the same data set ({self.dataset.folder}), seed and global batch"
                )
        self._position = (int(state["epoch"]), int(state["step"]))
        return self._position

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[PairBatch]:
        """This rank's micro-batches of an epoch from `start_step` on: `accumulation` for every step."""
        self._position = (epoch, start_step)
        batches = self.order.epoch(epoch)
        pool = ThreadPoolExecutor(self.num_threads, thread_name_prefix="decode")
        waiting: deque[_Pending] = deque()
        work = ((step, rows) for step in range(start_step, len(batches)) for rows in self.rows)
        try:
            for number, (step, rows) in enumerate(work, start=1):
                waiting.append(self._start(pool, epoch, batches[step][rows], rows))
                if len(waiting) > LOOK_AHEAD:
                    yield self._finish(waiting.popleft(), epoch, start_step, number - len(waiting))
            total = (len(batches) - start_step) * len(self.rows)
            while waiting:
                yield self._finish(waiting.popleft(), epoch, start_step, total - len(waiting))
        finally:
            pool.shutdown(cancel_futures=True)

    def _start(
        self, pool: ThreadPoolExecutor, epoch: int, indices: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> "_Pending":
        """Have a micro-batch decoded."""
        pending = _Pending(self.dataset, rows, self.pin_memory)
        swapped = swap_views(self.order.seed, epoch, indices) & self.swap
        pending.futures = [
            pool.submit(self._load, pending, place, int(index), bool(exchange))
            for place, (index, exchange) in enumerate(zip(indices, swapped, strict=True))
        ]
        return pending

    def _finish(self, pending: "_Pending", epoch: int, start_step: int, number: int) -> PairBatch:
        """Wait for a micro-batch, the `number`th since `start_step`, and note the position behind it."""
        for future in pending.futures:
            future.result()
        steps = start_step + number // len(self.rows)
        self._position = (epoch, steps) if steps < self.steps_per_epoch else (epoch + 1, 0)
        return pending.batch()

    def _load(self, pending: "_Pending", place: int, index: int, exchange: bool) -> None:
        """Decode sample `index`, or the next good one, into its place."""
        for candidate in range(index, index + MAX_TRIES):
            candidate %= len(self.dataset)
            try:
                key, members = self.dataset.read(candidate)
                pending.put(place, key, members, exchange)
                return
            except BadSample as bad:
                self._note(candidate, str(bad))
        raise RuntimeError(f"{self.dataset.folder}: {MAX_TRIES} samples in a row cannot be used, from number {index}")

    def _note(self, index: int, reason: str) -> None:
        """Count a bad sample; raise when there are too many."""
        with self._lock:
            self._bad[index] = reason
            too_many = len(self._bad) > self.max_faults
            counts = dict(Counter(self._bad.values()))
        if too_many:
            shard, place = self.dataset.locate(index)
            raise RuntimeError(
                f"more than {self.max_faults} samples cannot be used ({counts}), the last one is {shard.key(place)} in "
                f"{shard.path}: run `mimic-shard verify {self.dataset.folder}`"
            )


class _Pending:
    """A micro-batch while threads fill it."""

    def __init__(self, dataset: PairDataset, rows: NDArray[np.int64], pin_memory: bool):
        shape = (2, len(rows), dataset.size, dataset.size, 3)
        self.images = torch.empty(shape, dtype=torch.uint8, pin_memory=pin_memory)
        self.corr = torch.empty((len(rows), dataset.num_patches), dtype=torch.int16)
        self.keys = [""] * len(rows)
        self.swapped = torch.zeros(len(rows), dtype=torch.bool)
        self.rows = torch.from_numpy(rows.copy())
        self.futures: list[Future[None]] = []

    def put(self, place: int, key: str, members: Any, exchange: bool) -> None:
        """Decode one sample into its place. Raises BadSample with the reason."""
        corr = _corr(members["corr.npy"], self.corr.shape[1])
        images = self.images.numpy()
        for view in (0, 1):
            decode_into(members[f"{view}.jpg"], images[view ^ int(exchange), place])
        self.corr.numpy()[place] = invert_correspondences(corr) if exchange else corr
        self.keys[place] = key
        self.swapped[place] = exchange

    def batch(self) -> PairBatch:
        """The filled micro-batch."""
        return PairBatch(
            image0=self.images[0],
            image1=self.images[1],
            corr_0to1=self.corr,
            keys=tuple(self.keys),
            rows=self.rows,
            swapped=self.swapped,
        )


def decode_into(data: bytes, out: NDArray[np.uint8]) -> None:
    """Decode a JPEG into `out` (H, W, 3) uint8 RGB. Raises BadSample when it does not decode or has another size."""
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        bgr = None
    if bgr is None:
        raise BadSample("jpeg_does_not_decode")
    if bgr.shape != out.shape:
        raise BadSample("image_of_another_size")
    cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=out)


def _corr(data: bytes, num_patches: int) -> NDArray[np.int16]:
    """The correspondences of a sample. Raises BadSample when they are none."""
    try:
        corr = decode_array(data, "corr.npy")
    except ValueError:
        raise BadSample("correspondences_unreadable") from None
    if corr.shape != (num_patches,) or corr.dtype != np.int16:
        raise BadSample("correspondences_of_another_shape")
    return corr
