"""Random masking: which patches the encoder sees. The noise is an argument, so masks are the caller's to repeat.

Shapes: B batch, L patches, K kept patches, D width.
"""

from typing import Literal

import torch
from torch import Tensor


def num_keep(num_patches: int, mask_ratio: float, rule: Literal["keep", "mask"] = "keep") -> int:
    """How many patches stay visible.

    "keep" truncates the number of kept ones, "mask" that of masked ones. Of 196 patches at ratio 0.9 the first keeps
    19 (MAE, MIMIC's CroCo), the second 20 (CroCo v1); at 0.75 both keep 49.
    Raises ValueError when no patch would be visible, or none hidden, and for an unknown rule.
    """
    if rule not in ("keep", "mask"):
        raise ValueError(f'rule must be "keep" or "mask", got {rule!r}')
    if not 0 < mask_ratio < 1:
        raise ValueError(f"mask_ratio = {mask_ratio} must lie between 0 and 1")
    # In floating point, as published: "keep" leaves 9 of 100 patches at 0.9, for 100 * (1 - 0.9) is 9.999999999999998.
    keep = int(num_patches * (1 - mask_ratio)) if rule == "keep" else num_patches - int(mask_ratio * num_patches)
    if not 0 < keep < num_patches:
        raise ValueError(
            f"mask_ratio = {mask_ratio} leaves {keep} of {num_patches} patches visible; at least one must be visible "
            "and one hidden: change it, or the image or patch size"
        )
    return keep


def choose(noise: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The `keep` patches of each image with the smallest noise (B, L), the first of equals.

    Returns their indices, ascending, (B, K) int64, and the mask, (B, L) bool, True = hidden.
    """
    kept = noise.argsort(dim=1, stable=True)[:, :keep].sort(dim=1).values
    mask = torch.ones_like(noise, dtype=torch.bool).scatter(1, kept, False)
    return kept, mask


def take(tokens: Tensor, kept: Tensor) -> Tensor:
    """The kept tokens: (B, L, D), (B, K) -> (B, K, D)."""
    return tokens.gather(1, kept.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def fill(visible: Tensor, kept: Tensor, mask_token: Tensor, num_patches: int) -> Tensor:
    """Put the visible tokens (B, K, D) back in their places and the mask token (1, 1, D) everywhere else: (B, L, D)."""
    batch, _, dim = visible.shape
    tokens = mask_token.to(visible.dtype).expand(batch, num_patches, dim)
    return tokens.scatter(1, kept.unsqueeze(-1).expand(-1, -1, dim), visible)
