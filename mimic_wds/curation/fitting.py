"""Bringing a view to the size of the data set: its picture, its depth and its camera by one and the same map."""

from typing import NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import Camera, Image

T = TypeVar("T", bound=np.generic)


class Fitting(Protocol):
    """The part of the criteria that says how views are brought to size."""

    @property
    def size(self) -> int:
        """Pixels, height and width."""
        ...

    @property
    def fit(self) -> str:
        """Squash the aspect ratio, or crop the centre square."""
        ...


class Window(NamedTuple):
    """The part of a picture that is kept, in its pixels."""

    top: int
    left: int
    height: int
    width: int


def window(shape: tuple[int, ...], fit: str) -> Window:
    """The part of a picture (H, W, ...) that is kept."""
    height, width = shape[:2]
    if fit != "crop":
        return Window(0, 0, height, width)
    side = min(height, width)
    return Window((height - side) // 2, (width - side) // 2, side, side)


def fit_image(image: Image, criteria: Fitting) -> Image:
    """Bring an image to (size, size, 3): squash it (bilinear, the paper) or crop its centre square (area)."""
    how = cv2.INTER_AREA if criteria.fit == "crop" else cv2.INTER_LINEAR
    return _resized(_cut(image, criteria), criteria.size, how)


def fit_depth(depth: NDArray[np.float32], criteria: Fitting) -> NDArray[np.float32]:
    """Bring depth to (size, size); each pixel has the depth of one that was there, none lies between two surfaces."""
    return _resized(_cut(depth, criteria), criteria.size, cv2.INTER_NEAREST_EXACT)


def fit_camera(camera: Camera, shape: tuple[int, ...], criteria: Fitting) -> Camera:
    """The camera of a picture (H, W, ...) after `fit_image`."""
    kept = window(shape, criteria.fit)
    x, y = criteria.size / kept.width, criteria.size / kept.height
    # Pixel centres are whole numbers: half a pixel lies between them and the border, before and after.
    moved = np.array([[x, 0, (0.5 - kept.left) * x - 0.5], [0, y, (0.5 - kept.top) * y - 0.5], [0, 0, 1]], np.float64)
    return Camera(intrinsics=moved @ camera.intrinsics, pose=camera.pose)


def _cut(pixels: NDArray[T], criteria: Fitting) -> NDArray[T]:
    top, left, height, width = window(pixels.shape, criteria.fit)
    whole = pixels.shape[:2] == (height, width)
    return pixels if whole else pixels[top : top + height, left : left + width]


def _resized(pixels: NDArray[T], size: int, how: int) -> NDArray[T]:
    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=how), pixels.dtype)  # type: ignore[call-overload, arg-type]
