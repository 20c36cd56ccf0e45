"""The linear probe of MAE (arXiv 2111.06377): a frozen encoder, batch norm without affine, one linear layer."""

from typing import Literal, Self

import torch
from torch import Tensor, nn

from mimic_wds.models.vit import Encoder


class LinearProbe(nn.Module):
    """Class logits from one token, or the mean of the patch tokens, of a frozen encoder that stays in eval mode."""

    def __init__(self, encoder: Encoder, classes: int = 1000, *, token: Literal["class", "mean"] = "class") -> None:
        """Freezes `encoder`. Raises ValueError for the class token of an encoder that has none."""
        super().__init__()
        if token == "class" and encoder.cls_token is None:
            raise ValueError('this encoder has no class token: probe the mean of its tokens (token = "mean")')
        self.token = token
        self.encoder = encoder.requires_grad_(False)
        dim = encoder.norm.normalized_shape[0]
        self.norm = nn.BatchNorm1d(dim, affine=False, eps=1e-6)
        self.head = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Of the head only: the encoder never leaves eval mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> (B, D), after the encoder's final norm; no gradient."""
        with torch.no_grad():
            tokens = self.encoder.encode(images)
        return tokens[:, 0] if self.token == "class" else tokens[:, -self.encoder.num_patches :].mean(1)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> logits (B, classes)."""
        return self.head(self.norm(self.features(images)))
