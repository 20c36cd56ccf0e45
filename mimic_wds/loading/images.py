"""Batches of single images: each is cropped to one size while it is decoded."""

from collections.abc import Mapping
from typing import Unpack

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimic_wds.loading.batch import ImageBatch
from mimic_wds.loading.crops import central_box, crop_draws, cut, random_box
from mimic_wds.loading.dataset import ImageDataset
from mimic_wds.loading.decoding import BadSample, decode_bgr
from mimic_wds.loading.loader import Loader, Pending, Share
from mimic_wds.storage.sample import IMAGE_FIELDS, IMAGE_TRUTH_FIELDS, decode_facts


class ImageLoader(Loader[ImageBatch]):
    """Single images of any size, cropped to (height, width) = `size`; see `Loader`.

    With `augment` the crop is random (`crops.py`), a pure function of (seed, epoch, sample); a replaced sample takes
    the draws of the one whose place it takes. Without, it is the largest one in the middle.
    """

    def __init__(self, dataset: ImageDataset, *, size: tuple[int, int], augment: bool = True, **share: Unpack[Share]):
        """Raises ValueError as `Loader` does."""
        super().__init__(dataset, pixels=lambda rows: (rows, *size, 3), **share)
        self.augment = augment

    def _pending(self, epoch: int, rows: NDArray[np.int64], indices: NDArray[np.int64]) -> "_PendingImages":
        draws = crop_draws(self.order.seed, epoch, indices) if self.augment else None
        return _PendingImages(self._memory.take(), rows, draws)


class _PendingImages(Pending[ImageBatch]):
    """A micro-batch of images while threads fill it."""

    def __init__(self, images: Tensor, rows: NDArray[np.int64], draws: NDArray[np.float64] | None):
        super().__init__(rows)
        self.images = images  #: (B, H, W, 3)
        self.pixels = images.numpy()
        self.draws = draws
        self.labels = np.full(len(rows), -1, np.int64)

    def put(self, place: int, key: str, members: Mapping[str, bytes]) -> None:
        """Decode and crop one image into its place. Raises BadSample with the reason."""
        try:
            label = decode_facts(key, members["json"], IMAGE_FIELDS, IMAGE_TRUTH_FIELDS)["label"]
        except ValueError:
            raise BadSample("json_unreadable") from None
        bgr, out = decode_bgr(members["0.jpg"]), self.pixels[place]
        height, width = bgr.shape[:2]
        if self.draws is None:
            ratio = out.shape[1] / out.shape[0]
            box = central_box(height, width, (ratio, ratio))
        else:
            box = random_box(self.draws[place], height, width)
        cv2.cvtColor(cut(bgr, box, out.shape[:2]), cv2.COLOR_BGR2RGB, dst=out)
        self.labels[place] = label
        self.keys[place] = key

    def batch(self) -> ImageBatch:
        """The micro-batch, once all of it is there."""
        return ImageBatch(
            image=self.images,
            labels=torch.from_numpy(self.labels),
            keys=tuple(self.keys),
            rows=torch.from_numpy(self.rows.copy()),
        )
