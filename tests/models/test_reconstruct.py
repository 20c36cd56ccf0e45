import numpy as np
import pytest
import torch

from mimic_wds.models.masking import choose
from mimic_wds.models.patches import patch_statistics, patchify
from mimic_wds.models.reconstruct import reconstruct, to_uint8

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
ROWS, COLS = 3, 5


@pytest.fixture(scope="module")
def photo():
    """(2, 48, 80, 3) uint8: a slope of brightness with fine noise, different in every channel."""
    rng = np.random.default_rng(0)
    slope = np.linspace(40, 200, 80)[None, None, :, None] + np.linspace(0, 20, 48)[None, :, None, None]
    return (slope + rng.normal(scale=8, size=(2, 48, 80, 3)) + [0, 5, -10]).round().clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def mask():
    return choose(torch.rand(2, ROWS * COLS, generator=torch.Generator().manual_seed(0)), 6)[1]


def normalised(photo):
    return torch.tensor((photo / 255 - MEAN) / STD, dtype=torch.float32).permute(0, 3, 1, 2)


def perfect(photo, norm_pix_loss):
    """What a model that knows everything would predict."""
    patches = patchify(normalised(photo), 16)
    mean, std = patch_statistics(patches)
    return (patches - mean) / std if norm_pix_loss else patches


def hidden_pixels(mask):
    """(B, L) -> (B, H, W)."""
    return np.kron(mask.reshape(-1, ROWS, COLS).numpy(), np.ones((1, 16, 16), bool))


def drawn(photo, prediction, mask, mode, norm_pix_loss=True):
    found = reconstruct(normalised(photo), prediction, mask, patch_size=16, norm_pix_loss=norm_pix_loss, mode=mode)
    return found.prediction


def test_colours_survive_normalisation(photo):
    np.testing.assert_array_equal(to_uint8(normalised(photo)), photo)
    assert to_uint8(torch.full((1, 3, 2, 2), 99.0)).tolist() == [[[[255] * 3] * 2] * 2]


@pytest.mark.parametrize(("norm_pix_loss", "mode"), [(False, "honest"), (False, "oracle"), (True, "oracle")])
def test_a_perfect_prediction_gives_the_target(photo, mask, norm_pix_loss, mode):
    images = normalised(photo)
    prediction = perfect(photo, norm_pix_loss).requires_grad_()  # as it comes out of a model
    options = {"patch_size": 16, "norm_pix_loss": norm_pix_loss, "mode": mode}
    found = dict(reconstruct(images, prediction, mask, **options, reference=images.flip(3)).columns)
    assert list(found) == ["target", "masked", f"prediction ({mode})", "reference"]
    assert all(picture.dtype == np.uint8 and picture.shape == (2, 48, 80, 3) for picture in found.values())
    np.testing.assert_array_equal(found["target"], photo)
    np.testing.assert_allclose(found[f"prediction ({mode})"].astype(int), photo, atol=1)
    np.testing.assert_array_equal(found["reference"], photo[:, :, ::-1])
    hidden = hidden_pixels(mask)
    np.testing.assert_array_equal(np.unique(found["masked"][hidden], axis=0), [[124, 116, 104]])  # ImageNet's mean
    np.testing.assert_array_equal(found["masked"][~hidden], photo[~hidden])
    assert [label for label, _ in reconstruct(images, prediction, mask, **options).columns] == list(found)[:3]


def test_honest_pictures_use_nothing_of_hidden_patches(photo, mask):
    prediction = perfect(photo, True)
    hidden = hidden_pixels(mask)
    other = photo.copy()
    other[hidden] = 255 - other[hidden] // 2
    honest = drawn(photo, prediction, mask, "honest")
    np.testing.assert_array_equal(honest, drawn(other, prediction, mask, "honest"))
    np.testing.assert_array_equal(honest[~hidden], photo[~hidden])
    oracle, changed = (drawn(x, prediction, mask, "oracle").astype(int) for x in (photo, other))
    assert np.abs(oracle - changed)[hidden].mean() > 20, "the oracle looks at them"


def test_honest_brightness_comes_from_the_visible_patches_near_by(photo, mask):
    patches = patchify(normalised(photo), 16).numpy()
    found = drawn(photo, torch.zeros(2, ROWS * COLS, 768), mask, "honest")  # nothing but the mean of each patch
    for i, patch in np.argwhere(mask.numpy()):
        row, col = divmod(patch, COLS)
        near = {p: 1 / ((p // COLS - row) ** 2 + (p % COLS - col) ** 2) for p in np.flatnonzero(~mask[i].numpy())}
        mean = sum(w * patches[i, p].mean() for p, w in near.items()) / sum(near.values())
        expected = (mean * STD + MEAN) * 255
        np.testing.assert_allclose(found[i, row * 16, col * 16], expected, rtol=0, atol=0.51)


def test_a_misspelt_mode_is_refused(photo, mask):
    with pytest.raises(ValueError, match=r"mode must be .*, got 'true'"):
        drawn(photo, perfect(photo, True), mask, "true")
