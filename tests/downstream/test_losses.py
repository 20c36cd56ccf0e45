"""Losses by hand, and what they make of pixels that do not count."""

import numpy as np
import pytest
import torch

from mimic_wds.downstream.losses import berhu, joint_heat_maps, masked_l1, pixel_cross_entropy


def test_berhu_by_hand():
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, 2, 1, 5, 6))
    valid = rng.random((2, 1, 5, 6)) < 0.7
    d = np.abs(prediction - target)[valid]
    c = 0.2 * d.max()
    expected = np.where(d < c, d, (d**2 + c**2) / (2 * c)).mean()
    found = berhu(torch.tensor(prediction), torch.tensor(target).float(), torch.tensor(valid))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_berhu_threshold_has_no_gradient_and_invalid_pixels_none():
    prediction = torch.tensor([0.1, 2.0, 5.0, 7.0], requires_grad=True)
    target = torch.tensor([0.0, 0.0, 0.0, float("nan")])
    valid = torch.tensor([True, True, True, False])
    berhu(prediction, target, valid).backward()
    # c = 1: the first is linear, the others are d^2 / 2 + 1 / 2.
    assert torch.allclose(prediction.grad, torch.tensor([1.0, 2.0, 5.0, 0.0]) / 3)


@pytest.mark.parametrize("loss", [berhu, masked_l1])
def test_batches_without_valid_pixels_give_zero(loss):
    prediction = torch.randn(1, 1, 4, 4, requires_grad=True)
    value = loss(prediction, torch.full((1, 1, 4, 4), float("nan")), torch.zeros(1, 1, 4, 4, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert not prediction.grad.any()


def test_masked_l1_counts_pixels_times_channels():
    prediction, target = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    target[:, :, 0, 0] = 100
    valid = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    valid[..., 0, 0] = False
    assert masked_l1(prediction, target, valid).item() == pytest.approx(1.0)


def test_cross_entropy_leaves_ignored_pixels_out():
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    classes = torch.randint(0, 4, (2, 3, 3))
    classes[0, 0] = 255
    expected = torch.nn.functional.cross_entropy(logits, classes, ignore_index=255)
    assert pixel_cross_entropy(logits, classes).item() == pytest.approx(expected.item(), rel=1e-6)
    nothing = pixel_cross_entropy(logits, torch.full_like(classes, 255))
    nothing.backward()
    assert nothing.item() == 0
    assert torch.isfinite(logits.grad).all()


def test_heat_maps_are_weighted_before_they_are_squared():
    prediction, target = torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    assert joint_heat_maps(prediction, target, torch.tensor([[2.0, 0.0]])).item() == pytest.approx(2.0)
