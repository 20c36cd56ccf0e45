"""Classes of pixels, as MIMIC finetunes on ADE20K: ConvNeXt head on the last tokens, cross-entropy."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mimic_wds.downstream.losses import pixel_cross_entropy
from mimic_wds.downstream.metrics import segmentation as metric
from mimic_wds.downstream.metrics.bootstrap import Floats
from mimic_wds.downstream.task import Scale
from mimic_wds.downstream.tasks.base import DenseProtocol, DenseTask
from mimic_wds.loading.augment import Augmentation, Jitter, ScaledCrop
from mimic_wds.loading.parts import Part
from mimic_wds.models.heads.convnext import ConvNeXtHead
from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.maps import decode_map


def decode(data: bytes) -> NDArray[np.uint8]:
    """Classes (H, W) from 0; 255 = none or another, which is stored as 0 (so 0 - 1 wraps to just that)."""
    return np.asarray(decode_map("semseg", data), np.uint8) - np.uint8(1)


def outputs(manifest: Manifest) -> int:
    """Classes of a data set. Raises ValueError when it names none."""
    if not manifest.semseg_classes:
        raise ValueError(f"{manifest.name}: its manifest names no classes of pixels (semseg_classes)")
    return len(manifest.semseg_classes)


def loss(prediction: Tensor, classes: Tensor, _: Scale) -> Tensor:
    """Mean cross-entropy () of logits (B, K, H, W) and classes (B, H, W) uint8."""
    return pixel_cross_entropy(prediction.float(), classes.long())


def finish(prediction: Tensor, _: Scale) -> NDArray[np.int64]:
    """Logits (K, H, W) -> classes (H, W)."""
    classes: NDArray[np.int64] = prediction.argmax(0).cpu().numpy()
    return classes


def statistics(prediction: NDArray[np.int64], label: NDArray[np.uint8], num_classes: int) -> Floats:
    """See `metrics.segmentation`."""
    return metric.statistics(prediction, label.astype(np.int64), num_classes)


def picture(classes: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Classes (H, W) as colours that are far apart; 255 is black."""
    number = classes.astype(np.uint32) + 1
    colours = np.stack([(number * step) % 223 + 32 for step in (97, 57, 151)], axis=-1)
    return np.where(classes[..., None] == 255, 0, colours).astype(np.uint8)


SEGMENTATION = DenseTask(
    name="segmentation",
    label=Part(member="0.semseg.png", decode=decode, is_picture=True, dtype=np.uint8, fill=255),
    outputs=outputs,
    head=lambda classes, dim, patch, scale: ConvNeXtHead.scaled(classes, dim=dim, patch_size=patch, scale=scale),
    loss=loss,
    finish=finish,
    fill=255,
    picture=picture,
    augmentation=Augmentation(
        crop=ScaledCrop(), flip=True, jitter=Jitter(strength=0.4, saturation=0.2, hue=0.1, share=0.5)
    ),
    protocols=(
        DenseProtocol(
            name="paper",
            told="longest side to the model's size, padded, one pass, scored on that grid",
            view="pad",
            statistics=statistics,
            scores=metric.scores,
            headline="miou",
            higher_is_better=True,
        ),
        DenseProtocol(
            name="standard",
            told="short side to the model's size, sliding windows by two thirds, scored at the original size",
            view="slide",
            statistics=statistics,
            scores=metric.scores,
            headline="miou",
            higher_is_better=True,
        ),
    ),
)
