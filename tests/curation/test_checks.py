"""The stricter checks, on homographies whose answer is known and pictures that differ in a known way."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_wds.curation.checks import difference_hash, is_plausible, is_zoom
from mimic_wds.curation.criteria import Criteria
from mimic_wds.pairs import DropReason, Overlap
from mimic_wds.sources.texture import laplacian_variance

SIZE = 224


def similarity(scale=1.0, turn_deg=0.0, x=0.0, y=0.0):
    """Scale and turn about the frame's centre, then shift."""
    H = np.eye(3)
    H[:2] = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), turn_deg, scale)
    H[:2, 2] += x, y
    return H


@given(scale=st.floats(0.55, 1.8), turn=st.floats(-180, 180), x=st.floats(-300, 300), y=st.floats(-300, 300))
def test_a_similarity_is_plausible_exactly_within_its_scale(scale, turn, x, y):
    H = similarity(scale, turn, x, y)
    assert is_plausible(H, SIZE, max_scale=2.0)
    assert not is_plausible(H, SIZE, max_scale=max(scale, 1 / scale) * 0.99)


def test_mirrors_folds_and_horizons_are_not_plausible():
    mirror = np.array([[-1.0, 0, SIZE], [0, 1, 0], [0, 0, 1]])
    horizon = np.array([[1.0, 0, 0], [0, 1, 0], [-1.5 / SIZE, 0, 1]])  # w = 0 runs through the frame
    for H in (mirror, horizon):
        assert not is_plausible(H, SIZE, max_scale=10.0)


@given(scale=st.floats(1.1, 3.0), turn=st.floats(-180, 180))
def test_a_view_within_the_other_is_a_zoom_either_way(scale, turn):
    # A square turned about the centre fits when its half diagonal, as seen along the axes, does.
    reach = (abs(np.cos(np.radians(turn))) + abs(np.sin(np.radians(turn)))) / scale
    if abs(reach - 1) < 1e-6:
        return
    assert is_zoom(similarity(scale, turn), SIZE) == (reach < 1)
    assert is_zoom(np.linalg.inv(similarity(scale, turn)), SIZE) == (reach < 1)


def test_a_shift_is_no_zoom():
    assert not is_zoom(similarity(x=30), SIZE)
    assert not is_zoom(similarity(1.3, x=40), SIZE)  # shows 13 % of the frame's width that was not there
    assert is_zoom(similarity(1.3, x=20), SIZE)


def test_texture_is_the_variance_of_the_laplacian():
    stripes = np.zeros((SIZE, SIZE, 3), np.uint8)
    stripes[:, ::2] = 10  # the Laplacian is +-20 everywhere: variance 400
    assert laplacian_variance(stripes) == pytest.approx(400)
    assert laplacian_variance(np.full((64, 64, 3), 77, np.uint8)) == 0


@given(seed=st.integers(0, 100), gain=st.floats(0.6, 1.0))
def test_the_hash_outlives_light_and_jpeg_and_tells_other_pictures(seed, gain):
    rng = np.random.default_rng(seed)
    image, other = (
        cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        for _ in range(2)
    )
    changed = cv2.imdecode(cv2.imencode(".jpg", np.uint8(image * gain))[1], cv2.IMREAD_COLOR)
    assert (difference_hash(image) ^ difference_hash(changed)).bit_count() <= 6
    assert (difference_hash(image) ^ difference_hash(other)).bit_count() >= 14


def measured(H, ratio=0.6, matches=40, inliers=20):
    return Overlap(ratio=ratio, corr_0to1=None, H_0to1=H, num_matches=matches, num_inliers=inliers)


@pytest.mark.parametrize(
    ("changes", "pair", "reason"),
    [
        ({"min_inliers": 21}, measured(np.eye(3)), DropReason.TOO_FEW_INLIERS),
        ({"min_inliers": 20}, measured(np.eye(3)), None),
        ({"min_inlier_ratio": 0.51}, measured(np.eye(3)), DropReason.TOO_FEW_INLIERS),
        ({"min_inlier_ratio": 0.5}, measured(np.eye(3)), None),
        ({"max_scale": 1.4}, measured(similarity(1.5)), DropReason.IMPLAUSIBLE_WARP),
        ({"max_scale": 1.6}, measured(similarity(1.5)), None),
        ({"drop_zooms": True}, measured(similarity(1.5)), DropReason.ZOOM),
        ({"drop_zooms": True}, measured(similarity(1.5), ratio=0.9), DropReason.OVERLAP_TOO_LARGE),
        ({}, measured(similarity(1.5)), None),
    ],
)
def test_checks_are_off_by_default_and_each_has_its_reason(changes, pair, reason):
    assert Criteria(**changes).judge(pair) is (pair if reason is None else reason)
