"""Models cut up over all processes (PyTorch's FSDP2, what DeepSpeed calls ZeRO stage 3), and whole tensors of them.

Every process keeps its part of each weight, gradient and state of AdamW. The weights of a block are brought together
just before it computes and let go after it; its gradient is averaged and cut up again on the way back. The numbers are
those of a run that is not cut up; what is saved is whole, so a checkpoint can be taken up either way.

Everything here is called by all processes together where a model is cut up, and costs nothing where it is not.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


class HasState(Protocol):
    """A model, an optimizer, or what `whole` makes of one."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors by name, nested as torch does."""


def blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks of a model: what one process brings together at a time."""
    return [block for module in model.modules() if isinstance(module, nn.ModuleList) for block in module]


def shard(model: nn.Module, device: torch.device, num_processes: int) -> None:
    """Cut the model up, in place: its parameters become `DTensor`s. It lies on `device`; its optimizer comes after."""
    mesh = init_device_mesh(device.type, (num_processes,))
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # Said of the prediction at every start: nothing here changes an output in place.
    warnings.filterwarnings("ignore", r"FSDP2-wrapped module \(\w+\) returned a view", UserWarning)


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` has cut it up."""
    return isinstance(model, FSDPModule)


def whole_tensor(tensor: Tensor) -> Tensor:
    """The same tensor, put together from the parts of all processes if it is cut up."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(whole: Tensor, own: Tensor) -> Tensor:
    """This process's part of a whole tensor, cut up as `own` is; the whole one if `own` is not cut up."""
    if not isinstance(own, DTensor):
        return whole
    # Without a source: every process has read the whole tensor and takes its part, nothing is sent.
    return distribute_tensor(whole.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


def part_of_state(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """A whole `Optimizer.state_dict()`, each tensor cut up as its parameter is."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    cut = {
        number: {
            name: part_of(value, parameters[number]) if value.shape == parameters[number].shape else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    return state | {"state": cut}


@dataclass(frozen=True, slots=True)
class Whole:
    """The tensors of a model or an optimizer, whole and on the CPU."""

    state: dict[str, Any]

    def state_dict(self) -> dict[str, Any]:
        """As that of the model or the optimizer."""
        return self.state


def whole(holder: nn.Module | Optimizer, model: nn.Module, keep: bool = True) -> HasState:
    """A model or its optimizer as one process can save it: itself, or its tensors put together if `model` is cut up.

    keep: False on processes that only take part in it, and are left without tensors.
    """
    return Whole(_gathered(holder.state_dict(), keep)) if is_sharded(model) else holder


def _gathered(value: Any, keep: bool) -> Any:
    if isinstance(value, Tensor):
        found = whole_tensor(value)
        return found.cpu() if keep else None
    if isinstance(value, dict):
        return {key: _gathered(each, keep) for key, each in value.items()}
    return value
