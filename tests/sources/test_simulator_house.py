"""The house, the walk through it and its film: what is drawn is closed, textured, never run into, and overlaps."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_wds.geometry import features, overlap
from mimic_wds.geometry.patches import PatchGrid
from mimic_wds.pairs import Overlap
from mimic_wds.sources.simulator.builder import FRAMES, SIDES, Builder, Material
from mimic_wds.sources.simulator.film import frames, write_video
from mimic_wds.sources.simulator.house import ROOMS, House, build_house
from mimic_wds.sources.simulator.materials import load_textures
from mimic_wds.sources.simulator.raster import Camera, Renderer, pose
from mimic_wds.sources.simulator.walk import (
    EYE_M,
    Gait,
    clearance,
    obstacles,
    shortest,
    turns_and_steps,
    visible_ways,
    walk,
)

pytest.importorskip("numba", reason="rendering needs numba: pip install 'mimic-wds[sim]'")

TOOL = Path(__file__).parents[2] / "tools" / "make_demo_video.py"
SIZE = (120, 160)


@pytest.fixture(scope="module")
def house() -> House:
    try:
        return build_house()
    except ImportError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def renderer(house: House) -> Renderer:
    return Renderer(house.mesh)


@pytest.fixture(scope="module")
def poses(house: House) -> np.ndarray:
    """The walk of the demo video, at ten frames per second."""
    return walk(house.solids, house.stops, house.passages, seconds=520, fps=10)


# The house


def test_every_view_is_closed_and_deep(house, renderer):
    ratios = []
    for x, z in house.stops:
        for yaw in range(0, 360, 45):
            depth = renderer.render(Camera(pose((x, EYE_M, z), yaw, -6), 75, SIZE))[1]
            assert (depth > 0).all(), f"a hole, seen from {x, z} at {yaw} degrees"
            ratios.append(depth.max() / depth.min())
    assert np.mean(np.array(ratios) > 2) > 0.7  # seen at right angles from its middle, a wall is as near everywhere


def test_sift_finds_something_everywhere(house, renderer):
    counts = []
    for x, z in house.stops[::3]:
        for yaw in range(0, 360, 60):
            view = renderer.render(Camera(pose((x, EYE_M, z), yaw, -6), 75, (240, 320)))[0]
            counts.append(len(features.extract(cv2.resize(view, (224, 224), interpolation=cv2.INTER_AREA))))
    assert np.min(counts) >= 50
    assert np.median(counts) >= 300


def test_the_same_seed_builds_the_same_house(house):
    again, other = build_house(), build_house(seed=1)
    for name in ("vertices", "triangles", "uv", "texture_ids"):
        np.testing.assert_array_equal(getattr(house.mesh, name), getattr(again.mesh, name))
    for a, b in zip(house.mesh.textures, again.mesh.textures, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(house.mesh.textures, other.mesh.textures, strict=True))


@pytest.mark.parametrize("package", ["miniworld", "skimage"])
def test_a_missing_package_is_reported_with_the_command(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ImportError, match=rf"needs the package {package}; .*pip install 'mimic-wds\[demo\]'"):
        load_textures()


def test_a_package_without_its_textures_is_reported(tmp_path, monkeypatch):
    (tmp_path / "miniworld").mkdir()
    (tmp_path / "miniworld" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"brick_wall_1\.png: .* reinstall it with: pip install 'mimic-wds\[demo\]'"):
        load_textures()


def test_the_packages_of_the_textures_are_not_imported():
    code = "import sys; from mimic_wds.sources.simulator.house import build_house; build_house(); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    if "ImportError" in run.stderr:
        pytest.skip(run.stderr.splitlines()[-1])
    assert not {"miniworld", "skimage", "pyglet", "numba", "torch"} & set(run.stdout.split())


def test_the_sides_of_a_box_face_outwards_and_are_not_mirrored():
    for side, (_, right, down) in FRAMES.items():
        np.testing.assert_array_equal(np.cross(down, right), SIDES[side][0])


@pytest.mark.parametrize("side", list(FRAMES))
def test_a_box_shows_its_texture_upright_on_every_side(side):
    quarters = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 250]]], np.uint8)
    texture = np.kron(quarters, np.ones((32, 32, 1), np.uint8))
    b = Builder({"t": texture})
    b.box((-1, -1, -1), (1, 1, 1), Material("t"))
    normal, light = SIDES[side]
    yaw, pitch = {"up": (0, -90), "down": (0, 90), "south": (0, 0), "north": (180, 0)}.get(
        side, (90 if side == "east" else -90, 0)
    )
    camera = Camera(pose(3 * np.array(normal, float), yaw, pitch), 30, (60, 60))
    seen = Renderer(b.mesh()).render(camera)[0].astype(float)
    corners = seen[[22, 22, 37, 37], [22, 37, 22, 37]]
    np.testing.assert_allclose(corners, quarters.reshape(4, 3) * light, atol=2)
    assert b.solids().tolist() == [[[-1, -1, -1], [1, 1, 1]]]


# The walk


def test_the_walk_runs_into_nothing(house, poses):
    eyes = poses[:, :3, 3]
    assert clearance(eyes, house.solids).min() > 0.15
    assert clearance(eyes[:, [0, 2]], obstacles(house.solids)).min() > 0.15  # nor does it pass over tables and beds


def test_nothing_comes_near_the_lens(poses, renderer):
    nearest = [renderer.render(Camera(p, 75, (60, 80)))[1].min() for p in poses[::40]]
    assert min(nearest) > 0.15


def test_the_walk_comes_to_every_room(poses):
    x, z = poses[:, 0, 3], poses[:, 2, 3]
    shares = {
        name: np.mean((room.x[0] < x) & (x < room.x[1]) & (room.z[0] < z) & (z < room.z[1]))
        for name, room in ROOMS.items()
    }
    assert min(shares.values()) > 0.05, shares


def test_the_walk_is_smooth(poses):
    gait = Gait()
    turns, steps = turns_and_steps(poses)
    fastest = 1 + gait.variety
    assert steps.max() * 10 < gait.speed_m_s * fastest + 0.2 * np.radians(gait.turn_deg_s * fastest) + 1e-6
    assert turns.max() * 10 < gait.turn_deg_s * fastest + 8  # and the nodding
    moved = np.diff(poses[:, :3, 3], axis=0)
    assert np.linalg.norm(np.diff(moved, axis=0), axis=1).max() * 100 < 2.0  # m/s2
    np.testing.assert_array_equal(poses[:, 1, 3], EYE_M)


def test_frames_a_second_apart_have_parallax(poses):
    _, steps = turns_and_steps(poses[::10])
    assert np.mean(steps > 0.03) > 0.95
    assert np.mean(steps > 0.2) > 0.3


def test_poses_are_rigid(poses):
    R = poses[:, :3, :3]
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.broadcast_to(np.eye(3), R.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(R), 1)


def test_the_seed_decides_the_walk(house):
    a, b, c = (walk(house.solids, house.stops, house.passages, seconds=60, fps=2, seed=s) for s in (3, 3, 4))
    assert a.shape == (120, 4, 4)
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.5


def test_clearance_is_the_distance_to_the_nearest_box():
    boxes = np.array([[[0, 0], [1, 1]], [[5, 0], [6, 1]]], float)
    points = np.array([[0.5, 0.5], [2, 0.5], [4, 0.5], [2, 2], [-3, 5]])
    np.testing.assert_allclose(clearance(points, boxes), [0, 1, 1, np.sqrt(2), 5])


def test_ways_do_not_lead_through_walls():
    wall = np.array([[[-1, 0.9], [3, 1.1]]], float)
    ways = visible_ways(np.array([[0, 0], [2, 0], [0, 2], [5, -1]], float), wall)
    assert ways[0] == {1: 2.0, 3: pytest.approx(np.sqrt(26))}
    assert ways[2] == {}


def test_places_that_cannot_be_walked_are_refused():
    boxes = np.array([[[-1, 0, 0.9], [3, 2, 1.1]], [[2.9, 0, -9], [3.1, 2, 9]], [[-1.1, 0, -9], [-0.9, 2, 9]]])
    with pytest.raises(ValueError, match=r"way point \(1, 0\.7\) is 0\.20 m from an obstacle"):
        walk(boxes, [(1, 0), (1, 0.7)], seconds=5, fps=2)
    with pytest.raises(ValueError, match="way point 1 cannot be reached from way point 0"):
        walk(boxes, [(1, 0), (1, 2)], seconds=5, fps=2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 20)), max_size=20))
def test_the_shortest_way_is_the_shortest(edges):
    ways: list[dict[int, float]] = [{} for _ in range(7)]
    best = np.where(np.eye(7), 0, np.inf)
    for a, b, length in edges:
        if a != b:
            ways[a][b] = ways[b][a] = length
    for a in range(7):
        for b, length in ways[a].items():
            best[a, b] = length
    for k in range(7):  # Floyd and Warshall
        best = np.minimum(best, best[:, [k]] + best[[k]])
    for goal in range(7):
        if np.isfinite(best[0, goal]):
            path = [0, *shortest(ways, 0, goal)]
            assert sum(ways[a][b] for a, b in pairwise(path)) == best[0, goal]
            assert path[-1] == goal
        else:
            with pytest.raises(ValueError, match="cannot be reached"):
                shortest(ways, 0, goal)


# The film


def test_frames_come_in_order_from_any_number_of_threads(house, renderer, poses):
    some = poses[:300:30]
    want = [renderer.render(Camera(p, 75, SIZE))[0] for p in some]
    for num_threads in (1, 3):
        got = list(frames(house.mesh, some, size=SIZE, hfov_deg=75, num_threads=num_threads))
        np.testing.assert_array_equal(got, want)


def read_back(path: Path) -> tuple[list[np.ndarray], float]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    images = []
    while (frame := capture.read())[0]:
        images.append(cv2.cvtColor(frame[1], cv2.COLOR_BGR2RGB))
    fps = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return images, fps


def test_a_video_reads_back_as_it_was_written(tmp_path, house, poses):
    images = list(frames(house.mesh, poses[:400:20], size=(240, 320), hfov_deg=75))
    path = tmp_path / "new" / "walk.mp4"
    assert write_video(path, iter(images), fps=5) == 20
    back, fps = read_back(path)
    assert fps == 5
    assert len(back) == 20
    grey = [[cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in film] for film in (images, back)]
    assert min(cv2.PSNR(a, b) for a, b in zip(*grey, strict=True)) > 28
    for a, b in zip(images, back, strict=True):
        np.testing.assert_allclose(a.mean(axis=(0, 1)), b.mean(axis=(0, 1)), atol=4)  # red is red, blue is blue
    assert [p.name for p in path.parent.iterdir()] == ["walk.mp4"]


def test_a_video_that_fails_leaves_nothing_behind(tmp_path):
    def broken():
        yield np.zeros((64, 64, 3), np.uint8)
        raise RuntimeError("the renderer stopped")

    path = tmp_path / "walk.mp4"
    path.write_bytes(b"an older film")
    with pytest.raises(RuntimeError, match="the renderer stopped"):
        write_video(path, broken(), fps=5)
    with pytest.raises(ValueError, match="no frames"):
        write_video(path, [], fps=5)
    with pytest.raises(ValueError, match=r"frame 1 has \(width, height\) \(32, 64\)"):
        write_video(path, [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 32, 3), np.uint8)], fps=5)
    with pytest.raises(ValueError, match=r"must end in \.mp4"):
        write_video(tmp_path / "walk.avi", [], fps=5)
    assert [p.name for p in tmp_path.iterdir()] == ["walk.mp4"]
    assert path.read_bytes() == b"an older film"


def test_frames_a_second_apart_overlap_as_the_paper_wants(renderer, poses):
    """Of the pairs of consecutive frames most have an overlap between 50 and 75 % (MIMIC, arXiv 2306.15128)."""
    grid = PatchGrid(224, 224, 16)
    views = [renderer.render(Camera(p, 75, (240, 320)))[0] for p in poses[:500:10]]
    found = [features.extract(cv2.resize(v, (224, 224), interpolation=cv2.INTER_AREA)) for v in views]
    measured = [overlap.measure(a, b, grid) for a, b in pairwise(found)]
    kept = [m for m in measured if isinstance(m, Overlap) and 0.5 < m.ratio < 0.75]
    assert len(kept) / len(measured) > 0.6
    assert np.median([m.num_inliers for m in kept]) > 100


def run_tool(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), *args], capture_output=True, text=True, check=False, timeout=60)


def test_the_tool_makes_the_video_once(tmp_path, house):
    path = tmp_path / "walk.mp4"
    first = run_tool(str(path), "--seconds", "4", "--fps", "5", "--size", "160x120", "--threads", "2")
    assert first.returncode == 0, first.stderr
    assert "20 frames" in first.stdout
    images, fps = read_back(path)
    assert (len(images), images[0].shape, fps) == (20, (120, 160, 3), 5)
    written = path.stat().st_mtime_ns
    second = run_tool(str(path))
    assert second.returncode == 0
    assert "exists" in second.stdout
    assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["walk.mp4", "--size", "big"], "expected WIDTHxHEIGHT"),
        (["walk.mp4", "--size", "161x120"], "even width and height"),
        (["walk.mp4", "--seconds", "-3"], "expected a number above 0"),
        (["walk.mkv", "--seconds", "1"], "must end in .mp4"),
    ],
)
def test_the_tool_says_what_is_wrong(args, message, house):
    run = run_tool(*args)
    assert run.returncode != 0
    assert message in run.stderr
    assert "Traceback" not in run.stderr
