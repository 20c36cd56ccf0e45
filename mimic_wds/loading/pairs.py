"""Batches of pairs, as they lie in the shards."""

from collections.abc import Mapping
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimic_wds.loading.batch import PairBatch
from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.decoding import decode_corr, decode_into
from mimic_wds.loading.loader import Loader, Pending, Share
from mimic_wds.loading.order import swap_views
from mimic_wds.pairs import invert_correspondences


class PairLoader(Loader[PairBatch]):
    """Pairs, the views of half of them exchanged unless `swap` is off; see `Loader`."""

    def __init__(self, dataset: PairDataset, *, swap: bool = True, **share: Unpack[Share]):
        """Raises ValueError as `Loader` does."""
        super().__init__(dataset, pixels=lambda rows: (2, rows, dataset.size, dataset.size, 3), **share)
        self.num_patches = dataset.num_patches
        self.swap = swap

    def _pending(self, epoch: int, rows: NDArray[np.int64], indices: NDArray[np.int64]) -> "_PendingPairs":
        swapped = swap_views(self.order.seed, epoch, indices) & self.swap
        return _PendingPairs(self._memory.take(), rows, swapped, self.num_patches)


class _PendingPairs(Pending[PairBatch]):
    """A micro-batch of pairs while threads fill it."""

    def __init__(self, images: Tensor, rows: NDArray[np.int64], swapped: NDArray[np.bool_], num_patches: int):
        super().__init__(rows)
        self.images = images  #: (2, B, H, W, 3)
        self.pixels = images.numpy()
        self.corr = np.empty((len(rows), num_patches), np.int16)
        self.swapped = swapped

    def put(self, place: int, key: str, members: Mapping[str, bytes]) -> None:
        """Decode one pair into its place. Raises BadSample with the reason."""
        exchange = bool(self.swapped[place])
        corr = decode_corr(members["corr.npy"], self.corr.shape[1])
        for view in (0, 1):
            decode_into(members[f"{view}.jpg"], self.pixels[view ^ exchange, place])
        self.corr[place] = invert_correspondences(corr) if exchange else corr
        self.keys[place] = key

    def batch(self) -> PairBatch:
        """The micro-batch, once all of it is there."""
        return PairBatch(
            image0=self.images[0],
            image1=self.images[1],
            corr_0to1=torch.from_numpy(self.corr),
            keys=tuple(self.keys),
            rows=torch.from_numpy(self.rows.copy()),
            swapped=torch.from_numpy(self.swapped),
        )
