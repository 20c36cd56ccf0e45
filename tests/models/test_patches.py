"""Patches, the target, and the loss, against numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimic_wds.models.patches import hidden_mean, patch_errors, patch_statistics, patchify, unpatchify


def test_values_of_a_patch_stand_by_row_column_channel():
    images = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).reshape(2, 3, 4, 6)
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    for row, col in np.ndindex(2, 3):
        expected = [images[1, c, 2 * row + y, 2 * col + x].item() for y in range(2) for x in range(2) for c in range(3)]
        assert patches[1, row * 3 + col].tolist() == expected


@given(rows=st.integers(1, 4), cols=st.integers(1, 4), patch=st.integers(1, 5), batch=st.integers(1, 2))
def test_unpatchify_is_the_inverse_of_patchify(rows, cols, patch, batch):
    images = torch.rand(batch, 3, rows * patch, cols * patch, generator=torch.Generator().manual_seed(0))
    assert torch.equal(unpatchify(patchify(images, patch), patch, rows, cols), images)


@pytest.fixture(scope="module")
def images():
    """(3, 3, 4, 4) float32, 4 patches of 12 values. The second image is nearly flat: epsilon counts."""
    return np.random.default_rng(0).normal(size=(3, 3, 4, 4)).astype(np.float32) * [[[[1]]], [[[1e-3]]], [[[2]]]]


def cut(images):
    """Patches of 2 x 2 pixels."""
    return images.reshape(-1, 3, 2, 2, 2, 2).transpose(0, 2, 4, 3, 5, 1).reshape(-1, 4, 12)


def test_statistics_have_unbiased_variance_and_epsilon_1e_6(images):
    mean, std = patch_statistics(torch.tensor(cut(images)))
    np.testing.assert_allclose(mean.numpy(), cut(images).mean(-1, keepdims=True), rtol=0, atol=1e-12)
    np.testing.assert_allclose(std.numpy(), np.sqrt(cut(images).var(-1, ddof=1, keepdims=True) + 1e-6), rtol=1e-12)


def test_a_patch_without_any_contrast_has_a_deviation_of_a_thousandth():
    assert patch_statistics(torch.full((1, 1, 12), 0.5))[1].item() == pytest.approx(1e-3)


def reconstruction_loss(prediction, images, mask, patch_size, normalise):
    return hidden_mean(patch_errors(prediction, images, patch_size, normalise), mask)


@pytest.mark.parametrize("normalise", [True, False])
def test_loss_is_the_mean_over_the_hidden_patches_of_the_whole_batch(images, normalise):
    prediction = np.random.default_rng(1).normal(size=(3, 4, 12)).astype(np.float32)
    target = cut(images)
    if normalise:
        target = (target - target.mean(-1, keepdims=True)) / np.sqrt(target.var(-1, ddof=1, keepdims=True) + 1e-6)
    mask = np.array([[True, False, False, True], [False, True, False, False], [True, True, True, False]])
    expected = np.mean([np.mean((p - t) ** 2) for p, t in zip(prediction[mask], target[mask], strict=True)])
    arguments = torch.tensor(images), torch.tensor(mask), 2, normalise
    loss = reconstruction_loss(torch.tensor(prediction), *arguments)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    prediction[~mask] += 100  # what is visible is not scored
    assert reconstruction_loss(torch.tensor(prediction), *arguments).item() == loss.item()


def test_loss_of_a_bfloat16_prediction_is_computed_in_float32(images):
    prediction = torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(0)).bfloat16()
    arguments = torch.tensor(images), torch.ones(3, 4, dtype=torch.bool), 2, True
    loss = reconstruction_loss(prediction, *arguments)
    assert loss.dtype == torch.float32
    assert loss.item() == reconstruction_loss(prediction.float(), *arguments).item()
