"""Any `DenseTask` as finetune.py and evaluate.py see it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mimic_wds.downstream.config import FinetuneConfig
from mimic_wds.downstream.data import LabelledBatch, first_labels, make_loader, open_labelled, read_labelled
from mimic_wds.downstream.metrics.bootstrap import Floats
from mimic_wds.downstream.task import Columns, Row, Scale, Task, Weights, with_outputs
from mimic_wds.downstream.tasks.base import DenseProtocol, DenseTask, View
from mimic_wds.downstream.views import Windows, cut_windows, same_view, to_device
from mimic_wds.loading.dataset import Dataset
from mimic_wds.loading.loader import Share
from mimic_wds.loading.parts import PartLoader
from mimic_wds.loading.transforms import normalize
from mimic_wds.models.heads.dense import DenseModel
from mimic_wds.models.heads.dpt import DPTHead
from mimic_wds.models.heads.encoder import DenseEncoder, initialise
from mimic_wds.pairs import Image


class Dense(Task):
    """A dense task: images with a map of labels, an encoder and a head that gives a map."""

    def __init__(self, dense: DenseTask) -> None:
        self.dense, self.name, self.protocols = dense, dense.name, dense.protocols

    def open(self, where: str, labels: Sequence[Path] = ()) -> Dataset:
        """See `Task`: labels lie in the shards."""
        if labels:
            raise ValueError(f"--labels {labels[0]}: {self.name} has its labels in the shards; leave it out")
        return open_labelled(where, self.dense)

    def fill_in(self, config: FinetuneConfig, samples: Dataset, weights: Weights) -> FinetuneConfig:
        """See `Task`."""
        scale = self.dense.fit(first_labels(samples, self.dense))
        return with_outputs(config, self.dense.outputs(samples.manifest), weights, scale)

    def build(self, config: FinetuneConfig) -> DenseModel:
        """See `Task`."""
        assert config.model.outputs > 0
        encoder = dense_encoder(config)
        model = config.model
        head = self.dense.head(model.outputs, model.shape[0], model.patch_size, model.head_scale)
        two = 2 * config.model.patch_size
        if isinstance(head, DPTHead) and config.model.image_size % two:
            raise ValueError(
                f"model.image_size = {config.model.image_size} must be a multiple of {two} (two patches): the head of "
                "this task halves the grid of patches"
            )
        return DenseModel(encoder, head, frozen=config.model.frozen)  # type: ignore[arg-type]

    def loader(self, samples: Dataset, config: FinetuneConfig, **share: Unpack[Share]) -> PartLoader[LabelledBatch]:
        """See `Task`."""
        return make_loader(samples, self.dense, size=config.model.image_size, augment=config.run.augment, **share)

    def inputs(self, batch: LabelledBatch, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) and labels (B, H, W, ...)."""
        return normalize(batch.image, device, batch.jitter), batch.label.to(device)

    def loss(self, model: nn.Module, config: FinetuneConfig, *inputs: Tensor) -> Tensor:
        """See `Task`."""
        images, labels = inputs
        return self.dense.loss(model(images), labels, Scale(config.shift, config.unit))

    def rows(
        self, model: nn.Module, config: FinetuneConfig, dataset: Dataset, numbers: Sequence[int], device: torch.device
    ) -> Iterator[Row]:
        """See `Task`."""
        scale, size = Scale(config.shift, config.unit), config.model.image_size
        outputs = config.model.outputs
        yield from statistics_of(model, self.dense, scale, dataset, numbers, outputs=outputs, size=size, device=device)

    def panels(
        self, model: nn.Module, config: FinetuneConfig, dataset: Dataset, number: int, device: torch.device
    ) -> Columns:
        """Input, prediction, truth."""
        samples = [read_labelled(dataset, self.dense, n)[1:] for n in range(min(number, len(dataset)))]
        scale, size = Scale(config.shift, config.unit), config.model.image_size
        looked = predict(model, self.dense, scale, samples, "centre", size=size, device=device)
        return [
            ("input", np.stack([each.image for each in looked])),
            ("prediction", np.stack([self.dense.picture(each.prediction) for each in looked])),
            ("truth", np.stack([self.dense.picture(each.label) for each in looked])),
        ]

    def check(self, config: FinetuneConfig, dataset: Dataset) -> None:
        """The data set has as many classes as the model."""
        if (outputs := self.dense.outputs(dataset.manifest)) != config.model.outputs:
            raise ValueError(
                f"{dataset.folder}: has {outputs} classes, the model was trained for {config.model.outputs}"
            )


def dense_encoder(config: FinetuneConfig) -> DenseEncoder:
    """A freshly drawn encoder, as large as the config says."""
    dim, depth, heads = config.model.shape
    encoder = DenseEncoder(
        image_size=config.model.image_size,
        patch_size=config.model.patch_size,
        dim=dim,
        depth=depth,
        heads=heads,
        drop_path=config.model.drop_path,
        rotary=config.model.rotary,
    )
    initialise(encoder)
    return encoder


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Looked:
    """An image, its label, and what the model makes of it under one view."""

    image: Image
    label: NDArray[Any]
    prediction: NDArray[Any]  #: of the label's size, in its units


def predict(
    model: nn.Module,
    task: DenseTask,
    scale: Scale,
    samples: Sequence[tuple[Image, NDArray[Any]]],
    view: View,
    *,
    size: int,
    device: torch.device,
    batch: int = 32,
) -> list[Looked]:
    """Predictions for (picture, label) of any sizes; `batch` windows go through the model at a time."""
    windows = [cut_windows(image, label, same_view(view, image, size), size, task.fill) for image, label in samples]
    pixels = np.concatenate([each.pixels for each in windows])
    found = []
    with torch.inference_mode():
        for start in range(0, len(pixels), batch):
            images = normalize(to_device(pixels[start : start + batch], device), device)
            found.append(model(images).float())
    parts = torch.cat(found).split([len(each.pixels) for each in windows])
    return [
        Looked(image=_shown(each), label=each.label, prediction=task.finish(each.stitch(part), scale))
        for each, part in zip(windows, parts, strict=True)
    ]


def statistics_of(
    model: nn.Module,
    task: DenseTask,
    scale: Scale,
    dataset: Dataset,
    indices: Iterable[int],
    *,
    outputs: int,
    size: int,
    device: torch.device,
    batch: int = 16,
) -> Iterator[Row]:
    """Rows of the images `indices`, `batch` of them at a time. The model must be in eval mode, on `device`."""
    assert not model.training
    remaining = iter(indices)
    while numbers := list(islice(remaining, batch)):
        read = [read_labelled(dataset, task, number) for number in numbers]
        samples = [(image, label) for _, image, label in read]
        square = all(image.shape[:2] == (size, size) for image, _ in samples)
        views: set[View] = {"centre"} if square else {protocol.view for protocol in task.protocols}
        looked = {view: predict(model, task, scale, samples, view, size=size, device=device) for view in views}
        for place, number in enumerate(numbers):
            rows: dict[str, Floats] = {
                each.name: _row(each, looked["centre" if square else each.view][place], outputs)
                for each in task.protocols
            }
            yield number, read[place][0], rows


def _row(protocol: DenseProtocol, looked: Looked, outputs: int) -> Floats:
    return protocol.statistics(looked.prediction, looked.label, outputs)


def _shown(windows: Windows) -> Image:
    """What the model saw of a picture, or its first window."""
    return windows.pixels[0]
