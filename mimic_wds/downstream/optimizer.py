"""Parameter groups for finetuning: the deeper a layer, the smaller its learning rate (BEiT, arXiv 2106.08254)."""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from mimic_wds.training.optimizer import can_fuse

#: Parameters that never decay beside the 1-D ones and biases.
_NO_DECAY = ("encoder.global_token", "encoder.pos_embed", "encoder.cls_token")

#: Parameters before the first block.
_STEM = ("encoder.patch_embed.", "encoder.proj.", *_NO_DECAY)


def layer_of(name: str, depth: int) -> int:
    """The layer of a parameter: 0 = before the blocks, 1 .. depth = its block, depth + 1 = behind them (the head)."""
    if name.startswith(_STEM):
        return 0
    block = re.match(r"encoder\.blocks\.(\d+)\.", name)
    return int(block[1]) + 1 if block else depth + 1


def decays(name: str, parameter: Parameter) -> bool:
    """Whether weight decay applies: not to 1-D tensors, biases, the global token and position tables."""
    return parameter.ndim > 1 and not name.endswith(".bias") and name not in _NO_DECAY


def layer_groups(model: nn.Module, *, depth: int, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Groups of one layer each, with and without decay; ``lr_scale`` = layer_decay ** (depth + 1 - layer).

    The scales are constants beside the learning rate (`training.schedule.set_learning_rate` applies them): a schedule
    cannot compound them. Frozen parameters are left out. ``name`` is what people are shown.
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer, decaying = layer_of(name, depth), decays(name, parameter)
        group = groups.setdefault(
            (layer, decaying),
            {
                "name": f"layer {layer}{'' if decaying else ', no decay'}",
                "lr_scale": layer_decay ** (depth + 1 - layer),
                "weight_decay": weight_decay if decaying else 0.0,
                "params": [],
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def build_adamw(
    model: nn.Module, *, depth: int, lr: float, weight_decay: float, layer_decay: float
) -> torch.optim.AdamW:
    """AdamW (0.9, 0.999), epsilon 1e-8, over `layer_groups`."""
    groups = layer_groups(model, depth=depth, weight_decay=weight_decay, layer_decay=layer_decay)
    fused = can_fuse(p for group in groups for p in group["params"])
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), eps=1e-8, fused=fused)


def rate_table(groups: list[dict[str, Any]], peak: float) -> list[tuple[str, float, int]]:
    """For people: (name, peak learning rate, number of values) of each group."""
    return [(g.get("name", "head"), peak * g.get("lr_scale", 1.0), sum(p.numel() for p in g["params"])) for g in groups]


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rates (arXiv 1708.03888) as in MAE's linear probe: 1-D tensors neither adapt nor decay.

    For others: the update is gradient + weight_decay * weight, scaled to trust * |weight| / |update|; momentum follows.
    """

    def __init__(
        self, params: Any, lr: float, *, weight_decay: float = 0.0, momentum: float = 0.9, trust: float = 0.001
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient; closures are not supported."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        update = parameter.grad
        assert update is not None
        if parameter.ndim > 1:
            update = update + group["weight_decay"] * parameter
            weight_norm, update_norm = parameter.norm(), update.norm()
            scale = group["trust"] * weight_norm / update_norm
            update = update * torch.where((weight_norm > 0) & (update_norm > 0), scale, 1.0)
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].mul_(group["momentum"]).add_(update)
        parameter.add_(state["momentum"], alpha=-group["lr"])
