"""Learning rates against the published logs, layer decay, LARS, few-shot plans."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from mimic_wds.downstream.fewshot import batch_for, mean_and_deviation, plan_runs, subset
from mimic_wds.downstream.optimizer import LARS, build_adamw, layer_groups, layer_of, rate_table
from mimic_wds.downstream.schedules import cosine_rate, step_rate, warmup_steps
from mimic_wds.models.heads.convnext import ConvNeXtHead
from mimic_wds.models.heads.dense import DenseModel
from mimic_wds.models.heads.dpt import DPTHead
from mimic_wds.models.heads.encoder import DenseEncoder
from mimic_wds.models.heads.pose import PoseEncoder, PoseModel, SimpleHead
from mimic_wds.training.schedule import learning_rate, set_learning_rate

NYU = {"peak": 1e-4, "warmup": 600, "total": 12_000}, 6
ADE = {"peak": 5e-4, "warmup": 315, "total": 20_160}, 315
TASKONOMY = {"peak": 3e-4, "warmup": 500, "total": 10_000}, 100


@pytest.mark.parametrize(
    ("recipe", "epoch", "mean"),
    [
        (NYU, 0, 4.173622704507513e-07),
        (NYU, 1, 1.4190317195325542e-06),
        (NYU, 99, 9.958263772954926e-05),
        (NYU, 100, 9.999998259630589e-05),
        (NYU, 1000, 5.4094636210033035e-05),
        (NYU, 1999, 2.8795201677718946e-11),
        (ADE, 0, 2.4999999999999995e-04),
        (ADE, 1, 4.998968942776848e-04),
        (ADE, 10, 4.72453928950256e-04),
        (ADE, 63, 1.040922927759372e-07),
        (TASKONOMY, 0, 2.9759519038076147e-05),
        (TASKONOMY, 5, 2.999730705607536e-04),
        (TASKONOMY, 50, 1.599378825348511e-04),
        (TASKONOMY, 99, 2.774955323493915e-08),
    ],
)
def test_mean_rates_of_epochs_are_those_of_the_published_logs(recipe, epoch, mean):
    options, per_epoch = recipe
    rates = [cosine_rate(epoch * per_epoch + s, **options) for s in range(per_epoch)]
    assert sum(rates) / per_epoch == pytest.approx(mean, rel=1e-12, abs=1e-18)


@pytest.mark.parametrize(
    ("epoch", "rate"), [(20 / 312, 0.041026), (308 / 312, 0.631795), (10, 6.4), (50, 3.2), (90, 0.0)]
)
def test_probe_rates_are_those_of_the_published_log(epoch, rate):
    found = learning_rate(epoch, peak=6.4, warmup_epochs=10, schedule_epochs=90)
    assert found == pytest.approx(rate, abs=5e-7)


def test_pose_rates():
    options = {"peak": 5e-4, "warmup": 500, "drops": (170 * 293, 200 * 293)}
    assert step_rate(0, **options) == pytest.approx(5e-7)
    assert step_rate(250, **options) == pytest.approx(5e-4 * 0.5005)
    assert step_rate(500, **options) == 5e-4
    assert step_rate(170 * 293, **options) == pytest.approx(5e-5)
    assert step_rate(209 * 293, **options) == pytest.approx(5e-6)


@pytest.mark.parametrize(("total", "fraction", "steps"), [(12_000, 0.05, 600), (10, 0.05, 0), (3, 0.9, 2), (1, 0.5, 0)])
def test_warm_up_is_a_share_that_leaves_steps_at_the_peak(total, fraction, steps):
    assert warmup_steps(total, fraction) == steps
    assert max(cosine_rate(s, peak=1.0, warmup=steps, total=total) for s in range(total)) == 1.0


def test_warm_up_of_everything_is_refused():
    with pytest.raises(ValueError, match="below 1"):
        warmup_steps(10, 1.0)


def meta_model(size, make_head):
    with torch.device("meta"):
        return DenseModel(DenseEncoder(image_size=size), make_head())


@pytest.mark.parametrize(
    ("size", "make_head", "plain", "decaying"),
    [(256, lambda: DPTHead(1), 129_121, 105_582_624), (512, lambda: ConvNeXtHead(150), 139_926, 95_094_528)],
)
def test_layer_groups(size, make_head, plain, decaying):
    groups = layer_groups(meta_model(size, make_head), depth=12, weight_decay=0.05, layer_decay=0.75)
    assert len(groups) == 28
    sums = {0.0: 0, 0.05: 0}
    for group in groups:
        sums[group["weight_decay"]] += sum(p.numel() for p in group["params"])
    assert sums == {0.0: plain, 0.05: decaying}
    scales = sorted({group["lr_scale"] for group in groups})
    expected = [0.023757, 0.031676, 0.042235, 0.056314, 0.075085, 0.100113, 0.133484]
    expected += [0.177979, 0.237305, 0.316406, 0.421875, 0.5625, 0.75, 1.0]
    assert scales == pytest.approx(expected, abs=5e-7)
    assert scales == pytest.approx([0.75**k for k in range(13, -1, -1)], rel=1e-12)
    assert groups[0]["name"] == "layer 0, no decay"


def test_pose_layers_and_lowest_rate():
    with torch.device("meta"):
        model = PoseModel(PoseEncoder(), SimpleHead())
    groups = layer_groups(model, depth=12, weight_decay=0.1, layer_decay=0.75)
    assert rate_table(groups, 5e-4)[0][1] == pytest.approx(1.188e-5, rel=1e-3)
    assert layer_of("encoder.last_norm.weight", 12) == 13
    assert layer_of("encoder.blocks.11.norm1.weight", 12) == 12
    table = next(p for n, p in model.named_parameters() if n == "encoder.pos_embed")
    assert any(p is table for g in groups if g["weight_decay"] == 0 for p in g["params"])


def test_ratios_between_layers_never_change():
    torch.manual_seed(0)
    model = DenseModel(
        DenseEncoder(image_size=32, dim=16, depth=4, heads=2), ConvNeXtHead(3, dim=16, embed=32, depth=1)
    )
    optimizer = build_adamw(model, depth=4, lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    lowest = []
    for step in range(1, 20):
        set_learning_rate(optimizer, cosine_rate(step, peak=1e-3, warmup=5, total=20))
        rates = [group["lr"] for group in optimizer.param_groups]
        lowest.append(min(rates) / max(rates))
    assert lowest == pytest.approx([0.5**5] * 19)


def test_frozen_parameters_have_no_group():
    with torch.device("meta"):
        model = DenseModel(DenseEncoder(image_size=64), DPTHead(1), frozen=True)
    groups = layer_groups(model, depth=12, weight_decay=0.05, layer_decay=0.75)
    assert [g["lr_scale"] for g in groups] == [1.0, 1.0]
    assert sum(p.numel() for g in groups for p in g["params"]) == 20_065_921


def test_lars_by_hand():
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    bias = nn.Parameter(torch.tensor([1.0]))
    optimizer = LARS([weight, bias], lr=2.0, weight_decay=0.5, momentum=0.9, trust=0.001)
    state, w, b = (np.zeros((1, 2)), np.zeros(1)), np.array([[3.0, 4.0]]), np.array([1.0])
    for gradient in (np.array([[1.0, -2.0]]), np.array([[0.5, 0.25]])):
        weight.grad, bias.grad = torch.tensor(gradient, dtype=torch.float32), torch.tensor([0.1])
        optimizer.step()
        update = gradient + 0.5 * w
        update *= 0.001 * np.linalg.norm(w) / np.linalg.norm(update)
        state = 0.9 * state[0] + update, 0.9 * state[1] + 0.1
        w, b = w - 2.0 * state[0], b - 2.0 * state[1]
    assert np.allclose(weight.detach(), w, atol=1e-6)
    assert np.allclose(bias.detach(), b, atol=1e-6)


def test_lars_starts_from_zero_weights():
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    LARS([weight], lr=0.1).step()
    assert torch.equal(weight.detach(), torch.full((2, 2), -0.1))


def test_subsets_are_nested_and_differ_by_seed():
    for seed in range(5):
        sets = [set(subset(50, k, seed).tolist()) for k in (1, 5, 10, 50)]
        assert [len(s) for s in sets] == [1, 5, 10, 50]
        assert all(a < b for a, b in itertools.pairwise(sets))
    assert len({tuple(subset(50, 5, seed)) for seed in range(5)}) == 5
    with pytest.raises(ValueError, match="from 1 to 50"):
        subset(50, 51, 0)


def test_few_shot_plan():
    assert plan_runs(12, (10, 5, 5, 20), range(5)) == [(k, s) for k in (5, 10) for s in range(5)]
    with pytest.raises(ValueError, match="5 seeds"):
        plan_runs(12, (1,), [0, 1, 2, 3, 3])
    assert (batch_for(3, 64), batch_for(100, 64)) == (3, 64)


def test_deviation_is_the_sample_one():
    assert mean_and_deviation([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, math.sqrt(7 / 3)))
    assert math.isnan(mean_and_deviation([1.0])[1])
