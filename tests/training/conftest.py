"""What the tests of training share: a tiny data set, a tiny model, and the script as a module."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from samples import make_data_set

from mimic_wds.training.config import RunConfig, config_from, config_values

SCRIPT = Path(__file__).parents[2] / "train" / "pretrain.py"

#: Keys of a run that takes a second; 64 x 64 pixels are 16 patches.
TINY: dict[str, dict[str, Any]] = {
    "model": {
        "objective": "croco",
        "size": "tiny",
        "depth": 1,
        "image_size": 64,
        "decoder_dim": 32,
        "decoder_depth": 1,
        "decoder_heads": 2,
        "mask_ratio": 0.75,
    },
    "data": {"global_batch": 8},
    "optimizer": {"base_lr": 0.02, "warmup_epochs": 0.5},
    "run": {"epochs": 3, "log_every": 1, "checkpoint_every": 3},
}


@pytest.fixture(autouse=True)
def _alone():
    """Every test starts without Accelerate's singletons and computes in one thread: tiny matrices gain from no more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., RunConfig]:
    """The tiny run, with keys changed: tiny(model={"objective": "mae"})."""

    def make(**tables: dict[str, Any]) -> RunConfig:
        return config_from({name: TINY[name] | tables.get(name, {}) for name in TINY}, "tiny")

    return make


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    """24 pairs of 64 x 64 pixels: three steps of eight."""
    folder = tmp_path_factory.mktemp("training") / "pairs"
    make_data_set(folder, per_scene=(9, 9, 6))
    return folder


def in_toml(value: Any) -> str:
    """A plain value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {in_toml(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value)


@pytest.fixture(scope="session")
def config_file(tmp_path_factory, tiny) -> Callable[..., Path]:
    """The same as `tiny`, as a TOML file."""
    folder = tmp_path_factory.mktemp("configs")

    def write(**tables: dict[str, Any]) -> Path:
        path = folder / f"run{len(list(folder.iterdir()))}.toml"
        lines = []
        for name, table in config_values(tiny(**tables)).items():
            lines += [f"[{name}]", *(f"{key} = {in_toml(value)}" for key, value in table.items())]
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture(scope="session")
def script() -> ModuleType:
    """``train/pretrain.py`` as a module."""
    spec = importlib.util.spec_from_file_location("pretrain", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pretrain(script, pairs, monkeypatch) -> Callable[..., int]:
    """Run the script in this process: pretrain(CONFIG, "--output", FOLDER) -> exit code."""

    def run(*arguments: object, data: Path | list[str] = pairs) -> int:
        monkeypatch.setattr(
            sys,
            "argv",
            [
                "pretrain.py",
                *map(str, arguments),
                *(word for one in (data if isinstance(data, list) else [data]) for word in ("--data", str(one))),
            ],
        )
        AcceleratorState._reset_state(reset_partial_state=True)
        return script.main()

    return run
