"""CroCo (Weinzaepfel et al. 2022) as MIMIC pretrains it: complete a masked view with the help of the other one.

The *target* (image 0) is masked to 10 % and predicted; the *reference* (image 1) is encoded in full and only looked at.
MIMIC's variant has a class token in the encoder and keeps 19 of 196 patches; CroCo v1 has none and keeps 20
(class_token=False); CroCo v2 has rotary positions besides (rotary=True).

Shapes: B batch, L patches, T tokens of the target, R tokens of the reference, D encoder width, E decoder width.
"""

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from mimic_wds.models.masking import choose, fill, num_keep
from mimic_wds.models.patches import hidden_mean, patch_errors
from mimic_wds.models.rotary import RotaryAttention, Rotation, rotate
from mimic_wds.models.vit import Encoder, LayerNorm, ModelOutput, through


class CrossAttention(nn.Module):
    """Queries from one view, keys and values from the other."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = nn.Linear(dim, dim)
        self.projk = nn.Linear(dim, dim)
        self.projv = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, memory: Tensor, by: Rotation | None = None) -> Tensor:
        """(B, T, E), (B, R, E) -> (B, T, E); with rotary positions both views have all patches."""
        q, k = self.queries_and_keys(x, memory, by)
        v = self._split(self.projv(memory))
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).flatten(2))

    def queries_and_keys(self, x: Tensor, memory: Tensor, by: Rotation | None = None) -> tuple[Tensor, Tensor]:
        """(B, heads, T, E / heads) of the one, (B, heads, R, E / heads) of the other."""
        q, k = self._split(self.projq(x)), self._split(self.projk(memory))
        return (q, k) if by is None else (rotate(q, by), rotate(k, by))

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, E) -> (B, heads, T, E / heads)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class DecoderBlock(nn.Module):
    """Self-attention on the target, cross-attention to the reference, MLP; the reference is left unchanged."""

    def __init__(self, dim: int, heads: int, rotary: bool = False) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = RotaryAttention(dim, heads) if rotary else Attention(dim, heads, qkv_bias=True)
        self.norm2 = LayerNorm(dim)
        self.norm_y = LayerNorm(dim)
        self.cross_attn = CrossAttention(dim, heads)
        self.norm3 = LayerNorm(dim)
        self.mlp = Mlp(dim, dim * 4)

    def forward(self, x: Tensor, reference: Tensor, *by: Rotation) -> Tensor:
        """Tokens of target (B, T, E) and reference (B, R, E) -> of the target (B, T, E); `by` with rotary positions."""
        x = x + self.attn(self.norm1(x), *by)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(reference), *by)
        return x + self.mlp(self.norm3(x))


class CroCo(Encoder):
    """One encoder for both views, a decoder with cross-attention. Parameter names are those of MIMIC's weights."""

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        mask_ratio: float = 0.9,
        norm_pix_loss: bool = True,
        class_token: bool = True,
        rotary: bool = False,
    ) -> None:
        super().__init__(
            image_size=image_size,
            patch_size=patch_size,
            dim=dim,
            depth=depth,
            heads=heads,
            class_token=class_token,
            rotary=rotary,
        )
        self.keep = num_keep(self.num_patches, mask_ratio, "keep" if class_token else "mask")
        self.norm_pix_loss = norm_pix_loss
        self.decoder_embed = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.decoder_pos_embed = None if rotary else self.position_table(decoder_dim)
        self.decoder_rotation = self.rotations(decoder_dim // decoder_heads) if rotary else None
        self.decoder_blocks_croco = nn.ModuleList(
            DecoderBlock(decoder_dim, decoder_heads, rotary) for _ in range(decoder_depth)
        )
        self.decoder_norm = LayerNorm(decoder_dim)
        self.decoder_pred = nn.Linear(decoder_dim, patch_size**2 * 3)
        self.initialise()

    def forward(self, image0: Tensor, image1: Tensor, noise: Tensor) -> ModelOutput:
        """Predict the target, image 0, from its patches with the smallest noise (B, L) and the reference, image 1.

        Both images are normalised, (B, 3, H, W). Raises ValueError for images of another size than the model's.
        """
        kept, mask = choose(noise, self.keep)
        prediction = self.decode(self.encode(image0, kept), kept, self.encode(image1))
        errors = patch_errors(prediction, image0, self.patch_size, self.norm_pix_loss)
        return ModelOutput(hidden_mean(errors, mask), prediction, mask, errors.detach())

    def decode(self, target: Tensor, kept: Tensor, reference: Tensor) -> Tensor:
        """Visible target tokens and all reference tokens -> predicted patches of the target (B, L, P)."""
        num_special = target.shape[1] - kept.shape[1]  # 1 with a class token
        x = self.decoder_embed(target)
        patches = fill(x[:, num_special:], kept, self.mask_token, self.num_patches)
        x, memory = torch.cat([x[:, :num_special], patches], dim=1), self.decoder_embed(reference)
        if self.decoder_pos_embed is not None:
            x, memory = x + self.decoder_pos_embed, memory + self.decoder_pos_embed
        turns = () if self.decoder_rotation is None else (self.decoder_rotation.of(),)
        x = through(self.decoder_blocks_croco, x, memory, *turns, recompute=self.recompute)
        return self.decoder_pred(self.decoder_norm(x))[:, num_special:]
