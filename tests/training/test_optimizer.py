"""Which parameters decay, counted on the real models."""

import pytest
import torch

from mimic_wds.models.build import ModelConfig, build_model
from mimic_wds.training.optimizer import build_optimizer, can_fuse, decays, parameter_groups


def count(group):
    return len(group["params"]), sum(p.numel() for p in group["params"])


def test_mimics_croco_base_has_the_published_groups():
    with torch.device("meta"):
        decayed, undecayed = parameter_groups(build_model(ModelConfig(objective="croco", mask_ratio=0.9)), 0.05)
    assert count(decayed) == (117, 119_866_624)
    assert count(undecayed) == (231, 210_432)
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.05, 0.0)


def test_tokens_decay_and_frozen_tables_are_left_out(tiny):
    model = build_model(tiny(model={"objective": "mae"}).model)
    named = dict(model.named_parameters())
    chosen = {name for name, p in named.items() if any(p is q for q in parameter_groups(model, 0.1)[0]["params"])}
    assert {"cls_token", "mask_token"} <= chosen
    assert not chosen & {"pos_embed", "decoder_pos_embed"}
    assert not any(name.endswith(".bias") for name in chosen)
    assert decays("head.bias", torch.nn.Parameter(torch.zeros(2, 2))) is False  # by its name


def test_one_step_decays_one_group_only():
    model = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(model, lr=0.1, weight_decay=0.5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(model.weight, before["weight"] * (1 - 0.1 * 0.5))
    torch.testing.assert_close(model.bias, before["bias"])
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}


@pytest.mark.parametrize("fused", [True, False])
def test_the_fused_kernel_is_taken_where_it_works(fused):
    model = torch.nn.Linear(3, 2) if fused else torch.nn.Linear(3, 2, device="meta")
    assert can_fuse(model.parameters()) is fused
    assert build_optimizer(model, lr=0.1).defaults["fused"] is fused
