"""Overlap of two views: where each patch lies in the other view, and which share of patches has a place of its own.

The method of MIMIC (arXiv 2306.15128, section 3 and appendix C):

1. project points of every patch of one view with the homography and label each with the patch it falls in, or "out";
2. a patch goes to its most frequent label; "out" competes as a label; of equals the one that reaches the winning count
   first, counting the points in order, wins;
3. one-to-one: in raster order, a patch whose winner is "out" or already taken has no correspondence;
4. the same from image 1 to image 0; the smaller of both directions counts, ties keep the inverted 1-to-0 map.

Two defects of the published code are mended: a point behind the horizon (w <= 0) is "out" instead of being folded
back into the image (the "paper" preset folds it), and a singular homography is a drop reason instead of a crash.
"""

import numpy as np
from numpy.typing import NDArray

from mimic_wds.geometry import features, homography
from mimic_wds.geometry.features import Features
from mimic_wds.geometry.patches import PatchGrid, all_points, sampled_points
from mimic_wds.pairs import DropReason, Overlap, invert_correspondences

#: At least this many matches must pass the ratio test (MIMIC: more than 10).
MIN_MATCHES = 11


def measure(
    features0: Features,
    features1: Features,
    grid: PatchGrid,
    *,
    ratio: float = features.LOWE_RATIO,
    min_matches: int = MIN_MATCHES,
    ransac_px: float = homography.RANSAC_PX,
    num_points: int = 0,
    folded: bool = False,
    rng: np.random.Generator | None = None,
) -> Overlap | DropReason:
    """How two views overlap, or why that cannot be told.

    num_points = 0 lets all pixels of a patch vote (deterministic); otherwise that many are drawn from `rng`
    (the paper draws 100). folded: points behind the horizon fall where the projection folds them, as in the released
    code, instead of "out".
    """
    if len(features0) == 0 or len(features1) == 0:
        return DropReason.NO_KEYPOINTS
    matches = features.match(features0, features1, ratio)
    if len(matches) < min_matches:
        return DropReason.TOO_FEW_MATCHES
    fitted = homography.fit(features0.points[matches[:, 0]], features1.points[matches[:, 1]], ransac_px)
    if fitted is None:
        return DropReason.NO_HOMOGRAPHY
    H_0to1, inliers = fitted
    if not homography.is_usable(H_0to1):
        return DropReason.BAD_HOMOGRAPHY
    corr_0to1 = correspondences(H_0to1, grid, *vote_points(grid, num_points, rng), folded=folded)
    return Overlap(
        ratio=overlap_ratio(corr_0to1),
        corr_0to1=corr_0to1,
        H_0to1=H_0to1,
        num_matches=len(matches),
        num_inliers=int(inliers.sum()),
    )


def vote_points(
    grid: PatchGrid, num_points: int = 0, rng: np.random.Generator | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The points that vote, of image 0 and of image 1, each (L, P, 2): all pixels, or `num_points` from `rng`."""
    if num_points == 0:
        points = all_points(grid)
        return points, points
    assert rng is not None, "sampled points need a generator"
    return sampled_points(grid, num_points, rng), sampled_points(grid, num_points, rng)


def correspondences(
    H_0to1: NDArray[np.float64],
    grid: PatchGrid,
    points0: NDArray[np.float32],
    points1: NDArray[np.float32],
    *,
    folded: bool = False,
) -> NDArray[np.int16]:
    """For each patch of image 0 the patch of image 1 or -1, (L,) int16, one-to-one; the smaller of both directions.

    `H_0to1` must be usable (`homography.is_usable`). points0 and points1 (L, P, 2) are the voting points.
    """
    forward = one_to_one(vote(H_0to1, grid, points0, folded))
    backward = one_to_one(vote(np.linalg.inv(H_0to1).astype(np.float64), grid, points1, folded))
    is_forward_smaller = np.count_nonzero(forward >= 0) < np.count_nonzero(backward >= 0)
    return forward if is_forward_smaller else invert_correspondences(backward)


def vote(
    H: NDArray[np.float64], grid: PatchGrid, points: NDArray[np.float32], folded: bool = False
) -> NDArray[np.intp]:
    """The winning label of each patch, (L,): a patch index of the other view, or L for "out"."""
    mapped = homography.transform(H, points) if folded else _visible(H, grid, points)
    return _plurality(grid.label(mapped), grid.num_patches + 1)


def _visible(H: NDArray[np.float64], grid: PatchGrid, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points (L, P, 2) of the patches mapped by H; those behind the horizon outside of every frame."""
    mapped = homography.transform(H, points)
    if not homography.is_in_front(H, 0.0, 0.0, grid.width, grid.height):
        # The horizon is looked for only in the patches where it can be.
        x, y = grid.origins().astype(np.float64).T
        (doubtful,) = np.nonzero(~homography.is_in_front(H, x, y, grid.patch_size, grid.patch_size))
        is_behind = homography.depths(H, points[doubtful]) <= 0
        mapped[doubtful] = np.where(is_behind[..., None], np.float32(-1), mapped[doubtful])
    return mapped


def _plurality(labels: NDArray[np.int32], num_labels: int) -> NDArray[np.intp]:
    """Per row of (N, P) the most frequent label; of equals the one that reaches the winning count first."""
    num_rows = len(labels)
    row_starts = np.arange(num_rows) * num_labels
    cells = (labels + row_starts[:, None]).ravel()
    counts = np.bincount(cells, minlength=num_rows * num_labels).reshape(num_rows, num_labels)
    winners: NDArray[np.intp] = counts.argmax(1)
    won = row_starts + winners
    most = counts.ravel()[won]
    counts.ravel()[won] = 0
    (tied,) = np.nonzero(counts.max(1) == most)  # another label has as many
    counts.ravel()[won] = most
    winners[tied] = _first_to_reach(labels[tied], counts[tied] == most[tied, None])
    return winners


def _first_to_reach(labels: NDArray[np.int32], is_top: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Per row of (N, P) the label that reaches its full count first, of those that `is_top` (N, K) marks.

    A label reaches its full count at its last occurrence, so the one with the earliest last occurrence wins.
    """
    num_rows, num_points = labels.shape
    last = np.zeros(is_top.shape, np.intp)
    last[np.arange(num_rows)[:, None], labels] = np.arange(num_points)  # of repeated cells the last assignment stays
    winners: NDArray[np.intp] = np.where(is_top, last, num_points).argmin(1)
    return winners


def one_to_one(winners: NDArray[np.intp]) -> NDArray[np.int16]:
    """Give each target to the first patch in raster order that claims it: (L,) with -1 for "out" and for latecomers."""
    num_patches = len(winners)
    claimed_by = np.full(num_patches + 1, -1, np.int16)
    claimed_by[winners[::-1]] = np.arange(num_patches - 1, -1, -1)  # the last assignment stays: the first claim
    return invert_correspondences(claimed_by[:num_patches])


def overlap_ratio(corr: NDArray[np.int16]) -> float:
    """Share of patches that have a correspondence, in [0, 1]."""
    return float(np.count_nonzero(corr >= 0) / len(corr))
