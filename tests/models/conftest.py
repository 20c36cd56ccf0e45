"""Small models and inputs for them. Weights are shaken, so that no bias is 0 and no norm is 1."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mimic_wds.models.build import ModelConfig, build_model
from mimic_wds.models.croco import CroCo
from mimic_wds.models.mae import MAE

#: 3 x 5 patches of 16 pixels: rows and columns cannot be mixed up. 3 patches are visible (CroCo v1: 4).
TINY: dict[str, Any] = {
    "size": "tiny",
    "depth": 3,
    "decoder_dim": 64,
    "decoder_depth": 2,
    "decoder_heads": 4,
    "image_size": (48, 80),
    "mask_ratio": 0.75,
}


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., ModelConfig]:
    def make(objective: str, **values: Any) -> ModelConfig:
        return ModelConfig(objective=objective, **(TINY | values))

    return make


@pytest.fixture(scope="session")
def build() -> Callable[..., MAE | CroCo]:
    """A model with fresh weights that are a function of the seed."""

    def make(config: ModelConfig, seed: int = 0) -> MAE | CroCo:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_model(config)

    return make


@pytest.fixture(scope="session")
def shaken(build: Callable[..., MAE | CroCo]) -> Callable[[ModelConfig], MAE | CroCo]:
    def make(config: ModelConfig) -> MAE | CroCo:
        model, generator = build(config), torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        return model

    return make


@pytest.fixture(scope="session")
def inputs() -> Callable[..., tuple[Tensor, ...]]:
    """What to call a model with: its images, then the noise."""

    def make(config: ModelConfig, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        images = [torch.randn(batch, 3, *config.image_shape, generator=generator) for _ in range(2)]
        noise = torch.rand(batch, config.num_patches, generator=generator)
        return (*images[: 2 if config.objective == "croco" else 1], noise)

    return make
