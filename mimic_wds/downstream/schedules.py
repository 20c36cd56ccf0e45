"""Learning rates of the downstream recipes, each a pure function of the optimizer step (from 0).

The linear probe's is `mimic_wds.training.schedule.learning_rate`, in fractional epochs.
"""

import math
from collections.abc import Sequence


def warmup_steps(total: int, fraction: float) -> int:
    """Steps of a warm-up that takes this share of all steps: a run of any length keeps some at its peak.

    A fixed number of warm-up steps outlasts a run on a small data set. Raises ValueError outside 0 <= fraction < 1.
    """
    if not 0 <= fraction < 1 or total < 1:
        raise ValueError(f"warm-up is a share from 0 to below 1 of 1 step or more, got {fraction} of {total}")
    return min(round(total * fraction), total - 1)


def cosine_rate(step: int, *, peak: float, warmup: int, total: int) -> float:
    """Linear from exactly 0 to `peak` over `warmup` steps (the last one has it), then half a cosine to 0 (MultiMAE).

    The check vectors in its tests are means over epochs of the logs in MIMIC's repository.
    """
    if step < warmup:
        return peak * step / max(warmup - 1, 1)
    return 0.5 * peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def step_rate(
    step: int, *, peak: float, warmup: int, drops: Sequence[int], first: float = 0.001, factor: float = 0.1
) -> float:
    """Linear from `first` * peak over `warmup` steps, times `factor` from each step in `drops` on (ViTPose)."""
    rate = peak * factor ** sum(step >= drop for drop in drops)
    return rate * (1 - (1 - step / warmup) * (1 - first)) if step < warmup else rate
