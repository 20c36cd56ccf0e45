"""Batches in an exact, resumable order; JPEGs are decoded by threads while the model computes.

Threads, not processes: decoding releases Python's lock, and handing pixels from one process to another costs more than
decoding them.
"""

from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, Generic, Required, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from mimic_wds.loading.dataset import Dataset
from mimic_wds.loading.decoding import BadSample
from mimic_wds.loading.memory import PixelMemory
from mimic_wds.loading.order import Order, rank_rows

#: Micro-batches that are decoded ahead of the one the model works on.
LOOK_AHEAD = 3

#: A task decodes so many samples, or fewer if not all threads would get one of a small micro-batch: handing a task to a
#: thread costs up to a tenth of what decoding a pair does.
SAMPLES_PER_TASK = 8

#: A bad sample is replaced by the next good one; after so many in a row the data set is broken.
MAX_TRIES = 100


Batch = TypeVar("Batch")


class Share(TypedDict, total=False):
    """What every loader is told beside its data set; see `Loader` for what is not given."""

    global_batch: Required[int]
    seed: int
    rank: int
    world_size: int
    accumulation: int
    num_threads: int
    pin_memory: bool
    max_faults: int | None


class Pending(Generic[Batch]):
    """A micro-batch while threads fill it."""

    def __init__(self, rows: NDArray[np.int64]):
        self.rows = rows  #: (B,) places in the global batch
        self.keys = [""] * len(rows)
        self.futures: list[Future[None]] = []

    def put(self, place: int, key: str, members: Mapping[str, bytes]) -> None:
        """Decode one sample into its place. Raises BadSample with the reason."""
        raise NotImplementedError

    def batch(self) -> Batch:
        """The micro-batch, once all of it is there."""
        raise NotImplementedError


class Loader(Generic[Batch]):
    """Gives one rank its share of every global batch, in micro-batches.

    The order is `Order`'s: it does not depend on ranks, accumulation or threads. A sample that cannot be decoded is
    counted in `faults` by reason and replaced by the next good one of the data set (by number; the first follows the
    last), with all that was drawn for the bad one: the same replacement for any ranks and threads.
    More than `max_faults` different bad samples (default: one in a thousand, at least 10) raise RuntimeError.

    Batches are never overwritten (`PixelMemory`). Never hand a loader to `accelerator.prepare()`: it shares out the
    data itself.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        pixels: Callable[[int], tuple[int, ...]],
        global_batch: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
        num_threads: int = 2,
        pin_memory: bool = False,
        max_faults: int | None = None,
    ):
        """`pixels` is the shape of the pixels of so many samples.

        Raises ValueError when the data set is smaller than a global batch, or ranks do not divide it. `pin_memory`
        needs CUDA; it lets batches be copied to the device while it computes.
        """
        if num_threads < 1:
            raise ValueError(f"decoding needs 1 thread or more, got num_threads = {num_threads}")
        self.dataset = dataset
        self.order = Order(len(dataset), global_batch, seed)
        self.rows = rank_rows(global_batch, world_size, rank, accumulation)
        self.num_threads = num_threads
        self.max_faults = max(10, len(dataset) // 1000) if max_faults is None else max_faults
        num_rows = self.rows.shape[1]
        self._task_size = max(1, min(SAMPLES_PER_TASK, num_rows // num_threads))
        self._memory = PixelMemory(pixels(num_rows), keep=LOOK_AHEAD + 2, pinned=pin_memory)
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

    def load_state(self, state: Mapping[str, Any]) -> tuple[int, int]:
        """Take up a state; returns (epoch, step) to go on from.

        Raises ValueError when it belongs to another data set, seed or global batch, or is no state at all.
        """
        own = self.state()
        for name in ("manifest", "seed", "global_batch"):
            if state.get(name) != own[name]:
                raise ValueError(
                    f"this run was at another {name} ({state.get(name)}) than the one given now ({own[name]}): "
                    f"resume with the same data set ({self.dataset.folder}), seed and global batch"
                )
        epoch, step = state.get("epoch"), state.get("step")
        if type(epoch) is not int or type(step) is not int or epoch < 0 or not 0 <= step < self.steps_per_epoch:
            steps = self.steps_per_epoch
            raise ValueError(f"no state of this loader: epoch {epoch!r}, step {step!r}; an epoch has {steps} steps")
        self._position = (epoch, step)
        return self._position

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[Batch]:
        """This rank's micro-batches of an epoch from `start_step` on: `accumulation` for every step.

        Raises ValueError when an epoch has no such step. Threads run from the first batch until the generator ends or
        is closed.
        """
        if epoch < 0 or not 0 <= start_step < self.steps_per_epoch:
            raise ValueError(f"no step {start_step} of epoch {epoch}: an epoch has {self.steps_per_epoch} steps")
        self._position = (epoch, start_step)
        return self._batches(epoch, start_step)

    def _pending(self, epoch: int, rows: NDArray[np.int64], indices: NDArray[np.int64]) -> Pending[Batch]:
        """An empty micro-batch of the samples `indices` at the places `rows`, with what is drawn for them."""
        raise NotImplementedError

    def _batches(self, epoch: int, start_step: int) -> Generator[Batch]:
        pool = ThreadPoolExecutor(self.num_threads, thread_name_prefix="decode")
        waiting: deque[Pending[Batch]] = deque()
        work = ((step, rows) for step in range(start_step, self.steps_per_epoch) for rows in self.rows)
        try:
            for number, (step, rows) in enumerate(work, start=1):
                waiting.append(self._start(pool, epoch, step, rows))
                if len(waiting) > LOOK_AHEAD:
                    yield self._finish(waiting.popleft(), epoch, start_step, number - len(waiting))
            total = (self.steps_per_epoch - start_step) * len(self.rows)
            while waiting:
                yield self._finish(waiting.popleft(), epoch, start_step, total - len(waiting))
        finally:
            pool.shutdown(cancel_futures=True)

    def _start(self, pool: ThreadPoolExecutor, epoch: int, step: int, rows: NDArray[np.int64]) -> Pending[Batch]:
        """Have a micro-batch decoded."""
        indices = self.order.batch(epoch, step)[rows]
        pending = self._pending(epoch, rows, indices)
        work = list(enumerate(indices.tolist()))
        tasks = (work[start : start + self._task_size] for start in range(0, len(work), self._task_size))
        pending.futures = [pool.submit(self._load, pending, task) for task in tasks]
        return pending

    def _finish(self, pending: Pending[Batch], epoch: int, start_step: int, number: int) -> Batch:
        """Wait for a micro-batch, the `number`th since `start_step`, and note the position behind it."""
        for future in pending.futures:
            future.result()
        steps = start_step + number // len(self.rows)
        self._position = (epoch, steps) if steps < self.steps_per_epoch else (epoch + 1, 0)
        return pending.batch()

    def _load(self, pending: Pending[Batch], task: list[tuple[int, int]]) -> None:
        """Decode samples, each (place in the micro-batch, index), into their places."""
        for place, index in task:
            for candidate in range(index, index + MAX_TRIES):
                if self._load_one(pending, place, candidate % len(self.dataset)):
                    break
            else:
                raise RuntimeError(
                    f"{self.dataset.folder}: {MAX_TRIES} samples in a row cannot be used, the first is "
                    f"{self._describe(index)}"
                )

    def _load_one(self, pending: Pending[Batch], place: int, index: int) -> bool:
        """Decode sample `index` into its place; False if it is a bad one."""
        try:
            pending.put(place, *self._read(index))
        except BadSample as bad:
            self._note(index, str(bad))
            return False
        return True

    def _read(self, index: int) -> tuple[str, Mapping[str, bytes]]:
        """Key and members of a sample. Raises BadSample when its tar headers are not where the index says."""
        try:
            return self.dataset.read(index)
        except ValueError:
            raise BadSample("not_where_the_index_says") from None

    def _note(self, index: int, reason: str) -> None:
        """Count a bad sample; raise when there are too many."""
        with self._lock:
            self._bad[index] = reason
            too_many = len(self._bad) > self.max_faults
            counts = dict(Counter(self._bad.values()))
        if too_many:
            raise RuntimeError(
                f"more than {self.max_faults} samples cannot be used ({counts}), the last one is "
                f"{self._describe(index)}: run `mimic-shard verify {self.dataset.folder}`"
            )

    def _describe(self, index: int) -> str:
        """A sample's key and shard, for people."""
        shard, place = self.dataset.locate(index)
        return f"{shard.key(place)} in {shard.path}"
