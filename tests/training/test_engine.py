"""One optimizer step against plain torch, and steps that are not finite."""

import copy
import os
import signal

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from mimic_wds.training.engine import SkipGuard, StepResult, TrainingDiverged, build_accelerator, optimizer_step
from mimic_wds.training.optimizer import build_optimizer
from mimic_wds.training.signals import StopSignal


class Regression(nn.Module):
    """Two layers and their mean squared error: model(x, y) -> (loss,)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))

    def forward(self, x, y):
        return (((self.layers(x) - y) ** 2).mean(),)


def data(num: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num, 5, generator=generator), torch.randn(num, 3, generator=generator)


def micro_batches(batch, number):
    return zip(*(tensor.chunk(number) for tensor in batch), strict=True)


def prepared(precision="no"):
    accelerator = build_accelerator(precision, cpu=True)
    model = Regression()
    return accelerator, *accelerator.prepare(model, build_optimizer(model, lr=0.01))


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("asked_of_accelerate", ["1", "4"])
def test_a_step_equals_plain_torch_on_the_whole_batch(accumulation, asked_of_accelerate, monkeypatch):
    # `accelerate launch --gradient_accumulation_steps 4` must not divide the loss a second time.
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", asked_of_accelerate)
    batch = data(16)
    plain = Regression()
    reference = torch.optim.SGD(plain.parameters(), lr=0.5)
    expected_losses, expected_norms = [], []
    accelerator = build_accelerator("no", cpu=True)
    model = Regression()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.5))
    for _ in range(3):
        reference.zero_grad()
        loss = plain(*batch)[0]
        loss.backward()
        expected_losses.append(loss.item())
        expected_norms.append(sum(p.grad.square().sum() for p in plain.parameters()).sqrt().item())
        reference.step()
        result = optimizer_step(accelerator, model, optimizer, micro_batches(batch, accumulation), accumulation)
        assert result == StepResult(
            loss=pytest.approx(expected_losses[-1], rel=1e-6),
            grad_norm=pytest.approx(expected_norms[-1], rel=1e-5),
            skipped="",
            stop=False,
        )
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)
    assert expected_losses[2] < expected_losses[0]


def test_clipping_shortens_the_gradient_to_the_limit():
    accelerator = build_accelerator("no", cpu=True)
    model = Regression()
    before = copy.deepcopy(model)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1.0))
    result = optimizer_step(accelerator, model, optimizer, [data(8)], 1, clip_grad_norm=0.01)
    moved = sum((a - b).square().sum() for a, b in zip(model.parameters(), before.parameters(), strict=True)).sqrt()
    assert result.grad_norm > 0.1  # reported as it was
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


def test_bf16_computes_in_bf16_and_keeps_the_weights_in_fp32():
    results = {}
    for precision in ("no", "bf16"):
        accelerator, model, optimizer = prepared(precision)
        results[precision] = optimizer_step(accelerator, model, optimizer, [data(64)], 1).loss
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        accelerator.free_memory()
        type(accelerator.state)._reset_state(reset_partial_state=True)
    assert results["bf16"] != results["no"]
    assert results["bf16"] == pytest.approx(results["no"], rel=0.02)


def test_fp16_without_a_gpu_is_refused():
    with pytest.raises(ValueError, match="fp16"):
        build_accelerator("fp16", cpu=True)


def test_fp16_scales_the_loss_unscales_the_gradient_and_halves_the_scale_after_an_overflow():
    # Accelerate wants a GPU for fp16; the loss scale itself works on the CPU as well.
    accelerator = build_accelerator("no", cpu=True)
    accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    model, plain = Regression(), Regression()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1.0))
    before = copy.deepcopy(model.state_dict())
    x, y = data(32)
    overflow = optimizer_step(accelerator, model, optimizer, micro_batches((x, y * 1e4), 2), 2, clip_grad_norm=1.0)
    assert overflow.skipped
    assert accelerator.scaler.get_scale() == 2.0**13
    torch.testing.assert_close(model.state_dict(), before, atol=0, rtol=0)

    plain(x, y)[0].backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in plain.parameters()]).item()
    result = optimizer_step(accelerator, model, optimizer, micro_batches((x, y), 2), 2, clip_grad_norm=0.01)
    assert result == StepResult(
        loss=pytest.approx(plain(x, y)[0].item(), rel=0.01),
        grad_norm=pytest.approx(norm, rel=0.01),
        skipped="",
        stop=False,
    )
    moved = [model.state_dict()[name] - tensor for name, tensor in before.items()]
    assert torch.nn.utils.get_total_norm(moved).item() == pytest.approx(0.01, rel=1e-2)
    assert accelerator.scaler.get_scale() == 2.0**13


@pytest.mark.parametrize(("poison", "reason"), [(float("nan"), "loss"), (float("inf"), "loss")])
def test_a_step_that_is_not_finite_leaves_weights_and_moments_alone(poison, reason):
    accelerator, model, optimizer = prepared()
    assert optimizer_step(accelerator, model, optimizer, [data(8)], 1).skipped == ""
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
    x, y = data(8)
    x[3, 2] = poison
    result = optimizer_step(accelerator, model, optimizer, micro_batches((x, y * poison), 4), 4)
    assert result.skipped == reason
    torch.testing.assert_close((model.state_dict(), optimizer.state_dict()["state"]), before, atol=0, rtol=0)
    assert optimizer_step(accelerator, model, optimizer, [data(8)], 1).skipped == ""


def test_a_gradient_that_is_not_finite_is_seen_though_the_loss_is_fine():
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return ((self.weight * x).abs().sqrt().sum(),)  # slope infinite at 0

    accelerator = build_accelerator("no", cpu=True)
    model = Root()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1.0))
    result = optimizer_step(accelerator, model, optimizer, [(torch.ones(3),)], 1)
    assert (result.loss, result.skipped) == (0.0, "gradient")
    assert model.weight.tolist() == [0, 0, 0]


def test_the_guard_gives_up_after_so_many_in_a_row_and_says_what_to_change():
    good = StepResult(loss=1.0, grad_norm=1.0, skipped="", stop=False)
    bad = StepResult(loss=float("nan"), grad_norm=float("nan"), skipped="loss", stop=False)
    guard, model = SkipGuard(limit=3), Regression()
    told = [guard.observe(r, model, step=s, lr=0.1, precision="bf16") for s, r in enumerate([bad, bad, good, bad, bad])]
    assert [bool(message) for message in told] == [True, True, False, True, True]
    assert "step 0: loss is not finite (loss nan" in told[0]
    assert guard.total == 4
    with torch.no_grad():
        model.layers[2].bias[0] = float("inf")
    with pytest.raises(TrainingDiverged, match=r"layers\.2\.bias.*3 steps in a row.*optimizer\.base_lr"):
        guard.observe(bad, model, step=5, lr=0.1, precision="bf16")


@pytest.mark.parametrize("notice", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_only_a_flag_until_the_third_interrupt(notice):
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as signals:
        assert not signals.requested
        os.kill(os.getpid(), notice)
        assert signals.requested
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_ways_that_accelerate_cuts_the_model_up_are_refused(monkeypatch):
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.FSDP)
    with pytest.raises(ValueError, match=r"configured for FSDP; use --multi_gpu.*run\.shard = true"):
        build_accelerator("no")
