"""One optimizer step over several micro-batches, and what happens when its loss or gradient is not finite.

The host waits for the device once per optimizer step, for one small tensor that all processes have averaged: the loss,
and whether any of them was asked to stop. Gradients travel between processes once per step, with the last micro-batch.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, GradientAccumulationPlugin
from torch import Tensor, nn
from torch.optim import Optimizer

from mimic_wds.models.dino_recipe import clip_each
from mimic_wds.training.sharding import whole_tensor

#: Ways to work together in which accelerate leaves the model in one piece.
KNOWN = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.MULTI_XPU,
    DistributedType.MULTI_NPU,
    DistributedType.MULTI_HPU,
)


class TrainingDiverged(RuntimeError):
    """Too many steps in a row had no finite loss and gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one optimizer step found; the same on every process."""

    loss: float  #: mean over the global batch
    grad_norm: float  #: of the mean gradient, before clipping
    skipped: str  #: "" or what was not finite ("loss", "gradient"): the weights were then left alone
    stop: bool  #: some process was asked to stop


def build_accelerator(precision: str, *, cpu: bool = False) -> Accelerator:
    """An Accelerator that leaves accumulation to `optimizer_step`, whatever the environment asks for.

    precision: "no", "tf32", "bf16" or "fp16". Takes a GPU when there is one and not `cpu`; several processes without
    GPUs work together through gloo. Raises ValueError for fp16 without a GPU.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    accelerator = Accelerator(
        mixed_precision="no" if precision == "tf32" else precision,
        # Started by torchrun on a machine without GPUs, each process would else train alone, on all of the data.
        cpu=cpu or (world_size > 1 and not torch.accelerator.is_available()),
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )
    if accelerator.distributed_type not in KNOWN:
        raise ValueError(
            f"accelerate was configured for {accelerator.distributed_type.value}; use --multi_gpu, and where memory is "
            "short run.shard = true, which cuts the model up (FSDP2), or run.recompute = true"
        )
    if accelerator.num_processes < world_size:
        raise ValueError(
            f"{world_size} processes were started, but each would train alone: start them with `accelerate launch` or "
            "`torchrun`, one for every GPU"
        )
    # What a GPU multiplies fp32 matrices with: 10 bits of the 23 are kept in tf32.
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    if precision == "fp16" and accelerator.scaler is None:  # accelerate would quietly compute in fp32
        raise ValueError('run.precision = "fp16" needs a GPU and there is none here; use "bf16" or "no"')
    return accelerator


def slow_precision(precision: str, device: torch.device) -> str:
    """A warning where the device has no arithmetic of this precision and makes do with a far slower one, else ""."""
    if precision != "bf16" or device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return ""
    return "this CPU does not compute in bf16: the run is many times slower than with --set run.precision=no"


def optimizer_step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Optimizer,
    micro_batches: Iterable[tuple[Tensor, ...]],
    accumulation: int,
    *,
    clip_grad_norm: float = 0.0,
    clip_each_norm: float = 0.0,
    stop: bool = False,
    observe: Callable[[Any], None] | None = None,
) -> StepResult:
    """Learn from `accumulation` micro-batches of equal size; all processes call this together.

    micro_batches: what to call the model with, one tuple at a time; the model returns its loss first.
    observe: is given each output of the model after its backward pass.
    The loss of each is divided by `accumulation` here, and only here. When loss or gradient is not finite (on any
    process), the weights and the optimizer's state stay as they are and the result says why.
    """
    optimizer.zero_grad()
    total = torch.zeros((), device=accelerator.device)
    micro_batch = iter(micro_batches)
    for number in range(1, accumulation + 1):
        synchronise = contextlib.nullcontext() if number == accumulation else accelerator.no_sync(model)
        with synchronise:
            output = model(*next(micro_batch))
            loss = output[0] / accumulation
            accelerator.backward(loss)
        total += loss.detach()
        if observe:
            observe(output)
    accelerator.unscale_gradients(optimizer)  # fp16 only; nothing otherwise
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = whole_tensor(torch.nn.utils.get_total_norm(gradients))
    mean = accelerator.reduce(torch.stack([total, total.new_tensor(float(stop))]), "mean")
    loss_value, norm_value, stop_value = torch.cat([mean, norm.to(mean).reshape(1)])[[0, 2, 1]].tolist()
    skipped = "loss" if not math.isfinite(loss_value) else "gradient" if not math.isfinite(norm_value) else ""
    if skipped:
        _leave_weights_alone(accelerator, optimizer)
    else:
        if clip_grad_norm:
            torch.nn.utils.clip_grads_with_norm_(model.parameters(), clip_grad_norm, norm)
        if clip_each_norm:
            clip_each(model.parameters(), clip_each_norm)
        optimizer.step()
    return StepResult(loss=loss_value, grad_norm=norm_value, skipped=skipped, stop=stop_value > 0)


def _leave_weights_alone(accelerator: Accelerator, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    if accelerator.scaler is not None:
        accelerator.scaler.update()  # fp16: an overflow halves the loss scale, and the next step may unscale again


class SkipGuard:
    """Counts skipped steps; gives up after too many in a row."""

    def __init__(self, limit: int) -> None:
        """`limit`: so many skipped steps in a row raise TrainingDiverged."""
        self.limit = limit
        self.total = 0
        self.in_a_row = 0

    def observe(self, result: StepResult, model: nn.Module, *, step: int, lr: float, precision: str) -> str:
        """Take note of a step. Returns a message for people when it was skipped, else "".

        Raises TrainingDiverged (with what was seen and what to change) at the limit.
        """
        self.in_a_row = self.in_a_row + 1 if result.skipped else 0
        self.total += bool(result.skipped)
        if not result.skipped:
            return ""
        message = (
            f"step {step}: {result.skipped} is not finite (loss {result.loss}, gradient norm {result.grad_norm}, "
            f"lr {lr:.3g}, precision {precision}); the weights were left alone. {_bad_weights(model)}"
        )
        if self.in_a_row >= self.limit:
            raise TrainingDiverged(
                f"{message} That were {self.in_a_row} steps in a row (run.max_skipped_steps). Look at the data, lower "
                'optimizer.base_lr, set optimizer.clip_grad_norm = 1.0, or use run.precision = "bf16" or "no"; '
                "then go on from the last checkpoint with --resume"
            )
        return message


def _bad_weights(model: nn.Module) -> str:
    bad = [name for name, p in model.named_parameters() if not bool(whole_tensor(p).isfinite().all())]
    return f"Weights that are not finite: {', '.join(bad[:5])}." if bad else "All weights are finite."
