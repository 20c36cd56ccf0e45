"""Rotary positions in two dimensions, as CroCo v2 has them instead of tables (Weinzaepfel et al., arXiv 2211.10408).

Queries and keys are turned by angles that grow with the row (first half of a head's channels) and with the column
(second half), so that attention sees distances. Plain PyTorch; nothing is stored in a state dict.

Shapes: B batch, T tokens, L = rows * cols patches, E channels of a head.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

#: Frequencies are BASE ** (-2i / (E / 2)); CroCo v2's files call it RoPE100.
BASE = 100.0


class Rotation(NamedTuple):
    """Cosine and sine of the angles, (L, E) of all patches or (B, T, E) of each sample's tokens."""

    cos: Tensor
    sin: Tensor

    def of(self, kept: Tensor | None) -> "Rotation":
        """That of the kept patches (B, T), or of all."""
        return self if kept is None else Rotation(self.cos[kept], self.sin[kept])


def rotation(channels: int, rows: int, cols: int) -> Rotation:
    """The rotation of rows x cols patches in raster order, float32. Raises ValueError unless 4 divides `channels`."""
    if channels % 4:
        raise ValueError(f"rotary positions need heads whose width 4 divides, got {channels}")
    half = channels // 2
    frequencies = BASE ** (-torch.arange(0, half, 2, dtype=torch.float64) / half)
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    angles = [place.reshape(-1, 1).double() * frequencies for place in (row, col)]
    full = torch.cat([angle for place in angles for angle in (place, place)], dim=1)
    return Rotation(full.cos().float(), full.sin().float())


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Turn (B, heads, T, E): within each half of the channels, channel j with channel j + E / 4."""
    first, second, third, fourth = x.chunk(4, dim=-1)
    turned = torch.cat([-second, first, -fourth, third], dim=-1)
    cos, sin = (part.to(x.dtype) if part.dim() == 2 else part.to(x.dtype).unsqueeze(1) for part in by)
    return x * cos + turned * sin


class RotaryAttention(nn.Module):
    """Self-attention; names and shapes of its weights are those of timm's."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, by: Rotation) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        attended = F.scaled_dot_product_attention(rotate(q, by), rotate(k, by), v)
        return self.proj(attended.transpose(1, 2).flatten(2))


class RotaryBlock(nn.Module):
    """A pre-norm transformer block with rotary self-attention; otherwise that of `vit.block`."""

    def __init__(self, dim: int, heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = RotaryAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, dim * 4)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, by: Rotation) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.drop_path(self.attn(self.norm1(x), by))
        return x + self.drop_path(self.mlp(self.norm2(x)))
