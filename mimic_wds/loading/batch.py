"""What a model is fed."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairBatch:
    """A micro-batch of pairs on the CPU. B pairs, L patches. What moved the views moved what is known of them, too."""

    image0: Tensor  #: (B, H, W, 3) uint8 RGB
    image1: Tensor  #: (B, H, W, 3) uint8 RGB
    corr_0to1: Tensor | None  #: (B, L) int16, -1 = none; None where crops or mirrors have moved the patches
    keys: tuple[str, ...]
    rows: Tensor  #: (B,) int64: places in the global batch
    swapped: Tensor  #: (B,) bool: the views were exchanged after reading
    H_0to1: Tensor | None = None  #: (B, 3, 3) float64, from pixels of image0 to those of image1; if it was asked for
    jitter0: Tensor | None = None  #: (B, 4) float32: how colours are to change, see `transforms.normalize`
    jitter1: Tensor | None = None  #: (B, 4) float32

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageBatch:
    """A micro-batch of B single images on the CPU."""

    image: Tensor  #: (B, H, W, 3) uint8 RGB
    labels: Tensor  #: (B,) int64: numbers of their classes, -1 = none
    keys: tuple[str, ...]
    rows: Tensor  #: (B,) int64: places in the global batch
    jitter: Tensor | None = None  #: (B, 4) float32: how colours are to change, see `transforms.normalize`

    def __len__(self) -> int:
        return len(self.keys)
