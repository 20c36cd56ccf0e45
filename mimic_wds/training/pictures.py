"""A picture of what a model reconstructs: one row per sample, one labelled column per stage."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mimic_wds.models.build import ModelConfig
from mimic_wds.models.reconstruct import reconstruct

LABEL_HEIGHT = 28
GAP = 4


def reconstructions(
    model: nn.Module, config: ModelConfig, image0: Tensor, image1: Tensor | None, noise: Tensor
) -> NDArray[np.uint8]:
    """What `model` makes of some samples: columns target, masked, prediction and, for CroCo, reference; (H, W, 3) RGB.

    image0, image1: (B, 3, H, W) normalised; MAE looks at image 0 only. noise: (B, L) picks the hidden patches.
    """
    both = config.objective == "croco"
    with torch.no_grad():
        _, prediction, mask = model(image0, image1, noise) if both else model(image0, noise)
    pictures = reconstruct(
        image0,
        prediction,
        mask,
        patch_size=config.patch_size,
        norm_pix_loss=config.norm_pix_loss,
        reference=image1 if both else None,
    )
    return contact_sheet(pictures.columns)


def contact_sheet(columns: Sequence[tuple[str, NDArray[np.uint8]]], width: int = 224) -> NDArray[np.uint8]:
    """Labelled columns side by side: [(label, (N, H, W, 3) uint8 RGB)] -> one (rows, columns, 3) uint8 RGB picture.

    Every image is drawn `width` pixels wide; row n holds image n of every column.
    """
    strips = [_column(label, images, width) for label, images in columns]
    gap = np.full((strips[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for strip in strips for part in (strip, gap)]
    return np.concatenate(parts[:-1], axis=1)


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write an RGB picture. Raises OSError when the file cannot be written."""
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{path}: the picture could not be written")


def _column(label: str, images: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    head = np.full((LABEL_HEIGHT, width, 3), 255, np.uint8)
    cv2.putText(head, label, (2, LABEL_HEIGHT - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    rows = [head]
    for image in images:
        height = round(width * image.shape[0] / image.shape[1])
        rows += [
            cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST),
            np.full((GAP, width, 3), 255, np.uint8),
        ]
    return np.concatenate(rows[:-1], axis=0)
