"""How alike two pictures are: PSNR and SSIM. Pictures are (H, W, 3) uint8 or (H, W, C) from 0 to 255."""

import cv2
import numpy as np
from numpy.typing import NDArray

#: Constants and window of SSIM as published (Wang et al. 2004): 11 x 11 Gaussian of 1.5 pixels.
K1, K2, SIGMA, WINDOW = 0.01, 0.03, 1.5, 11

RANGE = 255.0


def psnr_db(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    """Peak signal-to-noise ratio in decibels; infinite for equal pictures."""
    mse = float(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2))
    return float("inf") if mse == 0 else 10 * float(np.log10(RANGE**2 / mse))


def ssim(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    """Structural similarity in [-1, 1], mean over channels and over all places where the window fits.

    Raises ValueError for pictures smaller than the window.
    """
    if min(first.shape[:2]) < WINDOW:
        raise ValueError(f"SSIM looks through a window of {WINDOW} pixels, these pictures are {first.shape[:2]}")
    x, y = first.astype(np.float64), second.astype(np.float64)
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x, var_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    similar = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similar /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    border = WINDOW // 2
    return float(similar[border:-border, border:-border].mean())


def _blurred(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cv2.GaussianBlur(picture, (WINDOW, WINDOW), SIGMA), np.float64)
