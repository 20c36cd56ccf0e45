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
    flat = points.reshape(-1, 1, 2)
    mapped = np.asarray(cv2.perspectiveTransform(flat, H), np.float32).reshape(points.shape)
    w = points.astype(np.float64) @ H[2, :2] + H[2, 2]
    return mapped, np.asarray(w > 0)
