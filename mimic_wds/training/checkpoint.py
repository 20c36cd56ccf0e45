"""Checkpoints: a folder ``checkpoint-STEP`` that is there whole or not at all.

    model.safetensors   the weights
    optimizer.pt        state of AdamW and of the fp16 loss scale; read with ``weights_only=True``
    state.json          step, epoch, state of the loader, the whole run config, versions; written last

The folder is filled under a temporary name, flushed to disk and renamed, so a run that is killed while saving leaves
the previous checkpoint as the newest one. No state of a random generator is needed: weights are seeded once, and order,
swaps and masks are functions of (seed, epoch, step).
"""

import dataclasses
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import accelerate
import safetensors.torch
import timm
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mimic_wds import __version__
from mimic_wds.models.build import build_model
from mimic_wds.training.config import RunConfig, changed_keys, config_from
from mimic_wds.training.sharding import HasState, part_of, part_of_state

AnyConfig = TypeVar("AnyConfig")

PREFIX = "checkpoint-"
BEST_PREFIX = "best-"  #: weights without the optimizer's state
MODEL_NAME = "model.safetensors"
OPTIMIZER_NAME = "optimizer.pt"
STATE_NAME = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState(Generic[AnyConfig]):
    """Where a run stands, without its tensors; the config is a dataclass of plain values."""

    step: int  #: optimizer steps done
    epoch: float  #: fractional
    loader: Mapping[str, Any]  #: what the loader needs to go on, plain values
    config: AnyConfig
    versions: Mapping[str, str] = field(default_factory=lambda: versions())  #: of what wrote it, by package


def versions() -> dict[str, str]:
    """Versions of everything that has a say in the numbers."""
    return {
        "mimic-wds": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "accelerate": accelerate.__version__,
    }


def save(
    output: Path,
    state: TrainState[Any],
    model: HasState,
    optimizer: HasState,
    scaler: torch.amp.GradScaler | None = None,
    keep: int = 3,
    keep_every: int = 0,
) -> Path:
    """Write ``output/checkpoint-STEP``; delete all but the newest `keep` and, if set, each `keep_every`-th step.

    `model` is the bare module (not wrapped for several processes) or, of one that is cut up, `sharding.whole`. Only one
    process may call this. Returns the folder.
    """
    folder = _write(output, PREFIX, state, model, optimizer, scaler)
    for old in checkpoints(output)[:-keep]:
        if not keep_every or _step(old) % keep_every:
            _delete(old)
    return folder


def save_best(output: Path, state: TrainState[Any], model: HasState) -> Path:
    """Write ``output/best-STEP``, without the optimizer's state, and delete the one before it. Returns the folder."""
    folder = _write(output, BEST_PREFIX, state, model)
    for old in _found(output, BEST_PREFIX):
        if old != folder:
            _delete(old)
    return folder


def checkpoints(output: Path) -> list[Path]:
    """The whole checkpoints in `output`, oldest first; half-written ones have other names."""
    return _found(output, PREFIX)


def best(output: Path) -> Path | None:
    """What `save_best` wrote last, or None."""
    return next(reversed(_found(output, BEST_PREFIX)), None)


def _found(output: Path, prefix: str) -> list[Path]:
    found = [p for p in output.glob(f"{prefix}*") if p.name.removeprefix(prefix).isdigit() and p.is_dir()]
    return sorted(found, key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def latest(output: Path) -> Path | None:
    """The newest checkpoint in `output`, or None."""
    return next(reversed(checkpoints(output)), None)


def find(output: Path, config: RunConfig, *, resume: bool) -> tuple[Path, TrainState[RunConfig]] | None:
    """Where a run in `output` goes on from: its newest whole checkpoint, or None for a new run.

    A damaged one is passed over, which is said on stderr. Raises ValueError when there is a checkpoint but not the wish
    to go on from it, when all are damaged, or when it was written with another model, batch or seed than `config` has.
    """
    found = checkpoints(output)
    if not found:
        return None
    if not resume:
        raise ValueError(f"{output} holds a run already ({found[-1].name}): add --resume to go on, or change --output")
    newest, state = newest_whole(found, read_state)
    if changed := changed_keys(state.config, config):
        raise ValueError(f"{newest} was written with other settings: {', '.join(changed)}; resume with the same ones")
    return newest, state


def newest_whole(
    found: Sequence[Path], read: Callable[[Path], TrainState[AnyConfig]]
) -> tuple[Path, TrainState[AnyConfig]]:
    """The last of some checkpoints that can be read, which is said of the others on stderr.

    Raises ValueError with what is wrong with the last if none can.
    """
    problem = ""
    for folder in reversed(found):
        try:
            state = read(folder)
            read_weights(folder)
            if not zipfile.is_zipfile(folder / OPTIMIZER_NAME):
                raise ValueError(f"{folder / OPTIMIZER_NAME}: missing or cut short")
        except ValueError as error:
            problem = problem or str(error)
            print(f"checkpoint {folder.name} is passed over: {error}", file=sys.stderr, flush=True)
            continue
        return folder, state
    raise ValueError(problem)


def read_state(folder: Path) -> TrainState[RunConfig]:
    """What ``state.json`` of a pretraining checkpoint says; see `read_state_as`."""
    return read_state_as(folder, config_from)


def read_state_as(folder: Path, config_from: Callable[[Mapping[str, Any], str], AnyConfig]) -> TrainState[AnyConfig]:
    """What ``state.json`` of a checkpoint says. Raises ValueError naming the file when it is missing or malformed."""
    path = folder / STATE_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        config = config_from(values.pop("config"), f"{path}: config")
        return TrainState(config=config, **values)
    except FileNotFoundError:
        raise ValueError(f"{folder}: not a checkpoint, it has no {STATE_NAME}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: malformed ({error!r}); delete the folder to go on from an older checkpoint"
        ) from None


def restore(
    folder: Path, model: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler | None = None
) -> TrainState[RunConfig]:
    """Put the weights and the optimizer's state back; the inverse of `save`. Raises ValueError as `restore_tensors`."""
    restore_tensors(folder, model, optimizer, scaler)
    return read_state(folder)


def restore_tensors(
    folder: Path, model: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler | None = None
) -> None:
    """Put the weights and the optimizer's state back.

    Raises ValueError when the checkpoint does not fit the model (naming the keys) or the optimizer.
    """
    load_weights(model, read_weights(folder), str(folder / MODEL_NAME))
    path = folder / OPTIMIZER_NAME
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(part_of_state(saved["optimizer"], optimizer))
    except Exception as error:  # torch raises many kinds for a damaged or a foreign file
        raise ValueError(
            f"{path}: cannot be used ({error}); delete the folder to go on from an older checkpoint"
        ) from error
    if scaler is not None and saved["scaler"] is not None:
        scaler.load_state_dict(saved["scaler"])


def load_model(folder: Path) -> nn.Module:
    """The model of a checkpoint, rebuilt from the folder alone, on the CPU.

    `folder` is a checkpoint or the output of a run, whose newest checkpoint is then taken.
    Raises ValueError when there is none, or when weights and config in it do not belong together.
    """
    folder = folder if (folder / STATE_NAME).is_file() else latest(folder) or folder
    model = build_model(read_state(folder).config.model)
    load_weights(model, read_weights(folder), str(folder / MODEL_NAME))
    return model


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Name -> tensor of a checkpoint's weights. Raises ValueError naming the file when it is missing or torn."""
    path = folder / MODEL_NAME
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); delete the folder to go on from an older checkpoint"
        ) from None


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Strict: every tensor of the model from `weights`, none left over. Raises ValueError naming those that differ."""
    own = model.state_dict()
    problems = {
        "missing": [name for name in own if name not in weights],
        "unexpected": [name for name in weights if name not in own],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} for {tuple(t.shape)}"
            for name, t in own.items()
            if name in weights and weights[name].shape != t.shape
        ],
    }
    if any(problems.values()):
        told = "; ".join(f"{len(names)} {what}: {_shorten(names)}" for what, names in problems.items() if names)
        raise ValueError(f"{where} does not fit the model: {told}")
    model.load_state_dict({name: part_of(tensor, own[name]) for name, tensor in weights.items()})


def _write(
    output: Path,
    prefix: str,
    state: TrainState[Any],
    model: HasState,
    optimizer: HasState | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> Path:
    """Write a folder that is there whole or not at all; returns it."""
    folder = output / f"{prefix}{state.step:07d}"
    if folder.is_dir():
        return folder
    output.mkdir(parents=True, exist_ok=True)
    for half_written in output.glob(f".{prefix}*.tmp-*"):  # by a run that was killed
        shutil.rmtree(half_written)
    staging = output / f".{folder.name}.tmp-{os.getpid()}"
    staging.mkdir()
    _fill(staging, state, model, optimizer, scaler)
    staging.rename(folder)
    _sync_folder(output)
    return folder


def _delete(folder: Path) -> None:
    doomed = folder.rename(folder.with_name(f".{folder.name}.tmp-{os.getpid()}"))  # never half a checkpoint in sight
    shutil.rmtree(doomed)


def _fill(
    folder: Path,
    state: TrainState[Any],
    model: HasState,
    optimizer: HasState | None,
    scaler: torch.amp.GradScaler | None,
) -> None:
    weights = {name: t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()}
    safetensors.torch.save_file(weights, folder / MODEL_NAME)
    scale = scaler.state_dict() if scaler is not None else None
    if optimizer is not None:
        torch.save({"optimizer": optimizer.state_dict(), "scaler": scale}, folder / OPTIMIZER_NAME)
    values = {
        "step": state.step,
        "epoch": state.epoch,
        "loader": dict(state.loader),
        "versions": dict(state.versions),
        "config": dataclasses.asdict(state.config),
    }
    (folder / STATE_NAME).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    shutil.copymode(folder / STATE_NAME, folder / MODEL_NAME)  # safetensors makes it private
    for path in folder.iterdir():
        _sync_file(path)
    _sync_folder(folder)


def _shorten(names: list[str], limit: int = 5) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
