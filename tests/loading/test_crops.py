"""Random resized crops: a pure function of seed, epoch and sample, distributed as torchvision's rule says."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimic_wds.loading.crops import (
    NUM_DRAWS,
    RATIO,
    SCALE,
    Box,
    central_box,
    covered,
    crop_draws,
    cut,
    cut_into,
    random_box,
    scaled_box,
    sliding_box,
)
from mimic_wds.loading.order import swap_views


def test_draws_belong_to_a_sample_an_epoch_and_a_seed():
    samples = np.random.default_rng(0).permutation(1000)
    draws = crop_draws(3, 7, samples)
    assert draws.shape == (1000, NUM_DRAWS)
    for part in (samples[:1], samples[500:], samples[::-7]):
        places = [int(np.flatnonzero(samples == index)[0]) for index in part]
        assert np.array_equal(crop_draws(3, 7, part), draws[places])
    for other in (crop_draws(4, 7, samples), crop_draws(3, 8, samples)):
        assert (np.abs(draws - other) > 1e-12).all()


def test_draws_are_uniform_and_independent():
    draws = crop_draws(0, 0, np.arange(20_000))
    assert 0 <= draws.min() < 1e-4
    assert 1 - 1e-4 < draws.max() < 1
    # five standard errors
    assert np.abs(draws.mean(0) - 1 / 2).max() < 5 * (1 / 12 / 20_000) ** 0.5
    assert np.abs(draws.var(0) - 1 / 12).max() < 5 * (1 / 180 / 20_000) ** 0.5
    with_swap = np.column_stack([draws, swap_views(0, 0, np.arange(20_000)), np.roll(draws, 1, axis=0)])
    correlations = np.corrcoef(with_swap.T) - np.eye(with_swap.shape[1])
    assert np.abs(correlations).max() < 5 / 20_000**0.5


@given(height=st.integers(1, 700), width=st.integers(1, 700), index=st.integers(0, 10**9))
def test_every_box_lies_in_the_image(height, width, index):
    box = random_box(crop_draws(1, 2, np.array([index]))[0], height, width)
    assert 0 <= box.x <= box.x + box.width <= width
    assert 0 <= box.y <= box.y + box.height <= height
    assert min(box.width, box.height) >= 1


def reference_box(height, width):
    """torchvision's own draw as x, y, width, height."""
    transforms = pytest.importorskip("torchvision.transforms", reason="torchvision comes with timm")
    top, left, h, w = transforms.RandomResizedCrop.get_params(torch.empty(1, height, width), SCALE, RATIO)
    return left, top, w, h


@pytest.mark.parametrize(("height", "width"), [(375, 500), (256, 256), (600, 240), (100, 900)])
def test_boxes_are_distributed_as_the_rule_says(height, width):
    number = 6000
    ours = np.array([random_box(draws, height, width) for draws in crop_draws(5, 0, np.arange(number))], float)
    torch.manual_seed(0)
    theirs = np.array([reference_box(height, width) for _ in range(number)], float)
    for mine, reference in zip(ours.T, theirs.T, strict=False):
        error = ((mine.var() + reference.var()) / number) ** 0.5
        assert abs(mine.mean() - reference.mean()) <= 5 * error
        assert np.quantile(mine, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(reference, [0.1, 0.5, 0.9]), abs=26)
    assert abs(ours[:, 4].mean() - 0.5) < 5 * 0.5 / number**0.5
    found = random_box(np.full(NUM_DRAWS, 0.999), height, width)
    assert found.mirror is False
    if (height, width) == (256, 256):
        areas = ours[:, 2] * ours[:, 3] / (height * width)
        assert (areas.min(), areas.max()) == pytest.approx(SCALE, abs=0.02)
        ratios = ours[:, 2] / ours[:, 3]
        assert (ratios.min(), ratios.max()) == pytest.approx(RATIO, abs=0.02)


def test_an_image_that_no_try_fits_gives_its_middle():
    assert random_box(np.full(NUM_DRAWS, 0.9), 10, 1000) == Box(493, 0, 13, 10)
    assert random_box(np.full(NUM_DRAWS, 0.1), 1000, 10) == Box(0, 493, 10, 13, True)


@pytest.mark.parametrize(
    ("height", "width", "ratio", "expected"),
    [(4, 10, 1.0, (3, 0, 4, 4)), (10, 4, 1.0, (0, 3, 4, 4)), (6, 6, 1.0, (0, 0, 6, 6)), (6, 6, 2.0, (0, 1, 6, 3))],
)
def test_the_middle(height, width, ratio, expected):
    assert central_box(height, width, (ratio, ratio)) == Box(*expected)


def test_a_crop_shows_its_part_of_the_image():
    """On a plane of colour the resized crop is the plane again, between the centres of its border pixels."""
    y, x = np.mgrid[0:120, 0:200]
    image = np.dstack([x, y, np.full_like(x, 7)]).astype(np.uint8)
    for box in (Box(20, 10, 160, 100), Box(60, 30, 32, 24), Box(5, 5, 180, 20)):
        for mirror in (False, True):
            out = cut(image, box._replace(mirror=mirror), (48, 64)).astype(float)
            columns = box.x + (np.arange(64) + 0.5) * box.width / 64 - 0.5
            rows = box.y + (np.arange(48) + 0.5) * box.height / 48 - 0.5
            inner = np.s_[4:-4, 4:-4]
            expected = np.broadcast_to(columns[::-1] if mirror else columns, (48, 64))
            assert np.abs(out[..., 0] - expected)[inner].max() <= 1.1
            assert np.abs(out[..., 1] - rows[:, None])[inner].max() <= 1.1
            assert (out[..., 2] == 7).all()


def test_shrinking_loses_no_pixel():
    """Every pixel counts by its area: a chequerboard becomes even grey, where fixed kernels would alias."""
    board = np.indices((256, 256)).sum(0) % 2 * 255
    out = cut(np.dstack([board] * 3).astype(np.uint8), Box(0, 0, 256, 256), (64, 64))
    assert np.abs(out.astype(int) - 127).max() <= 1
    bicubic = cv2.resize(board.astype(np.uint8), (60, 60), interpolation=cv2.INTER_CUBIC)
    assert np.ptp(bicubic) > 20


SHAPES = st.tuples(st.integers(1, 700), st.integers(1, 700))


@given(seed=st.integers(0, 10**6), shape=SHAPES, ratio=st.floats(0.3, 3))
def test_sliding_boxes_are_as_large_as_they_can_be(seed, shape, ratio):
    draws = crop_draws(seed, 0, np.array([1]))[0]
    box = sliding_box(draws, *shape, ratio)
    assert 0 <= box.x <= shape[1] - box.width
    assert 0 <= box.y <= shape[0] - box.height
    assert (box.width, box.height) == tuple(central_box(*shape, (ratio, ratio)))[2:4]


@given(seed=st.integers(0, 10**6), shape=SHAPES)
def test_scaled_boxes_have_the_longest_side_times_the_scale(seed, shape):
    draws = crop_draws(seed, 0, np.array([1]))[0]
    box = scaled_box(draws, *shape, 1.0, (0.1, 2.0))
    assert box.width == box.height == max(1, round(max(shape) / (0.1 + 1.9 * draws[0])))
    assert 0 <= box.x <= max(0, shape[1] - box.width)
    assert 0 <= box.y <= max(0, shape[0] - box.height)


def test_what_lies_beyond_the_picture_is_padded_at_the_right_and_below():
    image = np.full((30, 60, 3), 200, np.uint8)
    image[:, :10] = 0
    for mirror in (False, True):
        out = np.empty((64, 64, 3), np.uint8)
        cut_into(image, Box(0, 0, 120, 120, mirror), out)
        assert covered(Box(0, 0, 120, 120), (30, 60), (64, 64)) == (16, 32)
        assert (out[16:] == 128).all()
        assert (out[:, 32:] == 128).all()
        dark = out[8, :32, 0] < 100
        assert dark[:4].all() == (not mirror)
        assert dark[-4:].all() == mirror


def test_a_single_try_is_cut_to_the_picture():
    draws = np.full(23, 0.999999)
    box = random_box(draws, 100, 40, scale=(0.08, 1.0), tries=1)
    assert (box.width, box.height) == (40, round((4000 * 0.75) ** 0.5))
