"""The homography between two views: RANSAC fit, sanity, projection. `H_0to1` takes (x, y, 1) of image 0 to image 1."""

import cv2
import numpy as np
from numpy.typing import NDArray

#: RANSAC reprojection threshold in pixels (MIMIC, arXiv 2306.15128, appendix C).
RANSAC_PX = 5.0

#: Beyond this condition number the inverse of a 3 x 3 matrix in float64 says nothing any more.
MAX_CONDITION = 1e12


def fit(
    points0: NDArray[np.float32], points1: NDArray[np.float32], threshold_px: float = RANSAC_PX
) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """Fit `H_0to1` to matched points (M, 2), M >= 4, by RANSAC. Returns it with the (M,) inliers, or None.

    OpenCV seeds its RANSAC internally: the same points in the same order give the same homography.
    """
    H, inliers = cv2.findHomography(points0, points1, cv2.RANSAC, threshold_px)
    if H is None:
        return None
    return np.asarray(H, np.float64), inliers.ravel().astype(bool)


def is_usable(H: NDArray[np.float64]) -> bool:
    """True if the (3, 3) matrix is finite and can be inverted."""
    return bool(np.isfinite(H).all()) and float(np.linalg.cond(H)) < MAX_CONDITION


def project(H: NDArray[np.float64], points: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Map points (..., 2) by H. Returns the mapped points, and which lie in front of the horizon (homogeneous w > 0).

    Coordinates with w <= 0 mean nothing: such a point is not visible in the other view.
    """
    return transform(H, points), depths(H, points) > 0


def transform(H: NDArray[np.float64], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map points (..., 2) by H, those behind the horizon, too."""
    mapped = cv2.perspectiveTransform(points.reshape(-1, 1, 2), H)
    return np.asarray(mapped, np.float32).reshape(points.shape)


def depths(H: NDArray[np.float64], points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Homogeneous w of points (..., 2), (...) float64. Written out: a BLAS product may round in another order."""
    x, y = (points[..., axis].astype(np.float64) for axis in (0, 1))
    return np.asarray(H[2, 0] * x + H[2, 1] * y + H[2, 2])


def is_in_front(
    H: NDArray[np.float64], x: NDArray[np.float64] | float, y: NDArray[np.float64] | float, width: int, height: int
) -> NDArray[np.bool_]:
    """True only for rectangles in which w > 0 everywhere, beyond doubt by rounding: w is linear, so corners say it.

    x, y (...) are their top left points, width and height those of each; (...) bool.
    """
    a, b, c = (float(value) for value in H[2])
    lowest = a * x + b * y + (c + min(0.0, a * width) + min(0.0, b * height))
    doubt = 1e-9 * (abs(a) * (np.abs(x) + width) + abs(b) * (np.abs(y) + height) + abs(c))
    return np.asarray(lowest > doubt)
