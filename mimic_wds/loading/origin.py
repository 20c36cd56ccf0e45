"""Which source each sample of a batch comes from."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mimic_wds.loading.dataset import Dataset
from mimic_wds.loading.mixing import Mixture
from mimic_wds.loading.order import Order
from mimic_wds.storage.layout import scene_prefix

#: Of samples whose keys begin with no source of the manifest.
OTHER = "other"


class Origin:
    """Sources by number: the data sets of a mixture, or the sources in the manifest of one data set."""

    def __init__(self, dataset: Dataset, order: Order | Mixture) -> None:
        self._mixture = order if isinstance(order, Mixture) else None
        if self._mixture:
            self.names = list(self._mixture.names)
        else:
            self.names = [
                *sorted({_tag(source) for shard in dataset.manifest.shards for source in shard.sources}),
                OTHER,
            ]
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def numbers(self, keys: Sequence[str], rows: Tensor, epoch: int, step: int) -> Tensor:
        """(B,) int64, places in `names`, of the samples with these keys, rows (B,) of the global batch of that step."""
        if self._mixture:
            sources = self._mixture.source_of(epoch, step)
            return torch.tensor([self._numbers[sources[row]] for row in rows.tolist()])
        other = len(self.names) - 1
        return torch.tensor([self._numbers.get(key.split("_", 1)[0], other) for key in keys])


def _tag(source: str) -> str:
    """What the keys of a source begin with."""
    return scene_prefix(source, "-").split("_", 1)[0]
