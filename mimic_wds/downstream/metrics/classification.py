"""Labels of images: top-1 and top-5; an image adds three numbers."""

import numpy as np
from numpy.typing import NDArray

from mimic_wds.downstream.metrics.bootstrap import Floats, ratio


def statistics(logits: Floats, labels: NDArray[np.integer]) -> Floats:
    """What N images add (N, 3): 1, right at first, right among five; logits (N, K), labels (N,).

    An image's rank is the number of classes with a larger logit, and of earlier ones with the same.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank = (logits > own).sum(axis=1) + ((logits == own) & earlier).sum(axis=1)
    return np.stack([np.ones(len(labels)), rank < 1, rank < 5], axis=1).astype(np.float64)


def scores(sums: Floats) -> dict[str, Floats]:
    """`top1` and `top5` in [0, 1] of sums (..., 3)."""
    return {"top1": ratio(sums[..., 1], sums[..., 0]), "top5": ratio(sums[..., 2], sums[..., 0])}
