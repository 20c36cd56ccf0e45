"""Scores of a dense model under both protocols, from statistics of single images that are kept.

Each process takes every n-th image; rows carry the image's number, so that the gathered ones are each image once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mimic_wds.downstream.data import read_labelled
from mimic_wds.downstream.metrics.bootstrap import Floats, as_plain, batch_averaged, bootstrap, pooled
from mimic_wds.downstream.tasks.base import DenseTask, Protocol, Scale, View
from mimic_wds.downstream.views import Windows, cut_windows, same_view, to_device
from mimic_wds.loading.dataset import Dataset
from mimic_wds.loading.transforms import normalize
from mimic_wds.pairs import Image

#: (number of the image, its key, protocol -> statistics (S,))
Row: TypeAlias = tuple[int, str, dict[str, Floats]]


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


def share(num_images: int, rank: int, world_size: int) -> range:
    """The images of one process: all processes together have every image once, however uneven."""
    return range(rank, num_images, world_size)


def gathered(rows: Iterable[Row], num_images: int) -> tuple[list[str], dict[str, Floats]]:
    """Keys and, by protocol, statistics (N, S) in the order of the data set, from the rows of all processes.

    Raises ValueError unless they are each image once.
    """
    ordered = sorted(rows, key=lambda row: row[0])
    if [row[0] for row in ordered] != list(range(num_images)):
        raise ValueError(f"{len(ordered)} rows of statistics are not each of {num_images} images once")
    names = ordered[0][2]
    return [row[1] for row in ordered], {name: np.stack([row[2][name] for row in ordered]) for name in names}


def scores_of(
    task: DenseTask, statistics: Mapping[str, Floats], *, resamples: int = 0, seed: int = 0
) -> dict[str, Any]:
    """By protocol: what is measured, the scores and, if `resamples`, their spread over resampled test sets.

    The spread is of sums over all images, also where the protocol averages batches.
    """
    return {
        protocol.name: {
            "told": protocol.told,
            "headline": protocol.headline,
            "scores": scores_under(protocol, statistics[protocol.name]),
            "spread": as_plain(bootstrap(statistics[protocol.name], protocol.scores, resamples=resamples, seed=seed))
            if resamples
            else {},
        }
        for protocol in task.protocols
    }


def scores_under(protocol: Protocol, statistics: Floats) -> dict[str, float]:
    """Scores of statistics (N, S)."""
    if protocol.batch:
        return batch_averaged(statistics, protocol.scores, protocol.batch)
    return pooled(statistics, protocol.scores)


def write_statistics(path: Path, keys: Sequence[str], statistics: Mapping[str, Floats]) -> None:
    """One .npz (no pickle): keys, and an array (N, S) per protocol."""
    np.savez_compressed(path, keys=np.array(keys, np.str_), **dict(statistics))  # type: ignore[arg-type]


def _row(protocol: Protocol, looked: Looked, outputs: int) -> Floats:
    return protocol.statistics(looked.prediction, looked.label, outputs)


def _shown(windows: Windows) -> Image:
    """What the model saw of a picture, or its first window."""
    return windows.pixels[0]
