"""The derived accumulation and the noise of a step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimic_wds.training.batches import both_view_rows, plan_batches, step_noise


def test_the_papers_two_machines_give_four_micro_batches():
    # 4096 = 8 GPUs x 128 x 4 = 16 GPUs x 64 x 4
    assert plan_batches(4096, 8, 128).accumulation == 4
    assert plan_batches(4096, 16, 64).accumulation == 4
    assert plan_batches(4096, 8, 127).device_batch == 64  # the next divisor below the limit
    assert plan_batches(4096, 1, 10_000).accumulation == 1


@given(world=st.integers(1, 12), share=st.integers(1, 400), limit=st.integers(1, 100), views=st.integers(1, 2))
def test_the_smallest_accumulation_that_fits(world, share, limit, views):
    size = world * share * views
    if limit < views:
        with pytest.raises(ValueError, match=r"run\.max_device_batch"):
            plan_batches(size, world, limit, views)
        return
    plan = plan_batches(size, world, limit, views)
    assert plan.world_size * plan.device_batch * plan.accumulation == size
    assert plan.device_batch <= limit
    assert plan.device_batch % views == 0
    for fewer in range(1, plan.accumulation):
        assert share % fewer or share // fewer * views > limit, f"{fewer} micro-batches would do"


def test_uneven_shares_are_refused_with_sizes_that_work():
    with pytest.raises(ValueError, match=r"data\.global_batch = 100 .* 6 processes.* 96 or 102\."):
        plan_batches(100, 6, 64)
    with pytest.raises(ValueError, match=r"data\.global_batch = 3 .* 4 processes.*can: 4\."):
        plan_batches(3, 4, 64)
    with pytest.raises(ValueError, match=r"can: 4 or 8\."):
        plan_batches(6, 2, 64, samples_per_pair=2)


def test_noise_is_a_function_of_seed_and_step():
    noise = step_noise(3, 17, 512, 196)
    assert noise.shape == (512, 196)
    assert noise.dtype == torch.float32
    assert torch.equal(noise, step_noise(3, 17, 512, 196))
    # Uniform in [0, 1): mean and variance within five standard errors of 100 352 draws.
    assert 0 <= noise.min() <= noise.max() < 1
    assert abs(noise.mean() - 1 / 2) < 5 * (1 / 12 / noise.numel()) ** 0.5
    assert abs(noise.var() - 1 / 12) < 5 * (1 / 180 / noise.numel()) ** 0.5


def test_noise_of_neighbouring_seeds_and_steps_differs():
    first = {step_noise(seed, step, 1, 2)[0, 0].item() for seed in range(40) for step in range(40)}
    assert len(first) == 1600


def test_both_views_of_a_pair_have_rows_of_their_own():
    rows = torch.tensor([0, 3, 1])
    assert both_view_rows(rows).tolist() == [0, 6, 2, 1, 7, 3]
    everything = torch.cat([both_view_rows(part) for part in torch.arange(12).split(4)])
    assert sorted(everything.tolist()) == list(range(24))
