"""Crops of a batch, from given random numbers, against colorsys, SciPy-free numpy and OpenCV, one image at a time."""

import colorsys

import cv2
import numpy as np
import pytest
import torch

from mimic_wds.colours import MEAN, STD, turn_hue
from mimic_wds.models import multicrop
from mimic_wds.models.multicrop import NUM_DRAWS, CropKind, blur, change_colours, crop, cut

PLAIN = CropKind(size=(8, 8), area=(0.25, 0.25), blur=0.0)


def draws(batch=1, **values):
    """0.5 of everything, so that no colour changes; no mirror, no jitter, no grey, no blur, no solarisation."""
    found = torch.full((batch, NUM_DRAWS), 0.5)
    found[:, [multicrop.MIRROR, multicrop.JITTER, multicrop.GREY, multicrop.BLUR, multicrop.SOLARISE]] = 0.99
    for name, value in values.items():
        found[:, getattr(multicrop, name)] = torch.as_tensor(value)
    return found


def random_pixels(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def normalised(pixels):
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.mark.parametrize(("across", "down", "x", "y"), [(0, 0, 0, 0), (1, 0, 8, 0), (0, 1, 0, 8), (0.5, 0.25, 4, 2)])
def test_a_box_of_a_quarter_lies_where_the_draws_say(across, down, x, y):
    """Half of each side, so one pixel of the crop is one of the image: nothing is interpolated."""
    images = random_pixels(1, 3, 16, 16)
    found = cut(images, draws(ACROSS=across, DOWN=down), PLAIN)
    torch.testing.assert_close(found, images[:, :, y : y + 8, x : x + 8], atol=1e-5, rtol=0)
    mirrored = cut(images, draws(ACROSS=across, DOWN=down, MIRROR=0.1), PLAIN)
    torch.testing.assert_close(mirrored, found.flip(3), atol=1e-5, rtol=0)


def test_area_and_aspect_are_those_of_pixels():
    """A picture of its own coordinates tells how wide and high the box was."""
    row, col = torch.meshgrid(torch.arange(60.0), torch.arange(120.0), indexing="ij")
    images = torch.stack([row, col, col])[None].repeat(3, 1, 1, 1)
    kind = CropKind(size=(50, 50), area=(0.1, 0.3), blur=0.0)
    found = cut(images, draws(3, AREA=[0.0, 0.5, 1.0], ASPECT=[0.0, 0.5, 1.0]), kind)
    high = (found[:, 0, 40, 25] - found[:, 0, 10, 25]) * 50 / 30
    wide = (found[:, 1, 25, 40] - found[:, 1, 25, 10]) * 50 / 30
    np.testing.assert_allclose(wide * high / 7200, [0.1, 0.2, 0.3], rtol=1e-2)
    np.testing.assert_allclose(wide / high, [3 / 4, 1, 4 / 3], rtol=1e-2)


def test_a_box_is_never_larger_than_its_image():
    kind = CropKind(size=(16, 16), area=(1.0, 1.0), blur=0.0)
    images = torch.ones(2, 3, 16, 16)
    assert torch.allclose(cut(images, draws(2, ASPECT=[0.0, 1.0]), kind), images, atol=1e-5)


def test_hue_turns_as_in_colorsys():
    pixels, turns = random_pixels(4, 3, 5, 5), torch.tensor([-0.1, 0.03, 0.1, 0.0])
    pixels[0, :, 0, 0] = 0.3  # a grey has no hue
    pixels[1, :, 0, 0] = torch.tensor([0.7, 0.7, 0.2])  # two largest
    found = turn_hue(pixels, turns.view(-1, 1, 1, 1))
    for i, turn in enumerate(turns.tolist()):
        for y, x in np.ndindex(5, 5):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixels[i, :, y, x].tolist())
            expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
            np.testing.assert_allclose(found[i, :, y, x], expected, atol=2e-6)


def test_colours_change_by_the_factors():
    pixels = random_pixels(1, 3, 6, 6)
    image = pixels[0].double().numpy()
    grey = lambda x: np.tensordot([0.2989, 0.587, 0.114], x, 1)  # noqa: E731
    bright = np.clip(image * 1.4, 0, 1)
    contrast = np.clip(grey(bright).mean() + 0.6 * (bright - grey(bright).mean()), 0, 1)
    expected = np.clip(grey(contrast) + 1.2 * (contrast - grey(contrast)), 0, 1)
    found = change_colours(pixels, draws(BRIGHTNESS=1.0, CONTRAST=0.0, SATURATION=1.0))
    np.testing.assert_allclose(found[0], expected, atol=2e-6)


def test_blur_is_gaussian_image_by_image():
    pixels, sigmas = random_pixels(2, 3, 24, 20), torch.tensor([0.5, 2.0])
    found = blur(pixels, sigmas)
    for i, sigma in enumerate(sigmas.tolist()):
        picture = pixels[i].permute(1, 2, 0).numpy()
        expected = cv2.GaussianBlur(picture, (13, 13), sigma, borderType=cv2.BORDER_REPLICATE)
        np.testing.assert_allclose(found[i].permute(1, 2, 0), expected, atol=1e-5)


@pytest.mark.parametrize(("name", "share"), [("JITTER", 0.8), ("GREY", 0.2), ("BLUR", 0.3), ("SOLARISE", 0.4)])
def test_changes_happen_below_their_share_and_to_their_image_only(name, share):
    images = normalised(random_pixels(3, 3, 16, 16))
    kind = CropKind(size=(16, 16), area=(1.0, 1.0), blur=0.3, solarise=0.4)
    plain = crop(images, draws(3, BRIGHTNESS=0.9), kind)
    found = crop(images, draws(3, BRIGHTNESS=0.9, **{name: [share + 0.01, share - 0.01, 0.99]}), kind)
    changed = (found - plain).abs().amax((1, 2, 3)) > 1e-3
    assert changed.tolist() == [False, True, False]


def test_a_solarised_pixel_is_turned_from_a_half_up():
    pixels = torch.tensor([0.1, 0.4, 0.6, 1.0]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    kind = CropKind(size=(2, 2), area=(1.0, 1.0), blur=0.0, solarise=1.0)
    found = crop(normalised(pixels), draws(), kind)
    expected = torch.tensor([0.1, 0.4, 0.4, 0.0]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    torch.testing.assert_close(found, normalised(expected), atol=1e-4, rtol=0)
