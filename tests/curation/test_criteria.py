"""Thresholds: strict bounds at the patch, presets, and how an image is brought to size."""

import numpy as np
import pytest

from mimic_wds.curation.criteria import PRESETS, Criteria, preset
from mimic_wds.curation.fitting import fit_image
from mimic_wds.pairs import DropReason, Overlap


def measured(patches):
    return Overlap(ratio=patches / 196, corr_0to1=None, H_0to1=None, num_matches=0, num_inliers=0)


def test_bounds_are_strict_so_99_to_146_of_196_patches_are_kept():
    outcomes = [Criteria().judge(measured(n)) for n in range(197)]
    assert [n for n, o in enumerate(outcomes) if isinstance(o, Overlap)] == list(range(99, 147))
    assert outcomes[98] is DropReason.OVERLAP_TOO_SMALL
    assert outcomes[147] is DropReason.OVERLAP_TOO_LARGE


def test_a_drop_reason_passes_through():
    assert Criteria().judge(DropReason.NO_HOMOGRAPHY) is DropReason.NO_HOMOGRAPHY


def test_the_paper_preset_draws_100_points():
    assert preset("paper").points_per_patch == 100
    assert preset("default").points_per_patch == 0
    assert all((c.min_overlap, c.max_overlap, c.size, c.patch_size) == (0.5, 0.75, 224, 16) for c in PRESETS.values())
    with pytest.raises(ValueError, match="unknown preset 'papr'; did you mean 'paper'"):
        preset("papr")


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_overlap": 0.8},
        {"max_overlap": 1.5},
        {"size": 225},
        {"patch_size": 0},
        {"min_matches": 3},
        {"lowe_ratio": 0},
        {"jpeg_quality": 0},
        {"ransac_px": 0},
    ],
)
def test_impossible_criteria_are_refused(wrong):
    named = "height 225" if "size" in wrong else next(iter(wrong))
    with pytest.raises(ValueError, match=named):
        Criteria(**wrong)


def test_squash_and_crop():
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 50:150] = 255  # the centre square is white
    cropped = fit_image(image, Criteria(fit="crop"))
    assert cropped.shape == (224, 224, 3)
    assert cropped.min() == 255
    squashed = fit_image(image, Criteria())
    assert squashed.shape == (224, 224, 3)
    assert squashed.mean() == pytest.approx(127.5, abs=2)
    same = np.zeros((224, 224, 3), np.uint8)
    assert fit_image(same, Criteria()) is same
