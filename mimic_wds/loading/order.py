"""Who sees which sample when: a pure function of (samples of each shard, seed, epoch, lanes, window).

Ranks and micro-batches only cut it up, and nothing of it depends on where the data lie. A global batch takes the same
number of samples from every lane (`lanes.py`), and its rows are sorted by lane: a rank of a world size that divides the
lanes reads lanes of its own, and so fetches their shards alone.
"""

import heapq
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mimic_wds.loading.lanes import Lanes

#: What becomes of the samples that fill no whole global batch: they are left out (other ones in every epoch), or they
#: make one more, filled up with the first samples of their lanes.
Tail: TypeAlias = Literal["drop", "pad"]

#: Lanes unless others are asked for: the largest power of two up to this that divides the global batch. So any number
#: of processes that is a power of two up to this one reads shards of its own.
MAX_LANES = 64

#: Shards that are mixed at any time, all lanes together, unless another window is asked for. What counts is this
#: number, not how it is made of lanes and windows. Measured with batches of 4,096, scenes of 50 pairs, shards of 4,700:
#: of a data set of up to so many shards the order is as good as a permutation of all; of 10,000 shards 5.1 % of the
#: samples of a batch meet another one of their scene in it (0.4 % by chance), with a quarter of the window 16 %, with
#: four times it 1.7 %. `mimic-shard plan` prints it, and the cache that it asks for, for any data set.
SHARDS_MIXED = 1024


class Order:
    """The order of a data set: every epoch another permutation of all samples, cut into global batches."""

    def __init__(
        self,
        shard_samples: Sequence[int] | NDArray[np.int64],
        global_batch: int,
        seed: int = 0,
        *,
        lanes: int | None = None,
        window: int | None = None,
        tail: Tail = "drop",
    ):
        """`shard_samples` are the samples of each shard, in the order of the manifest; `window` is in shards.

        With tail "drop", as training wants it, all batches hold samples of which none comes twice in an epoch. With
        "pad", as evaluation wants it, every sample comes, and `valid` tells it from the padding.
        Raises ValueError for a batch that is larger than the data set (unless padded) or not divided by the lanes.
        """
        num_samples = int(np.sum(shard_samples))
        if global_batch < 1 or (tail == "drop" and global_batch > num_samples):
            raise ValueError(
                f"a global batch of {global_batch} cannot be made from {num_samples} samples: "
                "use a smaller global batch or a larger data set"
            )
        self.global_batch, self.seed, self.tail = global_batch, seed, tail
        self.lanes = default_lanes(global_batch, num_samples) if lanes is None else lanes
        check_lanes(global_batch, self.lanes)
        self.window = default_window(self.lanes) if window is None else window
        self.permutation = Lanes(shard_samples, seed=seed, lanes=self.lanes, window=self.window)
        self._per_lane = global_batch // self.lanes

    @property
    def num_samples(self) -> int:
        """Samples of the data set."""
        return self.permutation.num_samples

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in an epoch."""
        whole, rest = divmod(self.num_samples, self.global_batch)
        return whole + 1 if rest and self.tail == "pad" else whole

    @property
    def padding(self) -> int:
        """Rows of the last batch of every epoch that repeat a sample."""
        return max(0, self.steps_per_epoch * self.global_batch - self.num_samples)

    @cached_property
    def _all_rows(self) -> NDArray[np.int64]:
        return np.arange(self.global_batch)

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Sample indices of global batch `step` of `epoch`: (global_batch,), 0 <= step < steps_per_epoch."""
        return self.at(epoch, step, self._all_rows)

    def at(self, epoch: int, step: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sample indices of (n,) rows of a global batch; lanes of other rows cost nothing."""
        return self.permutation.samples(epoch, self._positions(epoch, step, rows))

    def _positions(self, epoch: int, step: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in the line of the epoch the samples of (n,) rows are."""
        assert 0 <= step < self.steps_per_epoch
        lanes, places = self._places(step, rows)
        sizes, positions = self.permutation.sizes(epoch), np.empty(len(rows), np.int64)
        for lane in np.unique(lanes).tolist():
            here = lanes == lane
            positions[here] = self.permutation.positions(epoch, lane, places[here] % sizes[lane])
        return positions

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """Sample indices of all global batches of an epoch: (steps_per_epoch, global_batch)."""
        return np.stack([self.batch(epoch, step) for step in range(self.steps_per_epoch)])

    def valid(self, epoch: int, step: int) -> NDArray[np.bool_]:
        """Rows of a global batch that hold a sample of their own: (global_batch,), False where it is padding."""
        assert 0 <= step < self.steps_per_epoch
        lanes, places = self._places(step, self._all_rows)
        return np.asarray(places < self.permutation.sizes(epoch)[lanes])

    def seen(self, epoch: int, step: int) -> dict[str, int]:
        """Samples that were read before a position, over all ranks, without padding."""
        per_epoch = self.steps_per_epoch * self.global_batch - self.padding
        return {"all": epoch * per_epoch + step * self.global_batch}

    def shards_ahead(self, epoch: int, step: int, rows: NDArray[np.int64]) -> Iterator[list[int]]:
        """Groups of shards in the order in which (n,) rows need them, from `step` to the end of the epoch.

        A group is what one window of one lane holds that is not consumed yet; windows come in the order in which they
        begin. A shard that two windows share is in the groups of both.
        """
        lanes = np.unique(rows // self._per_lane).tolist()
        groups = [windows_ahead(self.permutation, epoch, lane, step * self._per_lane) for lane in lanes]
        for _, group in heapq.merge(*groups, key=lambda item: item[0]):
            yield group
        last = self.steps_per_epoch - 1
        if len(repeated := rows[~self.valid(epoch, last)[rows]]):
            yield self.permutation.shards_of(epoch, self._positions(epoch, last, repeated)).tolist()

    def laid_out(self, lanes: int, window: int) -> "Order":
        """The order of the same samples in other lanes and windows. Raises ValueError as for a new one."""
        return Order(
            self.permutation.shard_samples, self.global_batch, self.seed, lanes=lanes, window=window, tail=self.tail
        )

    def state(self) -> dict[str, int]:
        """What tells this order from others of the same data set. Plain JSON."""
        return {"seed": self.seed, "global_batch": self.global_batch, "lanes": self.lanes, "window": self.window}

    def _places(self, step: int, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lane and place in it of some rows of a global batch."""
        return rows // self._per_lane, step * self._per_lane + rows % self._per_lane


def windows_ahead(lanes: Lanes, epoch: int, lane: int, place: int) -> Iterator[tuple[int, list[int]]]:
    """The windows of a lane from `place` on: (place from which it is needed, shards of what is left of it).

    The shards of the window that holds `place` come in the order in which they are needed.
    """
    edges = lanes.edges(epoch, lane)
    first = int(np.searchsorted(edges, place, side="right")) - 1
    for start, stop in zip(edges[first:-1].tolist(), edges[first + 1 :].tolist(), strict=True):
        if start > place:
            yield start, lanes.shards(epoch, lane, start, stop).tolist()
        else:
            left = lanes.positions(epoch, lane, np.arange(place, stop))
            yield place, lanes.shards_of(epoch, left).tolist()


def default_lanes(global_batch: int, num_samples: int) -> int:
    """The largest power of two up to MAX_LANES that divides the global batch, and is no more than the samples."""
    lanes = MAX_LANES
    while lanes > 1 and (global_batch % lanes or lanes > num_samples):
        lanes //= 2
    return lanes


def default_window(lanes: int) -> int:
    """Shards of a window, so that all lanes together mix SHARDS_MIXED."""
    return -(-SHARDS_MIXED // lanes)


def check_lanes(global_batch: int, lanes: int) -> None:
    """Raise ValueError when a global batch does not take the same number of samples from every lane."""
    if lanes < 1 or global_batch % lanes:
        raise ValueError(
            f"a global batch of {global_batch} cannot take the same number of samples from {lanes} lanes: "
            "the lanes must divide it"
        )


def rank_rows(global_batch: int, world_size: int, rank: int, accumulation: int) -> NDArray[np.int64]:
    """Rows of the global batch that a rank reads, (accumulation, rows per micro-batch).

    Ranks take runs of neighbouring rows, so that each keeps to lanes of its own, and cut them into micro-batches; all
    together read every row once. Raises ValueError when they do not divide the batch.
    """
    if not 0 <= rank < world_size or accumulation < 1:
        raise ValueError(f"need 0 <= rank < world_size and accumulation >= 1, got {rank}, {world_size}, {accumulation}")
    if global_batch % (world_size * accumulation):
        raise ValueError(
            f"a global batch of {global_batch} cannot be shared evenly by {world_size} processes in {accumulation} "
            "micro-batches: the product must divide it"
        )
    return np.arange(global_batch).reshape(world_size, accumulation, -1)[rank]


def swap_views(seed: int, epoch: int, samples: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which samples (any shape) have their views exchanged in an epoch: probability 1/2, fixed per sample and epoch."""
    with np.errstate(over="ignore"):
        return (mix(samples.astype(np.uint64) + stream(seed, epoch)) >> np.uint64(63)).astype(bool)


def stream(seed: int, epoch: int, purpose: int = 0) -> NDArray[np.uint64] | np.uint64:
    """Where the random words of an epoch start; other ones for every purpose that they serve."""
    with np.errstate(over="ignore"):
        start = mix(np.uint64(seed % 2**64) + mix(np.uint64(epoch) + np.uint64(1)))
        return mix(start + np.uint64(purpose)) if purpose else start


def mix(x: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """SplitMix64: every bit of the result depends on every bit of x (Steele, Lea, Flood 2014)."""
    z = np.asarray(x + np.uint64(0x9E3779B97F4A7C15))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
