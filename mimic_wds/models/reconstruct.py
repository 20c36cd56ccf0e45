"""Pictures of what a model reconstructs: target, masked input, prediction.

A model trained on normalised patches (`norm_pix_loss`) predicts the pattern of a patch but neither its brightness nor
its contrast. Two ways to show it: "honest" takes both from the visible patches, the near ones counting more; "oracle"
takes them from the hidden patches themselves, which the model never saw. Pictures say which. Without `norm_pix_loss`
both are the same.

Shapes: B batch, L patches, P values per patch, H x W pixels.
"""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimic_wds.colours import MEAN, STD
from mimic_wds.models.patches import patch_statistics, patchify, unpatchify

Mode: TypeAlias = Literal["honest", "oracle"]

GREY = 0.0  #: hidden patches, in normalised values


class Reconstruction(NamedTuple):
    """Pictures (B, H, W, 3) uint8 RGB."""

    target: NDArray[np.uint8]
    masked: NDArray[np.uint8]  #: hidden patches are grey
    prediction: NDArray[np.uint8]  #: visible patches as they are, hidden ones as predicted
    mode: Mode  #: where brightness and contrast of the predicted patches come from
    reference: NDArray[np.uint8] | None = None  #: the other view, for CroCo

    @property
    def columns(self) -> list[tuple[str, NDArray[np.uint8]]]:
        """(label, pictures) in the order in which they are best shown; the label of the prediction names the mode."""
        found = [("target", self.target), ("masked", self.masked), (f"prediction ({self.mode})", self.prediction)]
        return found if self.reference is None else [*found, ("reference", self.reference)]


def reconstruct(
    images: Tensor,
    prediction: Tensor,
    mask: Tensor,
    *,
    patch_size: int,
    norm_pix_loss: bool,
    mode: Mode = "honest",
    reference: Tensor | None = None,
) -> Reconstruction:
    """Pictures from normalised images (B, 3, H, W), prediction (B, L, P) and mask (B, L), True = hidden.

    `reference` (B, 3, H, W), normalised, is what CroCo looked at. Raises ValueError for an unknown mode.
    """
    if mode not in ("honest", "oracle"):
        raise ValueError(f'mode must be "honest" or "oracle", got {mode!r}')
    images, prediction = images.float(), prediction.float()
    rows, cols = images.shape[2] // patch_size, images.shape[3] // patch_size
    patches = patchify(images, patch_size)
    if norm_pix_loss:
        mean, std = patch_statistics(patches)
        if mode == "honest":
            weights = visible_weights(mask, rows, cols)
            mean, std = weights @ mean, weights @ std
        prediction = prediction * std + mean
    hidden = mask.unsqueeze(-1)
    stages = (patches, patches.masked_fill(hidden, GREY), prediction.where(hidden, patches))
    target, masked, predicted = (to_uint8(unpatchify(stage, patch_size, rows, cols)) for stage in stages)
    return Reconstruction(target, masked, predicted, mode, None if reference is None else to_uint8(reference.float()))


def visible_weights(mask: Tensor, rows: int, cols: int) -> Tensor:
    """What each visible patch says about each patch: (B, L, L), rows add up to 1, columns of hidden patches are 0.

    mask: (B, L) bool, True = hidden. Weights fall with the squared distance, counted in patches.
    """
    row, col = torch.meshgrid(*(torch.arange(n, device=mask.device) for n in (rows, cols)), indexing="ij")
    places = torch.stack([row.flatten(), col.flatten()], dim=1).float()
    squared = (places[:, None] - places[None]).square().sum(-1)
    weights = (~mask).unsqueeze(1) / squared.clamp(min=1e-6)
    return weights / weights.sum(-1, keepdim=True)


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Normalised images (B, 3, H, W) -> (B, H, W, 3) uint8 RGB."""
    std, mean = images.new_tensor(STD).view(1, 3, 1, 1), images.new_tensor(MEAN).view(1, 3, 1, 1)
    pixels = ((images * std + mean) * 255).round().clamp(0, 255)
    return pixels.permute(0, 2, 3, 1).byte().cpu().numpy()
