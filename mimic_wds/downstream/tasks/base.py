"""What a dense task is: a label beside each view, a head, a loss, and two protocols of evaluation.

A task is one file with one `DenseTask`, listed in `registry.py`. Shapes: B batch, C outputs, H x W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from numpy.typing import NDArray
from torch import Tensor, nn

from mimic_wds.downstream.metrics.bootstrap import Floats, Scores
from mimic_wds.loading.augment import Augmentation
from mimic_wds.loading.parts import Part
from mimic_wds.storage.manifest import Manifest

#: How a picture of any size is shown to a model of one: see `downstream.views`.
View: TypeAlias = Literal["centre", "pad", "slide"]


class Scale(NamedTuple):
    """The model learns (label - shift) / unit."""

    shift: float = 0.0
    unit: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One way to score predictions. Numbers of different protocols do not compare."""

    name: Literal["paper", "standard"]
    told: str  #: what is measured, in one line: printed beside every number
    view: View
    statistics: Callable[
        [NDArray[Any], NDArray[Any], int], Floats
    ]  #: (prediction, label, outputs C) -> (S,) of an image
    scores: Scores  #: of sums of statistics
    headline: str  #: the score that tables show
    higher_is_better: bool
    batch: int = 0  #: average batches of so many images, as the published loops do; 0 = sum over all images


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseTask:
    """A value, or several, for every pixel. Labels are as `label` decodes them: (H, W) or (H, W, channels)."""

    name: str
    label: Part  #: the map that is learned
    outputs: Callable[[Manifest], int]  #: C, from what the data set says of itself
    head: Callable[[int, int, int], nn.Module]  #: (outputs, width of the encoder, patch size) -> head
    loss: Callable[[Tensor, Tensor, Scale], Tensor]  #: (prediction (B, C, H, W), labels (B, H, W, ...), scale) -> ()
    finish: Callable[[Tensor, Scale], NDArray[Any]]  #: prediction (C, H, W) -> what `statistics` take, (H, W, ...)
    fill: int  #: what pads a label
    protocols: tuple[Protocol, Protocol]
    augmentation: Augmentation
    fit: Callable[[Sequence[NDArray[Any]]], Scale] = lambda labels: Scale()  #: from labels of the training images
    picture: Callable[[NDArray[Any]], NDArray[Any]] = lambda values: values  #: (H, W, ...) -> (H, W, 3) uint8 RGB
