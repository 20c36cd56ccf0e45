"""Batches of pairs: views are decoded, cropped and exchanged; what is known of them follows."""

import threading
from collections.abc import Callable, Mapping
from typing import TypeAlias, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimic_wds.loading.augment import (
    Augmentation,
    Draws,
    Preset,
    carry_homography,
    draw_for,
    resolve,
    view_box,
    view_matrix,
)
from mimic_wds.loading.batch import PairBatch
from mimic_wds.loading.crops import cut_into
from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.decoding import BadSample, decode_corr, decode_into
from mimic_wds.loading.loader import Loader, Pending, Share
from mimic_wds.pairs import Image
from mimic_wds.storage.sample import FIELDS, TRUTH_FIELDS, decode_facts

#: A homography (3, 3) between two views, as a model sees them -> where each patch lies: (L,) int16, -1 = none.
Correspond: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.int16]]

#: How pixels move that stay where they are.
UNMOVED = np.eye(3)


class PairLoader(Loader[PairBatch]):
    """Pairs, augmented as a preset or an `Augmentation` says; see `Loader`.

    `size` is the side in pixels of the views that are given (None: as they are stored). A replaced sample takes the
    draws of the one whose place it takes.
    """

    def __init__(
        self,
        dataset: PairDataset,
        *,
        augmentation: Preset | Augmentation = "mimic",
        size: int | None = None,
        homographies: bool = False,
        correspond: Correspond | None = None,
        **share: Unpack[Share],
    ):
        """With `homographies`, batches bring H_0to1 along, changed as the views are. Correspondences that crops or
        mirrors have moved are dropped (None), unless `correspond` finds them anew from the homography.
        Raises ValueError as `Loader` does, and for an unknown preset.
        """
        self.augmentation = resolve(augmentation)
        self.size = size or dataset.size
        side = self.size
        super().__init__(dataset, pixels=lambda rows: (2, rows, side, side, 3), **share)
        self.stored = dataset.size
        self.num_patches = dataset.num_patches
        self.homographies = homographies
        self.correspond = correspond
        self._own = threading.local()

    def scratch(self) -> Image:
        """Memory of this thread's own for a view as it is stored; fresh memory for each would cost time."""
        if not hasattr(self._own, "view"):
            self._own.view = np.empty((self.stored, self.stored, 3), np.uint8)
        view: Image = self._own.view
        return view

    def _pending(self, epoch: int, rows: NDArray[np.int64], indices: NDArray[np.int64]) -> "_PendingPairs":
        draws = draw_for(self.augmentation, self.order.seed, epoch, indices)
        return _PendingPairs(self, self._memory.take(), rows, draws)


class _PendingPairs(Pending[PairBatch]):
    """A micro-batch of pairs while threads fill it."""

    def __init__(self, loader: PairLoader, images: Tensor, rows: NDArray[np.int64], draws: Draws):
        super().__init__(rows)
        self.loader = loader
        self.images = images  #: (2, B, H, W, 3)
        self.pixels = images.numpy()
        self.draws = draws
        self.swapped = draws.swapped
        self.is_moved = loader.augmentation.moves_patches
        self.is_whole = not self.is_moved and loader.size == loader.stored
        self.corr: NDArray[np.int16] | None = None
        if not self.is_moved or loader.correspond:
            self.corr = np.full((len(rows), loader.num_patches), -1, np.int16)
        self.H_0to1 = np.zeros((len(rows), 3, 3)) if loader.homographies else None
        self.needs_H = loader.homographies or (self.is_moved and self.corr is not None)

    def put(self, place: int, key: str, members: Mapping[str, bytes]) -> None:
        """Decode one pair into its place. Raises BadSample with the reason."""
        exchange = bool(self.swapped[place])
        corr = decode_corr(members["corr.npy"], self.loader.num_patches)  # also where moved: it tells bad samples
        jpegs = (members["1.jpg"], members["0.jpg"]) if exchange else (members["0.jpg"], members["1.jpg"])
        matrices = [self._put_view(place, view, jpegs[view]) for view in (0, 1)]
        if self.needs_H:
            H = carry_homography(read_homography(members["json"]), *matrices, swapped=exchange)
            self._put_homography(place, H)
        if self.corr is not None and not self.is_moved:
            self.corr[place] = corr  # as it is stored; `batch` turns those of exchanged views round, all at once
        self.keys[place] = key

    def _put_view(self, place: int, view: int, jpeg: bytes) -> NDArray[np.float64]:
        """Decode and crop a view into its place; returns how its pixels move, if that is wanted."""
        out = self.pixels[view, place]
        if self.is_whole:
            decode_into(jpeg, out)
            return UNMOVED
        stored, image = self.loader.stored, self.loader.scratch()
        decode_into(jpeg, image)
        box = view_box(self.loader.augmentation, self.draws, place, view, stored, stored)
        cut_into(image, box, out)
        return view_matrix(box, out.shape[:2]) if self.needs_H else UNMOVED

    def _put_homography(self, place: int, H: NDArray[np.float64]) -> None:
        """Keep the homography of the views as they are now, and the correspondences that follow from it, if wanted."""
        if self.H_0to1 is not None:
            self.H_0to1[place] = H
        if self.is_moved and self.corr is not None and self.loader.correspond is not None:
            self.corr[place] = self.loader.correspond(H)

    def batch(self) -> PairBatch:
        """The micro-batch, once all of it is there."""
        if self.corr is not None and not self.is_moved:
            self.corr[self.swapped] = invert_rows(self.corr[self.swapped])
        jitter = (None, None) if self.draws.jitter is None else torch.from_numpy(self.draws.jitter).unbind()
        return PairBatch(
            image0=self.images[0],
            image1=self.images[1],
            corr_0to1=None if self.corr is None else torch.from_numpy(self.corr),
            keys=tuple(self.keys),
            rows=torch.from_numpy(self.rows.copy()),
            swapped=torch.from_numpy(self.swapped),
            H_0to1=None if self.H_0to1 is None else torch.from_numpy(self.H_0to1),
            jitter0=jitter[0],
            jitter1=jitter[1],
        )


def invert_rows(corr: NDArray[np.int16]) -> NDArray[np.int16]:
    """Turn one-to-one maps (N, L) round, each by itself: corr_0to1 to corr_1to0, -1 = none."""
    inverted = np.full_like(corr, -1)
    rows, patches = np.nonzero(corr >= 0)
    inverted[rows, corr[rows, patches]] = patches
    return inverted


def read_homography(facts: bytes) -> NDArray[np.float64]:
    """H_0to1 (3, 3) in a KEY.json. Raises BadSample when it cannot be read or inverted."""
    try:
        H = np.array(decode_facts("", facts, FIELDS, TRUTH_FIELDS)["homography"], np.float64).reshape(3, 3)
        np.linalg.inv(H)
    except (ValueError, np.linalg.LinAlgError):
        raise BadSample("json_unreadable") from None
    return H
