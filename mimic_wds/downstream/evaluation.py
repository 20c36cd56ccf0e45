"""A task scored on a data set by all processes together.

Each process takes every n-th image; rows carry the image's number, so that the gathered ones are each image once.
"""

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from mimic_wds.downstream.config import FinetuneConfig
from mimic_wds.downstream.task import Row, Task
from mimic_wds.loading.dataset import Dataset


def evaluate(
    task: Task, model: nn.Module, config: FinetuneConfig, dataset: Dataset, accelerator: Accelerator
) -> list[Row]:
    """What every image adds to the scores, in order; all processes call this together, each gets all rows.

    `model` is the bare one, on the device; it is left in the mode that it was in. Raises ValueError when the images do
    not fit the model.
    """
    task.check(config, dataset)
    was_training = model.training
    model.eval()
    own = share(len(dataset), accelerator.process_index, accelerator.num_processes)
    with torch.inference_mode():
        rows = list(task.rows(model, config, dataset, own, accelerator.device))
    model.train(was_training)
    every = gather_object(rows) if accelerator.num_processes > 1 else rows
    return in_order(every, len(dataset))


def share(num_images: int, rank: int, world_size: int) -> range:
    """The images of one process: all processes together have every image once, however uneven."""
    return range(rank, num_images, world_size)


def in_order(rows: Iterable[Row], num_images: int) -> list[Row]:
    """The rows of all processes in the order of the data set. Raises ValueError unless they are each image once."""
    ordered = sorted(rows, key=lambda row: row[0])
    if [row[0] for row in ordered] != list(range(num_images)):
        raise ValueError(f"{len(ordered)} rows of statistics are not each of {num_images} images once")
    return ordered
