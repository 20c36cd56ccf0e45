"""DINO's crops of an image (Caron et al. 2021, arXiv 2104.14294), a whole batch at once, on the device.

Two global crops and several small local ones, each with its own place, mirror, colours, blur and (the second global
one) solarisation. All that is random is an argument: NUM_DRAWS numbers in [0, 1) for each crop. Factors and
probabilities are those of the released recipe; two things differ: colours change in the fixed order brightness,
contrast, saturation, hue, and a crop that would be wider or higher than its image is cut to it, not drawn again.

Crops are interpolated without a filter against aliasing, so images should not be much larger than the global crops.

Shapes: B images, C crops of each, H x W pixels of an image, h x w of a crop.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mimic_wds.colours import LUMA, MEAN, STD, turn_hue

#: Random numbers of one crop.
NUM_DRAWS = 14

#: What the draws of a crop decide, in this order.
AREA, ASPECT, ACROSS, DOWN, MIRROR, JITTER, BRIGHTNESS, CONTRAST, SATURATION, HUE, GREY, BLUR, SIGMA, SOLARISE = range(
    14
)

#: Widths over heights of crops, log-uniform (as torchvision's RandomResizedCrop).
ASPECTS = (3 / 4, 4 / 3)

#: Strengths of brightness, contrast and saturation (factors are 1 +- strength) and of hue (shares of a turn).
STRENGTHS = (0.4, 0.4, 0.2, 0.1)
JITTER_SHARE, GREY_SHARE, MIRROR_SHARE = 0.8, 0.2, 0.5

#: Standard deviations of the blur in pixels.
SIGMAS = (0.1, 2.0)

#: Values at or above it are turned into 1 - value.
SOLARISE_AT = 128 / 255


@dataclass(frozen=True, slots=True, kw_only=True)
class CropKind:
    """One kind of crop."""

    size: tuple[int, int]  #: (height, width) in pixels
    area: tuple[float, float]  #: shares of the image's area
    blur: float  #: probability
    solarise: float = 0.0  #: probability


def crop(images: Tensor, draws: Tensor, kind: CropKind) -> Tensor:
    """One crop of each normalised image: (B, 3, H, W), draws (B, NUM_DRAWS) -> (B, 3, h, w) float32, normalised."""
    statistics = torch.tensor([MEAN, STD], device=images.device)[:, None, :, None, None]
    mean, std = statistics[0], statistics[1]
    draws = draws.float()
    with torch.autocast(images.device.type, enabled=False):
        pixels = (cut(images.float(), draws, kind) * std + mean).clamp(0, 1)
        pixels = _where(draws[:, JITTER] < JITTER_SHARE, change_colours(pixels, draws), pixels)
        pixels = _where(draws[:, GREY] < GREY_SHARE, luma(pixels).expand_as(pixels), pixels)
        pixels = _where(draws[:, BLUR] < kind.blur, blur(pixels, _between(SIGMAS, draws[:, SIGMA])), pixels)
        if kind.solarise:
            turned = torch.where(pixels >= SOLARISE_AT, 1 - pixels, pixels)
            pixels = _where(draws[:, SOLARISE] < kind.solarise, turned, pixels)
        return (pixels - mean) / std


def cut(images: Tensor, draws: Tensor, kind: CropKind) -> Tensor:
    """The random box of each image, mirrored or not, resized: (B, 3, h, w); bicubic, edges repeated."""
    height, width = images.shape[-2:]
    area = _between(kind.area, draws[:, AREA])
    low, high = (math.log(aspect) for aspect in ASPECTS)
    aspect = _between((low, high), draws[:, ASPECT]).exp()
    # Shares of the sides; the aspect is one of pixels.
    wide = (area * aspect * height / width).sqrt().clamp(max=1)
    tall = (area / aspect * width / height).sqrt().clamp(max=1)
    x, y = (1 - wide) * (2 * draws[:, ACROSS] - 1), (1 - tall) * (2 * draws[:, DOWN] - 1)
    sign = torch.where(draws[:, MIRROR] < MIRROR_SHARE, -1.0, 1.0)
    zero = torch.zeros_like(x)
    theta = torch.stack([wide * sign, zero, x, zero, tall, y], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(images), 3, *kind.size], align_corners=False)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False)


def change_colours(pixels: Tensor, draws: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue of (B, 3, h, w) values in [0, 1], each image by its draws."""
    factors = [
        _column(1 + strength * (2 * draws[:, column] - 1))
        for strength, column in zip(STRENGTHS, (BRIGHTNESS, CONTRAST, SATURATION), strict=False)
    ]
    pixels = (pixels * factors[0]).clamp(0, 1)
    pixels = torch.lerp(luma(pixels).mean((2, 3), keepdim=True), pixels, factors[1]).clamp(0, 1)
    pixels = torch.lerp(luma(pixels), pixels, factors[2]).clamp(0, 1)
    return turn_hue(pixels, _column(STRENGTHS[3] * (2 * draws[:, HUE] - 1)))


def blur(pixels: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of (B, 3, h, w), each image with its own deviation (B,) in pixels; edges are repeated."""
    radius = math.ceil(3 * SIGMAS[1])
    offsets = torch.arange(-radius, radius + 1, device=pixels.device)
    weights = torch.exp(-offsets.square() / (2 * sigma[:, None].square()))
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(3, dim=0)[:, None]  # (3B, 1, taps)
    flat = pixels.flatten(0, 1)[None]  # every channel of every image is a group
    for shape, padding in (
        (weights.unsqueeze(2), (radius, radius, 0, 0)),
        (weights.unsqueeze(3), (0, 0, radius, radius)),
    ):
        flat = F.conv2d(F.pad(flat, padding, mode="replicate"), shape, groups=flat.shape[1])
    return flat.view_as(pixels)


def luma(pixels: Tensor) -> Tensor:
    """(B, 3, h, w) -> (B, 1, h, w)."""
    return sum(weight * pixels[:, i : i + 1] for i, weight in enumerate(LUMA))  # type: ignore[return-value]


def _between(bounds: tuple[float, float], draw: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * draw


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _where(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(_column(chosen), one, other)
