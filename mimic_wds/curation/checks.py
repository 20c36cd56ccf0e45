"""Optional checks, stricter than the paper's: plausibility of a homography, looks of a pair."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import Image

#: Side of the grid of a difference hash: 8 x 8 comparisons of neighbours, 64 bits.
HASH_SIDE = 8


def difference_hash(image: Image) -> int:
    """64 bits that similar pictures share: whether each cell of an 8 x 8 grid is darker than its right neighbour."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


def both_ways(H_0to1: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A homography and its inverse."""
    return H_0to1, np.linalg.inv(H_0to1).astype(np.float64)


def warped_corners(H: NDArray[np.float64], size: int) -> NDArray[np.float64] | None:
    """Where H takes the corners of a size x size frame, (4, 2) clockwise from the top left; None beyond the horizon."""
    corners = np.array([[0, 0, 1], [size, 0, 1], [size, size, 1], [0, size, 1]], np.float64) @ H.T
    return corners[:, :2] / corners[:, 2:] if (corners[:, 2] > 0).all() else None


def is_plausible(H_0to1: NDArray[np.float64], size: int, max_scale: float) -> bool:
    """True if both warped frames are convex, keep their sense of rotation and are scaled by at most `max_scale`.

    The scale of a frame is the square root of the ratio of its areas after and before. No camera folds a plane over.
    """
    for H in both_ways(H_0to1):
        corners = warped_corners(H, size)
        if corners is None or not _is_convex(corners):
            return False
        scale = np.sqrt(_area(corners)) / size
        if not 1 / max_scale <= scale <= max_scale:
            return False
    return True


def is_zoom(H_0to1: NDArray[np.float64], size: int) -> bool:
    """True if one view lies wholly within the other, which then shows nothing that the other does not."""
    for H in both_ways(H_0to1):
        corners = warped_corners(H, size)
        if corners is not None and (corners >= 0).all() and (corners <= size).all():
            return True
    return False


def _is_convex(corners: NDArray[np.float64]) -> bool:
    """True for a convex quadrilateral (4, 2) that runs clockwise in image axes."""
    edges = np.roll(corners, -1, axis=0) - corners
    following = np.roll(edges, -1, axis=0)
    return bool((edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0] > 0).all())


def _area(corners: NDArray[np.float64]) -> float:
    """Area of a simple polygon (N, 2), the shoelace formula."""
    x, y = corners.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
