"""The DPT head (arXiv 2103.13413) in the form that MultiMAE regresses depth and normals with.

Four blocks' tokens become maps of strides 4, 8, 16 and 32, which are fused from coarse to fine.

Shapes: B batch, D width of the encoder, F features, C channels of the output; maps are (B, channels, rows, cols).
"""

from collections.abc import Sequence
from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn


class DPTHead(nn.Module):
    """From the tokens of four blocks to C values for every pixel; no final activation.

    The residual unit that the coarsest fusion would put on its skip has no skip: its 1,180,160 parameters (F = 256)
    exist, as in the published models, and never get a gradient. Processes that train together must be told
    (`find_unused_parameters`).
    """

    @classmethod
    def scaled(cls, channels: int, *, dim: int, scale: float) -> Self:
        """With all widths a share of the published; 1 = as published."""
        widths = [max(1, round(scale * width)) for width in (96, 192, 384, 768)]
        return cls(channels, dim=dim, widths=widths, features=2 * max(1, round(scale * 128)))

    def __init__(
        self, channels: int, *, dim: int = 768, widths: Sequence[int] = (96, 192, 384, 768), features: int = 256
    ) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.reassemble = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(dim, first, 1), nn.ConvTranspose2d(first, first, 4, stride=4)),
                nn.Sequential(nn.Conv2d(dim, second, 1), nn.ConvTranspose2d(second, second, 2, stride=2)),
                nn.Sequential(nn.Conv2d(dim, third, 1)),
                nn.Sequential(nn.Conv2d(dim, fourth, 1), nn.Conv2d(fourth, fourth, 3, stride=2, padding=1)),
            ]
        )
        self.project = nn.ModuleList(nn.Conv2d(width, features, 3, padding=1, bias=False) for width in widths)
        self.fuse = nn.ModuleList(Fusion(features) for _ in widths)  #: from fine to coarse
        self.output = nn.Sequential(
            nn.Conv2d(features, features // 2, 3, padding=1),
            Double(),
            nn.Conv2d(features // 2, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, channels, 1),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps (B, D, rows, cols), of the shallowest block first -> (B, C, 16 * rows, 16 * cols).

        Raises ValueError for an odd number of rows or columns: the coarsest map would not meet the next.
        """
        rows, cols = maps[0].shape[-2:]
        if rows % 2 or cols % 2:
            raise ValueError(
                f"this head needs even numbers of rows and columns of patches, got {rows} x {cols}: "
                "make the sides of the images multiples of 32 pixels"
            )
        skips = [
            project(reassemble(tokens))
            for project, reassemble, tokens in zip(self.project, self.reassemble, maps, strict=True)
        ]
        x = self.fuse[3](skips[3])
        for level in (2, 1, 0):
            x = self.fuse[level](x, skips[level])
        return self.output(x)


class Fusion(nn.Module):
    """What came from below plus a refined skip, refined again, twice as large."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.skip_unit = ResidualUnit(features)
        self.unit = ResidualUnit(features)
        self.enlarge = Double()
        self.out = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, F, h, w), both -> (B, F, 2h, 2w)."""
        if skip is not None:
            x = x + self.skip_unit(skip)
        return self.out(self.enlarge(self.unit(x)))


class ResidualUnit(nn.Module):
    """ReLU, 3 x 3, ReLU, 3 x 3, and the input itself."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, h, w) -> the same."""
        return x + self.second(F.relu(self.first(F.relu(x))))


class Double(nn.Module):
    """Twice as many rows and columns, bilinear with aligned corners."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, h, w) -> (B, F, 2h, 2w)."""
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
