"""Labels of images from frozen features: MAE's linear probe (arXiv 2111.06377) as MIMIC runs it on ImageNet-1K."""

from dataclasses import dataclass
from typing import Literal

from mimic_wds.downstream.optimizer import LARS
from mimic_wds.models.heads.probe import LinearProbe
from mimic_wds.models.vit import Encoder
from mimic_wds.training.schedule import learning_rate, peak_learning_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTask:
    """The recipe. Neither MAE nor CroCo puts a loss on the class token; the mean of the tokens is a second probe."""

    token: Literal["class", "mean"] = "class"
    classes: int = 1000
    base_lr: float = 0.1  #: for 256 images per step
    batch: int = 16_384
    epochs: int = 90
    warmup_epochs: int = 10

    def build(self, encoder: Encoder) -> tuple[LinearProbe, LARS]:
        """The probe, which freezes `encoder`, and its optimizer."""
        probe = LinearProbe(encoder, self.classes, token=self.token)
        return probe, LARS(probe.head.parameters(), lr=self.peak_lr)

    @property
    def peak_lr(self) -> float:
        """Learning rate at the end of the warm-up."""
        return peak_learning_rate(self.base_lr, self.batch)

    def rate(self, epoch: float) -> float:
        """Learning rate at a fractional epoch."""
        return learning_rate(epoch, peak=self.peak_lr, warmup_epochs=self.warmup_epochs, schedule_epochs=self.epochs)


PROBE = ProbeTask()
