"""Batches in an exact, resumable order; JPEGs are decoded by threads while the model computes.

Threads, not processes: decoding releases Python's lock, and handing pixels from one process to another costs more than
decoding them.
"""

import sys
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Required, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from mimic_wds.loading.dataset import Dataset
from mimic_wds.loading.decoding import BadSample
from mimic_wds.loading.faults import FaultCounts, FaultPolicy, write_faults
from mimic_wds.loading.memory import PixelMemory
from mimic_wds.loading.mixing import Mixture
from mimic_wds.loading.order import Order, Tail, rank_rows
from mimic_wds.loading.state import adapted_order, adapted_position, exact_position, make_state

#: Micro-batches that are decoded ahead of the one the model works on. More of them leave the processor cache: with 3 a
#: pair takes 4 % more time.
LOOK_AHEAD = 1

#: A task decodes so many samples, or fewer if not all threads would get one of a small micro-batch: handing a task to a
#: thread costs up to a tenth of what decoding a pair does.
SAMPLES_PER_TASK = 8

#: A bad sample is replaced by the next good one; after so many in a row the data set is broken.
MAX_TRIES = 100

#: The policy unless another is given.
SKIP = FaultPolicy()

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
    lanes: int | None
    window: int | None
    tail: Tail
    order: Order | Mixture | None
    policy: FaultPolicy


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

    The order is `Order`'s, or a `Mixture`'s: it does not depend on ranks, accumulation or threads. A sample that cannot
    be decoded is counted by reason and replaced by the next good one of the data set (by number; the first follows the
    last), with all that was drawn for the bad one: the same replacement for any ranks and threads. More different bad
    samples than `policy` bears (default: one in a thousand, at least 10) raise RuntimeError.

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
        lanes: int | None = None,
        window: int | None = None,
        tail: Tail = "drop",
        order: Order | Mixture | None = None,
        policy: FaultPolicy = SKIP,
    ):
        """`pixels` is the shape of the pixels of so many samples; `lanes`, `window`, `tail` are `Order`'s.

        An `order` is taken instead of one made of the manifest, with its own seed, lanes and window.
        Raises ValueError when the data set is smaller than a global batch, or ranks do not divide it. `pin_memory`
        needs CUDA; it lets batches be copied to the device while it computes.
        """
        if num_threads < 1:
            raise ValueError(f"decoding needs 1 thread or more, got num_threads = {num_threads}")
        self.dataset = dataset
        self.order = order or Order(
            [shard.samples for shard in dataset.manifest.shards],
            global_batch,
            seed,
            lanes=lanes,
            window=window,
            tail=tail,
        )
        if self.order.global_batch != global_batch:
            raise ValueError(f"the order has global batches of {self.order.global_batch}, the loader of {global_batch}")
        self.rank = rank
        self.rows = rank_rows(global_batch, world_size, rank, accumulation)
        self.num_threads = num_threads
        self.budget = policy.budget(len(dataset))  #: different bad samples that are borne
        num_rows = self.rows.shape[1]
        self._task_size = max(1, min(SAMPLES_PER_TASK, num_rows // num_threads))
        self._memory = PixelMemory(pixels(num_rows), keep=LOOK_AHEAD + 2, pinned=pin_memory)
        self.fault_counts = FaultCounts()
        self._position = (0, 0)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in an epoch."""
        return self.order.steps_per_epoch

    @property
    def faults(self) -> Counter[str]:
        """Samples that could not be used, by reason; each counts once however often it was met by this rank."""
        return self.fault_counts.counts

    def write_faults(self, path: Path, gathered: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write an account of bad samples as JSON: of this rank, or of all that gave `fault_counts.as_plain()`."""
        total = FaultCounts.from_plain(gathered or [self.fault_counts.as_plain()])
        write_faults(path, total, num_samples=len(self.dataset))

    def seen(self) -> dict[str, int]:
        """Samples that all ranks have given up to here, by source of a mixture (else "all"), over all epochs."""
        return self.order.seen(*self._position)

    @property
    def position(self) -> tuple[int, int]:
        """Epoch and next step."""
        return self._position

    def state(self) -> dict[str, Any]:
        """Where the loader is: epoch and next step, with what they refer to. Plain JSON."""
        return make_state(self.dataset.hash, self.order, self._position)

    def load_state(self, state: Mapping[str, Any], *, adapt: bool = False) -> tuple[int, int]:
        """Take up a state; returns (epoch, step) to go on from. Ranks, accumulation and threads may be others.

        Raises ValueError when it belongs to another data set, seed, global batch, lanes, window or mixture, or is no
        state at all. With `adapt` these may be others too: see `adapted_position`; what is done is said on stderr.
        """
        if adapt:
            self.order = adapted_order(state, self.order)
            epoch, step, note = adapted_position(state, self.dataset.hash, self.order)
        else:
            epoch, step, note = exact_position(state, self.dataset.hash, self.order, self.dataset.folder)
        if note and self.rank == 0:
            print(note, file=sys.stderr, flush=True)
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
        self.dataset.expect(self.order.shards_ahead(epoch, start_step, self.rows.ravel()))
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
        indices = self.order.at(epoch, step, rows)
        self.dataset.will_read(indices.tolist())
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
                    f"{self._describe(index)[1]}"
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
        except BadSample:
            raise
        except ValueError:
            raise BadSample("not_where_the_index_says") from None

    def _note(self, index: int, reason: str) -> None:
        """Count a bad sample; raise when there are too many."""
        key, where = self._describe(index)
        number = self.fault_counts.add(index, reason, key)
        if number > self.budget:
            raise RuntimeError(
                f"more than {self.budget} samples cannot be used ({dict(self.faults)}), the last one is {where}: "
                f"run `mimic-shard verify {self.dataset.folder}`"
            )

    def _describe(self, index: int) -> tuple[str, str]:
        """A sample's key, and with its shard for people; its number where not even its key can be read."""
        shard, place = self.dataset.locate(index)
        try:
            key = shard.key(place)
        except (ValueError, OSError):
            key = f"number {place}"
        return key, f"{key} in {shard.path}"
