"""What a run is about to do, in a few lines."""

import torch

from mimic_wds.training.batches import BatchPlan
from mimic_wds.training.config import RunConfig


def banner(
    config: RunConfig,
    plan: BatchPlan,
    *,
    parameters: int,
    device: torch.device,
    data: str,
    kind: str,
    num_records: int,
    steps_per_epoch: int,
    first_step: int,
    last_step: int,
    output: str,
) -> str:
    """Model, data, effective batch with the derived accumulation, learning rate and steps, for the console."""
    unit = config.unit
    height, width = config.model.image_shape
    left_over = num_records - steps_per_epoch * plan.records
    on = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
    lines = {
        "model": f"{config.model.objective} {config.model.size}, {parameters / 1e6:.1f} M parameters, on {on}, "
        f"precision {config.run.precision}",
        "data": f"{data}: {num_records} {kind} {'of' if kind == 'pairs' else 'cropped to'} {height}x{width} px, "
        f"{steps_per_epoch} steps per epoch" + (f" ({left_over} other {kind} left out of each)" if left_over else ""),
        "batch": f"{plan.global_batch} {unit} per step = {plan.world_size} process{'es' * (plan.world_size > 1)} "
        f"x {plan.device_batch} {unit} x {plan.accumulation} micro-batch{'es' * (plan.accumulation > 1)}",
        "rate": f"0 -> {config.peak_lr:.3g} in {config.optimizer.warmup_epochs:g} epochs, "
        f"then down to {config.optimizer.min_lr:g} at epoch {config.schedule_epochs:g}",
        "run": f"steps {first_step} to {last_step} ({last_step / steps_per_epoch:.4g} epochs), writing to {output}",
    }
    return "\n".join(f"{name:<8}{text}" for name, text in lines.items())
