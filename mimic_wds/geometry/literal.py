"""The published per-point algorithm, slow on purpose: the oracle of the tests and the baseline of the benchmark.

One pair at a time, as appendix C of MIMIC (arXiv 2306.15128) describes it: SIFT of both images on each call, OpenCV's
brute-force matcher, the ratio test in a loop, one projection call per point, running counts in a dictionary, and a list
of the patches that are taken. The random points are an argument, so that the fast form can be given the same.

The defects that `mimic_wds.geometry.overlap` mends are mended here, too: a singular homography is a drop reason, and a
point behind the horizon is "out" unless it is asked for as published (`folded`). Both sides are meant to agree in every
decision and in every map.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.geometry import homography
from mimic_wds.geometry.features import LOWE_RATIO
from mimic_wds.geometry.overlap import MIN_MATCHES
from mimic_wds.pairs import DropReason, Image, Overlap

#: SIFT keypoints and their (N, 128) float32 descriptors, None when there is no keypoint.
Described: TypeAlias = tuple[Sequence[cv2.KeyPoint], NDArray[np.float32] | None]


def literal_overlap(
    image0: Image,
    image1: Image,
    points0: NDArray[np.float32],
    points1: NDArray[np.float32],
    *,
    ratio: float = LOWE_RATIO,
    min_matches: int = MIN_MATCHES,
    ransac_px: float = homography.RANSAC_PX,
    patch_size: int = 16,
    folded: bool = False,
) -> Overlap | DropReason:
    """How two square images of the same size overlap, or why that cannot be told. points0, points1 (L, P, 2) vote."""
    keypoints0, descriptors0 = literal_sift(image0)
    keypoints1, descriptors1 = literal_sift(image1)
    if descriptors0 is None or descriptors1 is None:
        return DropReason.NO_KEYPOINTS
    matches = literal_matches(descriptors0, descriptors1, ratio)
    if len(matches) < min_matches:
        return DropReason.TOO_FEW_MATCHES
    matched0 = np.array([keypoints0[match.queryIdx].pt for match in matches], np.float32)
    matched1 = np.array([keypoints1[match.trainIdx].pt for match in matches], np.float32)
    found, inliers = cv2.findHomography(matched0, matched1, cv2.RANSAC, ransac_px)
    if found is None:
        return DropReason.NO_HOMOGRAPHY
    H_0to1 = np.asarray(found, np.float64)
    if not homography.is_usable(H_0to1):
        return DropReason.BAD_HOMOGRAPHY
    kept, _ = literal_map(H_0to1, points0, points1, image0.shape[0], patch_size, folded)
    corr_0to1 = np.full(len(points0), -1, np.int16)
    for patch0, patch1 in kept.items():
        corr_0to1[patch0] = patch1
    return Overlap(
        ratio=len(kept) / len(points0),
        corr_0to1=corr_0to1,
        H_0to1=H_0to1,
        num_matches=len(matches),
        num_inliers=int(inliers.sum()),
    )


def literal_sift(image: Image) -> Described:
    """SIFT with OpenCV's defaults on the grey image, a new detector on each call."""
    keypoints, descriptors = cv2.SIFT.create().detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    return keypoints, None if descriptors is None else np.asarray(descriptors, np.float32)


def literal_matches(
    descriptors0: NDArray[np.float32], descriptors1: NDArray[np.float32], ratio: float = LOWE_RATIO
) -> list[cv2.DMatch]:
    """OpenCV's brute-force matcher, two neighbours each, and the ratio test one by one."""
    matches = []
    for neighbours in cv2.BFMatcher().knnMatch(descriptors0, descriptors1, k=2):
        if len(neighbours) == 2 and neighbours[0].distance < ratio * neighbours[1].distance:
            matches.append(neighbours[0])
    return matches


def literal_map(
    H_0to1: NDArray[np.float64],
    points0: NDArray[np.float32],
    points1: NDArray[np.float32],
    size: int = 224,
    patch_size: int = 16,
    folded: bool = False,
) -> tuple[dict[int, int], tuple[int, int]]:
    """The kept map 0 -> 1 as a dictionary, and the sizes of both directions."""
    forward = _one_way(H_0to1, points0, size, patch_size, folded)
    backward = _one_way(np.linalg.inv(H_0to1).astype(np.float64), points1, size, patch_size, folded)
    sizes = len(forward), len(backward)
    if len(forward) < len(backward):
        return forward, sizes
    return {value: key for key, value in backward.items()}, sizes


def _one_way(
    H: NDArray[np.float64], points: NDArray[np.float32], size: int, patch_size: int, folded: bool
) -> dict[int, int]:
    """Patch -> patch of the other view, first come first served."""
    found: dict[int, int] = {}
    for patch, patch_points in enumerate(points.tolist()):
        winner = _first_to_the_maximum(_label(H, x, y, size, patch_size, folded) for x, y in patch_points)
        if winner is not None and winner not in list(found.values()):
            found[patch] = winner
    return found


def _label(H: NDArray[np.float64], x: float, y: float, size: int, patch_size: int, folded: bool) -> int | None:
    """The patch that a point falls in, None = out."""
    if not folded and H.item(6) * x + H.item(7) * y + H.item(8) <= 0:
        return None
    x1, y1 = cv2.perspectiveTransform(np.array([[[x, y]]], np.float32), H)[0, 0].tolist()
    if x1 < 0 or y1 < 0 or x1 >= size or y1 >= size:
        return None
    return int(y1) // patch_size * (size // patch_size) + int(x1) // patch_size


def _first_to_the_maximum(labels: Iterable[int | None]) -> int | None:
    """The most frequent label; of equals the one that reaches the winning count first."""
    counts: dict[int | None, int] = {}
    best, best_count = None, 0
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
        if counts[label] > best_count:
            best, best_count = label, counts[label]
    return best
