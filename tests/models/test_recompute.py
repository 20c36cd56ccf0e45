"""Activation checkpointing changes memory, not numbers; and only visible tokens are encoded: counted operations."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mimic_wds.models.build import ModelConfig, build_model
from mimic_wds.models.vit import recompute_activations


@pytest.mark.parametrize(
    ("objective", "values"),
    [("mae", {}), ("croco", {}), ("croco", {"class_token": False}), ("croco", {"class_token": False, "rotary": True})],
)
def test_gradients_are_the_same_bit_by_bit(tiny_config, shaken, inputs, objective, values):
    config = tiny_config(objective, **values)
    found = []
    for recompute in (False, True):
        model = shaken(config)
        recompute_activations(model, recompute)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x):
            loss = model(*inputs(config)).loss
        loss.backward()
        found.append(({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, sum(kept)))
    (plain, much), (again, little) = found
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert little < much / 2


@pytest.mark.parametrize(
    ("values", "gflop"),
    [
        ({"objective": "croco", "mask_ratio": 0.9}, 160.3),
        ({"objective": "mae", "mask_ratio": 0.75}, 58.5),
    ],
)
def test_counted_operations_of_a_training_step(values, gflop):
    """Per pair or image, forward and backward: hidden patches cost the encoder nothing."""
    with torch.device("meta"):
        model = build_model(ModelConfig(**values))
        images = [torch.empty(1, 3, 224, 224)] * (2 if values["objective"] == "croco" else 1)
        with FlopCounterMode(display=False) as counter:
            model(*images, torch.empty(1, 196)).loss.backward()
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflop, rel=0.01)
