"""From a batch of pairs or images to what the model is called with."""

import torch
from torch import Tensor

from mimic_wds.training.batches import both_view_rows, step_noise
from mimic_wds.training.config import RunConfig


def step_draws(config: RunConfig, step: int) -> Tensor:
    """All random numbers of step `step` (from 0): (global batch, num_draws) float32, the same on every process."""
    return step_noise(config.run.seed, step, config.data.global_batch, config.model.num_draws)


def model_inputs(
    config: RunConfig, image0: Tensor, image1: Tensor | None, rows: Tensor, draws: Tensor
) -> tuple[Tensor, Tensor, Tensor] | tuple[Tensor, Tensor]:
    """CroCo takes (image0, image1, draws) of B pairs, MAE and DINO take (images, draws) of 2B images, each on its own.

    Of single images (image1 is None) MAE and DINO take (image0, draws) of B images.
    image0, image1: (B, 3, H, W) normalised, on the device. rows: (B,) the samples' places in the global batch.
    draws: see `step_draws`; each sample takes the row of its own place.
    """
    if image1 is None:
        return image0, draws[rows].to(image0)
    if config.model.objective == "croco":
        return image0, image1, draws[rows].to(image0)
    return torch.cat([image0, image1]), draws[both_view_rows(rows)].to(image0)
