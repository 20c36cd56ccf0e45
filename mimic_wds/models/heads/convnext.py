"""The segmentation head of MultiMAE (arXiv 2204.01678): tokens opened to cells, four ConvNeXt blocks, logits.

Shapes: B batch, D width of the encoder, E = 16 * c width of the opened tokens, c channels, K classes.
"""

from collections.abc import Sequence
from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from mimic_wds.models.vit import LayerNorm

#: Each patch becomes so many cells a side.
CELLS = 4


class ConvNeXtHead(nn.Module):
    """From the last block's tokens to K logits for every pixel."""

    @classmethod
    def scaled(cls, classes: int, *, dim: int, patch_size: int, scale: float) -> Self:
        """With all widths a share of the published; 1 = as published."""
        return cls(classes, dim=dim, embed=CELLS**2 * max(1, round(scale * 384)), patch_size=patch_size)

    def __init__(
        self, classes: int, *, dim: int = 768, embed: int = 6144, depth: int = 4, patch_size: int = 16
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        channels = embed // CELLS**2
        self.open = nn.Linear(dim, embed)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(channels) for _ in range(depth)))
        self.classify = nn.Conv2d(channels, classes, 1)
        self.initialise()

    def initialise(self) -> None:
        """Linear weights truncated normal (0.02), their biases 0; convolutions as torch makes them."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The last of `maps` (B, D, rows, cols) -> logits (B, K, patch_size * rows, patch_size * cols)."""
        rows, cols = maps[-1].shape[-2:]
        cells = open_tokens(self.open(maps[-1].movedim(1, -1)))
        size = (rows * self.patch_size, cols * self.patch_size)
        return F.interpolate(self.classify(self.blocks(cells)), size=size, mode="bilinear", align_corners=False)


def open_tokens(tokens: Tensor) -> Tensor:
    """(B, rows, cols, 16 * c) -> (B, c, 4 * rows, 4 * cols): a token's cells in raster order, channels fastest."""
    batch, rows, cols, _ = tokens.shape
    cells = tokens.reshape(batch, rows, cols, CELLS, CELLS, -1).permute(0, 5, 1, 3, 2, 4)
    return cells.reshape(batch, -1, rows * CELLS, cols * CELLS)


class ConvNeXtBlock(nn.Module):
    """7 x 7 per channel, norm, MLP of ratio 4 with GELU, and the input itself; no layer scale, no drop path."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = LayerNorm(channels)
        self.expand = nn.Linear(channels, 4 * channels)
        self.shrink = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, h, w) -> the same."""
        inner = self.norm(self.depthwise(x).movedim(1, -1))
        return x + self.shrink(F.gelu(self.expand(inner))).movedim(-1, 1)
