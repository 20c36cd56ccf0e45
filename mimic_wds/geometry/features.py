"""SIFT keypoints of one image, and the matches between two images.

Keypoints are computed once per image and reused by every candidate pair the image is in.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import Image

#: Lowe's ratio, strict (MIMIC, arXiv 2306.15128, appendix C).
LOWE_RATIO = 0.7


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """SIFT keypoints of one image; N may be 0."""

    points: NDArray[np.float32]  #: (N, 2) as (x, y)
    descriptors: NDArray[np.uint8]  #: (N, 128)

    def __len__(self) -> int:
        return len(self.points)


def none() -> Features:
    """The features of a picture without any."""
    return Features(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8))


def extract(image: Image) -> Features:
    """SIFT with OpenCV's defaults on the grey image; `image` is (H, W, 3) uint8 RGB.

    OpenCV's descriptors are whole numbers from 0 to 255, so uint8 holds them exactly at a quarter of the size.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    keypoints, descriptors = cv2.SIFT.create().detectAndCompute(gray, None)
    if descriptors is None:
        return none()
    points = cv2.KeyPoint.convert(keypoints)
    return Features(np.asarray(points, np.float32).reshape(-1, 2), descriptors.astype(np.uint8))


def match(features0: Features, features1: Features, ratio: float = LOWE_RATIO) -> NDArray[np.int64]:
    """Matches from image 0 to image 1 that pass Lowe's ratio test: (M, 2) indices into both, ascending in the first.

    The same list as OpenCV's brute-force matcher gives: squared distances of whole numbers below 2**24 are exact in
    float32, the nearest neighbour is the first of equals, and the roots are compared as the matcher rounds them.
    """
    if len(features0) == 0 or len(features1) < 2:
        return np.empty((0, 2), np.int64)
    minus_2a, b = features0.descriptors * np.float32(-2), features1.descriptors.astype(np.float32)
    ones = np.ones(b.shape[1], np.float32)
    a_squared, b_squared = np.square(minus_2a) @ ones / 4, np.square(b) @ ones
    distances = minus_2a @ b.T
    distances += b_squared  # less |a|**2, which is the same along a row
    rows = np.arange(len(minus_2a))
    nearest = distances.argmin(1)
    first = distances[rows, nearest] + a_squared
    distances[rows, nearest] = np.inf
    second = distances.min(1) + a_squared
    passed = np.sqrt(first).astype(np.float64) < ratio * np.sqrt(second).astype(np.float64)
    return np.stack([rows[passed], nearest[passed]], axis=1)
