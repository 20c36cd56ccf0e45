"""The learning rate as a pure function of the (fractional) epoch: linear warm-up from 0, then half a cosine.

The same rule in MAE, CroCo and MIMIC. The length of the schedule is separate from the epoch at which a run stops, so a
run that stops early sees the same learning rates as the full one.
"""

import math

from torch.optim import Optimizer


def learning_rate(
    epoch: float, *, peak: float, warmup_epochs: float, schedule_epochs: float, minimum: float = 0.0
) -> float:
    """The learning rate at fractional `epoch` = optimizer steps done / optimizer steps per epoch.

    Warm-up (epoch < warmup_epochs): peak * epoch / warmup_epochs, so 0 in the very first step. After that
    minimum + (peak - minimum) * (1 + cos(pi * progress)) / 2, where progress runs from 0 at the end of the warm-up to
    1 at `schedule_epochs`; later it stays at `minimum`. Called once per optimizer step, so all micro-batches of an
    accumulation group share one value.
    """
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    progress = min((epoch - warmup_epochs) / (schedule_epochs - warmup_epochs), 1.0)
    return minimum + (peak - minimum) * 0.5 * (1.0 + math.cos(math.pi * progress))


def peak_learning_rate(base_lr: float, global_batch: int) -> float:
    """The linear scaling rule of MAE, CroCo and MIMIC: `base_lr` is meant for 256 samples per optimizer step."""
    return base_lr * global_batch / 256


def set_weight_decay(optimizer: Optimizer, weight_decay: float) -> None:
    """Give every parameter group that decays `weight_decay`."""
    for group in optimizer.param_groups:
        if group["weight_decay"]:
            group["weight_decay"] = weight_decay


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Give every parameter group `lr`, times the group's own ``lr_scale`` where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
