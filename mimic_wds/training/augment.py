"""Random resized crop and horizontal flip of single images, for MAE; on the device, a whole batch at once.

Never for pairs: moving one view alone destroys the geometry between the two.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: Random numbers that one crop takes.
NUM_DRAWS = 5


def crop_boxes(
    draws: Tensor, *, scale: tuple[float, float] = (0.2, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Tensor:
    """Boxes of random resized crops: (B, 5) draws in [0, 1) -> (B, 5) of centre x, y, width, height, mirror (-1 or 1).

    Positions and sizes are shares of the image, in [0, 1]. Area uniform in `scale`, aspect uniform in log `ratio`, as
    in MAE; a side that would not fit is cut to the whole image.
    """
    area = scale[0] + draws[:, 0] * (scale[1] - scale[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + draws[:, 1] * (high - low))
    width, height = (area * aspect).sqrt().clamp(max=1.0), (area / aspect).sqrt().clamp(max=1.0)
    x = width / 2 + draws[:, 2] * (1 - width)
    y = height / 2 + draws[:, 3] * (1 - height)
    mirror = torch.where(draws[:, 4] < 0.5, -1.0, 1.0)
    return torch.stack([x, y, width, height, mirror], dim=1)


def crop_and_flip(images: Tensor, boxes: Tensor) -> Tensor:
    """Cut `boxes` (B, 5; see `crop_boxes`) out of `images` (B, C, H, W) float and resize them to (H, W), bicubic.

    A crop is never larger than the image, so nothing is shrunk and no smoothing is needed.
    """
    x, y, width, height, mirror = boxes.to(images).unbind(1)
    zero = torch.zeros_like(x)
    rows = [torch.stack([width * mirror, zero, 2 * x - 1], 1), torch.stack([zero, height, 2 * y - 1], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False)
