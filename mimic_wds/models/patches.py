"""Images as patch vectors and back, and the loss on them.

Shapes: B batch, L patches, p patch size, P = 3 * p * p values per patch in the order (row, column, channel), channel
fastest.
"""

import torch
from torch import Tensor

#: Added to the variance of a patch before the root (MAE).
TARGET_EPS = 1e-6


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """(B, 3, H, W) -> (B, L, P); patches in raster order."""
    batch, channels, height, width = images.shape
    p = patch_size
    blocks = images.reshape(batch, channels, height // p, p, width // p, p)
    return blocks.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, p * p * channels)


def unpatchify(patches: Tensor, patch_size: int, rows: int, cols: int) -> Tensor:
    """(B, L, P) -> (B, 3, H, W); the inverse of `patchify` for rows x cols patches."""
    p = patch_size
    blocks = patches.reshape(len(patches), rows, cols, p, p, -1)
    return blocks.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, rows * p, cols * p)


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every patch, each (B, L, 1); the variance is the unbiased one (MAE)."""
    return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + TARGET_EPS).sqrt()


def patch_errors(prediction: Tensor, images: Tensor, patch_size: int, normalise: bool) -> Tensor:
    """Squared error of every patch, mean over its values: (B, L) float32.

    prediction (B, L, P), images (B, 3, H, W). With `normalise`, the target is each patch minus its mean over its
    standard deviation.
    """
    target = patchify(images.float(), patch_size)
    if normalise:
        mean, std = patch_statistics(target)
        target = (target - mean) / std
    return (prediction.float() - target).square().mean(-1)


def hidden_mean(errors: Tensor, mask: Tensor) -> Tensor:
    """The loss (): mean of the errors (B, L) of all hidden patches of the batch, mask (B, L) bool, True = hidden."""
    hidden = mask.to(errors.dtype)
    return torch.sum(errors * hidden) / hidden.sum()
