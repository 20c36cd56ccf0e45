"""What happens to a batch between the shard and the model."""

import torch
from torch import Tensor

#: ImageNet statistics that MAE, CroCo and MIMIC normalise with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalize(images: Tensor, device: torch.device | str) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 on `device`, ImageNet mean and deviation; bytes travel, not floats."""
    pixels = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    return (pixels - mean) / std
