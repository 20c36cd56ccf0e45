"""The fast form decides and maps as the literal algorithm does: on real pairs and on random homographies."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mimic_wds.geometry import features, homography, overlap, patches
from mimic_wds.geometry.features import Features
from mimic_wds.geometry.literal import literal_map, literal_matches, literal_overlap
from mimic_wds.geometry.patches import PatchGrid, all_points, sampled_points
from mimic_wds.pairs import DropReason

GRID = PatchGrid(224, 224, 16)


def images_of(folder, limit):
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".png"))[:limit]
    return [cv2.resize(cv2.imread(str(file))[..., ::-1], (224, 224)) for file in files]


def frames_of(video, every, limit):
    capture, frames, index = cv2.VideoCapture(str(video)), [], 0
    while len(frames) < limit and capture.grab():
        if index % every == 0:
            frames.append(cv2.resize(capture.retrieve()[1][..., ::-1], (224, 224)))
        index += 1
    capture.release()
    return frames


def real_pairs(shared_data):
    """Neighbours of photographs and of frames, and crops of the same photograph."""
    photographs = [images_of(shared_data / "images" / name, 8) for name in ("lund_street", "tum_desk", "buddha")]
    videos = sorted((shared_data / "video").rglob("*.mp4"))[:2]
    for group in [*photographs, *(frames_of(video, 15, 6) for video in videos)]:
        yield from pairwise(group)
    for image in photographs[0]:
        yield cv2.resize(image[:170, :180], (224, 224)), cv2.resize(image[30:, 40:], (224, 224))


def as_tuple(result):
    """A decision with everything that it says."""
    if isinstance(result, DropReason):
        return result
    corr, H = result.corr_0to1.tolist(), result.H_0to1.tolist()
    return result.ratio, corr, H, result.num_matches, result.num_inliers


def test_real_pairs_are_decided_and_mapped_as_the_literal_algorithm_does(shared_data):
    outcomes = []
    for number, (image0, image1) in enumerate(real_pairs(shared_data)):
        points0, points1 = overlap.vote_points(GRID, 40, np.random.default_rng(number))
        expected = literal_overlap(image0, image1, points0, points1)
        rng = np.random.default_rng(number)  # draws the same points
        found = overlap.measure(features.extract(image0), features.extract(image1), GRID, num_points=40, rng=rng)
        assert as_tuple(found) == as_tuple(expected), number
        outcomes.append(isinstance(found, DropReason))
    assert len(outcomes) >= 36
    assert outcomes.count(False) >= 20


def test_all_pixels_of_a_real_pair(shared_data):
    image0, image1 = images_of(shared_data / "images/lund_street", 2)
    found = overlap.measure(features.extract(image0), features.extract(image1), GRID)
    assert as_tuple(found) == as_tuple(literal_overlap(image0, image1, all_points(GRID), all_points(GRID)))


def random_homography(rng):
    """From mild to wild: turned, sheared, zoomed, mirrored, with the horizon inside the image."""
    to_centre, back = np.eye(3), np.eye(3)
    to_centre[:2, 2] = -112
    back[:2, 2] = 112 + rng.uniform(-150, 150, 2)
    H = np.eye(3)
    H[:2, :2] = rng.normal(0, 1, (2, 2)) if rng.random() < 0.5 else np.eye(2) + rng.normal(0, 0.1, (2, 2))
    H[2, :2] = rng.uniform(-1, 1, 2) * rng.choice([0, 1e-3, 1e-2])
    return back @ H @ to_centre * rng.choice([-1.0, 1.0, 1e-3, 1e3], p=[0.1, 0.7, 0.1, 0.1])


@pytest.mark.parametrize("folded", [False, True])
def test_hundreds_of_random_homographies(folded):
    """With few points in a patch: equal counts are frequent then, and the rule that decides them is at work."""
    rng = np.random.default_rng(0)
    kept = 0
    for number in range(400):
        H = random_homography(rng)
        if number % 10 == 0:
            H = np.round(H)  # whole numbers and zeros: points exactly on borders
        if not homography.is_usable(H):
            continue
        num_points = int(rng.integers(1, 13))
        points0, points1 = (sampled_points(GRID, num_points, rng) for _ in range(2))
        expected, _ = literal_map(H, points0, points1, folded=folded)
        corr = overlap.correspondences(H, GRID, points0, points1, folded=folded)
        assert {int(i): int(corr[i]) for i in np.flatnonzero(corr >= 0)} == expected, number
        kept += len(expected)
    assert kept > 5000


@settings(max_examples=200, deadline=None)
@given(arrays(np.intp, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=st.integers(0, 4)))
def test_the_first_label_to_reach_the_winning_count_wins(labels):
    expected = []
    for row in labels.tolist():
        running = [row[: i + 1].count(label) for i, label in enumerate(row)]
        expected.append(row[running.index(max(running))])
    assert overlap._plurality(labels, 5).tolist() == expected


@pytest.mark.parametrize("grid", [GRID, PatchGrid(48, 80, 16), PatchGrid(60, 30, 10), PatchGrid(7, 300, 1)])
def test_labels_are_those_of_the_truncated_coordinates(grid):
    """The last grid has more columns than the table of labels holds."""
    rng = np.random.default_rng(0)
    points = (rng.random((3000, 2)) * 2 - 0.5) * (grid.width, grid.height)
    edges = np.array([-1e-30, -0.0, 0.0, 1e30, -1e30, np.inf, -np.inf, 2**31, -(2**31), 255, 256, 65536])
    edges = np.concatenate([edges, *(np.arange(0, grid.width + 1, grid.patch_size) + shift for shift in (0, -1e-3))])
    points = np.concatenate([points, np.stack(np.meshgrid(edges, edges), -1).reshape(-1, 2)]).astype(np.float32)
    expected = [
        int(y) // grid.patch_size * grid.cols + int(x) // grid.patch_size
        if 0 <= x < grid.width and 0 <= y < grid.height
        else grid.num_patches
        for x, y in points.tolist()
    ]
    assert grid.label(points).tolist() == expected
    assert grid.label(np.asfortranarray(points)).tolist() == expected


@settings(max_examples=200, deadline=None)
@given(*[st.floats(-2, 2, allow_nan=False, width=32)] * 2, st.floats(-300, 300, allow_nan=False))
def test_a_patch_is_in_front_only_if_all_its_points_are(a, b, c):
    H = np.array([[1, 0, 0], [0, 1, 0], [a, b, c]])
    lowest = homography.depths(H, all_points(GRID)).min(1)
    is_in_front = homography.is_in_front(H, *GRID.origins().T.astype(float), 16, 16)
    assert (lowest[is_in_front] > 0).all()
    assert not homography.is_in_front(H, 0.0, 0.0, 224, 224) or is_in_front.all()
    # Doubtful ones have their lowest point behind the horizon, within a pixel of it, or as near as rounding goes.
    assert (lowest[~is_in_front] <= (abs(a) + abs(b)) * (1 + 1e-6) + 1e-6 * abs(c)).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 40), st.sampled_from([2, 4, 256]))
def test_any_bytes_match_as_the_brute_force_matcher_matches_them(seed, num0, num1, num_values):
    """With few values equal distances are frequent; with 0 and 255 alone distances come near the exact limit."""
    rng = np.random.default_rng(seed)
    values = np.linspace(0, 255, num_values).astype(np.uint8)
    f0, f1 = (Features(np.zeros((n, 2), np.float32), rng.choice(values, (n, 128))) for n in (num0, num1))
    f0.descriptors[: num0 // 2] = f1.descriptors[rng.integers(0, num1, num0 // 2)]
    expected = literal_matches(*(f.descriptors.astype(np.float32) for f in (f0, f1)), ratio=0.95)
    assert features.match(f0, f1, 0.95).tolist() == [[m.queryIdx, m.trainIdx] for m in expected]


def test_sampled_points_are_pixels_of_their_patch_each_as_likely():
    grid = PatchGrid(32, 48, 16)
    points = sampled_points(grid, 20000, np.random.default_rng(0))
    assert points.shape == (6, 20000, 2)
    assert points.dtype == np.float32
    assert np.array_equal(grid.label(points), np.repeat(np.arange(6), 20000).reshape(6, -1))
    offsets = (points - grid.origins()[:, None]).astype(int)
    counts = np.bincount((offsets[..., 1] * 16 + offsets[..., 0]).ravel(), minlength=256)
    assert np.abs(counts / counts.mean() - 1).max() < 0.25  # 469 draws a pixel: five standard deviations


def test_tables_and_points_that_are_shared_cannot_be_written_to():
    for shared in (all_points(GRID), patches._label_table(14, 14)):
        with pytest.raises(ValueError, match="read-only"):
            shared[0] = 0
