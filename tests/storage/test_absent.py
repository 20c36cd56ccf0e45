"""What an import does not know is marked in one way; any other way, or in a data set that was mined, is a problem."""

import numpy as np
import pytest
from samples import CRITERIA, make_data_set, make_sample

from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.verify import check_sample

NO_HOMOGRAPHY = {"H_0to1": np.zeros((3, 3)), "num_inliers": -1}
NO_CORRESPONDENCES = {"corr_0to1": np.full(16, -1, np.int16), "overlap": -1.0}


@pytest.fixture
def manifest(tmp_path):
    make_data_set(tmp_path / "tiny", (1,))
    mined = read_manifest(tmp_path / "tiny")
    mined.criteria.clear()
    mined.criteria.update({"preset": "import", "size": CRITERIA["size"], "patch_size": CRITERIA["patch_size"]})
    return mined


def kinds(manifest, recompute=None, **changes):
    return [kind for kind, _ in check_sample(make_sample(**changes), manifest, recompute)]


@pytest.mark.parametrize("changes", [{}, NO_HOMOGRAPHY, {**NO_HOMOGRAPHY, **NO_CORRESPONDENCES}])
def test_an_import_may_not_know(manifest, changes):
    assert kinds(manifest, **changes) == []


def test_a_map_without_homography_is_not_recomputed(manifest):
    def fail(sample):
        raise AssertionError("there is nothing to recompute it from")

    assert kinds(manifest, fail, **NO_HOMOGRAPHY) == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"H_0to1": np.zeros((3, 3))}, "homography"),  # with a number of inliers
        ({"num_inliers": -1}, "homography"),  # with a homography
        ({**NO_HOMOGRAPHY, "num_inliers": -2}, "homography"),
        ({**NO_HOMOGRAPHY, "H_0to1": np.full((3, 3), np.nan)}, "homography"),
        ({**NO_HOMOGRAPHY, **NO_CORRESPONDENCES, "overlap": 0.0}, "overlap"),
        ({**NO_HOMOGRAPHY, "overlap": -1.0}, "overlap"),  # though there are correspondences
        (NO_CORRESPONDENCES, "overlap"),  # though there is a homography
    ],
)
def test_half_a_mark_is_a_problem(manifest, changes, kind):
    assert kinds(manifest, **changes) == [kind]


def test_a_mined_data_set_knows(manifest):
    manifest.criteria.update(CRITERIA)
    assert kinds(manifest, **NO_HOMOGRAPHY) == ["homography"]
    assert set(kinds(manifest, **NO_HOMOGRAPHY, **NO_CORRESPONDENCES)) == {"homography", "overlap"}
