"""Colours and normalisation on the device, against torchvision's own functions."""

import numpy as np
import pytest
import torch

from mimic_wds.colours import MEAN, STD
from mimic_wds.loading.transforms import ORDERS, change_colours, normalize
from mimic_wds.models import reconstruct

functional = pytest.importorskip("torchvision.transforms.functional", reason="torchvision comes with timm")


@pytest.fixture
def images():
    """12 images of other brightness and contrast each, (12, 20, 24, 3) uint8."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 20, 24, 3)) * rng.uniform(0.2, 1, (12, 1, 1, 3))
    return torch.from_numpy(pixels.astype(np.uint8))


def jitter_rows():
    """Two rows for every order."""
    rng = np.random.default_rng(1)
    return torch.from_numpy(np.column_stack([rng.uniform(0.6, 1.4, (12, 3)), np.arange(12) % 6]).astype(np.float32))


CHANGES = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)


def reference(image, row):
    """torchvision's functions in their order, on float pixels from 0 to 1."""
    for change in ORDERS[int(row[3])]:
        if change < 3:
            image = CHANGES[change](image, float(row[change]))
        elif len(row) > 4:
            image = functional.adjust_hue(image, float(row[4]))
    return functional.rgb_to_grayscale(image, 3) if len(row) > 4 and row[5] else image


def test_hue_and_grey_are_torchvisions_in_all_orders(images):
    rng = np.random.default_rng(2)
    for first in (0, 12):
        rows = np.column_stack(
            [rng.uniform(0.6, 1.4, (12, 3)), first + np.arange(12), rng.uniform(-0.5, 0.5, 12), np.arange(12) % 5 == 0]
        )
        rows = torch.from_numpy(rows.astype(np.float32))
        pixels = images.permute(0, 3, 1, 2).float()
        ours = change_colours(pixels, rows) / 255
        theirs = torch.stack([reference(image / 255, row) for image, row in zip(pixels, rows, strict=True)])
        # torchvision computes hues in float32, too: one pixel may fall on the other side of a sector
        assert (ours - theirs).abs().mean() < 1e-5
        assert ((ours - theirs).abs() > 1e-3).float().mean() < 1e-3
    assert len(set(ORDERS)) == 24
    assert all(order[3] == 3 for order in ORDERS[:6])


def test_every_order_changes_colours_as_torchvision_does(images):
    rows = jitter_rows()
    pixels = images.permute(0, 3, 1, 2).float()
    ours = change_colours(pixels, rows) / 255
    theirs = torch.stack([reference(image / 255, row) for image, row in zip(pixels, rows, strict=True)])
    assert (ours - theirs).abs().max() < 1e-5
    assert (ours - pixels / 255).abs().mean() > 0.02


def test_factors_of_one_change_nothing(images):
    pixels = images.permute(0, 3, 1, 2).float()
    for order in range(6):
        same = torch.tensor([[1.0, 1.0, 1.0, order]]).repeat(12, 1)
        assert torch.allclose(change_colours(pixels, same), pixels, atol=1e-4)


def test_normalisation_is_torchvisions_with_and_without_colours(images):
    rows = jitter_rows()
    floats = images.permute(0, 3, 1, 2).float() / 255
    assert torch.allclose(normalize(images, "cpu"), functional.normalize(floats, MEAN, STD), atol=1e-5)
    changed = torch.stack([reference(image, row) for image, row in zip(floats, rows, strict=True)])
    assert torch.allclose(normalize(images, "cpu", rows), functional.normalize(changed, MEAN, STD), atol=1e-4)


def test_an_image_changes_by_itself(images):
    """Its neighbours in the batch do not count, and the bytes are not touched."""
    rows, before = jitter_rows(), images.clone()
    whole = normalize(images, "cpu", rows)
    alone = torch.cat([normalize(images[i : i + 1], "cpu", rows[i : i + 1]) for i in range(12)])
    assert torch.allclose(whole, alone, atol=1e-5)
    assert torch.equal(images, before)


def test_pictures_undo_what_loading_does(images):
    assert np.array_equal(reconstruct.to_uint8(normalize(images, "cpu")), images)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_a_device_gives_the_same(images):
    rows = jitter_rows()
    assert torch.allclose(normalize(images, "cuda", rows).cpu(), normalize(images, "cpu", rows), atol=1e-4)
