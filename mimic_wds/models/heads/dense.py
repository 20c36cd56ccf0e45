"""Encoder and head of a dense task as one module."""

import math

import torch
from torch import Tensor

from mimic_wds.models.heads.base import EncoderAndHead
from mimic_wds.models.heads.convnext import ConvNeXtHead
from mimic_wds.models.heads.dpt import DPTHead
from mimic_wds.models.heads.encoder import DenseEncoder


class DenseModel(EncoderAndHead):
    """Normalised images (B, 3, H, W) -> (B, C, H, W), computed from the tokens of some blocks."""

    def __init__(self, encoder: DenseEncoder, head: DPTHead | ConvNeXtHead, *, frozen: bool = False) -> None:
        super().__init__(encoder, head, frozen=frozen)
        self.taken = taken_blocks(len(encoder.blocks)) if isinstance(head, DPTHead) else (len(encoder.blocks) - 1,)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.encoder(images, self.taken)
        return self.head(maps)


def taken_blocks(depth: int) -> tuple[int, ...]:
    """The blocks (from 0) whose tokens DPT takes: the last of each quarter; of 12 blocks 2, 5, 8 and 11.

    Of fewer than four blocks some are taken twice.
    """
    return tuple(math.ceil(depth * quarter / 4) - 1 for quarter in (1, 2, 3, 4))
