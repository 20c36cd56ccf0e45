"""Few-shot: which images a run may learn from, and how often it sees them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Runs with different images for each number of them (arXiv 2306.15128 wants 5 or more).
MIN_SEEDS = 5

#: Numbers of images unless others are given; those beyond the data set are left out. The paper's are not in its text.
DEFAULT_SHOTS = (1, 2, 5, 10, 20, 50, 100, 200)


def subset(num_samples: int, shots: int, seed: int) -> NDArray[np.int64]:
    """The samples of `num_samples` that a run learns from, sorted; among them are those of fewer shots with this seed.

    Raises ValueError for more shots than samples, or none.
    """
    if not 1 <= shots <= num_samples:
        raise ValueError(f"{shots} shots of a data set of {num_samples} samples: choose from 1 to {num_samples}")
    return np.sort(np.random.default_rng(seed).permutation(num_samples)[:shots]).astype(np.int64)


def plan_runs(num_samples: int, shots: Sequence[int], seeds: Sequence[int]) -> list[tuple[int, int]]:
    """All (shots, seed), shots ascending without doubles, those beyond the data set left out.

    Raises ValueError for fewer than MIN_SEEDS different seeds: an error bar wants them.
    """
    if len(set(seeds)) < MIN_SEEDS:
        raise ValueError(f"few-shot numbers need {MIN_SEEDS} seeds or more, got {len(set(seeds))}")
    fitting = sorted({k for k in shots if k <= num_samples})
    return [(k, seed) for k in fitting for seed in dict.fromkeys(seeds)]


def batch_for(shots: int, batch: int) -> int:
    """Samples per step: never more than there are, so that no epoch is empty. All runs have equally many steps."""
    return min(shots, batch)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1) of the runs with different seeds; nan deviation of a single one."""
    array = np.asarray(values, np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan")
