"""Who sees which sample when: a pure function of (samples, seed, epoch); ranks and micro-batches only cut it up."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a data set: every epoch another permutation of all samples, cut into global batches."""

    num_samples: int
    global_batch: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.global_batch <= self.num_samples:
            raise ValueError(
                f"a global batch of {self.global_batch} cannot be made from {self.num_samples} samples: "
                "use a smaller global batch or a larger data set"
            )
        if self.seed < 0:
            raise ValueError(f"the seed of the order must be 0 or more, got {self.seed}")

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in an epoch; the samples that are left over are other ones in every epoch."""
        return self.num_samples // self.global_batch

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Sample indices of global batch `step` of `epoch`: (global_batch,), 0 <= step < steps_per_epoch."""
        assert 0 <= step < self.steps_per_epoch
        start = step * self.global_batch
        return epoch_permutation(self.num_samples, self.seed, epoch)[start : start + self.global_batch]

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """Sample indices of all global batches of an epoch: (steps_per_epoch, global_batch)."""
        return np.stack([self.batch(epoch, step) for step in range(self.steps_per_epoch)])


@lru_cache(maxsize=2)  # asked for at every step of an epoch; millions of samples take a tenth of a second to permute
def epoch_permutation(num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of all samples in an epoch: (num_samples,), read-only."""
    permutation = np.random.Generator(np.random.PCG64((seed, epoch))).permutation(num_samples)
    permutation.flags.writeable = False
    return permutation


def rank_rows(global_batch: int, world_size: int, rank: int, accumulation: int) -> NDArray[np.int64]:
    """Rows of the global batch that a rank reads, (accumulation, rows per micro-batch).

    Micro-batch m covers the rows [m * W * b, (m + 1) * W * b), of which rank r takes [r * b, (r + 1) * b); so all ranks
    and micro-batches together read every row once, whatever W is. Raises ValueError when they do not divide the batch.
    """
    if not 0 <= rank < world_size or accumulation < 1:
        raise ValueError(f"need 0 <= rank < world_size and accumulation >= 1, got {rank}, {world_size}, {accumulation}")
    if global_batch % (world_size * accumulation):
        raise ValueError(
            f"a global batch of {global_batch} cannot be shared evenly by {world_size} processes in {accumulation} "
            "micro-batches: the product must divide it"
        )
    return np.arange(global_batch).reshape(accumulation, world_size, -1)[:, rank]


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
