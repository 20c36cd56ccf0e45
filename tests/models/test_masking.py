import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimic_wds.models.masking import choose, fill, num_keep, take


@pytest.mark.parametrize(
    ("patches", "ratio", "rule", "kept"),
    [
        (196, 0.75, "keep", 49),  # MAE
        (196, 0.9, "keep", 19),  # MIMIC's CroCo
        (196, 0.9, "mask", 20),  # CroCo v1
        (256, 0.9, "keep", 25),  # 224 pixels, patch size 14
        (100, 0.9, "keep", 9),  # 100 * (1 - 0.9) is 9.999999999999998 in floating point
        (100, 0.9, "mask", 10),
    ],
)
def test_published_numbers_of_visible_patches(patches, ratio, rule, kept):
    assert num_keep(patches, ratio, rule) == kept


@pytest.mark.parametrize(
    ("patches", "ratio", "rule", "message"),
    [
        (4, 0.9, "keep", "leaves 0 of 4 patches visible"),
        (4, 0.1, "mask", "leaves 4 of 4 patches visible"),
        (196, 1.0, "keep", "mask_ratio = 1.0 must lie between 0 and 1"),
        (196, float("nan"), "keep", "mask_ratio = nan"),
        (196, 0.9, "kept", """rule must be "keep" or "mask", got 'kept'"""),
    ],
)
def test_impossible_masks_are_refused(patches, ratio, rule, message):
    with pytest.raises(ValueError, match=message):
        num_keep(patches, ratio, rule)


@given(seed=st.integers(0, 1000), patches=st.integers(2, 60), data=st.data())
def test_exactly_the_patches_with_the_smallest_noise_stay_visible(seed, patches, data):
    kept = data.draw(st.integers(1, patches - 1))
    noise = np.random.default_rng(seed).permuted(np.tile(np.linspace(0, 1, patches), (3, 1)), axis=1)
    visible, mask = choose(torch.tensor(noise, dtype=torch.float32), kept)
    assert mask.dtype == torch.bool
    for row in range(3):
        smallest = set(np.argsort(noise[row])[:kept].tolist())
        assert visible[row].tolist() == sorted(smallest)
        assert mask[row].tolist() == [patch not in smallest for patch in range(patches)]


def test_of_equal_noise_the_first_patches_stay_visible():
    visible, mask = choose(torch.tensor([[0.5, 0.2, 0.5, 0.5, 0.2]]), 3)
    assert visible.tolist() == [[0, 1, 4]]
    assert mask.tolist() == [[False, False, True, True, False]]


@given(seed=st.integers(0, 1000))
def test_tokens_come_back_to_their_places_in_raster_order(seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.rand(2, 12, 5, generator=generator)
    visible, mask = choose(torch.rand(2, 12, generator=generator), 5)
    mask_token = torch.full((1, 1, 5), -1.0)
    filled = fill(take(tokens, visible), visible, mask_token, 12)
    assert torch.equal(filled, torch.where(mask[..., None], mask_token, tokens))
