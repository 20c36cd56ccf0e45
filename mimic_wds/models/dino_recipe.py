"""The published recipe of DINO's ViT-B/16 (arXiv 2104.14294, and the arguments released with its weights).

Besides what stands here it has: AdamW, 1024 images per step, base rate 7.5e-4 (times batch / 256) with 10 epochs of
warm-up and a minimum of 2e-6, weight decay from 0.04 to 0.4 (`cosine`), gradients clipped to 0.3 (each tensor by
itself: `clip_each`), 400 epochs.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.nn import Parameter

from mimic_wds.models.multicrop import NUM_DRAWS, CropKind

#: Crops that the teacher sees.
NUM_GLOBAL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DinoConfig:
    """[model.dino]: what DINO has beside its encoder. Raises ValueError naming the field."""

    out_dim: int = 65536  #: K
    hidden_dim: int = 2048
    bottleneck_dim: int = 256
    local_crops: int = 10
    local_size: int = 96  #: pixels, height and width
    global_area: tuple[float, float] = (0.25, 1.0)  #: shares of the image's area
    local_area: tuple[float, float] = (0.05, 0.25)
    drop_path: float = 0.1  #: stochastic depth of the student, in its last block
    student_temp: float = 0.1
    warmup_teacher_temp: float = 0.04
    teacher_temp: float = 0.07
    warmup_teacher_temp_epochs: int = 50
    teacher_momentum: float = 0.996  #: at the beginning; 1 at the end, along half a cosine
    centre_momentum: float = 0.9
    freeze_last_layer_epochs: float = 3.0  #: the head's last layer does not learn before

    def __post_init__(self) -> None:
        counts = ("out_dim", "hidden_dim", "bottleneck_dim", "local_size")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"dino.{name} = {getattr(self, name)} must be 1 or more")
        if self.local_crops < 0 or self.warmup_teacher_temp_epochs < 0 or self.freeze_last_layer_epochs < 0:
            raise ValueError("dino.local_crops, warmup_teacher_temp_epochs, freeze_last_layer_epochs must be 0 or more")
        for name in ("global_area", "local_area"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"dino.{name} = {[low, high]} must be two shares, 0 < low <= high <= 1")
        for name in ("student_temp", "warmup_teacher_temp", "teacher_temp"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"dino.{name} = {getattr(self, name)} must be above 0")
        for name in ("drop_path", "teacher_momentum", "centre_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"dino.{name} = {getattr(self, name)} must lie in [0, 1)")

    def crop_kinds(self, image_shape: tuple[int, int]) -> tuple[CropKind, ...]:
        """The crops of an image in order: the first global one is always blurred, the second sometimes solarised."""
        local = CropKind(size=(self.local_size, self.local_size), area=self.local_area, blur=0.5)
        return (
            CropKind(size=image_shape, area=self.global_area, blur=1.0),
            CropKind(size=image_shape, area=self.global_area, blur=0.1, solarise=0.2),
            *[local] * self.local_crops,
        )

    def num_draws(self, depth: int) -> int:
        """Random numbers of an image: those of each crop, and two for each block that the student may leave out."""
        return (NUM_GLOBAL + self.local_crops) * (NUM_DRAWS + 2 * depth)


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` at progress 0 to `end` at 1 along half a cosine: the teacher's momentum, the weight decay."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


def teacher_temperature(config: DinoConfig, epoch: float) -> float:
    """Grows linearly, epoch by epoch, and arrives in the last epoch of the warm-up."""
    if math.floor(epoch) >= config.warmup_teacher_temp_epochs:
        return config.teacher_temp
    share = math.floor(epoch) / max(config.warmup_teacher_temp_epochs - 1, 1)
    return config.warmup_teacher_temp + (config.teacher_temp - config.warmup_teacher_temp) * share


@torch.no_grad()
def clip_each(parameters: Iterable[Parameter], largest: float) -> None:
    """Shorten the gradient of every tensor whose norm is above `largest`, each by itself, without asking the device."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    torch._foreach_mul_(gradients, [(largest / (norm + 1e-6)).clamp(max=1) for norm in norms])
