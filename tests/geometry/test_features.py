"""SIFT keypoints and matches: equal to OpenCV's own matcher, and right on images with known homographies."""

import json

import cv2
import numpy as np
import pytest

from mimic_wds.geometry import features, homography, overlap
from mimic_wds.geometry.features import Features
from mimic_wds.geometry.patches import PatchGrid
from mimic_wds.pairs import Overlap

GRID = PatchGrid(224, 224, 16)


def textured(seed=0, side=300):
    """Blurred noise at three scales: a few hundred SIFT keypoints."""
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.random((s, s, 3), np.float32), (side, side)) for s in (20, 60, 150)]
    return (np.mean(layers, axis=0) * 255).astype(np.uint8)


def brute_force(f0, f1, ratio=0.7):
    """OpenCV's matcher with the ratio test as Python compares it."""
    found = cv2.BFMatcher().knnMatch(f0.descriptors.astype(np.float32), f1.descriptors.astype(np.float32), k=2)
    return [(p[0].queryIdx, p[0].trainIdx) for p in found if len(p) == 2 and p[0].distance < ratio * p[1].distance]


def test_matches_equal_the_brute_force_matcher():
    image = textured()
    H = np.array([[0.9, 0.1, 20], [-0.1, 0.95, 30], [1e-4, 0, 1]])
    warped = cv2.warpPerspective(image, H, (300, 300))
    f0, f1 = features.extract(image), features.extract(warped)
    found = features.match(f0, f1)
    assert len(found) > 100
    assert [tuple(pair) for pair in found] == brute_force(f0, f1)


def test_descriptors_survive_as_bytes():
    gray = cv2.cvtColor(textured(), cv2.COLOR_RGB2GRAY)
    _, exact = cv2.SIFT_create().detectAndCompute(gray, None)
    assert np.array_equal(features.extract(textured()).descriptors.astype(np.float32), exact)


def test_equal_descriptors_never_pass_the_ratio_test():
    same = Features(np.zeros((2, 2), np.float32), np.full((2, 128), 7, np.uint8))
    assert len(features.match(same, same)) == 0


def test_a_flat_image_has_no_keypoints():
    assert len(features.extract(np.full((224, 224, 3), 128, np.uint8))) == 0


def test_a_single_descriptor_has_no_second_neighbour():
    one = Features(np.zeros((1, 2), np.float32), np.ones((1, 128), np.uint8))
    assert len(features.match(one, one)) == 0


def test_known_warp_is_recovered_within_a_pixel():
    image = textured(1, 224)
    H = np.array([[0.95, 0.05, 40], [-0.03, 0.97, 15], [1e-4, -1e-4, 1]])
    result = overlap.measure(features.extract(image), features.extract(cv2.warpPerspective(image, H, (224, 224))), GRID)
    assert isinstance(result, Overlap)
    corners = np.array([[60, 60], [150, 60], [150, 150], [60, 150]], np.float32)
    expected, _ = homography.project(H, corners)
    found, _ = homography.project(result.H_0to1, corners)
    assert np.abs(expected - found).max() < 1.0


def test_overlap_of_image_sets_with_exact_homographies(shared_data):
    """Three planar sets, 15 pairs: the exact homography gives the stated overlap, SIFT's lies within 0.021 of it."""
    compared = 0
    for truth_file in sorted((shared_data / "images/homography").glob("*/overlap.json")):
        stated = {entry["pair"][1]: entry["overlap_from_true_H"] for entry in json.loads(truth_file.read_text())}
        for k, exact_H in exact_homographies(truth_file.parent):
            exact = overlap.overlap_ratio(overlap.correspondences(exact_H, GRID, *overlap.vote_points(GRID)))
            assert 100 * exact == pytest.approx(stated[k], abs=0.6)  # one patch: resizing has two pixel conventions
            result = overlap.measure(load(truth_file.parent / "1.jpg"), load(truth_file.parent / f"{k}.jpg"), GRID)
            if isinstance(result, Overlap):
                assert result.ratio == pytest.approx(exact, abs=0.021), (truth_file.parent.name, k)
                compared += 1
    assert compared >= 10


def load(path):
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return features.extract(cv2.resize(image, (224, 224)))


def exact_homographies(folder):
    """(k, H at 224 x 224) for H_1_2 .. H_1_6."""
    height0, width0 = cv2.imread(str(folder / "1.jpg")).shape[:2]
    for k in range(2, 7):
        height1, width1 = cv2.imread(str(folder / f"{k}.jpg")).shape[:2]
        H = np.loadtxt(folder / f"H_1_{k}")
        to_small1 = np.diag([224 / width1, 224 / height1, 1.0])
        yield k, to_small1 @ H @ np.diag([width0 / 224, height0 / 224, 1.0])
