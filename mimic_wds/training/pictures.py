"""A picture of what a model reconstructs and looks at: one row per sample, one labelled column per stage."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mimic_wds.models.build import ModelConfig
from mimic_wds.models.croco import CroCo
from mimic_wds.models.reconstruct import reconstruct, to_uint8
from mimic_wds.training.attention import cross_attention

LABEL_HEIGHT = 28
GAP = 4

WHITE, ORANGE = (255, 255, 255), (230, 159, 0)  #: RGB

#: [(label, (N, H, W, 3) uint8 RGB)]
Columns: TypeAlias = list[tuple[str, NDArray[np.uint8]]]


def reconstructions(
    model: nn.Module, config: ModelConfig, image0: Tensor, image1: Tensor | None, noise: Tensor
) -> Columns:
    """What `model` makes of some samples, as labelled columns (label, (B, H, W, 3) uint8 RGB).

    Target, masked target, prediction and, for CroCo, reference. A model of normalised patches predicts neither their
    brightness nor their contrast: they come from the visible patches ("honest") and, beside it, from the hidden ones
    ("oracle"). image0, image1: (B, 3, H, W) normalised; MAE looks at image 0 only. noise: (B, L) picks the hidden
    patches.
    """
    both = config.objective == "croco"
    with torch.no_grad():  # `forward`: not the compiled one, which is made for one size of batch
        _, prediction, mask, _ = model.forward(*((image0, image1, noise) if both else (image0, noise)))
    size, normalised = config.patch_size, config.norm_pix_loss
    honest = reconstruct(
        image0, prediction, mask, patch_size=size, norm_pix_loss=normalised, reference=image1 if both else None
    )
    if not normalised:
        return honest.columns
    oracle = reconstruct(image0, prediction, mask, patch_size=size, norm_pix_loss=True, mode="oracle")
    return [*honest.columns[:3], oracle.columns[2], *honest.columns[3:]]


def attention_pictures(model: CroCo, image0: Tensor, image1: Tensor, corr_0to1: Tensor, noise: Tensor) -> Columns:
    """Where CroCo looks for one patch of each pair: the patch in the target, and the attention over the reference.

    The patch is the one nearest to the middle whose place in the other view is stored (corr (B, L), -1 = none); that
    place is framed in white, the strongest one in orange. Pairs without correspondences show no patch.
    """
    weights = cross_attention(model, image0, image1, noise).cpu().numpy()
    asked, looked = to_uint8(image0.float()).copy(), to_uint8(image1.float()).copy()
    for number, corr in enumerate(corr_0to1.cpu().numpy()):
        patch = middle_patch(corr, model.rows, model.cols)
        if patch is None:
            continue
        heat = weights[number, patch]
        looked[number] = heat_map(looked[number], heat.reshape(model.rows, model.cols))
        frame(asked[number], patch, model, WHITE)
        frame(looked[number], int(heat.argmax()), model, ORANGE)
        frame(looked[number], int(corr[patch]), model, WHITE)
    return [("patch", asked), ("attention (white: true)", looked)]


def middle_patch(corr: NDArray[np.integer], rows: int, cols: int) -> int | None:
    """Of the patches with a correspondence (L,) the one nearest to the middle of the grid, or None."""
    known = np.flatnonzero(corr >= 0)
    if not len(known):
        return None
    row, col = known // cols - (rows - 1) / 2, known % cols - (cols - 1) / 2
    return int(known[np.argmin(row**2 + col**2)])


def heat_map(image: NDArray[np.uint8], values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """`values` (rows, cols), scaled to their largest, as colours from dark to yellow over a grey `image` (H, W, 3)."""
    height, width = image.shape[:2]
    scaled = (values / max(float(values.max()), 1e-12) * 255).astype(np.uint8)
    large = cv2.resize(scaled, (width, height), interpolation=cv2.INTER_NEAREST)
    colours = cv2.cvtColor(cv2.applyColorMap(large, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(colours, 0.6, grey, 0.4, 0).astype(np.uint8)


def frame(image: NDArray[np.uint8], patch: int, model: CroCo, colour: tuple[int, int, int]) -> None:
    """Draw the border of a patch into an image (H, W, 3)."""
    size = model.patch_size
    row, col = divmod(patch, model.cols)
    cv2.rectangle(image, (col * size, row * size), ((col + 1) * size - 1, (row + 1) * size - 1), colour, 2)


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
