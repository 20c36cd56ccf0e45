"""What loading and models both know of colours."""

import torch
from torch import Tensor

#: ImageNet statistics that MAE, CroCo and MIMIC normalise with, of values in [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Weights of red, green and blue in the brightness of a pixel (ITU-R BT.601, as in PIL and torchvision).
LUMA = (0.2989, 0.587, 0.114)


def turn_hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Add `turn` (B, 1, 1, 1), in whole turns, to the hue of (B, 3, h, w) values from 0; HSV, as torchvision."""
    red, green, blue = pixels.unbind(1)
    value, spread = pixels.amax(1), pixels.amax(1) - pixels.amin(1)
    some = spread.clamp(min=1e-12)  # greys have no hue, whatever is divided
    sixth = torch.where(
        value == red,
        (green - blue) / some,
        torch.where(value == green, 2 + (blue - red) / some, 4 + (red - green) / some),
    )
    sixth = sixth + 6 * turn[:, 0]
    channels = []
    for offset in (5, 3, 1):
        place = (offset + sixth) % 6
        channels.append(value - spread * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.stack(channels, dim=1)
