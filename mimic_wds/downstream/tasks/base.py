"""What a dense task is: a label beside each view, a head, a loss, and two protocols of evaluation.

A dense task is one file with one `DenseTask`, listed in `registry.py`. Shapes: B batch, C outputs, H x W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from numpy.typing import NDArray
from torch import Tensor, nn

from mimic_wds.downstream.metrics.bootstrap import Floats
from mimic_wds.downstream.task import Protocol, Scale
from mimic_wds.loading.augment import Augmentation
from mimic_wds.loading.parts import Part
from mimic_wds.storage.manifest import Manifest

#: How a picture of any size is shown to a model of one: see `downstream.views`.
View: TypeAlias = Literal["centre", "pad", "slide"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseProtocol(Protocol):
    """How a map that was predicted is held against the one that is known."""

    view: View
    statistics: Callable[
        [NDArray[Any], NDArray[Any], int], Floats
    ]  #: (prediction, label, outputs C) -> (S,) of an image


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseTask:
    """A value, or several, for every pixel. Labels are as `label` decodes them: (H, W) or (H, W, channels)."""

    name: str
    label: Part  #: the map that is learned
    outputs: Callable[[Manifest], int]  #: C, from what the data set says of itself
    head: Callable[[int, int, int, float], nn.Module]  #: (outputs, encoder's width, patch size, scale) -> head
    loss: Callable[[Tensor, Tensor, Scale], Tensor]  #: (prediction (B, C, H, W), labels (B, H, W, ...), scale) -> ()
    finish: Callable[[Tensor, Scale], NDArray[Any]]  #: prediction (C, H, W) -> what `statistics` take, (H, W, ...)
    fill: int  #: what pads a label
    protocols: tuple[DenseProtocol, DenseProtocol]
    augmentation: Augmentation
    fit: Callable[[Sequence[NDArray[Any]]], Scale] = lambda labels: Scale()  #: from labels of the training images
    picture: Callable[[NDArray[Any]], NDArray[Any]] = lambda values: values  #: (H, W, ...) -> (H, W, 3) uint8 RGB
