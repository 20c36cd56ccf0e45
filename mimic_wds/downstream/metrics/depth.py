"""Depth, under two protocols. Depths are in metres, (H, W); an image adds one row of statistics.

"paper": all pixels count the same; what MultiMAE's trainer, and MIMIC's after it, call log10 is the root mean square of
natural logarithms and is named `rmse_ln` here. "standard": every image counts the same; depths from 1 mm to 10 m, on
NYUv2's pictures the crop of Eigen et al. (arXiv 1406.2283).
"""

import numpy as np
from numpy.typing import NDArray

from mimic_wds.downstream.metrics.bootstrap import Floats, ratio

#: Ratios are taken of depths that are at least this (MultiMAE).
LEAST_M = 1e-6

#: Depths that the standard protocol looks at.
STANDARD_RANGE_M = (1e-3, 10.0)

#: Rows and columns that are looked at of a picture of 480 x 640 pixels.
EIGEN_ROWS, EIGEN_COLS = slice(45, 471), slice(41, 601)

#: Names of the sums: pixels (or images), then what the scores are made of.
PAPER_COLUMNS = ("pixels", "delta1", "delta2", "delta3", "rel", "sq_rel", "squared", "squared_ln")
STANDARD_COLUMNS = ("images", "delta1", "delta2", "delta3", "abs_rel", "sq_rel", "rmse", "rmse_ln", "log10")


def paper_statistics(prediction: Floats, truth: Floats, valid: NDArray[np.bool_]) -> Floats:
    """What an image adds to PAPER_COLUMNS: sums over its valid pixels (8,)."""
    p, g = prediction[valid].astype(np.float64), truth[valid].astype(np.float64)
    deltas = _deltas(p, g)
    error, logs = p - g, _ln(p) - _ln(g)
    terms = (*deltas, np.abs(error) / g, error**2 / g, error**2, logs**2)
    return np.array([len(g), *(term.sum() for term in terms)], np.float64)


def paper_scores(sums: Floats) -> dict[str, Floats]:
    """Scores of sums (..., 8): shares in [0, 1]; `rmse_m` and `sq_rel_m` in metres."""
    mean = ratio(sums[..., 1:], sums[..., :1])
    names = ("delta1", "delta2", "delta3", "rel", "sq_rel_m")
    plain = {name: mean[..., i] for i, name in enumerate(names)}
    return {**plain, "rmse_m": np.sqrt(mean[..., 5]), "rmse_ln": np.sqrt(mean[..., 6])}


def standard_statistics(prediction: Floats, truth: Floats, valid: NDArray[np.bool_]) -> Floats:
    """What an image adds to STANDARD_COLUMNS: a 1 and its own scores (9,); zeros when none of its pixels count.

    Predictions are brought into STANDARD_RANGE_M first.
    """
    low, high = STANDARD_RANGE_M
    looked_at = valid & eigen_mask(truth.shape[0], truth.shape[1]) & (truth >= low) & (truth <= high)
    if not looked_at.any():
        return np.zeros(len(STANDARD_COLUMNS))
    p, g = np.clip(prediction[looked_at].astype(np.float64), low, high), truth[looked_at].astype(np.float64)
    error, ln = p - g, np.log(p) - np.log(g)
    scores = [delta.mean() for delta in _deltas(p, g)]
    scores += [(np.abs(error) / g).mean(), (error**2 / g).mean()]
    scores += [np.sqrt((error**2).mean()), np.sqrt((ln**2).mean()), np.abs(ln).mean() / np.log(10)]
    return np.array([1.0, *scores])


def standard_scores(sums: Floats) -> dict[str, Floats]:
    """Scores of sums (..., 9), means over images: shares in [0, 1]; `rmse_m` and `sq_rel_m` in metres."""
    mean = ratio(sums[..., 1:], sums[..., :1])
    names = ("delta1", "delta2", "delta3", "abs_rel", "sq_rel_m", "rmse_m", "rmse_ln", "log10")
    return {name: mean[..., i] for i, name in enumerate(names)}


def eigen_mask(height: int, width: int) -> NDArray[np.bool_]:
    """The pixels of NYUv2's pictures (480 x 640) that are looked at; all of those of any other size."""
    mask = np.full((height, width), (height, width) != (480, 640))
    mask[EIGEN_ROWS, EIGEN_COLS] = True
    return mask


def _deltas(p: Floats, g: Floats) -> list[Floats]:
    """Whether each depth is within a factor 1.25, 1.25^2, 1.25^3 of the true one."""
    worst = np.maximum(p / np.maximum(g, LEAST_M), g / np.maximum(p, LEAST_M))
    return [(worst < 1.25**k).astype(np.float64) for k in (1, 2, 3)]


def _ln(depth: Floats) -> Floats:
    """Natural logarithm; predictions may be 0 or less, which have none."""
    return np.log(np.maximum(depth, LEAST_M))
