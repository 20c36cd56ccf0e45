"""Looks at what a model does while it learns: always the same few samples, as pictures and as attention agreement."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mimic_wds.models.croco import CroCo
from mimic_wds.training.attention import attention_agreement
from mimic_wds.training.config import RunConfig
from mimic_wds.training.pictures import reconstructions, write_png

#: Samples of a picture; the agreement is taken over all that are given.
PICTURED = 6


@dataclass(frozen=True, slots=True)
class Look:
    """Some samples on the device; single images have neither image1 nor correspondences."""

    config: RunConfig
    image0: Tensor  #: (B, 3, H, W) normalised
    image1: Tensor | None
    corr_0to1: Tensor | None  #: (B, L), -1 = none
    noise: Tensor  #: (B, L) picks the hidden patches

    def picture(self, model: nn.Module, path: Path) -> None:
        """Write what the model makes of the first samples. Raises OSError."""
        few = slice(PICTURED)
        image1 = None if self.image1 is None else self.image1[few]
        with evaluating(model):
            picture = reconstructions(model, self.config.model, self.image0[few], image1, self.noise[few])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, picture)

    def attention(self, model: nn.Module) -> float | None:
        """Attention agreement in 0..1; None for models and samples that have none."""
        if not isinstance(model, CroCo) or self.image1 is None or self.corr_0to1 is None:
            return None
        with evaluating(model):
            share = attention_agreement(model, self.image0, self.image1, self.corr_0to1, self.noise).share
        return None if share != share else share


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without gradients, in evaluation mode; as before afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
