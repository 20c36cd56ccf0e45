"""Labelled images for finetuning: all of a data set or some of them, in batches or one by one."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mimic_wds.downstream.fewshot import batch_for, subset
from mimic_wds.downstream.tasks.base import DenseTask
from mimic_wds.loading.augment import Augmentation
from mimic_wds.loading.dataset import Dataset, ImageDataset, PairDataset
from mimic_wds.loading.decoding import decode_rgb
from mimic_wds.loading.loader import Share
from mimic_wds.loading.order import Order
from mimic_wds.loading.parts import JPEG, PartBatch, PartLoader
from mimic_wds.pairs import Image, Kind

#: Training images whose labels the scale of a task is taken from.
FITTED_ON = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledBatch(PartBatch):
    """A micro-batch of B images with their labels, on the CPU."""

    image: Tensor  #: (B, H, W, 3) uint8 RGB
    label: Tensor  #: (B, H, W, ...) as the task decodes it


class Chosen(Dataset):
    """Some samples of another data set, numbered anew."""

    kind: ClassVar[Kind] = "images"

    def __init__(self, dataset: Dataset, indices: NDArray[np.int64]):
        self.whole, self.indices = dataset, indices
        self.manifest, self.hash, self.folder = dataset.manifest, dataset.hash, dataset.folder

    def __len__(self) -> int:
        return len(self.indices)

    def close(self) -> None:
        """Close the data set."""
        self.whole.close()

    def locate(self, index: int) -> Any:
        """Shard and place in it of sample `index`."""
        return self.whole.locate(int(self.indices[index]))

    def read(self, index: int) -> tuple[str, Mapping[str, bytes]]:
        """Key and members of sample `index`; see `Dataset.read`."""
        return self.whole.read(int(self.indices[index]))

    def expect(self, groups: Iterator[list[int]]) -> None:
        """Samples of a choice are too scattered to fetch their shards ahead."""

    def will_read(self, indices: Iterable[int]) -> None:
        """See `Dataset.will_read`."""
        self.whole.will_read(int(self.indices[index]) for index in indices)


class ChosenPairs(Chosen, PairDataset):
    """Some pairs of a data set, numbered anew."""

    kind = "pairs"

    def __init__(self, dataset: PairDataset, indices: NDArray[np.int64]):
        super().__init__(dataset, indices)
        self.size, self.patch_size = dataset.size, dataset.patch_size


def choose(dataset: Dataset, shots: int, seed: int) -> Chosen:
    """`shots` samples of a data set, 0 = all. Raises ValueError for more than there are."""
    indices = subset(len(dataset), shots or len(dataset), seed)
    return ChosenPairs(dataset, indices) if isinstance(dataset, PairDataset) else Chosen(dataset, indices)


def open_labelled(where: str, task: DenseTask) -> ImageDataset:
    """A data set with the labels of `task`. Raises ValueError when it has none, or holds pairs."""
    dataset = ImageDataset(where)
    if task.label.member not in dataset.manifest.members:
        have = ", ".join(dataset.manifest.members)
        dataset.close()
        raise ValueError(
            f"{where}: its samples have no {task.label.member}, which {task.name} is learned from; they have {have}. "
            "`mimic-shard render-labels` makes data sets with depth, normal and semseg"
        )
    return dataset


def make_loader(
    chosen: Dataset, task: DenseTask, *, size: int, augment: bool, **share: Unpack[Share]
) -> PartLoader[LabelledBatch]:
    """Batches for training, every image once an epoch."""
    return PartLoader(
        chosen,
        parts={"image": JPEG, "label": task.label},
        make=LabelledBatch,
        size=(size, size),
        augmentation=task.augmentation if augment else Augmentation(),
        **own_order(chosen, share),
    )


def own_order(samples: Dataset, share: Share) -> Share:
    """`share` with an order of these samples, where a loader would take that of all of the data set.

    The batch is `fewshot.batch_for` of the samples that there are.
    """
    batch = batch_for(len(samples), share["global_batch"])
    order = Order([len(samples)], batch, share.get("seed", 0))
    return {**share, "global_batch": batch, "order": order}


def forever(epoch: Callable[[int, int], Iterator[LabelledBatch]], number: int, step: int) -> Iterator[LabelledBatch]:
    """The batches of epoch after epoch; `epoch(number, step)` gives those of one from a step on."""
    while True:
        yield from epoch(number, step)
        number, step = number + 1, 0


def read_labelled(dataset: Dataset, task: DenseTask, index: int) -> tuple[str, Image, NDArray[Any]]:
    """Key, picture (H, W, 3) and label (H, W, ...) of a sample. Raises ValueError when they do not decode or fit."""
    key, members = dataset.read(index)
    try:
        image, label = decode_rgb(members["0.jpg"]), task.label.decode(members[task.label.member])
    except ValueError as error:
        raise ValueError(f"{dataset.folder}: {key}: {error}") from None
    if image.shape[:2] != label.shape[:2]:
        raise ValueError(f"{dataset.folder}: {key}: the picture is {image.shape[:2]}, its label {label.shape[:2]}")
    return key, image, label


def first_labels(dataset: Dataset, task: DenseTask) -> list[NDArray[Any]]:
    """Labels of the first images, to fit the task's scale to."""
    return [read_labelled(dataset, task, index)[2] for index in range(min(FITTED_ON, len(dataset)))]
