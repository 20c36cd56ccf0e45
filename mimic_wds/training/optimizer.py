"""AdamW as MAE, CroCo and MIMIC use it: which parameters decay, and the fused kernel where there is one."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter


def decays(name: str, parameter: Parameter) -> bool:
    """Whether weight decay applies: not to 1-D tensors (norms, biases) nor to names ending in ``.bias``.

    Class and mask tokens are 3-D and do decay, as in MAE and CroCo.
    """
    return parameter.ndim > 1 and not name.endswith(".bias")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two AdamW groups, with and without weight decay, in the model's own order; frozen parameters are left out."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in trained if decays(name, p)], "weight_decay": weight_decay},
        {"params": [p for name, p in trained if not decays(name, p)], "weight_decay": 0.0},
    ]


def build_optimizer(
    model: nn.Module, *, lr: float, weight_decay: float = 0.05, betas: tuple[float, float] = (0.9, 0.95)
) -> torch.optim.AdamW:
    """AdamW over `parameter_groups(model)`; the model must already lie on its device."""
    groups = [group for group in parameter_groups(model, weight_decay) if group["params"]]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=can_fuse(p for g in groups for p in g["params"]))


def can_fuse(parameters: Iterable[Parameter]) -> bool:
    """Whether AdamW's fused kernel takes these parameters: all floating point, all on a device that has one."""
    return all(p.is_floating_point() and p.device.type in {"cpu", "cuda", "xpu", "mps"} for p in parameters)
