"""Shuffle quality: measured figures against a permutation made by hand, and what windows do to them."""

import numpy as np
import pytest

from mimic_wds.loading.order import Order
from mimic_wds.loading.quality import ideal_distance, ideal_same_scene, same_scene_share, shuffle_quality


def test_ideals_are_those_of_real_permutations():
    rng, num, batch, scene = np.random.default_rng(0), 20_000, 200, 20
    steps = np.argsort(rng.permutation(num)) // batch
    distances = np.abs(np.diff(steps))
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(distances, share) == pytest.approx(ideal_distance(share) * num / batch, abs=1.5)
    shares = [same_scene_share(rng.permutation(num)[:batch], scene) for _ in range(300)]
    assert np.mean(shares) == pytest.approx(ideal_same_scene(num, batch, scene), abs=0.01)


def test_one_window_over_all_is_as_good_as_a_permutation():
    for lanes in (1, 8, 32):
        quality = shuffle_quality(Order([400] * 60, 96, 1, lanes=lanes, window=60), scene_samples=40)
        for percentile, value in quality.distance.items():
            assert value == pytest.approx(quality.ideal_distance[percentile], rel=0.05, abs=2)
        assert quality.same_scene < quality.ideal_same_scene + 0.05  # lanes spread samples more evenly than chance


def test_shards_mixed_at_a_time_decide_and_not_how_they_are_laid_out():
    measured = {}
    for lanes, window in ((4, 1), (1, 4), (16, 1), (4, 4), (16, 4)):
        order = Order([500] * 200, 160, 2, lanes=lanes, window=window)
        measured[lanes, window] = shuffle_quality(order, scene_samples=50, seed=3)
    same = {key: quality.same_scene for key, quality in measured.items()}
    # of n mixed shards, a sample meets one of the 49 others of its scene with chance 1 - (1 - 49 / (500 n)) ** 159
    for (lanes, window), share in same.items():
        expected = 1 - (1 - 49 / (500 * lanes * window)) ** 159
        assert share == pytest.approx(expected, abs=0.08)
    assert same[4, 1] > same[16, 1] > same[16, 4] > measured[4, 1].ideal_same_scene
    middle = {key: quality.distance["p50"] for key, quality in measured.items()}
    assert middle[4, 1] < middle[4, 4] < middle[16, 4] < measured[4, 1].ideal_distance["p50"]


def test_single_samples_are_no_scene():
    quality = shuffle_quality(Order([1] * 50, 10), scene_samples=1)
    assert (quality.same_scene, quality.ideal_same_scene) == (0, 0)
