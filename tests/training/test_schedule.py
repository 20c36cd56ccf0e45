"""The learning rate against an independent table of values, over whole runs and at its named points."""

import cmath

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimic_wds.training.schedule import learning_rate, peak_learning_rate, set_learning_rate


def oracle(epoch: float, peak: float, warmup: float, end: float, least: float) -> float:
    """The published rule, written another way: half a turn of a complex unit vector."""
    if epoch < warmup:
        return peak * (epoch / warmup)
    turn = cmath.exp(1j * cmath.pi * (epoch - warmup) / (end - warmup))
    return least + (peak - least) * (1 + turn.real) / 2


def test_the_papers_run_of_200_epochs_of_771_steps():
    peak = peak_learning_rate(1.5e-4, 4096)
    assert peak == pytest.approx(2.4e-3)
    rates = [learning_rate(s / 771, peak=peak, warmup_epochs=20, schedule_epochs=200) for s in range(200 * 771 + 1)]
    expected = [oracle(s / 771, 2.4e-3, 20, 200, 0.0) for s in range(200 * 771 + 1)]
    assert rates == pytest.approx(expected, abs=1e-12)
    assert rates[0] == 0.0
    assert rates[10 * 771] == pytest.approx(1.2e-3)  # half way up
    assert max(rates) == rates[20 * 771] == pytest.approx(2.4e-3)
    assert rates[110 * 771] == pytest.approx(1.2e-3)  # half way down
    assert rates[-1] == pytest.approx(0.0, abs=1e-15)


def test_a_run_that_stops_early_sees_the_rates_of_the_full_one():
    # CroCo trained 400 epochs of a schedule of 800.
    assert learning_rate(400, peak=1.0, warmup_epochs=40, schedule_epochs=800) == pytest.approx(
        oracle(400, 1.0, 40, 800, 0)
    )


@given(
    peak=st.floats(1e-5, 1.0),
    least=st.floats(0, 1e-5),
    warmup=st.floats(0, 20),
    length=st.floats(0.5, 100),
    at=st.floats(0, 1),
)
def test_rates_follow_the_rule_and_stay_between_the_bounds(peak, least, warmup, length, at):
    end = warmup + length
    rate = learning_rate(at * end, peak=peak, warmup_epochs=warmup, schedule_epochs=end, minimum=least)
    assert rate == pytest.approx(oracle(at * end, peak, warmup, end, least), rel=1e-6, abs=1e-12)
    assert 0 <= rate <= peak * (1 + 1e-12)


def test_past_the_end_it_stays_at_the_minimum():
    for epoch in (10, 11, 15, 19.5, 100):
        assert learning_rate(epoch, peak=1.0, warmup_epochs=2, schedule_epochs=10, minimum=0.25) == pytest.approx(0.25)


def test_groups_may_scale_the_rate():
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:], "lr_scale": 0.1}], lr=1.0)
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.05])
