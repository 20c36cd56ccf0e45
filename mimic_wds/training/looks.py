"""Looks at what a model does while it learns: always the same few samples, as pictures and as attention agreement."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mimic_wds.models.croco import CroCo
from mimic_wds.training.attention import Agreement, attention_agreement
from mimic_wds.training.config import RunConfig
from mimic_wds.training.pictures import attention_pictures, contact_sheet, reconstructions, write_png

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
            columns = reconstructions(model, self.config.model, self.image0[few], image1, self.noise[few])
            if isinstance(model, CroCo) and image1 is not None and self.corr_0to1 is not None:
                columns += attention_pictures(model, self.image0[few], image1, self.corr_0to1[few], self.noise[few])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, contact_sheet(columns))

    def losses(self, model: nn.Module) -> dict[str, float]:
        """The loss on the samples as "look_loss"; of CroCo also that with references of other pairs.

        The second one says how much a model gains from its reference: a model that ignores it has twice the same.
        """
        views = [self.image0] if not isinstance(model, CroCo) or self.image1 is None else [self.image0, self.image1]
        with evaluating(model):
            found = {"look_loss": model.forward(*views, self.noise).loss.item()}
            if len(views) == 2:
                other = model.forward(self.image0, views[1].roll(1, 0), self.noise)
                found["look_loss_other_reference"] = other.loss.item()
        return found

    def attention(self, model: nn.Module) -> Agreement | None:
        """Attention agreement; None for models and samples that have none."""
        if not isinstance(model, CroCo) or self.image1 is None or self.corr_0to1 is None:
            return None
        with evaluating(model):
            found = attention_agreement(model, self.image0, self.image1, self.corr_0to1, self.noise)
        return None if math.isnan(found.share) else found


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
