"""What happens to a batch between the shard and the model."""

from functools import lru_cache

import torch
from torch import Tensor

#: ImageNet statistics that MAE, CroCo and MIMIC normalise with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalize(images: Tensor, device: torch.device | str) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 on `device`, ImageNet mean and deviation; bytes travel, not floats."""
    pixels = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    mean, std = _statistics(pixels.device)
    return (pixels - mean) / std


@lru_cache  # copying them at every step would make the processor wait for an accelerator that has work queued
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """MEAN and STD of pixels from 0 to 255: two of (3, 1, 1) on `device`."""
    mean, std = torch.tensor([MEAN, STD], device=device).view(2, 3, 1, 1) * 255
    return mean, std
