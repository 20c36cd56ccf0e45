"""ViTPose (arXiv 2204.12484): a ViT with learned positions and a final norm of its own, and its two heads.

Shapes: B batch, D width of the encoder, J joints; images 256 x 192 give 16 x 12 tokens and heat maps of 64 x 48.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimic_wds.models.heads.base import EncoderAndHead
from mimic_wds.models.heads.encoder import make_blocks
from mimic_wds.models.heads.positions import resize_table
from mimic_wds.models.vit import LayerNorm

#: Joints of COCO.
NUM_JOINTS = 17


class PoseEncoder(nn.Module):
    """Patch tokens with learned positions; row 0 of the table is added to all of them, there is no class token."""

    def __init__(
        self,
        *,
        image_size: tuple[int, int] = (256, 192),
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        drop_path: float = 0.3,
    ) -> None:
        """`image_size` is (height, width), multiples of 16 pixels."""
        super().__init__()
        self.grid = image_size[0] // 16, image_size[1] // 16
        # Padded by two pixels, as published: the grid is the same, what a patch sees lies two pixels up and left.
        self.proj = nn.Conv2d(3, dim, 16, stride=16, padding=2)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = make_blocks(dim, depth, heads, drop_path)
        self.last_norm = LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) of the model's size -> (B, D, rows, cols)."""
        x = self.proj(images).flatten(2).transpose(1, 2)
        x = x + self.pos_embed[:, 1:] + self.pos_embed[:, :1]
        for block in self.blocks:
            x = block(x)
        return self.last_norm(x).transpose(1, 2).unflatten(2, self.grid)


def pose_weights(weights: Mapping[str, Tensor], rows: int, cols: int) -> tuple[dict[str, Tensor], list[str]]:
    """Weights of a `PoseEncoder` but its `last_norm`, from those of a pretrained encoder with timm's names.

    Returns the weights and, sorted, the names that were left (the final norm, decoders, the class token). Raises
    ValueError when the position table is not one of a token and a square of patches.
    """
    table = weights["pos_embed"]
    side = round((table.shape[1] - 1) ** 0.5)
    if table.shape[1] != side**2 + 1:
        raise ValueError(f"pos_embed has {table.shape[1]} rows, expected those of a token and a square of patches")
    picture = table[:, 1:].transpose(1, 2).unflatten(2, (side, side)).float()
    positions = resize_table(picture, rows, cols).flatten(2).transpose(1, 2)
    found = {name: value for name, value in weights.items() if name.startswith("blocks.")}
    used = {*found, "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    return {
        **found,
        "proj.weight": weights["patch_embed.proj.weight"],
        "proj.bias": weights["patch_embed.proj.bias"],
        "pos_embed": torch.cat([table[:, :1].float(), positions], dim=1),
    }, sorted(set(weights) - used)


class ClassicHead(nn.Module):
    """Two transposed convolutions, each doubling the map, then 1 x 1 to the joints."""

    def __init__(self, *, dim: int = 768, features: int = 256, joints: int = NUM_JOINTS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (dim, features):
            layers += [
                nn.ConvTranspose2d(width, features, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(features),
                nn.ReLU(),
            ]
        self.deconvolve = nn.Sequential(*layers)
        self.final = nn.Conv2d(features, joints, 1)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, rows, cols) -> heat maps (B, J, 4 * rows, 4 * cols)."""
        return self.final(self.deconvolve(x))


class SimpleHead(nn.Module):
    """ReLU, four times as large (bilinear, corners not aligned), 3 x 3 to the joints."""

    def __init__(self, *, dim: int = 768, joints: int = NUM_JOINTS) -> None:
        super().__init__()
        self.final = nn.Conv2d(dim, joints, 3, padding=1)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, rows, cols) -> heat maps (B, J, 4 * rows, 4 * cols)."""
        return self.final(F.interpolate(F.relu(x), scale_factor=4, mode="bilinear", align_corners=False))


class PoseModel(EncoderAndHead):
    """Encoder and head: normalised images (B, 3, H, W) -> heat maps (B, J, H / 4, W / 4)."""

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.head(self.encoder(images))


def _initialise(head: nn.Module) -> None:
    """Convolutions normal(0, 0.001), their biases 0, as ViTPose does."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.001)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
