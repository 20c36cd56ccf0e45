"""Batches of single images: each is cropped to one size while it is decoded."""

from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from mimic_wds.loading.augment import Augmentation, Preset
from mimic_wds.loading.batch import ImageBatch
from mimic_wds.loading.dataset import ImageDataset
from mimic_wds.loading.loader import Share
from mimic_wds.loading.parts import JPEG, Part, PartLoader
from mimic_wds.storage.sample import IMAGE_FIELDS, IMAGE_TRUTH_FIELDS, decode_facts


def decode_label(facts: bytes) -> NDArray[np.int64]:
    """The number of the class () in an image's KEY.json, -1 = none. Raises ValueError when it is malformed."""
    return np.asarray(decode_facts("", facts, IMAGE_FIELDS, IMAGE_TRUTH_FIELDS)["label"], np.int64)


LABEL = Part(member="json", decode=decode_label, dtype=np.int64)


class ImageLoader(PartLoader[ImageBatch]):
    """Single images of any size, cropped to (height, width) = `size`, with their classes; see `PartLoader`."""

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        size: tuple[int, int],
        augmentation: Preset | Augmentation = "mae",
        **share: Unpack[Share],
    ):
        """Raises ValueError as `PartLoader` does."""
        super().__init__(
            dataset,
            parts={"labels": LABEL, "image": JPEG},
            make=ImageBatch,
            size=size,
            augmentation=augmentation,
            **share,
        )
