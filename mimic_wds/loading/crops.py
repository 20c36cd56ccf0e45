"""Random resized crops of single images, as MAE trains on ImageNet (He et al., arXiv 2111.06377, appendix A.1).

Rule and numbers are those of torchvision's RandomResizedCrop: the area is uniform in SCALE, the aspect ratio uniform on
a logarithmic scale in RATIO, drawn anew up to TRIES times until the box fits into the image. What is drawn is a pure
function of (seed, epoch, sample), so that neither threads nor ranks nor an interruption change a pixel.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.loading.order import mix, stream
from mimic_wds.pairs import Image

SCALE = (0.2, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10

#: Random numbers of one crop: area and aspect ratio of every try, then x, y and the mirror.
NUM_DRAWS = 2 * TRIES + 3

#: Colour beyond an image (MultiMAE).
PADDING = 128

#: Tells these draws from those that exchange the views of pairs, and others (`augment.py`).
_PURPOSE = 1


class Box(NamedTuple):
    """Part of an image, in whole pixels; what lies beyond its right and lower side is padded."""

    x: int
    y: int
    width: int
    height: int
    mirror: bool = False  #: left and right are exchanged


def crop_draws(seed: int, epoch: int, samples: NDArray[np.int64]) -> NDArray[np.float64]:
    """The random numbers of some samples in an epoch: (N,) -> (N, NUM_DRAWS) in [0, 1), fixed per sample and epoch."""
    return draw(seed, epoch, samples, _PURPOSE)


def draw(
    seed: int, epoch: int, samples: NDArray[np.int64], purpose: int, number: int = NUM_DRAWS
) -> NDArray[np.float64]:
    """Numbers for a purpose: (N,) samples -> (N, number) in [0, 1), fixed per sample and epoch."""
    with np.errstate(over="ignore"):
        first = mix(samples.astype(np.uint64) + stream(seed, epoch, purpose))
        words = mix(np.add.outer(first, np.arange(number, dtype=np.uint64)))
    return np.asarray(words >> np.uint64(11), np.float64) * 2.0**-53  # the 53 bits that a float64 holds


def random_box(
    draws: NDArray[np.float64], height: int, width: int, *, scale: tuple[float, float] = SCALE, tries: int = TRIES
) -> Box:
    """The crop that (NUM_DRAWS,) draws choose in an image; the central one of the nearest ratio if no try fits.

    `scale` is the range of its share of the area. With a single try sides that do not fit are cut to the image instead
    (as MAE crops for its linear probe).
    """
    *pairs, across, down, mirror = draws.tolist()
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for area, aspect in list(zip(pairs[::2], pairs[1::2], strict=True))[:tries]:
        pixels = height * width * (scale[0] + area * (scale[1] - scale[0]))
        ratio = math.exp(low + aspect * (high - low))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if tries == 1:
            w, h = max(1, min(w, width)), max(1, min(h, height))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(across * (width - w + 1)), int(down * (height - h + 1)), w, h, mirror < 0.5)
    return central_box(height, width, RATIO)._replace(mirror=mirror < 0.5)


def sliding_box(draws: NDArray[np.float64], height: int, width: int, ratio: float) -> Box:
    """The largest box whose width by height is `ratio`, at the place that (NUM_DRAWS,) draws choose."""
    *_, across, down, mirror = draws.tolist()
    box = central_box(height, width, (ratio, ratio))
    x, y = int(across * (width - box.width + 1)), int(down * (height - box.height + 1))
    return Box(x, y, box.width, box.height, mirror < 0.5)


def scaled_box(draws: NDArray[np.float64], height: int, width: int, ratio: float, scale: tuple[float, float]) -> Box:
    """The box of a crop whose longest side is that of the picture, which is first enlarged by a number in `scale`.

    Its width by height is `ratio`. A picture smaller than its box lies at the upper left of it.
    """
    *tries, across, down, mirror = draws.tolist()
    enlarged = scale[0] + tries[0] * (scale[1] - scale[0])
    longest = max(height, width) / enlarged
    w, h = (max(1, round(longest * min(1.0, each))) for each in (ratio, 1 / ratio))
    return Box(int(across * (max(width - w, 0) + 1)), int(down * (max(height - h, 0) + 1)), w, h, mirror < 0.5)


def central_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    """The largest box in the middle of an image whose width by height lies in `ratio`."""
    w, h = min(width, max(1, round(height * ratio[1]))), min(height, max(1, round(width / ratio[0])))
    return Box((width - w) // 2, (height - h) // 2, w, h)


def cut(image: Image, box: Box, size: tuple[int, int]) -> Image:
    """`box` of an image (H, W, 3), resized to (height, width) = `size`; see `cut_into`."""
    out = np.empty((*size, image.shape[2]), np.uint8)
    cut_into(image, box, out)
    return out


def cut_into(image: Image, box: Box, out: Image) -> None:
    """Write `box` of an image (H, W, 3) into `out` (height, width, 3), resized to it; PADDING beyond the image.

    Where both sides shrink every pixel counts by its area, since OpenCV's bicubic would skip some; else bicubic.
    """
    height, width = covered(box, image.shape[:2], out.shape[:2])
    part = image[box.y : box.y + box.height, box.x : box.x + box.width]
    if (height, width) != out.shape[:2]:
        out[...] = PADDING
    if part.shape[:2] == (height, width):
        out[:height, :width] = part
    else:
        shrinks = part.shape[0] >= height and part.shape[1] >= width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        if (height, width) == out.shape[:2]:
            cv2.resize(part, (width, height), dst=out, interpolation=how)
        else:
            out[:height, :width] = cv2.resize(part, (width, height), interpolation=how)
    if box.mirror:
        out[:height, :width] = cv2.flip(out[:height, :width], 1)  # padding stays at the right


def covered(box: Box, shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, int]:
    """How much of (height, width) = `size` pixels is not padding, of a box of an image of (height, width) = `shape`."""
    inside = min(box.height, shape[0] - box.y), min(box.width, shape[1] - box.x)
    height, width = (
        max(1, round(part * side / whole)) if part < whole else side
        for part, whole, side in zip(inside, (box.height, box.width), size, strict=True)
    )
    return height, width
