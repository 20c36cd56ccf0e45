"""What happens to a batch between the shard and the model: on the device, a whole batch at once, from uint8."""

from functools import lru_cache

import torch
from torch import Tensor

#: ImageNet statistics that MAE, CroCo and MIMIC normalise with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Weights of red, green and blue in the brightness of a pixel (ITU-R BT.601, as in PIL and torchvision).
GREY = (0.2989, 0.587, 0.114)

#: In which orders brightness (0), contrast (1) and saturation (2) change.
ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


def normalize(images: Tensor, device: torch.device | str, jitter: Tensor | None = None) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 on `device`, ImageNet mean and deviation; bytes travel, not floats.

    `jitter` (B, 4) changes the colours first, see `change_colours`; a batch brings it along.
    """
    pixels = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    if jitter is not None:
        pixels = change_colours(pixels, jitter.to(pixels.device, non_blocking=True))
    mean, std = _statistics(pixels.device)
    return (pixels - mean) / std


def change_colours(pixels: Tensor, jitter: Tensor) -> Tensor:
    """Change brightness, contrast and saturation of (B, 3, H, W) float pixels from 0 to 255, each image by itself.

    A row of `jitter` (B, 4) holds three factors (1 changes nothing) and the number of one of ORDERS. As in torchvision,
    each change mixes an image with another one, by its factor: with black, with its mean grey, or with its own grey;
    what leaves the range is cut. All three are the same arithmetic with other numbers, so images of different orders
    change together and no number has to come back from the device.
    """
    grey, orders = _colour_constants(pixels.device)
    order = orders[jitter[:, 3].long()]
    for place in range(3):
        which = order[:, place]
        factor = jitter[:, :3].gather(1, which[:, None]).view(-1, 1, 1, 1)
        own = (pixels * grey).sum(1, keepdim=True)
        other = torch.where(_is(which, 1), own.mean((2, 3), keepdim=True), own) * ~_is(which, 0)
        pixels = torch.lerp(other, pixels, factor).clamp_(0, 255)
    return pixels


def _is(which: Tensor, change: int) -> Tensor:
    """Whether that is the change of each image: (B,) -> (B, 1, 1, 1)."""
    return (which == change).view(-1, 1, 1, 1)


@lru_cache  # copying them at every step would make the processor wait for an accelerator that has work queued
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """MEAN and STD of pixels from 0 to 255: two of (3, 1, 1) on `device`."""
    mean, std = torch.tensor([MEAN, STD], device=device).view(2, 3, 1, 1) * 255
    return mean, std


@lru_cache
def _colour_constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """GREY (3, 1, 1) and ORDERS (6, 3) on `device`."""
    return torch.tensor(GREY, device=device).view(3, 1, 1), torch.tensor(ORDERS, device=device)
