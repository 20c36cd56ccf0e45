"""Depth from one image, as MIMIC finetunes on NYUv2: DPT head, reversed Huber loss on standardised metres."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mimic_wds.downstream.losses import berhu
from mimic_wds.downstream.metrics import depth as metric
from mimic_wds.downstream.metrics.bootstrap import Floats
from mimic_wds.downstream.task import Scale
from mimic_wds.downstream.tasks.base import DenseProtocol, DenseTask
from mimic_wds.loading.augment import Augmentation, Jitter, SlidingCrop
from mimic_wds.loading.parts import Part
from mimic_wds.models.heads.dpt import DPTHead
from mimic_wds.storage.maps import decode_depth

#: Metres that pictures of depth show from black to white.
SHOWN_M = 10.0


def loss(prediction: Tensor, depth_m: Tensor, scale: Scale) -> Tensor:
    """Reversed Huber () of (B, 1, H, W) and standardised metres (B, H, W); 0 m is not known."""
    target = depth_m[:, None]
    return berhu(prediction, (target - scale.shift) / scale.unit, target > 0)


def fit(labels: Sequence[NDArray[np.float32]]) -> Scale:
    """Mean and deviation of the known depths, in metres. Raises ValueError when none is known."""
    known = np.concatenate([label[label > 0].astype(np.float64) for label in labels])
    if not len(known):
        raise ValueError("no pixel of the training images has a known depth")
    return Scale(float(known.mean()), max(float(known.std()), 1e-3))


def finish(prediction: Tensor, scale: Scale) -> NDArray[np.float32]:
    """(1, H, W) standardised -> (H, W) metres."""
    metres: NDArray[np.float32] = (prediction[0].float() * scale.unit + scale.shift).cpu().numpy()
    return metres


def paper_statistics(prediction: Floats, label: Floats, _: int) -> Floats:
    """See `metrics.depth`."""
    return metric.paper_statistics(prediction, label, label > 0)


def standard_statistics(prediction: Floats, label: Floats, _: int) -> Floats:
    """See `metrics.depth`."""
    return metric.standard_statistics(prediction, label, label > 0)


def picture(depth_m: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W) metres as colours; unknown depth is black."""
    grey = (np.clip(depth_m / SHOWN_M, 0, 1) * 255).astype(np.uint8)
    coloured = cv2.applyColorMap(255 - grey, cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(depth_m[..., None] > 0, coloured, 0).astype(np.uint8)


DEPTH = DenseTask(
    name="depth",
    label=Part(member="0.depth.png", decode=decode_depth, is_picture=True),
    outputs=lambda manifest: 1,
    head=lambda outputs, dim, patch, scale: DPTHead.scaled(outputs, dim=dim, scale=scale),
    loss=loss,
    finish=finish,
    fill=0,
    fit=fit,
    picture=picture,
    augmentation=Augmentation(
        flip=True,
        crop=SlidingCrop(),
        jitter=Jitter(strength=0.4, brightness=0.1255, saturation=0.5, hue=0.2, share=0.5, grey=0.3),
    ),
    protocols=(
        DenseProtocol(
            name="paper",
            told="centre crop, valid pixels pooled in batches of 96, batches averaged, no range",
            view="centre",
            statistics=paper_statistics,
            scores=metric.paper_scores,
            headline="delta1",
            higher_is_better=True,
            batch=96,
        ),
        DenseProtocol(
            name="standard",
            told="whole pictures, averages of images, 1 mm to 10 m, Eigen crop of 480 x 640 pixels",
            view="slide",
            statistics=standard_statistics,
            scores=metric.standard_scores,
            headline="delta1",
            higher_is_better=True,
        ),
    ),
)
