"""How sure a score is: the test set, drawn anew with replacement, again and again (arXiv 2306.15128, 100 times).

What an image adds to a score is a row of statistics, so a resampled test set is a weighted sum of rows, and all of them
are one matrix product. Scores are functions of sums (..., S) -> name -> (...).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

#: From sums (..., S) to scores (...) by name.
Scores: TypeAlias = Callable[[Floats], dict[str, Floats]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What a score was in the resampled test sets."""

    minimum: float
    maximum: float
    mean: float
    std: float  #: sample standard deviation (n - 1)


def draw_counts(num_images: int, resamples: int, seed: int) -> Floats:
    """How often each image is in each resampled test set, all of `num_images` images: (R, N)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=resamples).astype(np.float64)


def bootstrap(statistics: Floats, scores: Scores, *, resamples: int = 100, seed: int = 0) -> dict[str, Spread]:
    """Spread of every score over resampled test sets; `statistics` (N, S) has a row per image.

    Raises ValueError for fewer than two resamples or no image.
    """
    if resamples < 2 or len(statistics) == 0:
        raise ValueError(f"a bootstrap needs an image and 2 resamples or more, got {len(statistics)}, {resamples}")
    sums = draw_counts(len(statistics), resamples, seed) @ np.asarray(statistics, np.float64)
    return {name: spread(values) for name, values in scores(sums).items()}


def spread(values: Floats) -> Spread:
    """What these values (R,) span."""
    return Spread(
        minimum=float(values.min()),
        maximum=float(values.max()),
        mean=float(values.mean()),
        std=float(values.std(ddof=1)),
    )


def pooled(statistics: Floats, scores: Scores) -> dict[str, float]:
    """The scores of all images together; `statistics` (N, S)."""
    return {name: float(value) for name, value in scores(np.asarray(statistics, np.float64).sum(axis=0)).items()}


def batch_averaged(statistics: Floats, scores: Scores, batch: int) -> dict[str, float]:
    """Scores of batches of neighbouring images, averaged without weights: what many published training loops print."""
    starts = range(0, len(statistics), batch)
    found = [pooled(statistics[start : start + batch], scores) for start in starts]
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def as_plain(spreads: Mapping[str, Spread]) -> dict[str, dict[str, float]]:
    """Ready for JSON."""
    return {name: {"min": s.minimum, "max": s.maximum, "mean": s.mean, "std": s.std} for name, s in spreads.items()}


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """numerator / denominator, nan where there is nothing to divide by."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    return np.divide(numerator, denominator, out=np.full(shape, np.nan), where=np.asarray(denominator) > 0)
