"""True overlap on scenes that can be worked out by hand, against the homography of a pure rotation, and on renders."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_wds.geometry import overlap
from mimic_wds.geometry.patches import PatchGrid, all_points
from mimic_wds.geometry.truth import (
    PairScore,
    PosedDepth,
    correspondence_errors,
    landing_pixels,
    patch_winners,
    pixel_patches,
    plurality,
    score_figures,
    true_overlap,
)

GRID = PatchGrid(64, 64, 8)
L = GRID.num_patches
FOCAL = 60.0
K = np.array([[FOCAL, 0, 32], [0, FOCAL, 32], [0, 0, 1.0]])
TOOL = Path(__file__).parents[2] / "tools" / "bench_overlap_truth.py"

#: One patch of the 14 x 14 and the rounding of the stated figures to a tenth, in points.
ONE_PATCH = 100 / 196 + 0.05


def rotation(yaw, pitch=0.0, roll=0.0):
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (yaw, pitch, roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return about_y @ about_x @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])


def pose(R=None, x=0.0, y=0.0, z=0.0):
    result = np.eye(4)
    result[:3, :3] = np.eye(3) if R is None else R
    result[:3, 3] = x, y, z
    return result


def view(depth, camera_to_world=None, K=K):
    depth = np.full((64, 64), depth, float) if np.isscalar(depth) else depth
    return PosedDepth(depth_m=depth, K=K, camera_to_world=pose() if camera_to_world is None else camera_to_world)


def sideways(pixels, depth_m):
    """The step to the right that moves a surface at this depth so many pixels to the left."""
    return pixels * depth_m / FOCAL


def ray_sphere_depth(K=K, shape=(64, 64), radius=3.0):
    """Depth along z of a sphere round the camera: the same for every rotation of it."""
    row, column = np.indices(shape)
    rays = np.stack([column + 0.5, row + 0.5, np.ones(shape)], -1) @ np.linalg.inv(K).T
    return radius / np.linalg.norm(rays, axis=-1)


# a wall that faces the cameras


@given(columns=st.integers(0, 8), rows=st.integers(-3, 3), depth=st.floats(0.5, 20))
@settings(max_examples=30, deadline=None)
def test_wall_moves_by_whole_patches(columns, rows, depth):
    moved = pose(x=sideways(8 * columns, depth), y=sideways(8 * rows, depth))
    truth = true_overlap(view(depth), view(depth, moved), GRID)
    row, column = np.divmod(np.arange(L), 8)
    inside = (column >= columns) & (row - rows >= 0) & (row - rows < 8)
    expected = np.where(inside, (row - rows) * 8 + column - columns, -1)
    assert np.array_equal(truth.corr_0to1, expected)
    assert truth.ratio == (8 - columns) * (8 - abs(rows)) / 64


def test_step_forward_counts_each_target_once():
    """Twice as near: the inner quarter of view 0 fills view 1, and each of its 16 patches is matched once."""
    truth = true_overlap(view(4.0), view(2.0, pose(z=2.0)), GRID)
    assert truth.ratio == 16 / 64
    rows, columns = np.divmod(np.flatnonzero(truth.corr_0to1 >= 0), 8)
    assert set(rows) == set(columns) == {2, 3, 4, 5}
    # Four patches of view 1 come from each patch; the first in raster order has it.
    assert truth.corr_0to1[2 * 8 + 2] == 0
    assert truth.corr_0to1[5 * 8 + 5] == 6 * 8 + 6


def test_wall_behind_the_camera_and_no_surface_are_out():
    turned = view(3.0, pose(rotation(np.pi)))
    assert true_overlap(view(3.0), turned, GRID).ratio == 0
    # Divided by nothing, these points would lie in the middle of the other picture.
    beside = view(0.3, pose(rotation(np.pi), x=0.7, y=-0.7))
    assert np.all(landing_pixels(view(0.3), beside, occlusion=False) == -1)
    assert true_overlap(view(0.0), view(0.0), GRID).ratio == 0
    assert np.all(landing_pixels(view(0.0), view(0.0), occlusion=False) == -1)


# rotation on the spot: the homography K R K^-1 says the same


@given(yaw=st.floats(-0.6, 0.6), pitch=st.floats(-0.4, 0.4), roll=st.floats(-1.5, 1.5))
@settings(max_examples=40, deadline=None)
def test_rotation_is_its_homography(yaw, pitch, roll):
    R = rotation(yaw, pitch, roll)
    sphere = ray_sphere_depth()
    truth = true_overlap(view(sphere), view(sphere, pose(R)), GRID)
    H_0to1 = K @ R.T @ np.linalg.inv(K)
    centres = all_points(GRID) + np.float32(0.5)
    votes = overlap.vote(H_0to1, GRID, centres), overlap.vote(np.linalg.inv(H_0to1), GRID, centres)
    # Points within float32 of a border may fall on either side and turn a close vote.
    assert np.count_nonzero(truth.winners_0to1 != votes[0]) <= 1
    assert np.count_nonzero(truth.winners_1to0 != votes[1]) <= 1
    expected = overlap.overlap_ratio(overlap.correspondences(H_0to1, GRID, centres, centres))
    assert truth.ratio == pytest.approx(expected, abs=1.01 / 64)


# something in front of the wall


def wall_with_box(first, last, shift=0):
    """A wall at 4 m with a box at 2 m in the patch columns first..last-1, moved to the left by `shift` pixels."""
    depth = np.full((64, 64), 4.0)
    depth[:, max(8 * first - shift, 0) : max(8 * last - shift, 0)] = 2.0
    return depth


@given(first=st.integers(2, 6), width=st.integers(1, 2))
def test_box_hides_the_wall_behind_it(first, width):
    """The wall moves one patch to the left, the box two: it hides the column of wall on its left."""
    last = min(first + width, 8)
    moved = view(wall_with_box(first, last, shift=16), pose(x=sideways(8, 4.0)))
    still = view(wall_with_box(first, last))
    columns = np.arange(8)
    box = (columns >= first) & (columns < last)
    seen = np.where(box, columns - 2, columns - 1)
    hidden = ~box & np.isin(seen, seen[box])
    expected = np.where((seen >= 0) & ~hidden, seen, 8)
    winners = patch_winners(still, moved, GRID).reshape(8, 8)
    assert np.array_equal(np.where(winners < L, winners % 8, 8), np.tile(expected, (8, 1)))
    assert hidden.sum() == 1
    # Without occlusion two columns claim one place: the first has it, and the overlap is larger or the same.
    through = patch_winners(still, moved, GRID, occlusion=False).reshape(8, 8)
    assert np.array_equal(through[:, hidden] % 8, np.full((8, 1), seen[hidden][0]))
    assert true_overlap(still, moved, GRID).ratio <= true_overlap(still, moved, GRID, occlusion=False).ratio


def test_tolerance_is_a_centimetre_and_a_share_of_the_depth():
    tolerance = 0.01 + 0.015 * 4.0
    for difference, ratio in ((0.9 * tolerance, 1.0), (1.1 * tolerance, 0.0), (-0.9 * tolerance, 1.0)):
        assert true_overlap(view(4.0), view(4.0 + difference, pose()), GRID).ratio == ratio, difference


# properties


@st.composite
def posed_pairs(draw):
    """Two views of a bumpy wall (not consistent with each other: the properties need no real scene)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    views = []
    for _ in range(2):
        bumps = cv2.resize(rng.uniform(2.9, 3.1, (4, 4)), (64, 64), interpolation=cv2.INTER_NEAREST)
        R = rotation(*rng.uniform(-0.2, 0.2, 3))
        views.append(view(bumps, pose(R, *rng.uniform(-0.5, 0.5, 3))))
    return views


@given(pair=posed_pairs())
@settings(max_examples=25, deadline=None)
def test_swapped_views_overlap_the_same(pair):
    truth, swapped = true_overlap(*pair, GRID), true_overlap(*reversed(pair), GRID)
    assert truth.ratio == swapped.ratio
    assert np.array_equal(truth.places(), swapped.places().T)


@given(pair=posed_pairs())
@settings(max_examples=25, deadline=None)
def test_truth_scores_nothing_wrong_against_itself(pair):
    truth = true_overlap(*pair, GRID)
    errors = correspondence_errors(truth.corr_0to1, truth, GRID)
    assert not errors.distances.any()
    assert len(errors.distances) == np.count_nonzero(truth.corr_0to1 >= 0)
    assert (errors.num_phantom, errors.num_missed) == (0, 0)


def test_resolution_of_a_view_does_not_matter():
    """A wall seen with 256 x 256 pixels has the 14 x 14 patches that its picture has after squashing to 224."""
    grid = PatchGrid(224, 224, 16)
    K256 = np.array([[200.0, 0, 128], [0, 200, 128], [0, 0, 1]])
    K224 = np.diag([224 / 256, 224 / 256, 1]) @ K256
    moved = pose(x=3 * 16 * 5.0 / K224[0, 0])
    for K_, side in ((K256, 256), (K224, 224)):
        wall = np.full((side, side), 5.0)
        truth = true_overlap(view(wall, K=K_), view(wall, moved, K=K_), grid)
        assert truth.ratio == 11 / 14
        row, column = np.divmod(np.arange(196), 14)
        assert np.array_equal(truth.corr_0to1, np.where(column >= 3, row * 14 + column - 3, -1))


def test_pixels_are_dealt_to_patches_in_order():
    patches = pixel_patches((256, 256), PatchGrid(224, 224, 16))
    assert (patches[0, 0], patches[0, 18], patches[0, 19], patches[255, 255]) == (0, 0, 1, 195)
    assert set(np.bincount(patches.ravel())) <= {18 * 18, 18 * 19, 19 * 19}
    assert np.array_equal(
        pixel_patches((64, 64), GRID).reshape(8, 8, 8, 8).transpose(0, 2, 1, 3)[:, :, 0, 0].ravel(), range(L)
    )


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=40))
def test_plurality_is_a_running_count(votes):
    votes = [(0, 3), (1, 3), (2, 3), *votes]
    expected = []
    for patch in range(3):
        counts, best, best_count = {}, None, 0
        for label in (label for owner, label in votes if owner == patch):
            counts[label] = counts.get(label, 0) + 1
            if counts[label] > best_count:
                best, best_count = label, counts[label]
        expected.append(best)
    patches, labels = np.array(votes).T
    assert plurality(patches, labels, 3).tolist() == expected


# scoring of estimates


def test_errors_are_counted_in_patches():
    """A wall that moved one column: patch 9 is truly at 8, the first column is out."""
    truth = true_overlap(view(2.0), view(2.0, pose(x=sideways(8, 2.0))), GRID)
    corr = np.full(L, -1, np.int16)
    corr[[9, 10, 11, 12, 0]] = [8, 10, 19, 27, 5]  # right, 1 beside, 1 diagonally, 2 below, phantom
    errors = correspondence_errors(corr, truth, GRID)
    assert errors.distances.tolist() == [0, 1, 1, 2]
    assert errors.num_phantom == 1
    assert errors.num_missed == 56 - 4


def score(true, estimated, **more):
    return PairScore(
        folder="f", view0="a", view1="b", kind="k", true=true, estimated=estimated, measure_ms=1.0, stored=None, **more
    )


def test_figures_of_scores():
    scores = [
        score(60, 70, distances={0: 6, 1: 2, 4: 1}, phantom=1, missed=2, num_true=11),
        score(72, 74, distances={1: 1}, num_true=9),
        score(40, 52),
        score(50, 50),
        score(65, None, dropped="too_few_matches"),
    ]
    figures = score_figures(scores)
    assert (figures["pairs"], figures["measured"]) == (5, 4)
    assert figures["bias"] == figures["mean_error"] == 6.0
    assert (figures["median_error"], figures["worst_error"]) == (6.0, 12.0)
    # 50-75: true 60, 72, 65; accepted 70, 74, 52. 50-70, strict: true 60, 65; accepted 52, wrongly.
    assert (figures["precision 50-75"], figures["recall 50-75"]) == (2 / 3, 2 / 3)
    assert (figures["precision 50-70"], figures["recall 50-70"]) == (0.0, 0.0)
    assert figures["mapped"] == 11
    assert figures["mean_distance"] == (3 * 1 + 4) / 10
    assert (figures["exact"], figures["within_1"], figures["phantom"], figures["missed"]) == (0.6, 0.9, 1 / 11, 0.1)


def test_figures_of_nothing_measured():
    figures = score_figures([score(60, None, dropped="no_keypoints")])
    assert figures["recall 50-75"] == 0.0
    assert figures["bias"] is figures["exact"] is figures["precision 50-75"] is None


# mistakes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth_m": np.ones((4, 4, 1))}, "depth must be"),
        ({"K": np.eye(4)}, "K must be 3 x 3"),
        ({"K": np.diag([-1.0, 1, 1])}, "above 0"),
        ({"camera_to_world": np.eye(4) * np.nan}, "finite"),
        ({"camera_to_world": np.diag([2.0, 2, 2, 1])}, "not a rotation"),
        ({"camera_to_world": np.diag([1.0, 1, -1, 1])}, "not a rotation"),
        ({"camera_to_world": np.ones((4, 4)) * 0.5}, "not a rotation"),
    ],
)
def test_impossible_views_are_refused(change, message):
    good = {"depth_m": np.ones((4, 4)), "K": K, "camera_to_world": np.eye(4)}
    with pytest.raises(ValueError, match=message):
        PosedDepth(**{**good, **change})


# rendered rooms, and the tool


def read_posed(folder):
    cameras = json.loads((folder / "cameras.json").read_text())
    views = {}
    for name, camera_to_world in cameras["views"].items():
        depth = cv2.imread(str(folder / "depth" / f"{name}.png"), cv2.IMREAD_UNCHANGED) / 1000.0
        views[name] = view(depth, np.array(camera_to_world), np.array(cameras["K"]))
    return views


@pytest.mark.parametrize(
    ("occlusion", "key"), [(True, "true_overlap"), (False, "true_overlap_ignoring_occlusion")], ids=["", "see-through"]
)
def test_rendered_pairs_have_their_stated_overlap(shared_data, occlusion, key):
    """Ties apart, the same to the last patch: 50 pairs within one patch, nine in ten exactly."""
    folder = shared_data / "scenes" / "living_room" / "views_gt"
    views, pairs = read_posed(folder), json.loads((folder / "pairs.json").read_text())
    grid = PatchGrid(224, 224, 16)
    found = [100 * true_overlap(views[p["a"]], views[p["b"]], grid, occlusion=occlusion).ratio for p in pairs]
    errors = np.abs(np.array(found) - [pair[key] for pair in pairs])
    assert len(errors) == 50
    assert errors.max() < ONE_PATCH
    assert np.mean(errors <= 0.0501) >= 0.9


def test_rendered_pairs_have_their_stated_visible_share(shared_data):
    """Pixel by pixel: the shares are those of the renderer to the last stated digit."""
    folder = shared_data / "scenes" / "living_room" / "views_gt"
    views, pairs = read_posed(folder), json.loads((folder / "pairs.json").read_text())
    for pair in pairs:
        a, b = views[pair["a"]], views[pair["b"]]
        assert 100 * np.mean(landing_pixels(a, b) >= 0) == pytest.approx(pair["visible_a_in_b"], abs=0.06)
        assert 100 * np.mean(landing_pixels(b, a) >= 0) == pytest.approx(pair["visible_b_in_a"], abs=0.06)


ORACLE = '''
"""Says that every pair moved one patch to the right, and gives up on black pictures."""
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from mimic_wds.geometry import features, overlap
from mimic_wds.pairs import DropReason, Overlap

@dataclass(frozen=True, slots=True, kw_only=True)
class OneColumn:
    name: ClassVar[str] = "one-column"
    columns: int = 1

    def describe(self, image):
        return features.none()

    def measure(self, image0, features0, image1, features1, grid, rng=None):
        if not image0.any():
            return DropReason.NO_KEYPOINTS
        H = np.array([[1.0, 0, -self.columns * grid.patch_size], [0, 1, 0], [0, 0, 1]])
        corr = overlap.correspondences(H, grid, *overlap.vote_points(grid))
        return Overlap(ratio=overlap.overlap_ratio(corr), corr_0to1=corr, H_0to1=H, num_matches=0, num_inliers=0)
'''


@pytest.fixture
def truth_folder(tmp_path):
    """Walls at 2 m, 64 x 64: from view `a` view `b` is one patch of eight to the right, `c` four; `d` is black."""
    folder = tmp_path / "walls"
    steps = {"a": 0, "b": 8, "c": 32, "d": 0}
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    for name in steps:
        picture = np.full((64, 64, 3), 0 if name == "d" else 99, np.uint8)
        assert cv2.imwrite(str(folder / "rgb" / f"{name}.png"), picture)
        assert cv2.imwrite(str(folder / "depth" / f"{name}.png"), np.full((64, 64), 2000, np.uint16))
    poses = {name: pose(x=sideways(step, 2.0)).tolist() for name, step in steps.items()}
    cameras = {"width": 64, "height": 64, "K": K.tolist(), "views": poses, "scene": "walls"}
    pairs = [("a", "b", "near"), ("a", "c", "far"), ("d", "a", "black")]
    listed = [{"a": a, "b": b, "kind": kind, "true_overlap": 100.0 if b == "a" else 50.0} for a, b, kind in pairs]
    (folder / "cameras.json").write_text(json.dumps(cameras))
    (folder / "pairs.json").write_text(json.dumps(listed))
    (tmp_path / "mine.py").write_text(ORACLE)
    return folder


def run_tool(folder, *arguments):
    command = [sys.executable, TOOL, folder, "--size", "64", "--patch-size", "8", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_tool_scores_an_estimator_under_development(truth_folder, tmp_path):
    files = tmp_path / "out" / "report.json", tmp_path / "out" / "report.md"
    done = run_tool(truth_folder, "--estimator", "mine:OneColumn", "--json", files[0], "--markdown", files[1])
    assert done.returncode == 0, done.stderr
    report = json.loads(files[0].read_text())
    near, far, black, both = (report["kinds"][kind] for kind in ("near", "far", "black", "all"))
    assert (near["true"], near["estimated"], near["exact"], near["phantom"], near["missed"]) == (87.5, 87.5, 1, 0, 0)
    assert (far["true"], far["estimated"], far["bias"]) == (50.0, 87.5, 37.5)
    # Truly four columns: 56 are mapped, of which columns 4..7 lie three off and columns 1..3 are out.
    assert (far["mapped"], far["mean_distance"], far["phantom"]) == (56, 3.0, 24 / 56)
    assert (black["pairs"], black["measured"], both["measured"]) == (1, 0, 2)
    assert report["dropped"] == {"no_keypoints": 1}
    assert report["largest_difference_from_stored_truth"] == 37.5
    assert "| far | 1 | 1 | 50.0 | 87.5 | +37.5 |" in files[1].read_text()


def test_tool_passes_options_on(truth_folder, tmp_path):
    done = run_tool(truth_folder, "--estimator", "mine:OneColumn", "--set", "columns=4", "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    far = json.loads((tmp_path / "r.json").read_text())["kinds"]["far"]
    assert (far["bias"], far["exact"], far["missed"]) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--estimator", "homografy"], "did you mean 'homography'"),
        (["--estimator", "mine:Nobody"], "Nobody"),
        (["--set", "lowe_ratoi=0.8"], "did you mean 'lowe_ratio'"),
        (["--patch-size", "7"], "multiple of the patch size"),
    ],
)
def test_tool_explains_wrong_arguments(truth_folder, arguments, message):
    done = run_tool(truth_folder, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def break_depth(folder):
    cv2.imwrite(str(folder / "depth" / "a.png"), np.full((64, 64), 9, np.uint8))


def break_picture(folder):
    cv2.imwrite(str(folder / "rgb" / "b.png"), np.zeros((32, 64, 3), np.uint8))


def break_pairs(folder):
    (folder / "pairs.json").write_text('[{"a": "a", "b": "nobody", "kind": "near"}]')


def break_cameras(folder):
    text = (folder / "cameras.json").read_text()
    (folder / "cameras.json").write_text(text.replace('"height": 64', '"height": "many"'))


def remove_depth(folder):
    (folder / "depth" / "c.png").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_depth, "a.png: expected one channel of 16 bits"),
        (break_picture, "b.png: 32 x 64 pixels"),
        (break_pairs, "without a pose in cameras.json: nobody"),
        (break_cameras, "cameras.json: Expected `int`"),
        (remove_depth, "c.png: no such file"),
    ],
)
def test_tool_explains_broken_folders(truth_folder, damage, message):
    damage(truth_folder)
    done = run_tool(truth_folder, "--estimator", "mine:OneColumn")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
