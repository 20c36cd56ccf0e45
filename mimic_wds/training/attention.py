"""Where a CroCo decoder looks for a patch, held against where the patch is known to be in the other view.

*Attention agreement* is the share of patches with a stored correspondence whose strongest reference patch is that one
or one of its eight neighbours. It needs no labels beyond the pair itself, and rises when the model begins to find the
geometry between two views rather than to copy what lies at the same place.

Shapes: B pairs, L patches of a rows x cols grid, T target tokens, R reference tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mimic_wds.models.croco import CroCo, CrossAttention


class Agreement(NamedTuple):
    """Shares in 0..1 over all patches that have a correspondence, and what would give them without any learning."""

    share: float  #: strongest reference patch is the stored one or a neighbour
    same_place: float  #: the same for a model that always looks at the same place of the other view
    chance: float  #: and for one that looks anywhere


def attention_agreement(model: CroCo, image0: Tensor, image1: Tensor, corr_0to1: Tensor, noise: Tensor) -> Agreement:
    """Agreement of a model on some pairs: images (B, 3, H, W) normalised, corr (B, L) with -1 = none, noise (B, L).

    NaN where no patch has a correspondence.
    """
    attention = cross_attention(model, image0, image1, noise)
    rows, cols = model.rows, model.cols
    here = torch.arange(rows * cols, device=corr_0to1.device).expand_as(corr_0to1)
    known = corr_0to1 >= 0
    target = corr_0to1.clamp(min=0).long()
    strongest = attention.argmax(-1).to(target.device)
    near = (_distance(strongest, target, cols) <= 1)[known]
    near_here = (_distance(here, target, cols) <= 1)[known]
    return Agreement(
        share=near.float().mean().item(),
        same_place=near_here.float().mean().item(),
        chance=_neighbours(target, rows, cols)[known].float().mean().item() / (rows * cols),
    )


@torch.no_grad()
def cross_attention(model: CroCo, image0: Tensor, image1: Tensor, noise: Tensor) -> Tensor:
    """How much each target patch looks at each reference patch, mean over heads and decoder blocks: (B, L, L) float32.

    Rows do not add up to 1 where the reference has a class token, which is left out.
    """
    seen: list[Tensor] = []
    with _watched(model, seen):
        model.forward(image0, image1, noise)  # not the compiled one, which has no hooks
    special = seen[0].shape[-1] - model.num_patches
    return torch.stack(seen).mean(0)[:, special:, special:]


@contextmanager
def _watched(model: nn.Module, seen: list[Tensor]) -> Iterator[None]:
    """Have every cross-attention add its weights (B, T, R), mean over heads, to `seen` while this is open."""

    def note(module: CrossAttention, inputs: tuple[Any, ...], _: Tensor) -> None:
        x, memory, *by = inputs
        q, k = module.queries_and_keys(x, memory, *by)
        weights = (q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        seen.append(weights.mean(1))

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, CrossAttention)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _distance(one: Tensor, other: Tensor, cols: int) -> Tensor:
    """Rows or columns between two patches of a grid, the larger: 1 = neighbours, corners included."""
    return torch.maximum((one // cols - other // cols).abs(), (one % cols - other % cols).abs())


def _neighbours(patches: Tensor, rows: int, cols: int) -> Tensor:
    """How many patches of the grid lie at most one row and column away from each, itself included."""
    row, col = patches // cols, patches % cols
    high = 1 + (row > 0).int() + (row < rows - 1).int()
    wide = 1 + (col > 0).int() + (col < cols - 1).int()
    return high * wide
