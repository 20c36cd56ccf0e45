"""What happens to a batch between the shard and the model: on the device, a whole batch at once, from uint8."""

from functools import lru_cache
from itertools import permutations

import torch
from torch import Tensor

from mimic_wds.colours import LUMA, MEAN, STD, turn_hue

#: In which orders brightness (0), contrast (1), saturation (2) and hue (3) change; of those without hue the first six.
ORDERS = tuple(sorted(permutations(range(4)), key=lambda order: order[3] != 3))


def normalize(images: Tensor, device: torch.device | str, jitter: Tensor | None = None) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 on `device`, ImageNet mean and deviation; bytes travel, not floats.

    `jitter` (B, 4) or (B, 6) changes the colours first, see `change_colours`; a batch brings it along.
    """
    pixels = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    if jitter is not None:
        pixels = change_colours(pixels, jitter.to(pixels.device, non_blocking=True))
    mean, std = _statistics(pixels.device)
    return (pixels - mean) / std


def change_colours(pixels: Tensor, jitter: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of (B, 3, H, W) float pixels from 0 to 255, each image by itself.

    A row of `jitter` holds three factors (1 changes nothing) and the number of one of ORDERS and, if it has 6 numbers,
    how far the hue turns (0.5 = to the complement) and whether all colour goes at the end (1; else 0). As in
    torchvision, each of the first three mixes an image with another one, by its factor: with black, with its mean grey,
    or with its own grey; what leaves the range is cut. They are the same arithmetic with other numbers, so images of
    different orders change together and no number has to come back from the device.
    """
    grey, orders = _colour_constants(pixels.device)
    order = orders[jitter[:, 3].long()]
    has_hue = jitter.shape[1] > 4
    for place in range(4 if has_hue else 3):
        which = order[:, place]
        factor = jitter[:, :4].gather(1, which[:, None]).view(-1, 1, 1, 1)
        own = (pixels * grey).sum(1, keepdim=True)
        other = torch.where(_is(which, 1), own.mean((2, 3), keepdim=True), own) * ~_is(which, 0)
        mixed = torch.lerp(other, pixels, factor).clamp_(0, 255)
        pixels = (
            torch.where(_is(which, 3), turn_hue(pixels, jitter[:, 4].view(-1, 1, 1, 1)), mixed) if has_hue else mixed
        )
    if has_hue:
        pixels = torch.where(_is(jitter[:, 5], 1), (pixels * grey).sum(1, keepdim=True), pixels)
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
    """LUMA (3, 1, 1) and ORDERS (24, 4) on `device`."""
    return torch.tensor(LUMA, device=device).view(3, 1, 1), torch.tensor(ORDERS, device=device)
