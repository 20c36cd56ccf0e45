"""The overlap of two views on analytic homographies, and against the literal per-point algorithm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_wds.geometry import homography, overlap
from mimic_wds.geometry.features import Features
from mimic_wds.geometry.literal import literal_map
from mimic_wds.geometry.patches import PatchGrid, all_points, sampled_points
from mimic_wds.pairs import DropReason, invert_correspondences

GRID = PatchGrid(224, 224, 16)


def shift(x, y=0.0):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], float)


def zoom(factor, centre=112.0):
    return shift(centre, centre) @ np.diag([factor, factor, 1.0]) @ shift(-centre, -centre)


def both_directions(H, points0=None, points1=None):
    points = all_points(GRID)
    forward = overlap.one_to_one(overlap.vote(H, GRID, points if points0 is None else points0))
    backward = overlap.one_to_one(overlap.vote(np.linalg.inv(H), GRID, points if points1 is None else points1))
    return forward, backward


def sizes(H):
    return tuple(int(np.count_nonzero(c >= 0)) for c in both_directions(H))


@st.composite
def homographies(draw):
    """Rotation, zoom, shear, shift and perspective, from mild to wild (horizon inside the image included)."""
    real = lambda low, high: draw(st.floats(low, high, allow_nan=False))  # noqa: E731
    angle, scale = real(-3.2, 3.2), real(0.4, 2.5)
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    H = np.array([[c, -s, 0], [s, c, 0], [real(-0.008, 0.008), real(-0.008, 0.008), 1]])
    return shift(112 + real(-150, 150), 112 + real(-150, 150)) @ H @ shift(-112, -112)


def test_identity_keeps_every_patch():
    corr = overlap.correspondences(np.eye(3), GRID, all_points(GRID), all_points(GRID))
    assert np.array_equal(corr, np.arange(196))
    assert overlap.overlap_ratio(corr) == 1.0


@pytest.mark.parametrize("k", [1, 3, 5, 7])
def test_shift_by_whole_patches_loses_one_column_each(k):
    assert sizes(shift(16 * k)) == (196 - 14 * k, 196 - 14 * k)
    corr = overlap.correspondences(shift(16 * k), GRID, all_points(GRID), all_points(GRID)).reshape(14, 14)
    expected = np.arange(196).reshape(14, 14) + k
    expected[:, 14 - k :] = -1
    assert np.array_equal(corr, expected)


def test_zoom_by_two_about_the_corner_leaves_a_quarter():
    assert sizes(zoom(2, centre=0.0)) == (49, 49)


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.2, (144, 144)), (1.3, (100, 121)), (1.4, (100, 100)), (1.5, (96, 100)), (2, (36, 64))]
)
def test_centred_zoom(factor, expected):
    assert sizes(zoom(factor)) == expected


def test_half_patch_shift_meets_ties_and_the_first_to_reach_the_maximum_wins():
    # The last column lies half outside: 128 votes for its patch and 128 for "out", inside first in raster order.
    assert sizes(shift(8)) == (196, 182)


def test_out_competes_as_a_label():
    # A patch with 40 points outside and 30 + 30 in two patches goes nowhere.
    outside, left, right = [(-5, 5)] * 40, [(3, 3)] * 30, [(20, 3)] * 30
    points = np.zeros((196, 100, 2), np.float32)
    points[0] = np.array(left + outside + right)
    assert overlap.vote(np.eye(3), GRID, points)[0] == 196
    points[0] = np.array([(3, 3)] * 41 + outside + [(20, 3)] * 19)
    assert overlap.vote(np.eye(3), GRID, points)[0] == 0


def test_equal_directions_keep_the_inverted_backward_map():
    H = zoom(1.4)
    forward, backward = both_directions(H)
    assert sizes(H) == (100, 100)
    kept = overlap.correspondences(H, GRID, all_points(GRID), all_points(GRID))
    assert np.array_equal(kept, invert_correspondences(backward))
    assert not np.array_equal(kept, forward)  # the other direction gives another map of the same size


def test_points_behind_the_horizon_are_out():
    # w = 1 - x / 100: everything right of column 100 lies behind the horizon and would fold back into the image.
    H = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1.0]])
    _, in_front = homography.project(H, all_points(GRID))
    assert np.array_equal(in_front, all_points(GRID)[..., 0] < 100)
    winners = overlap.vote(H, GRID, all_points(GRID)).reshape(14, 14)
    assert (winners[:, 7:] == 196).all()
    folded = overlap.vote(H, GRID, all_points(GRID), folded=True).reshape(14, 14)
    assert np.array_equal(folded[:, :6], winners[:, :6])
    assert homography.transform(H, np.array([[220.0, 220.0]], np.float32)) == pytest.approx(-220 / 1.2)


def test_w_of_zero_does_not_land_in_patch_zero_unless_as_published():
    H = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0.0]])
    assert (overlap.vote(H, GRID, all_points(GRID)) == 196).all()
    assert (overlap.vote(H, GRID, all_points(GRID), folded=True) == 0).all()


@pytest.mark.parametrize(
    "H", [np.zeros((3, 3)), np.diag([1.0, 1.0, 0.0]), np.full((3, 3), np.nan), np.diag([np.inf, 1, 1])]
)
def test_singular_and_non_finite_matrices_are_not_usable(H):
    assert not homography.is_usable(H)


def test_collinear_matches_give_a_drop_reason_not_a_crash():
    points = np.stack([np.linspace(0, 200, 20), np.full(20, 50.0)], axis=1).astype(np.float32)
    rng = np.random.default_rng(0)
    descriptors = rng.integers(0, 256, (20, 128), dtype=np.uint8)
    result = overlap.measure(Features(points, descriptors), Features(points, descriptors), GRID)
    assert result in (DropReason.NO_HOMOGRAPHY, DropReason.BAD_HOMOGRAPHY)


def test_drop_reasons_of_poor_features():
    none = Features(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8))
    rng = np.random.default_rng(0)
    ten = Features(rng.random((10, 2), np.float32) * 224, rng.integers(0, 256, (10, 128), dtype=np.uint8))
    assert overlap.measure(none, ten, GRID) is DropReason.NO_KEYPOINTS
    assert overlap.measure(ten, none, GRID) is DropReason.NO_KEYPOINTS
    assert overlap.measure(ten, ten, GRID) is DropReason.TOO_FEW_MATCHES  # 10 survive, 11 are needed


def test_eleven_matches_are_enough():
    rng = np.random.default_rng(0)
    eleven = Features(rng.random((11, 2), np.float32) * 224, rng.integers(0, 256, (11, 128), dtype=np.uint8))
    result = overlap.measure(eleven, eleven, GRID)
    assert not isinstance(result, DropReason)
    assert (result.ratio, result.num_matches, result.num_inliers) == (1.0, 11, 11)


@settings(max_examples=12, deadline=None)
@given(homographies(), st.integers(0, 2**32 - 1))
def test_sampled_points_give_the_literal_map(H, seed):
    rng = np.random.default_rng(seed)
    points0, points1 = sampled_points(GRID, 100, rng), sampled_points(GRID, 100, rng)
    expected, expected_sizes = literal_map(H, points0, points1)
    corr = overlap.correspondences(H, GRID, points0, points1)
    assert {int(i): int(corr[i]) for i in np.flatnonzero(corr >= 0)} == expected
    forward, backward = both_directions(H, points0, points1)
    assert (np.count_nonzero(forward >= 0), np.count_nonzero(backward >= 0)) == expected_sizes


@settings(max_examples=3, deadline=None)
@given(homographies())
def test_all_pixels_give_the_literal_map(H):
    expected, _ = literal_map(H, all_points(GRID), all_points(GRID))
    corr = overlap.correspondences(H, GRID, all_points(GRID), all_points(GRID))
    assert {int(i): int(corr[i]) for i in np.flatnonzero(corr >= 0)} == expected


@settings(max_examples=100, deadline=None)
@given(homographies())
def test_maps_are_one_to_one_and_the_smaller_direction_counts(H):
    corr = overlap.correspondences(H, GRID, all_points(GRID), all_points(GRID))
    kept = corr[corr >= 0]
    assert len(np.unique(kept)) == len(kept)
    assert ((kept >= 0) & (kept < 196)).all()
    assert len(kept) == min(sizes(H))


@given(st.lists(st.integers(0, 196), min_size=196, max_size=196))
def test_invert_twice_is_the_map_itself(winners):
    corr = overlap.one_to_one(np.array(winners))
    assert np.array_equal(invert_correspondences(invert_correspondences(corr)), corr)


@settings(max_examples=50, deadline=None)
@given(st.floats(1.0, 4.0))
def test_a_zoom_caps_the_overlap_near_its_inverse_square(factor):
    corr = overlap.correspondences(zoom(factor, 0.0), GRID, all_points(GRID), all_points(GRID))
    # Patches that straddle the border are counted by majority: at most one row and one column more.
    assert np.count_nonzero(corr >= 0) <= (14 / factor + 1) ** 2
