"""Losses of the downstream tasks. Shapes: B batch, C channels, K classes, J joints, H x W pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor

#: Pixels of this class are left out of the loss and of the scores.
IGNORED = 255


def berhu(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Reversed Huber loss (), mean over valid pixels: |d| below c, (d^2 + c^2) / 2c above it; c is a fifth of the
    largest |d| of the batch, at least 1e-5, and gets no gradient (arXiv 1606.00373; MultiMAE's form).

    All (B, 1, H, W), `valid` bool. What `target` holds elsewhere does not matter, not even nan. 0 without valid pixels.
    """
    error = torch.where(valid, prediction.float() - target, 0.0).abs()
    threshold = (0.2 * error.detach().amax()).clamp(min=1e-5)
    loss = torch.where(error < threshold, error, (error.square() + threshold.square()) / (2 * threshold))
    return torch.where(valid, loss, 0.0).sum() / valid.sum().clamp(min=1)


def masked_l1(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute error () over the C channels of valid pixels: (B, C, H, W) twice, `valid` (B, 1, H, W) bool."""
    error = torch.where(valid, prediction.float() - target, 0.0).abs()
    return error.sum() / (valid.sum().clamp(min=1) * prediction.shape[1])


def pixel_cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean cross-entropy () of logits (B, K, H, W) where `classes` (B, H, W) int64 are not IGNORED; 0 if all are."""
    loss = F.cross_entropy(logits, classes, ignore_index=IGNORED, reduction="sum")
    return loss / (classes != IGNORED).sum().clamp(min=1)


def joint_heat_maps(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean squared difference () of heat maps (B, J, h, w), both times their joint's weight (B, J) (ViTPose)."""
    weighted = (prediction.float() - target) * weights[..., None, None]
    return weighted.square().mean()
