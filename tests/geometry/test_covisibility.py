"""Co-visibility: the same counts as k-d trees on hundreds of pairs, and cases that can be worked out by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from box_rooms import BoxRoom
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_wds.geometry import covisibility as cv

pytest.importorskip("scipy", reason="the k-d trees to compare with are scipy's")
pytest.importorskip("numba", reason="the fast way is compiled by numba")

raster = pytest.importorskip("mimic_wds.sources.simulator.raster")
base = pytest.importorskip("mimic_wds.sources.simulator.base")

TOOL = Path(__file__).parents[2] / "tools" / "bench_covisibility.py"
SIZE = (48, 64)
K = cv.pinhole(SIZE, 60.0)


def three_ways(clouds, to_pixels, radius=cv.RADIUS_M):
    """Counts by projection and tiles, by cells, and by k-d trees."""
    cloud0, cloud1 = clouds
    cells = cv.near_by_cells(cloud0, cloud1, radius), cv.near_by_cells(cloud1, cloud0, radius)
    return cv.counts(cloud0, cloud1, *to_pixels, radius), cells, cv.literal_counts(cloud0, cloud1, radius)


def check_pair(depth0, pose0, depth1, pose1, K, radius=cv.RADIUS_M):
    """Compare the three ways; returns the counts."""
    clouds = cv.unproject(depth0, K, pose0), cv.unproject(depth1, K, pose1)
    fast, cells, literal = three_ways(clouds, [cv.pixels_from_world(K, pose) for pose in (pose0, pose1)], radius)
    assert fast == cells == literal
    return literal


# the same counts as k-d trees


@pytest.mark.parametrize("seed", range(10))
def test_rendered_pairs_have_the_counts_of_k_d_trees(seed):
    """Two hundred pairs of a room with boxes, from looking the other way to nearly the same; holes in every other."""
    rng = np.random.default_rng(seed)
    hole = ((-1.0, 0.3, -3), (1.5, 2.0, 3)) if seed % 2 else None
    room = BoxRoom(base.Lens(size=SIZE, hfov_deg=60.0, depth=True), hole=hole)
    seen = []
    for _ in range(20):
        foot = room.random_point(int(rng.integers(1000)))
        pose0 = raster.pose(foot + np.array([0, 1.5, 0]), *rng.uniform((-180, -30, -10), (180, 30, 10)))
        pose1 = pose0 @ raster.pose(rng.normal(0, 0.3, 3), *rng.normal(0, 15, 3))
        depth0, depth1 = (room.render(pose).depth for pose in (pose0, pose1))
        if depth1.min() < 0 or not np.isfinite(depth1).all():
            continue  # the second camera went through a wall
        counts = check_pair(depth0, pose0, depth1, pose1, K)
        seen.append(min(counts) / depth0.size)
    assert min(seen) < 0.4
    assert max(seen) > 0.6


def test_a_full_size_pair_has_the_counts_of_k_d_trees():
    room = BoxRoom(base.Lens(size=(256, 256), hfov_deg=60.0, depth=True))
    pose0, pose1 = raster.pose((-2, 1.5, 2), -45, -10), raster.pose((-1.2, 1.3, 2.1), -25, -12)
    counts = check_pair(room.render(pose0).depth, pose0, room.render(pose1).depth, pose1, cv.pinhole((256, 256), 60.0))
    assert 0.3 < min(counts) / 65536 < 0.9


@st.composite
def posed_depths(draw):
    """Two bumpy, torn or noisy depths of odd sizes, near to each other or not; and a radius."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    roughness, holes = draw(st.sampled_from((0.0, 0.01, 1.0))), draw(st.sampled_from((0.0, 0.3, 0.99)))
    views = []
    for _ in range(2):
        depth = 2.0 + roughness * rng.uniform(-1, 1, (height, width)) + rng.choice((0, 1)) * np.arange(width) / width
        depth[rng.random(depth.shape) < holes] = 0
        turn = rng.normal(0, draw(st.sampled_from((0.0, 5.0, 90.0))), 3)
        views += [depth, raster.pose(rng.normal(0, draw(st.sampled_from((0.0, 0.05, 1.0))), 3), *turn)]
    return views, cv.pinhole((height, width), draw(st.floats(5, 150))), draw(st.sampled_from((0.05, 0.01, 0.5)))


@given(case=posed_depths())
@settings(max_examples=150, deadline=None)
def test_any_pair_has_the_counts_of_k_d_trees(case):
    views, K, radius = case
    check_pair(*views, K, radius)


@given(
    step=st.sampled_from((0.05, 0.025, 0.05 / np.sqrt(2), 0.05 / np.sqrt(3), 0.03, 0.04)),
    origin=st.sampled_from((0.0, 0.1, -7.3, 1000.0)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_distances_at_the_threshold_fall_to_the_same_side(step, origin, seed):
    """Points of a lattice, many of them at 5 cm to the last digit: "closer than" is decided alike, and strictly."""
    rng = np.random.default_rng(seed)
    clouds = [origin + step * rng.integers(-6, 7, (9, 13, 3)) for _ in range(2)]
    clouds[1][rng.random((9, 13)) < 0.2] = np.nan
    anywhere = [rng.normal(size=(3, 4)) for _ in range(2)]
    fast, cells, literal = three_ways(clouds, anywhere)
    points0, points1 = (cv.present(cloud) for cloud in clouds)
    squares = ((points0[:, None] - points1) ** 2).sum(axis=2)
    near = np.sqrt(squares) < 0.05
    assert fast == cells == literal == (near.any(axis=1).sum(), near.any(axis=0).sum())


@given(radius=st.floats(1e-6, 1e6))
def test_square_limit_is_the_first_that_is_not_near(radius):
    limit = cv.square_limit(radius)
    assert np.sqrt(limit) >= radius > np.sqrt(np.nextafter(limit, 0))


def test_where_to_look_first_changes_nothing():
    rng = np.random.default_rng(5)
    clouds = [rng.uniform(0, 0.6, (20, 30, 3)) for _ in range(2)]
    for hints in ([np.zeros((3, 4))] * 2, [np.full((3, 4), np.nan)] * 2, [rng.normal(0, 1e9, (3, 4))] * 2):
        fast, cells, literal = three_ways(clouds, hints)
        assert fast == cells == literal
        assert literal[0] > 0


def test_without_numba_the_counts_are_the_same(monkeypatch):
    room = BoxRoom(base.Lens(size=SIZE, hfov_deg=60.0, depth=True))
    pose0, pose1 = raster.pose((-2, 1.5, 2), -45), raster.pose((-1.8, 1.5, 1.5), -20)
    pair = room.render(pose0).depth, pose0, room.render(pose1).depth, pose1, K
    with_numba = cv.shares(*pair)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert cv.shares(*pair) == with_numba


# by hand


def wall(depth_m, shape=SIZE):
    return np.full(shape, depth_m)


@given(holes=st.floats(0, 1), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_same_view_twice_sees_its_valid_fraction(holes, seed):
    """The denominator is all pixels, those without a surface included."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.3, 9, SIZE) * (rng.random(SIZE) >= holes)
    pose = raster.pose(rng.normal(0, 3, 3), *rng.uniform(-180, 180, 3))
    expected = np.count_nonzero(depth) / depth.size
    assert cv.valid_fraction(depth) == expected
    assert cv.covisibility(depth, pose, depth, pose, K) == expected


@given(columns=st.integers(0, 63), depth=st.floats(0.5, 20))
@settings(max_examples=60, deadline=None)
def test_a_wall_seen_from_the_side_by_whole_pixels(columns, depth):
    """`columns` of 64 leave the picture; of those, the ones nearer to the border than the radius still count."""
    spacing = depth / K[0, 0]
    moved = raster.pose((columns * spacing, 0, 0))
    margin = min(columns, sum(1 for k in range(1, 64) if k * spacing < cv.RADIUS_M))
    share = (64 - columns + margin) / 64
    if not any(abs(k * spacing - cv.RADIUS_M) < 1e-9 for k in range(1, 64)):
        assert cv.shares(wall(depth), np.eye(4), wall(depth), moved, K) == (share, share)


def test_half_of_a_wall():
    """At 10 m pixels lie 18 cm apart, so no point outside of the other picture is near one in it."""
    moved = raster.pose((32 * 10 / K[0, 0], 0, 0))
    assert cv.covisibility(wall(10.0), np.eye(4), wall(10.0), moved, K) == 0.5


def test_two_walls_are_the_same_below_five_centimetres():
    for gap, expected in ((0.0499, 1.0), (0.0501, 0.0)):
        # From far away rays are nearly parallel: each point lies `gap` behind one of the other wall.
        assert cv.covisibility(wall(2.0), np.eye(4), wall(2.0), raster.pose((0, 0, gap)), K) == expected


def test_less_of_the_nearer_view_is_the_smaller_share():
    """View 1 stands at half the distance: all of it is in view 0, of which it sees about a quarter."""
    nearer = raster.pose((0, 0, -1.0))
    seen0, seen1 = cv.shares(wall(2.0), np.eye(4), wall(1.0), nearer, K)
    assert seen1 == 1
    assert 0.25 <= seen0 < 0.3
    assert cv.covisibility(wall(2.0), np.eye(4), wall(1.0), nearer, K) == seen0


def test_nothing_to_see():
    assert cv.shares(wall(0.0), np.eye(4), wall(2.0), np.eye(4), K) == (0, 0)
    assert cv.covisible_literal(wall(0.0), np.eye(4), wall(2.0), np.eye(4), K) == 0
    assert cv.shares(wall(2.0), np.eye(4), wall(2.0), raster.pose((0, 0, 0), 180), K) == (0, 0)


@given(case=posed_depths())
@settings(max_examples=30, deadline=None)
def test_swapped_views_swap_their_shares(case):
    (depth0, pose0, depth1, pose1), K, radius = case
    seen0, seen1 = cv.shares(depth0, pose0, depth1, pose1, K, radius)
    assert cv.shares(depth1, pose1, depth0, pose0, K, radius) == (seen1, seen0)
    assert cv.covisibility(depth0, pose0, depth1, pose1, K, radius) == min(seen0, seen1)
    assert cv.covisible_literal(depth0, pose0, depth1, pose1, K, radius) == min(seen0, seen1)


# conventions


def test_points_project_to_their_pixels_by_the_rasteriser():
    """With the intrinsics of its camera, points land where it says that they are."""
    rng = np.random.default_rng(2)
    camera = raster.Camera(raster.pose((1, 2, 3), 40, -20, 7), 70.0, SIZE)
    depth = rng.uniform(0.5, 8, SIZE)
    points = cv.unproject(depth, camera.intrinsics, camera.pose).reshape(-1, 3)
    xd, yd, d = camera.to_rays(points).T
    rows, columns = np.indices(SIZE)
    assert np.allclose(d, depth.ravel())
    assert np.allclose(xd / d, columns.ravel())
    assert np.allclose(yd / d, rows.ravel())
    homogeneous = np.append(points, np.ones((len(points), 1)), axis=1)
    assert np.allclose(homogeneous @ cv.pixels_from_world(camera.intrinsics, camera.pose).T, np.stack([xd, yd, d], 1))


def test_the_lens_of_croco():
    """f = (W / 2) / tan(hfov / 2), principal point W / 2, H / 2."""
    assert np.allclose(
        cv.pinhole((240, 320), 60.0), [[160 * np.sqrt(3), 0, 160], [0, 160 * np.sqrt(3), 120], [0, 0, 1]]
    )
    points = cv.unproject(wall(3.0, (240, 320)), cv.pinhole((240, 320), 60.0), np.eye(4))
    assert np.allclose(points[120, 160], (0, 0, -3))
    assert np.allclose(points[0, 0], (-np.sqrt(3), 120 / 160 * np.sqrt(3), -3))
    assert np.isnan(cv.unproject(wall(0.0), K, np.eye(4))).all()


def test_what_cannot_be_measured_is_refused():
    good = wall(2.0)
    with pytest.raises(ValueError, match=r"one size, got \(48, 64\) and \(48, 63\)"):
        cv.shares(good, np.eye(4), wall(2.0, (48, 63)), np.eye(4), K)
    for bad in (-good, good * np.nan, good * np.inf, np.empty((0, 4)), np.ones((2, 2, 2))):
        with pytest.raises(ValueError, match="depth must be"):
            cv.unproject(bad, K, np.eye(4))
    for pose in (np.eye(3), np.full((4, 4), np.nan)):
        with pytest.raises(ValueError, match="the pose must be 4 x 4"):
            cv.unproject(good, K, pose)
    for lens in (np.diag((0.0, 1, 1)), np.ones((3, 3)), np.diag((9.0, 9, 2))):
        with pytest.raises(ValueError, match="intrinsics must be fx 0 cx"):
            cv.unproject(good, lens, np.eye(4))
    with pytest.raises(ValueError, match="hfov_deg"):
        cv.pinhole(SIZE, 180)
    with pytest.raises(ValueError, match="is depth in metres"):
        cv.near_by_cells(np.full((1, 3), -1e12), np.full((1, 3), 1e12))


def test_benchmark_tool(tmp_path):
    """The tool runs, compares both ways, and writes what it prints."""
    report = tmp_path / "bench.json"
    command = [sys.executable, str(TOOL), "--pairs", "4", "--size", "64", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    figures = json.loads(report.read_text())
    assert figures["compared"] == 4
    assert figures["different"] == 0
    assert figures["all"]["ratio"] > 0
