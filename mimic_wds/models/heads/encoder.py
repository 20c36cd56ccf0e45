"""The ViT as it is finetuned: the pretrained one without its final norm, its one global token behind the patches.

As MultiMAE (arXiv 2204.01678) finetunes single-view encoders, and MIMIC (arXiv 2306.15128) after it. The position table
is fixed, a picture (1, D, rows, cols), and added to the patch tokens only; the class token and its position have become
the global token. CroCo v2's encoders (arXiv 2211.10408) have neither table nor token: their positions are rotary.

Shapes: B batch, L = rows * cols patches, D width.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mimic_wds.models.heads.positions import resize_table
from mimic_wds.models.positions import sincos_2d
from mimic_wds.models.rotary import RotaryBlock, Rotation, rotation
from mimic_wds.models.vit import LayerNorm, Turns, height_and_width


class DenseEncoder(nn.Module):
    """Patch tokens of chosen blocks, for heads of dense tasks."""

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int],
        patch_size: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        drop_path: float = 0.0,
        rotary: bool = False,
    ) -> None:
        """`drop_path` grows linearly from 0 in the first block to this in the last."""
        super().__init__()
        height, width = height_and_width(image_size)
        rows, cols = height // patch_size, width // patch_size
        self.patch_size = patch_size
        self.patch_embed = PatchEmbed((height, width), patch_size, 3, dim, strict_img_size=False, flatten=False)
        self.grid = rows, cols
        self.turns = Turns(rotation(dim // heads, rows, cols)) if rotary else None
        if not rotary:
            table = sincos_2d(dim, rows, cols, class_token=False).T.reshape(1, dim, rows, cols).contiguous()
            self.pos_embed = nn.Parameter(table, requires_grad=False)
            self.global_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = make_blocks(dim, depth, heads, drop_path, rotary=rotary)

    def forward(self, images: Tensor, taken: Sequence[int]) -> list[Tensor]:
        """Raw outputs of the blocks `taken` (from 0) for normalised images (B, 3, H, W): (B, D, rows, cols) each.

        Raises ValueError for images whose sides are no multiples of the patch size.
        """
        if images.shape[-2] % self.patch_size or images.shape[-1] % self.patch_size:
            raise ValueError(
                f"images are {tuple(images.shape[-2:])} (height, width) in pixels, expected multiples of "
                f"{self.patch_size}, the size of the patches"
            )
        x = self.patch_embed(images)
        rows, cols = x.shape[-2:]
        by = self._rotation(rows, cols, x.device)
        if by is None:
            x = (x + resize_table(self.pos_embed, rows, cols)).flatten(2).transpose(1, 2)
            x = torch.cat([x, self.global_token.to(x.dtype).expand(len(x), -1, -1)], dim=1)
        else:
            x = x.flatten(2).transpose(1, 2)
        found = {}
        for number, block in enumerate(self.blocks[: max(taken) + 1]):
            x = block(x) if by is None else block(x, by)
            if number in taken:
                found[number] = x[:, : rows * cols].transpose(1, 2).unflatten(2, (rows, cols))
        return [found[number] for number in taken]

    def _rotation(self, rows: int, cols: int, device: torch.device) -> Rotation | None:
        """Rotary positions of rows x cols patches; None for an encoder with a table."""
        if self.turns is None:
            return None
        if (rows, cols) == self.grid:
            return self.turns.of()
        cos, sin = rotation(self.turns.cos.shape[1], rows, cols)
        return Rotation(cos.to(device), sin.to(device))


def initialise(encoder: DenseEncoder) -> None:
    """Linear layers and the patch projection Xavier-uniform with zero biases, the token normal(0, 0.02), as in MAE."""
    for module in encoder.blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(encoder.patch_embed.proj.weight.view(encoder.patch_embed.proj.weight.shape[0], -1))
    if encoder.turns is None:
        nn.init.normal_(encoder.global_token, std=0.02)


def make_blocks(dim: int, depth: int, heads: int, drop_path: float, *, rotary: bool = False) -> nn.ModuleList:
    """Pre-norm blocks with stochastic depth from 0 to `drop_path`; otherwise those of `vit.Encoder`."""
    rates = [drop_path * number / max(depth - 1, 1) for number in range(depth)]
    if rotary:
        return nn.ModuleList(RotaryBlock(dim, heads, rate) for rate in rates)
    return nn.ModuleList(
        Block(dim, heads, mlp_ratio=4, qkv_bias=True, norm_layer=LayerNorm, drop_path=rate) for rate in rates
    )


def rotary_weights(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Weights of a rotary `DenseEncoder`, for any number of patches; see `dense_weights`."""
    kept = {name: value for name, value in weights.items() if name.startswith(("patch_embed.", "blocks."))}
    return kept, sorted(set(weights) - set(kept))


def dense_weights(weights: Mapping[str, Tensor], rows: int, cols: int) -> tuple[dict[str, Tensor], list[str]]:
    """Weights of a `DenseEncoder` with a table of rows x cols patches, from those of an encoder with timm's names.

    Copied: ``patch_embed.*`` and ``blocks.*``. The global token is the class token plus its position (zeros without
    one). The final norm, decoders and all else are left. Returns the weights and, sorted, the names that were left.
    Raises ValueError when a part is missing or the table is not of a square of patches.
    """
    if missing := [name for name in ("pos_embed", "patch_embed.proj.weight") if name not in weights]:
        raise ValueError(f"these are no weights of a ViT encoder with timm's names: they have no {', '.join(missing)}")
    kept = {name: value for name, value in weights.items() if name.startswith(("patch_embed.", "blocks."))}
    table, dim = weights["pos_embed"], weights["pos_embed"].shape[-1]
    side = math.isqrt(table.shape[1])
    if table.shape[1] - side**2 not in (0, 1):
        raise ValueError(f"pos_embed has {table.shape[1]} rows, expected those of a square of patches (and a token)")
    picture = table[:, -(side**2) :].transpose(1, 2).reshape(1, dim, side, side)
    token = weights.get("cls_token", torch.zeros(1, 1, dim))
    token = token + table[:, :1] if table.shape[1] > side**2 else token
    used = {*kept, "pos_embed", "cls_token"}
    return {
        **kept,
        "pos_embed": resize_table(picture.float(), rows, cols),
        "global_token": token.clone(),
    }, sorted(set(weights) - used)
