"""What one optimizer step is made of: a global batch of fixed size, cut up over processes and micro-batches.

The size of the global batch is what a recipe fixes; how many devices there are and how much one of them holds is the
machine's business. So the accumulation is derived, and nothing that is random depends on it: the noise that picks the
hidden patches is drawn for the whole global batch, and every process takes the rows of its own samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """global_batch = world_size * device_batch * accumulation, all counted in samples (what the model is given)."""

    global_batch: int  #: per optimizer step
    world_size: int  #: processes, one device each
    device_batch: int  #: per micro-batch on one device
    accumulation: int  #: micro-batches per optimizer step
    samples_per_record: int = 1  #: 2 when both images of a stored pair count

    @property
    def records(self) -> int:
        """Stored pairs or images per optimizer step."""
        return self.global_batch // self.samples_per_record


def plan_batches(global_batch: int, world_size: int, max_device_batch: int, samples_per_pair: int = 1) -> BatchPlan:
    """The smallest accumulation that gives exactly `global_batch` with at most `max_device_batch` per device.

    Pairs are never torn: every device batch is a multiple of `samples_per_pair`.
    Raises ValueError when `global_batch` cannot be shared evenly, naming the nearest sizes that can, and when not even
    one pair fits into `max_device_batch`.
    """
    unit = world_size * samples_per_pair
    if max_device_batch < samples_per_pair:
        raise ValueError(f"run.max_device_batch = {max_device_batch} holds no pair; the smallest is {samples_per_pair}")
    if global_batch < unit or global_batch % unit:
        near = " or ".join(str(size) for size in _nearest_multiples(global_batch, unit))
        raise ValueError(
            f"data.global_batch = {global_batch} cannot be shared evenly by {world_size} processes; "
            f"the nearest that can: {near}. Change data.global_batch or the number of processes"
        )
    pairs = global_batch // unit
    accumulation = next(n for n in _divisors(pairs) if pairs // n * samples_per_pair <= max_device_batch)
    return BatchPlan(
        global_batch=global_batch,
        world_size=world_size,
        device_batch=pairs // accumulation * samples_per_pair,
        accumulation=accumulation,
        samples_per_record=samples_per_pair,
    )


def step_noise(seed: int, step: int, num_samples: int, num_draws: int) -> Tensor:
    """The random numbers of step `step`: (num_samples, num_draws) float32 in [0, 1), on the CPU.

    One for every patch, to pick the hidden ones.
    A pure function of its arguments, `num_samples` being the whole global batch: processes pick their own rows of it,
    so the masks of a sample are the same however many processes and micro-batches share the work.
    """
    words = np.random.SeedSequence((seed, step)).generate_state(2, np.uint32)
    generator = torch.Generator().manual_seed((int(words[0]) << 31) | (int(words[1]) >> 1))
    return torch.rand(num_samples, num_draws, generator=generator)


def both_view_rows(rows: Tensor) -> Tensor:
    """Rows of image 0 and image 1 when both views count as samples: (B,) rows of pairs -> (2B,) rows of images.

    Pair r has the images 2r and 2r + 1; the result lists all first views, then all second views, as
    ``torch.cat([image0, image1])`` does.
    """
    return torch.cat([rows * 2, rows * 2 + 1])


def _divisors(number: int) -> Iterator[int]:
    return (n for n in range(1, number + 1) if number % n == 0)


def _nearest_multiples(number: int, factor: int) -> list[int]:
    below = number - number % factor
    return [size for size in (below, below + factor) if size > 0]
