"""Encoder and head of a dense task as one module."""

import math
from typing import Self

import torch
from torch import Tensor, nn

from mimic_wds.models.heads.convnext import ConvNeXtHead
from mimic_wds.models.heads.dpt import DPTHead
from mimic_wds.models.heads.encoder import DenseEncoder


class DenseModel(nn.Module):
    """Normalised images (B, 3, H, W) -> (B, C, H, W), computed from the tokens of some blocks.

    Frozen, the encoder gets no gradient and stays in eval mode, so that stochastic depth does not go on.
    """

    def __init__(self, encoder: DenseEncoder, head: DPTHead | ConvNeXtHead, *, frozen: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.frozen = frozen
        self.taken = taken_blocks(len(encoder.blocks)) if isinstance(head, DPTHead) else (len(encoder.blocks) - 1,)
        if frozen:
            encoder.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """As of any module, but a frozen encoder stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

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
