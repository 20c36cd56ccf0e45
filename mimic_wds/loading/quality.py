"""How well an order shuffles, measured on the order itself, beside what a permutation of everything would give.

Two things matter to a model that is trained on pairs mined scene by scene: how far samples that are neighbours in a
shard end up apart, and how many samples of a batch find another one of the same scene in it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimic_wds.loading.order import Order

#: Shards whose neighbours are followed, and batches that are looked at: enough for two digits.
NUM_SHARDS, NUM_BATCHES = 24, 16

#: Percentiles of the distance that are reported.
PERCENTILES = (10, 50, 90)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleQuality:
    """Measured, and what a permutation of all samples would give on average."""

    distance: dict[str, float]  #: percentile -> steps between two samples that are neighbours in a shard
    ideal_distance: dict[str, float]
    scene_samples: float  #: samples of a scene that this was measured for
    same_scene: float  #: share of the samples of a batch that find another one of their scene in it
    ideal_same_scene: float


def shuffle_quality(order: Order, *, scene_samples: float = 1.0, epoch: int = 0, seed: int = 0) -> ShuffleQuality:
    """Measure an order, taking each run of `scene_samples` (on average) samples for a scene, as shards are packed.

    What is measured is drawn with `seed`: some shards and some batches, so that the largest data set takes seconds.
    """
    rng = np.random.default_rng(seed)
    found = np.percentile(neighbour_distances(order, epoch, rng), PERCENTILES)
    ideal = [ideal_distance(percent / 100) * order.steps_per_epoch for percent in PERCENTILES]
    batches = [order.batch(epoch, int(step)) for step in rng.integers(0, order.steps_per_epoch, NUM_BATCHES)]
    return ShuffleQuality(
        distance=_by_percentile(found.tolist()),
        ideal_distance=_by_percentile(ideal),
        scene_samples=scene_samples,
        same_scene=float(np.mean([same_scene_share(batch, scene_samples) for batch in batches])),
        ideal_same_scene=ideal_same_scene(order.num_samples, order.global_batch, scene_samples),
    )


def neighbour_distances(order: Order, epoch: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Steps between samples that follow each other in a shard, of some shards: (n,)."""
    counts = order.permutation.shard_samples
    starts = np.cumsum(counts) - counts
    candidates = np.flatnonzero(counts > 1)
    if not len(candidates):
        return np.zeros(1, np.int64)
    chosen = np.sort(rng.choice(candidates, min(NUM_SHARDS, len(candidates)), replace=False))
    samples = np.concatenate([np.arange(starts[shard], starts[shard] + counts[shard]) for shard in chosen])
    _, places = order.permutation.places(epoch, samples)
    steps = places // (order.global_batch // order.lanes)
    return np.abs(np.diff(steps))[np.diff(samples) == 1]


def same_scene_share(batch: NDArray[np.int64], scene_samples: float) -> float:
    """Share of (n,) samples that find another one of their scene among them."""
    _, inverse, counts = np.unique(np.floor(batch / scene_samples), return_inverse=True, return_counts=True)
    return float((counts[inverse] > 1).mean())


def ideal_distance(share: float) -> float:
    """The `share` quantile of the distance of two random places in an epoch of length 1: P(|x - y| > d) = (1 - d)^2."""
    return float(1 - (1 - share) ** 0.5)


def ideal_same_scene(num_samples: int, global_batch: int, scene_samples: float) -> float:
    """The expected `same_scene_share` of samples drawn from all: each other one is of the same scene by chance."""
    if num_samples < 2:
        return 0.0
    chance = min(1.0, max(0.0, scene_samples - 1) / (num_samples - 1))
    return float(1 - (1 - chance) ** (min(global_batch, num_samples) - 1))


def _by_percentile(values: list[float]) -> dict[str, float]:
    return {f"p{percent}": round(value, 1) for percent, value in zip(PERCENTILES, values, strict=True)}
