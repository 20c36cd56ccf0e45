"""Masked autoencoder (MAE, He et al. 2021): a small decoder predicts the hidden patches of a single image.

Shapes: B batch, L patches, D encoder width, E decoder width, P values per patch.
"""

import torch
from torch import Tensor, nn

from mimic_wds.models.masking import choose, fill, num_keep
from mimic_wds.models.patches import hidden_mean, patch_errors
from mimic_wds.models.vit import Encoder, LayerNorm, ModelOutput, block, through


class MAE(Encoder):
    """Encoder on the visible patches, decoder on all of them. Parameter names are those of the published weights."""

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
        mask_ratio: float = 0.75,
        norm_pix_loss: bool = True,
    ) -> None:
        super().__init__(image_size=image_size, patch_size=patch_size, dim=dim, depth=depth, heads=heads)
        self.keep = num_keep(self.num_patches, mask_ratio)
        self.norm_pix_loss = norm_pix_loss
        self.decoder_embed = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.decoder_pos_embed = self.position_table(decoder_dim)
        self.decoder_blocks = nn.ModuleList(block(decoder_dim, decoder_heads) for _ in range(decoder_depth))
        self.decoder_norm = LayerNorm(decoder_dim)
        self.decoder_pred = nn.Linear(decoder_dim, patch_size**2 * 3)
        self.initialise()

    def forward(self, images: Tensor, noise: Tensor) -> ModelOutput:
        """Predict normalised images (B, 3, H, W) from their patches with the smallest noise (B, L).

        Raises ValueError for images of another size than the model's.
        """
        kept, mask = choose(noise, self.keep)
        prediction = self.decode(self.encode(images, kept), kept)
        errors = patch_errors(prediction, images, self.patch_size, self.norm_pix_loss)
        return ModelOutput(hidden_mean(errors, mask), prediction, mask, errors.detach())

    def decode(self, encoded: Tensor, kept: Tensor) -> Tensor:
        """Class and visible tokens (B, 1 + K, D) -> predicted patches (B, L, P)."""
        x = self.decoder_embed(encoded)
        x = torch.cat([x[:, :1], fill(x[:, 1:], kept, self.mask_token, self.num_patches)], dim=1)
        x = through(self.decoder_blocks, x + self.decoder_pos_embed, recompute=self.recompute)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]
