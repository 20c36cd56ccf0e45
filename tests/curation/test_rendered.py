"""Rendered views: their cameras and depth go through curation into shards, and can measure the overlap themselves."""

from dataclasses import replace

import numpy as np
import pytest
from videos import texture

from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.fitting import fit_camera, fit_depth, fit_image
from mimic_wds.curation.scene import Tally, curate
from mimic_wds.pairs import AllPairs, Camera, DropReason, Scene, View
from mimic_wds.storage.maps import decode_depth

SCENE = Scene(source="mesh", name="wall", path="wall.glb")
SIDE, FOCAL, DEPTH_M = 224, 128.0, 2.0


def wall_view(shift_patches=0, side=SIDE, **changes):
    """A wall seen straight on from so many patches further right: pixels move left by 16 each."""
    K = np.array([[FOCAL, 0, (SIDE - 1) / 2], [0, FOCAL, (SIDE - 1) / 2], [0, 0, 1]])
    pose = np.eye(4)
    pose[0, 3] = 16 * shift_patches * DEPTH_M / FOCAL
    image = texture(3, SIDE, 2 * SIDE)[:, 16 * shift_patches : 16 * shift_patches + SIDE]
    view = View(
        image=np.ascontiguousarray(image),
        frame=str(shift_patches),
        camera=Camera(intrinsics=K, pose=pose),
        depth=np.full((SIDE, SIDE), DEPTH_M, np.float32),
    )
    return replace(view, **changes)


def kept(views, **changes):
    tally = Tally()
    criteria = replace(Criteria(), **changes)
    return list(curate(SCENE, views, AllPairs(), criteria, tally)), tally


def test_cameras_covisibility_and_depth_are_stored_when_asked_for():
    (sample,), _ = kept([wall_view(), wall_view(4)], store_truth=True, store_depth=True)
    assert sample.truth.camera0.pose[0, 3] == 0
    assert sample.truth.camera1.pose[0, 3] == 1.0
    assert sample.truth.camera1.intrinsics[0].tolist() == [128, 0, 111.5]
    # 160 of 224 columns are seen by both; pixels are 1/64 m apart, so 3 more lie within 5 cm of a seen one.
    assert sample.truth.covisibility == pytest.approx((160 + 3) / 224, abs=1e-9)
    assert decode_depth(sample.maps["1.depth.png"]).tolist() == np.full((SIDE, SIDE), 2.0).tolist()


def test_nothing_is_stored_unasked():
    (sample,), _ = kept([wall_view(), wall_view(4)])
    assert sample.truth is None
    assert sample.maps == {}


def test_what_a_source_does_not_know_is_marked():
    views = [wall_view(n, camera=None, depth=None) for n in (0, 4)]
    (sample,), _ = kept(views, store_truth=True, store_depth=True)
    assert (sample.truth.camera0, sample.truth.covisibility) == (None, -1)
    assert not decode_depth(sample.maps["0.depth.png"]).any()


@pytest.mark.parametrize(("shift", "overlap"), [(4, 10 / 14), (5, 9 / 14), (6, 8 / 14)])
def test_the_true_overlap_of_a_wall_is_its_share_of_columns(shift, overlap):
    blank = np.full((SIDE, SIDE, 3), 128, np.uint8)  # without a single keypoint
    (sample,), _ = kept([wall_view(image=blank), wall_view(shift, image=blank)], estimator="truth")
    assert sample.overlap == pytest.approx(overlap)
    columns = np.where(np.arange(14) >= shift, np.arange(14) - shift, -1)
    rows = 14 * np.arange(14)[:, None]
    assert np.array_equal(sample.corr_0to1.reshape(14, 14), np.where(columns < 0, -1, rows + columns))
    assert not sample.H_0to1.any()
    assert sample.num_inliers == -1


def test_homography_and_truth_agree_on_a_wall():
    views = [wall_view(), wall_view(5)]
    (by_keypoints,), _ = kept(views)
    (by_depth,), _ = kept(views, estimator="truth")
    assert by_keypoints.overlap == pytest.approx(by_depth.overlap, abs=1 / 14 + 1e-9)


def test_the_true_overlap_needs_depth():
    samples, tally = kept([wall_view(), wall_view(4, depth=None)], estimator="truth")
    assert samples == []
    assert tally.dropped == {"no_depth": 1}


def test_a_view_that_its_source_refuses_is_in_no_pair():
    views = [wall_view(), wall_view(4, unusable=DropReason.EMPTY_VIEW), wall_view(5)]
    samples, tally = kept(views)
    assert [(s.frame0, s.frame1) for s in samples] == [("0", "5")]
    assert tally.counts().dropped == {"empty_view": 2}
    assert (tally.views, dict(tally.faults)) == (3, {})


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("shape", [(480, 640), (300, 200), (256, 256)])
def test_a_point_of_the_world_stays_at_its_place_in_the_picture(fit, shape):
    """A bright dot, its depth, and where the camera says it is, before and after."""
    criteria = Criteria(fit=fit, size=112)
    height, width = shape
    row, column = height // 2 + 20, width // 2 - 30
    image, depth = np.empty((*shape, 3), np.uint8), np.ones(shape, np.float32)
    rows, columns = np.indices(shape)
    blob = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 8**2))  # smooth: no way of resizing moves it
    image[:] = np.rint(255 * blob)[..., None]
    depth[row - 6 : row + 7, column - 6 : column + 7] = 3
    camera = Camera(intrinsics=np.array([[200.0, 0, width / 2], [0, 190, height / 2], [0, 0, 1]]), pose=np.eye(4))
    ray = np.linalg.inv(camera.intrinsics) @ (column, row, 1)
    expected = fit_camera(camera, shape, criteria).intrinsics @ ray
    weight = fit_image(image, criteria)[..., 0].astype(float)
    rows, columns = np.indices(weight.shape)
    assert (columns * weight).sum() / weight.sum() == pytest.approx(expected[0], abs=0.25)
    assert (rows * weight).sum() / weight.sum() == pytest.approx(expected[1], abs=0.25)
    assert set(np.unique(fit_depth(depth, criteria))) == {1.0, 3.0}
    assert fit_depth(depth, criteria)[round(expected[1]), round(expected[0])] == 3


def test_true_overlaps_and_checks_of_homographies_exclude_each_other():
    with pytest.raises(ValueError, match="the true overlap has no homography"):
        Criteria(estimator="truth", drop_zooms=True)
