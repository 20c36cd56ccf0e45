"""Resizing as Pillow does it: the kernel grows with the reduction, so that a large crop made small does not alias.

CroCo's crops were made with Pillow. OpenCV's kernels have a fixed width: at a reduction of four its bicubic looks at
every fourth group of pixels only. Written out in numpy, from the definition of the kernels.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import Image

_LANCZOS_LOBES = 3
_BICUBIC_A = -0.5  #: Keys, 1981


def resize(image: Image, size: int, kernel: Literal["lanczos", "bicubic"]) -> Image:
    """(H, W, 3) uint8 to (size, size, 3) uint8; columns first, rounded in between.

    Pillow 13 takes the rows first where only they shrink; the two differ where noise makes a kernel overshoot.
    """
    function, support = (_lanczos, _LANCZOS_LOBES) if kernel == "lanczos" else (_bicubic, 2)
    rows, columns = (_weights(length, size, function, support) for length in image.shape[:2])
    wide = _rounded(np.einsum("ow,hwc->hoc", columns, image.astype(np.float32), optimize=True))
    return _rounded(np.einsum("oh,hwc->owc", rows, wide.astype(np.float32), optimize=True))


def _weights(
    length: int, size: int, kernel: Callable[[NDArray[np.float64]], NDArray[np.float64]], support: float
) -> NDArray[np.float32]:
    """(size, length): the share of each input pixel in each output pixel."""
    scale = length / size
    stretch = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    first = np.maximum(np.floor(centres - support * stretch + 0.5), 0)
    last = np.minimum(np.floor(centres + support * stretch + 0.5), length)
    pixels = np.arange(length)
    weights = kernel((pixels + 0.5 - centres[:, None]) / stretch)
    weights[(pixels < first[:, None]) | (pixels >= last[:, None])] = 0
    shares: NDArray[np.float32] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return shares


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(x) < _LANCZOS_LOBES, np.sinc(x) * np.sinc(x / _LANCZOS_LOBES), 0.0)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x, a = np.abs(x), _BICUBIC_A
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _rounded(values: NDArray[np.float32]) -> Image:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)
