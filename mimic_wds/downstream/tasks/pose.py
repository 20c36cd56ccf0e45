"""Joints of people, as MIMIC finetunes ViTPose-B on COCO: the recipe of ViTPose's base configuration.

The paper names neither the head nor the source of the boxes; ViTPose's defaults are the classic head and detections.
"""

from dataclasses import dataclass
from typing import Literal

from mimic_wds.models.heads.pose import ClassicHead, PoseEncoder, PoseModel, SimpleHead


@dataclass(frozen=True, slots=True, kw_only=True)
class PoseTask:
    """What is needed to train and score; joints become heat maps and back in `downstream.joints`."""

    head: Literal["classic", "simple"] = "classic"
    boxes: Literal["gt", "detections"] = "detections"  #: at evaluation; true boxes give 1 to 2 points of AP more
    lr: float = 5e-4
    weight_decay: float = 0.1
    layer_decay: float = 0.75
    clip_grad_norm: float = 1.0
    epochs: int = 210
    drops: tuple[int, ...] = (170, 200)  #: epochs from which the rate is a tenth
    batch: int = 512
    drop_path: float = 0.3

    def build(self) -> PoseModel:
        """A freshly drawn ViTPose-B."""
        head = ClassicHead() if self.head == "classic" else SimpleHead()
        return PoseModel(PoseEncoder(drop_path=self.drop_path), head)


POSE = PoseTask()
