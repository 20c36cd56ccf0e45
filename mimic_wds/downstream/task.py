"""What finetune.py and evaluate.py ask of a task: data, model, loss, and what each image adds to its scores.

A task is one file in `tasks/`, listed in `tasks/registry.py`, and one config in finetune/configs. A task with a label
for every pixel need not implement this: it is a `tasks.base.DenseTask`, and `dense.Dense` does the rest.
docs/add-a-task.md goes through one from the beginning.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from mimic_wds.downstream.config import FinetuneConfig
from mimic_wds.downstream.metrics.bootstrap import Floats, Scores, as_plain, batch_averaged, bootstrap, pooled
from mimic_wds.downstream.optimizer import build_adamw
from mimic_wds.loading.dataset import Dataset
from mimic_wds.loading.loader import Loader, Share
from mimic_wds.models.heads.encoder import DenseEncoder, dense_weights, rotary_weights

#: (number of the image, its key, protocol -> what the image adds: statistics (S,), or what else the task scores)
Row: TypeAlias = tuple[int, str, dict[str, Any]]

#: Protocol -> "told", "headline", "scores" and, of resampled test sets, "spread"; plain values.
Scored: TypeAlias = dict[str, dict[str, Any]]

#: Pictures side by side: (title, (N, H, W, 3) uint8).
Columns: TypeAlias = list[tuple[str, NDArray[np.uint8]]]

#: Weights with timm's names of a pretrained encoder.
Weights: TypeAlias = Mapping[str, Tensor]


class Scale(NamedTuple):
    """The model learns (label - shift) / unit."""

    shift: float = 0.0
    unit: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One way to score predictions. Numbers of different protocols do not compare."""

    name: str  #: "paper" = as the published logs measure, "standard" = as the field does
    told: str  #: what is measured, in one line: printed beside every number
    scores: Scores  #: of sums of statistics
    headline: str  #: the score that tables show
    higher_is_better: bool
    batch: int = 0  #: average batches of so many images, as the published loops do; 0 = sum over all images


class Task(ABC):
    """A downstream task. `config` is the run's; models have their encoder as `.encoder`, its blocks as `.blocks`."""

    name: str
    protocols: tuple[Protocol, ...]  #: the headline of the first chooses the best checkpoint

    @abstractmethod
    def open(self, where: str, labels: Sequence[Path] = ()) -> Dataset:
        """The data set, with `labels` from files beside it if the task has such. Raises ValueError if some lack."""

    def samples(self, chosen: Dataset) -> Dataset:
        """What a step of training counts: the images (or people, or pairs) of the data set, all or the few chosen."""
        return chosen

    @abstractmethod
    def fill_in(self, config: FinetuneConfig, samples: Dataset, weights: Weights) -> FinetuneConfig:
        """What data set and pretrained weights (none: random) determine: see `with_outputs`."""

    @abstractmethod
    def build(self, config: FinetuneConfig) -> nn.Module:
        """A freshly drawn model, from torch's global generator; a frozen encoder has no gradient, and stays in eval."""

    def encoder_weights(self, model: nn.Module, weights: Weights) -> tuple[dict[str, Tensor], list[str]]:
        """What goes into the model's encoder, strictly, and the names that are left. Raises ValueError if some lack."""
        encoder = model.encoder
        assert isinstance(encoder, DenseEncoder)
        return rotary_weights(weights) if encoder.turns else dense_weights(weights, *encoder.grid)

    def optimizer(self, model: nn.Module, config: FinetuneConfig) -> Optimizer:
        """AdamW with a rate per layer, unless the task's recipe has another."""
        return build_adamw(
            model,
            depth=len(model.encoder.blocks),  # type: ignore[union-attr,arg-type]
            lr=config.optimizer.lr,
            weight_decay=config.optimizer.weight_decay,
            layer_decay=config.optimizer.layer_decay,
        )

    def rate(self, config: FinetuneConfig, step: int) -> float:
        """The learning rate of the head at a step (from 0)."""
        return config.learning_rate(step)

    @abstractmethod
    def loader(self, samples: Dataset, config: FinetuneConfig, **share: Unpack[Share]) -> Loader[Any]:
        """Batches for training, every sample once an epoch."""

    @abstractmethod
    def inputs(self, batch: Any, device: torch.device) -> tuple[Tensor, ...]:
        """What `loss` takes, on the device."""

    @abstractmethod
    def loss(self, model: nn.Module, config: FinetuneConfig, *inputs: Tensor) -> Tensor:
        """() of a batch, with gradient."""

    @abstractmethod
    def rows(
        self, model: nn.Module, config: FinetuneConfig, dataset: Dataset, numbers: Sequence[int], device: torch.device
    ) -> Iterator[Row]:
        """What each of these images adds to the scores; the model is in eval mode, on the device."""

    def scores(self, dataset: Dataset, rows: Sequence[Row], *, resamples: int = 0, seed: int = 0) -> Scored:
        """The scores of all images, whose rows are in order, with their spread over resampled test sets if asked."""
        return scores_of(self.protocols, statistics_by_protocol(rows), resamples=resamples, seed=seed)

    def write(self, folder: Path, rows: Sequence[Row]) -> None:
        """Keep what each image adds: statistics.npz (no pickle) with keys, and an array (N, S) per protocol."""
        arrays: dict[str, Any] = statistics_by_protocol(rows)
        np.savez_compressed(folder / "statistics.npz", keys=np.array([row[1] for row in rows], np.str_), **arrays)

    def panels(
        self, model: nn.Module, config: FinetuneConfig, dataset: Dataset, number: int, device: torch.device
    ) -> Columns:
        """Pictures of the first `number` samples with prediction and truth; none if there is nothing to draw."""
        return []

    def check(self, config: FinetuneConfig, dataset: Dataset) -> None:  # noqa: B027
        """Raise ValueError when a model cannot be scored on these images."""


def statistics_by_protocol(rows: Sequence[Row]) -> dict[str, Floats]:
    """(N, S) of each protocol."""
    return {name: np.stack([row[2][name] for row in rows]) for name in rows[0][2]}


def scores_of(
    protocols: Sequence[Protocol], statistics: Mapping[str, Floats], *, resamples: int = 0, seed: int = 0
) -> Scored:
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
        for protocol in protocols
    }


def scores_under(protocol: Protocol, statistics: Floats) -> dict[str, float]:
    """Scores of statistics (N, S)."""
    if protocol.batch:
        return batch_averaged(statistics, protocol.scores, protocol.batch)
    return pooled(statistics, protocol.scores)


def with_outputs(
    config: FinetuneConfig,
    outputs: int,
    weights: Weights = MappingProxyType({}),
    scale: Scale = Scale(),  # noqa: B008
) -> FinetuneConfig:
    """The config with what a data set and pretrained weights determine."""
    rotary = bool(weights) and "pos_embed" not in weights
    model = replace(config.model, outputs=outputs, rotary=rotary)
    return replace(config, model=model, shift=scale.shift, unit=scale.unit)
