"""Classes of pixels: intersection over union and accuracies; an image adds three counts per class."""

import numpy as np
from numpy.typing import NDArray

from mimic_wds.downstream.metrics.bootstrap import Floats, ratio


def statistics(prediction: NDArray[np.integer], truth: NDArray[np.integer], num_classes: int) -> Floats:
    """What an image adds (3 * K,): pixels right, predicted, and true, of each class; (H, W) twice, from 0.

    Pixels whose true class is K or more (255: unlabelled) do not count.
    """
    labelled = truth < num_classes
    p, g = prediction[labelled], truth[labelled]
    counts = (np.bincount(which, minlength=num_classes)[:num_classes] for which in (g[p == g], p, g))
    return np.concatenate(list(counts)).astype(np.float64)


def scores(sums: Floats) -> dict[str, Floats]:
    """`miou` and `mean_accuracy` over the classes that occur, and `pixel_accuracy`, in [0, 1], of sums (..., 3 * K)."""
    right, predicted, true = np.split(sums, 3, axis=-1)
    return {
        "miou": _mean_of_known(ratio(right, predicted + true - right)),
        "mean_accuracy": _mean_of_known(ratio(right, true)),
        "pixel_accuracy": ratio(right.sum(axis=-1), true.sum(axis=-1)),
    }


def class_iou(sums: Floats) -> Floats:
    """Intersection over union of each class (..., K); nan where it neither occurs nor is predicted."""
    right, predicted, true = np.split(sums, 3, axis=-1)
    return ratio(right, predicted + true - right)


def _mean_of_known(values: Floats) -> Floats:
    """Mean (...) of those of (..., K) that are not nan; nan if all are."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))
