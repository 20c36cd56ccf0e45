"""Surface normals, under two protocols; an image adds one row of statistics.

"paper": the mean absolute error of normals as pictures store them, (n + 1) / 2 in [0, 1], neither scaled nor brought to
unit length; printed times 1000 (MIMIC's Table 1 is that). "standard": angles between unit vectors.
"""

import numpy as np
from numpy.typing import NDArray

from mimic_wds.downstream.metrics.bootstrap import Floats, ratio

PAPER_COLUMNS = ("values", "absolute")

#: Angles are counted in bins of a quarter degree, so that the median of any sum of images is known to within one.
NUM_BINS = 720
STANDARD_COLUMNS = ("pixels", "angle_deg", "within_11.25", "within_22.5", "within_30", *map(str, range(NUM_BINS)))


def paper_statistics(prediction: Floats, truth: Floats, valid: NDArray[np.bool_]) -> Floats:
    """What an image adds to PAPER_COLUMNS (2,): (H, W, 3) twice, stored values in [0, 1]; `valid` (H, W)."""
    error = np.abs(prediction[valid].astype(np.float64) - truth[valid])
    return np.array([error.size, error.sum()], np.float64)


def paper_scores(sums: Floats) -> dict[str, Floats]:
    """`l1_x1000` of sums (..., 2)."""
    return {"l1_x1000": 1000 * ratio(sums[..., 1], sums[..., 0])}


def angles_deg(prediction: Floats, truth: Floats) -> Floats:
    """Angles (..., ) in degrees between stored values (..., 3) in [0, 1], brought to unit vectors."""
    p, g = (2 * np.asarray(values, np.float64) - 1 for values in (prediction, truth))
    # The arc tangent is exact where the arc cosine is not: for small angles. Lengths cancel.
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(p, g), axis=-1), (p * g).sum(axis=-1)))


def standard_statistics(prediction: Floats, truth: Floats, valid: NDArray[np.bool_]) -> Floats:
    """What an image adds to STANDARD_COLUMNS; arguments as of `paper_statistics`."""
    angles = angles_deg(prediction[valid], truth[valid])
    within = [(angles < limit).sum() for limit in (11.25, 22.5, 30.0)]
    bins = np.bincount(np.minimum((angles * NUM_BINS / 180).astype(np.int64), NUM_BINS - 1), minlength=NUM_BINS)
    return np.concatenate([[len(angles), angles.sum(), *within], bins]).astype(np.float64)


def standard_scores(sums: Floats) -> dict[str, Floats]:
    """Mean and median angle in degrees, shares within 11.25, 22.5 and 30 degrees, of sums (..., 725)."""
    pixels = sums[..., 0]
    return {
        "mean_deg": ratio(sums[..., 1], pixels),
        "median_deg": _median(sums[..., 5:]),
        "within_11.25": ratio(sums[..., 2], pixels),
        "within_22.5": ratio(sums[..., 3], pixels),
        "within_30": ratio(sums[..., 4], pixels),
    }


def _median(counts: Floats) -> Floats:
    """The median angle of counts per bin (..., NUM_BINS), linear inside its bin; nan where nothing was counted."""
    totals = counts.cumsum(axis=-1)
    half = totals[..., -1:] / 2
    place = np.argmax(totals >= half, axis=-1)[..., None]
    inside = np.take_along_axis(counts, place, -1)
    before = np.take_along_axis(totals, place, -1) - inside
    median: Floats = ((place + ratio(half - before, inside)) * 180 / NUM_BINS)[..., 0]
    return median
