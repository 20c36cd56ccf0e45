"""What a model does beside its loss, summed on the device over the steps between two lines of the log."""

from collections.abc import Sequence
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor


class Output(Protocol):
    """What pretraining models return."""

    @property
    def losses(self) -> Tensor:
        """(B,) without gradient."""

    @property
    def measures(self) -> dict[str, Tensor]:
        """Numbers () by name."""


class Measures:
    """Mean loss of each source (if there are several) and means of what the models measure."""

    def __init__(self, sources: Sequence[str], device: torch.device) -> None:
        self._sources = list(sources) if len(sources) > 1 else []
        self._device = device
        self._names: list[str] = []
        self._losses, self._measured = self._zeros()

    def add(self, output: Output, sources: Tensor) -> None:
        """Take note of a micro-batch; sources (B,) of its samples, on any device. Does not wait for the device."""
        if self._sources:
            losses = output.losses.float()
            numbers = sources.to(self._device, non_blocking=True).repeat(len(losses) // len(sources))
            self._losses.index_add_(1, numbers, torch.stack([losses, torch.ones_like(losses)]))
        measures = output.measures
        self._names = list(measures)
        values = torch.stack([value.detach().float() for value in measures.values()])
        self._measured = self._measured + torch.cat([values, values.new_ones(1)])

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over all processes since the last time: "loss/SOURCE" if samples came from several, and by name.

        All processes call this together. What was not finite is nan.
        """
        sums = accelerator.reduce(torch.cat([self._losses.flatten(), self._measured.reshape(-1)]), "sum").tolist()
        self._losses, self._measured = self._zeros()
        size = len(self._sources)
        losses, counts, (*measured, batches) = sums[:size], sums[size : 2 * size], sums[2 * size :]
        found = {
            f"loss/{name}": loss / count
            for name, loss, count in zip(self._sources, losses, counts, strict=True)
            if count
        }
        if len(found) < 2:  # it is the loss
            found = {}
        return found | {name: value / batches for name, value in zip(self._names, measured, strict=True)}

    def _zeros(self) -> tuple[Tensor, Tensor]:
        """Sums and counts of losses (2, S); sums of measures, and how many, (M + 1,) when they are known."""
        return torch.zeros(2, len(self._sources), device=self._device), torch.zeros((), device=self._device)
