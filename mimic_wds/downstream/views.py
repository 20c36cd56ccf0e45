"""Pictures of any size before a model of one size: windows of them, and what the model says of them put together.

- "centre": short side to the model's size, the middle of it; labels likewise.
- "pad": longest side to the model's size, padded at the right and below; labels likewise.
- "slide": short side to the model's size, overlapping windows, averaged; labels stay as they are, and the prediction
  is brought to their size.

Pictures are resized bilinearly, labels by the nearest pixel. Shapes: (H, W) of the picture, (C, h, w) of a prediction.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mimic_wds.downstream.tasks.base import View
from mimic_wds.loading.crops import PADDING
from mimic_wds.pairs import Image

#: Steps of a sliding window, as a share of its side: 341 of 512 pixels (mmsegmentation).
STRIDE = 2 / 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """A picture, ready for the model."""

    pixels: NDArray[np.uint8]  #: (n, size, size, 3) RGB
    corners: tuple[tuple[int, int], ...]  #: (row, column) of each window in the resized picture
    shape: tuple[int, int]  #: of the resized picture
    label: NDArray[Any]  #: what the prediction is held against

    def stitch(self, predictions: Tensor) -> Tensor:
        """The windows' predictions (n, C, size, size) as one (C, H, W) of the label's size, averaged in overlaps."""
        size = predictions.shape[-1]
        if self.shape == (size, size) and len(predictions) == 1:
            whole = predictions[0]
        else:
            total = predictions.new_zeros((predictions.shape[1], *self.shape))
            count = predictions.new_zeros(self.shape)
            for prediction, (row, col) in zip(predictions, self.corners, strict=True):
                total[:, row : row + size, col : col + size] += prediction
                count[row : row + size, col : col + size] += 1
            whole = total / count
        height, width = self.label.shape[:2]
        if whole.shape[1:] == (height, width):
            return whole
        return F.interpolate(whole[None], size=(height, width), mode="bilinear", align_corners=False)[0]


def cut_windows(image: Image, label: NDArray[Any], view: View, size: int, fill: int) -> Windows:
    """`image` (H, W, 3) and `label` (H, W, ...) as a model for size x size pixels looks at them."""
    height, width = image.shape[:2]
    if view == "pad":
        shape = _scaled(height, width, size / max(height, width))
        pixels = np.full((size, size, 3), PADDING, np.uint8)
        padded = np.full((size, size, *label.shape[2:]), fill, label.dtype)
        pixels[: shape[0], : shape[1]] = _resized(image, shape, smooth=True)
        padded[: shape[0], : shape[1]] = _resized(label, shape, smooth=False)
        return Windows(pixels=pixels[None], corners=((0, 0),), shape=(size, size), label=padded)
    shape = _scaled(height, width, size / min(height, width))
    picture = _resized(image, shape, smooth=True)
    if view == "centre":
        corners = (((shape[0] - size) // 2, (shape[1] - size) // 2),)
        label = _window(_resized(label, shape, smooth=False), corners[0], size)
        return Windows(
            pixels=_window(picture, corners[0], size)[None], corners=((0, 0),), shape=(size, size), label=label
        )
    places = tuple((row, col) for row in starts(shape[0], size) for col in starts(shape[1], size))
    return Windows(
        pixels=np.stack([_window(picture, place, size) for place in places]), corners=places, shape=shape, label=label
    )


def starts(length: int, size: int) -> list[int]:
    """Where windows of `size` begin so that they cover `length`; the last one ends with it."""
    stride = max(1, int(size * STRIDE))
    return [*range(0, length - size, stride), length - size]


def same_view(view: View, image: Image, size: int) -> View:
    """The simplest view that gives the same: pictures of the model's own size have only one."""
    return "centre" if image.shape[:2] == (size, size) else view


def to_device(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Windows as a tensor on `device`, uint8 still."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device)


def _window(picture: NDArray[Any], corner: tuple[int, int], size: int) -> NDArray[Any]:
    return picture[corner[0] : corner[0] + size, corner[1] : corner[1] + size]


def _scaled(height: int, width: int, factor: float) -> tuple[int, int]:
    return max(1, round(height * factor)), max(1, round(width * factor))


def _resized(picture: NDArray[Any], shape: tuple[int, int], *, smooth: bool) -> NDArray[Any]:
    if picture.shape[:2] == shape:
        return picture
    how = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST_EXACT
    return cv2.resize(picture, (shape[1], shape[0]), interpolation=how)
