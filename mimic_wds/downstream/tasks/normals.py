"""Surface normals from one image, as MIMIC finetunes on Taskonomy: DPT head, L1 on normals as pictures store them."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mimic_wds.downstream.losses import masked_l1
from mimic_wds.downstream.metrics import normals as metric
from mimic_wds.downstream.metrics.bootstrap import Floats
from mimic_wds.downstream.task import Scale
from mimic_wds.downstream.tasks.base import DenseProtocol, DenseTask
from mimic_wds.loading.augment import Augmentation
from mimic_wds.loading.parts import Part
from mimic_wds.models.heads.dpt import DPTHead
from mimic_wds.storage.maps import decode_map

#: Pixels in a cell with an unknown one are left out by the loss and the "paper" protocol (MultiMAE).
CELL = 4


def decode(data: bytes) -> NDArray[np.uint8]:
    """Stored normals (H, W, 3) uint8: (n + 1) * 127.5 right, down, forward; (0, 0, 0) = not known."""
    return np.asarray(decode_map("normal", data), np.uint8)


def mirror(normals: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What becomes of the values when left and right are exchanged; unknown ones stay so."""
    turned = normals.copy()
    turned[..., 0] = np.where(normals.any(axis=-1), 255 - normals[..., 0], 0)
    return turned


def known_cells(normals: Tensor) -> Tensor:
    """Where no pixel of the 4 x 4 cell is unknown: stored (B, H, W, 3) -> bool (B, 1, H, W); H and W multiples of 4."""
    unknown = (~normals.bool().any(-1))[:, None].float()
    grown = F.interpolate(F.max_pool2d(unknown, CELL), scale_factor=CELL, mode="nearest")
    return grown == 0


def loss(prediction: Tensor, normals: Tensor, _: Scale) -> Tensor:
    """Mean absolute error () of (B, 3, H, W) and stored normals (B, H, W, 3) uint8, in units of [0, 1]."""
    return masked_l1(prediction, normals.permute(0, 3, 1, 2).float() / 255, known_cells(normals))


def finish(prediction: Tensor, _: Scale) -> NDArray[np.float32]:
    """(3, H, W) -> (H, W, 3), stored units in [0, 1]."""
    values: NDArray[np.float32] = prediction.permute(1, 2, 0).float().cpu().numpy()
    return values


def paper_statistics(prediction: Floats, label: NDArray[np.uint8], _: int) -> Floats:
    """See `metrics.normals`."""
    known = known_cells(torch.from_numpy(np.ascontiguousarray(label))[None])[0, 0].numpy()
    return metric.paper_statistics(prediction, label / 255, known)


def standard_statistics(prediction: Floats, label: NDArray[np.uint8], _: int) -> Floats:
    """See `metrics.normals`."""
    return metric.standard_statistics(prediction, label / 255, np.asarray(label.any(axis=-1)))


def picture(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Stored normals as they are: uint8, or [0, 1]."""
    return values if values.dtype == np.uint8 else np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)  # type: ignore


NORMALS = DenseTask(
    name="normals",
    label=Part(member="0.normal.png", decode=decode, is_picture=True, mirror=mirror, shape=(3,), dtype=np.uint8),
    outputs=lambda manifest: 3,
    head=lambda outputs, dim, patch, scale: DPTHead.scaled(outputs, dim=dim, scale=scale),
    loss=loss,
    finish=finish,
    fill=0,
    picture=picture,
    augmentation=Augmentation(),
    protocols=(
        DenseProtocol(
            name="paper",
            told="centre crop, L1 of stored normals in [0, 1], batches of 12 averaged, times 1000",
            view="centre",
            statistics=paper_statistics,
            scores=metric.paper_scores,
            headline="l1_x1000",
            higher_is_better=False,
            batch=12,
        ),
        DenseProtocol(
            name="standard",
            told="whole pictures, angles between unit normals, all known pixels pooled",
            view="slide",
            statistics=standard_statistics,
            scores=metric.standard_scores,
            headline="mean_deg",
            higher_is_better=False,
        ),
    ),
)
