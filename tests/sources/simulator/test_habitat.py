"""The habitat-sim backend, against a stand-in for habitat_sim (see habitat_stand_in/habitat_sim/__init__.py).

The worker is run for real, as a process of its own; habitat-sim itself is not, so nothing here covers it.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from habitat_rooms import HIGH, LENS, LOW, ROOM, STAND_IN, Interpreter, calls, write, write_glb

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import Body, Lens, SceneFile, Simulator
from mimic_wds.sources.simulator.habitat import HabitatSimulator
from mimic_wds.sources.simulator.habitat_units import in_metres
from mimic_wds.sources.simulator.location import Seen, Walk, locations
from mimic_wds.sources.simulator.raster import Camera, pose


@pytest.fixture
def simulator(habitat_python: Interpreter) -> Iterator[HabitatSimulator]:
    held = HabitatSimulator(LENS, python=habitat_python())
    yield held
    held.close()


# Pictures


def on_the_box(points: np.ndarray) -> np.ndarray:
    """Distance of points inside the room from its nearest side."""
    return np.minimum(np.abs(points - LOW), np.abs(points - HIGH)).min(-1)


@pytest.mark.parametrize("heading_deg", [0.0, 45.0, 250.0])
def test_depth_and_pose_and_focal_length_agree_with_the_room(simulator, tmp_path, heading_deg):
    """Every pixel, put back into the world by its depth, our camera and our pose, lies on a side of the room."""
    simulator.load(write(tmp_path))
    camera = Camera(pose(np.array([0.5, 2.6, -1.0]), heading_deg), LENS.hfov_deg, LENS.size)
    picture = simulator.render(camera.pose)
    assert (picture.image.shape, picture.image.dtype) == ((48, 64, 3), np.uint8)
    assert picture.depth is not None
    assert (picture.depth.shape, picture.depth.dtype) == ((48, 64), np.float32)
    y, x = np.mgrid[:48, :64]
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(camera.intrinsics).T * picture.depth[..., None]
    points = rays * [1, -1, -1] @ camera.pose[:3, :3].T + camera.pose[:3, 3]
    assert on_the_box(points).max() < 1e-4
    assert (picture.depth > 0).all()


def test_camera_is_where_its_pose_says(simulator, tmp_path):
    """Also tilted and rolled: the middle of the picture is as far as the room is in that direction."""
    simulator.load(write(tmp_path))
    turn = np.radians(30)
    tilt = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    camera = pose(np.array([0.0, 2.0, 0.0]), 90.0)
    camera[:3, :3] @= tilt
    depth = simulator.render(camera).depth
    # It looks along -x and 30 degrees up: the ceiling is 2 m above it, the side 4 m away.
    assert depth[23:25, 31:33].mean() == pytest.approx(min(2 / np.sin(turn), 4 / np.cos(turn)), rel=1e-3)


def test_holes_have_no_depth_and_are_black(simulator, tmp_path):
    simulator.load(write(tmp_path, {**ROOM, "ceiling": False}))
    picture = simulator.render(pose(np.array([0.0, 2.5, 0.0]), 0.0))
    empty = picture.depth == 0
    assert 0.05 < empty.mean() < 0.5
    assert picture.image[empty].max() == 0
    assert picture.image[~empty].max(-1).min() > 0
    assert empty[0].all()


def test_no_depth_unless_asked_for(habitat_python, tmp_path, habitat_log):
    simulator = HabitatSimulator(Lens(size=(16, 16)), python=habitat_python())
    simulator.load(write(tmp_path))
    assert simulator.render(pose(np.array([0.0, 2.0, 0.0]), 0.0)).depth is None
    simulator.close()


@pytest.fixture
def in_this_process(monkeypatch) -> Iterator[None]:
    """habitat_sim can be imported here."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setenv("MAGNUM_LOG", "quiet")
    monkeypatch.setenv("HABITAT_SIM_LOG", "quiet")
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "habitat_sim"]:
        del sys.modules[name]


def test_in_process_is_the_same(simulator, in_this_process, tmp_path):
    here: Simulator = HabitatSimulator(LENS)
    camera = pose(np.array([1.0, 2.5, 0.5]), 33.0)
    for held in (simulator, here):
        held.load(write(tmp_path))
    one, other = simulator.render(camera), here.render(camera)
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.depth, other.depth)
    np.testing.assert_array_equal(simulator.random_point(7), here.random_point(7))
    with pytest.raises(SceneError, match="no such file"):
        here.load(SceneFile(path=str(tmp_path / "none.glb")))
    here.close()
    # One simulator at a time: the stand-in would end this process.
    again = HabitatSimulator(LENS)
    again.load(write(tmp_path))
    again.close()


# The floor


def test_random_point_is_a_pure_function_of_the_seed(simulator, tmp_path):
    simulator.load(write(tmp_path))
    points = {seed: simulator.random_point(seed) for seed in (3, 4, 2**31 - 1, 2**40)}
    for seed in (2**40, 4, 3):
        np.testing.assert_array_equal(simulator.random_point(seed), points[seed])
    assert len({tuple(point) for point in points.values()}) == 4
    for point in points.values():
        assert point.dtype == np.float64
        assert point[1] == 1.0
        assert (np.abs(point[[0, 2]]) <= [3.9, 2.9]).all()


def test_snap_and_island_radius(simulator, tmp_path):
    simulator.load(write(tmp_path))
    np.testing.assert_allclose(simulator.snap(np.array([5.0, 0.0, 1.0])), [3.9, 1, 1], atol=1e-6)
    assert simulator.snap(np.array([50.0, 1.0, 0.0])) is None
    assert simulator.island_radius(np.array([0.0, 1.0, 0.0])) == pytest.approx(np.hypot(3.9, 2.9), abs=1e-5)
    assert simulator.island_radius(np.array([50.0, 1.0, 0.0])) == 0


@pytest.mark.parametrize(("wall", "expected"), [(None, 3.9), ([1.0, 1.2], 0.9)])
def test_step_stops_where_the_floor_does(simulator, tmp_path, wall, expected):
    """Also where the floor nearest to its end is another island, to which habitat-sim's own step does not move."""
    simulator.load(write(tmp_path, {**ROOM, "wall": wall}))
    start = np.array([0.1, 1.0, 0.3])
    end = start + np.array([4.0 if wall is None else 1.5, 0, 0])
    np.testing.assert_allclose(simulator.step(start, end), [expected, 1, 0.3], atol=0.01)
    np.testing.assert_allclose(simulator.step(start, start + np.array([-0.6, 0, 0.2])), [-0.5, 1, 0.5], atol=1e-5)
    np.testing.assert_allclose(simulator.step(start, start), start, atol=1e-6)
    slanted = simulator.step(np.array([3.8, 1, 0]), np.array([4.4, 1.0, 0.6]))
    np.testing.assert_allclose(slanted, [3.9, 1, 0.1], atol=1e-5)


def test_sliding_is_habitats_own_step(habitat_python, tmp_path):
    simulator = HabitatSimulator(LENS, python=habitat_python(), sliding=True)
    simulator.load(write(tmp_path, {**ROOM, "wall": [1.0, 1.2]}))
    slid = simulator.step(np.array([-3.8, 1, 0]), np.array([-4.4, 1.0, 0.6]))
    np.testing.assert_allclose(slid, [-3.9, 1, 0.6], atol=1e-5)
    start = np.array([0.1, 1.0, 0.3])
    np.testing.assert_allclose(simulator.step(start, start + np.array([1.5, 0, 0])), start, atol=1e-5)
    simulator.close()


def test_body_is_what_the_navigation_mesh_is_made_for(habitat_python, tmp_path, habitat_log):
    body = Body(height_m=1.2, radius_m=0.3, climb_m=0.15)
    simulator = HabitatSimulator(LENS, python=habitat_python(), body=body)
    simulator.load(write(tmp_path))
    assert calls(habitat_log, "recompute_navmesh") == ["recompute_navmesh 0.05 1.2 0.3 0.15"]
    np.testing.assert_allclose(simulator.snap(np.array([5.0, 1.0, 0.0])), [3.7, 1, 0], atol=1e-6)
    simulator.close()


@pytest.mark.parametrize("version", ["0.2.4", "0.3.3"])
def test_both_signatures_of_recompute_navmesh(habitat_python, tmp_path, version, habitat_log):
    simulator = HabitatSimulator(LENS, python=habitat_python(STAND_IN_VERSION=version), body=Body(radius_m=0.5))
    simulator.load(write(tmp_path))
    assert simulator.versions == {"habitat_sim": version, "protocol": 1, "python": sys.version.split()[0]}
    assert calls(habitat_log, "recompute_navmesh")[-1] == "recompute_navmesh 0.05 1.5 0.5 0.2"
    assert np.abs(simulator.random_point(1)[0]) <= 3.5
    simulator.close()


def test_navigation_meshes_that_are_there(simulator, tmp_path, habitat_log):
    """The one that is named; with a data set's configuration its own; "" = a new one, whatever is beside the file."""
    scene = write(tmp_path)
    beside = tmp_path / "room.navmesh"
    beside.write_text(json.dumps({"islands": [[0, 1, 0, 1]], "height": 1.0}))
    simulator.load(SceneFile(path=scene.path, navmesh=str(beside)))
    assert simulator.island_radius(np.array([0.5, 1.0, 0.5])) == pytest.approx(np.sqrt(0.5), abs=1e-6)
    simulator.load(scene)
    assert simulator.island_radius(np.array([0.5, 1.0, 0.5])) > 4

    (tmp_path / "set.navmesh").write_text(json.dumps({"islands": [[0, 2, 0, 2]], "height": 1.0}))
    config = tmp_path / "set.scene_dataset_config.json"
    config.write_text(json.dumps({"navmesh": str(tmp_path / "set.navmesh")}))
    simulator.load(SceneFile(path=scene.path, stage_config=str(config)))
    assert simulator.island_radius(np.array([0.5, 1.0, 0.5])) == pytest.approx(np.sqrt(2), abs=1e-6)
    assert calls(habitat_log, "data") == ["data set set.scene_dataset_config.json"]

    beside.write_text("no mesh")
    with pytest.raises(SceneError, match=r"room\.navmesh: habitat-sim cannot read"):
        simulator.load(SceneFile(path=scene.path, navmesh=str(beside)))


# Axes and units


def test_bare_glb_is_z_up_and_others_go_through_a_configuration(simulator, tmp_path, habitat_log):
    """Two files of the same room, one y up, one z up: the same pictures. Nothing is written beside them, or left."""
    z_up = {"room": [[LOW[0], -HIGH[2], LOW[1]], [HIGH[0], -LOW[2], HIGH[1]]]}
    data = tmp_path / "data"
    scenes = {
        "y": write(data, ROOM, "y.glb"),
        "z": SceneFile(path=write(data, z_up, "z.glb").path, up="z"),
        "obj": write(data, ROOM, "y.obj"),
        "z_obj": SceneFile(path=write(data, z_up, "z.obj").path, up="z"),
    }
    before = sorted(data.iterdir())
    pictures = {}
    for name, scene in scenes.items():
        simulator.load(scene)
        pictures[name] = simulator.render(pose(np.array([0.5, 2.6, -1.0]), 70.0))
    for name in scenes:
        np.testing.assert_array_equal(pictures[name].image, pictures["y"].image)
    assert sorted(data.iterdir()) == before
    assert list((tmp_path / "scratch").iterdir()) == []


def test_scene_says_what_is_up_against_a_configuration_beside_the_file(simulator, tmp_path):
    scene = SceneFile(path=write(tmp_path, {"room": [[0, 0, 0], [8, 6, 3]]}).path, up="z")
    beside = {"render_asset": "room.glb", "up": [0, 1, 0], "front": [0, 0, -1]}
    (tmp_path / "room.stage_config.json").write_text(json.dumps(beside))
    simulator.load(scene)
    x, y, z = simulator.random_point(0)
    assert (0 < x < 8, y, -6 < z < 0) == (True, 0, True)


@pytest.mark.parametrize("scale_m", [0.01, 2.5])
def test_units_make_no_difference(simulator, tmp_path, scale_m, habitat_log):
    simulator.load(write(tmp_path, {**ROOM, "wall": [1.0, 1.2]}))
    camera = pose(np.array([0.5, 2.6, -1.0]), 200.0)
    picture, start = simulator.render(camera), simulator.random_point(5)
    reached = simulator.step(start, start + np.array([9.0, 0, 0]))

    room = {"room": (np.array([LOW, HIGH]) / scale_m).tolist(), "wall": [1.0 / scale_m, 1.2 / scale_m]}
    nodes = [{"children": [1]}, {"extras": room}]
    other = write_glb(tmp_path / "other.glb", {"asset": {}, "scenes": [{"nodes": [0]}], "nodes": nodes})
    simulator.load(SceneFile(path=other.path, scale_m=scale_m))
    seen = simulator.render(camera)
    np.testing.assert_allclose(seen.depth, picture.depth, rtol=1e-5)
    assert (seen.image != picture.image).any(-1).mean() < 0.01
    np.testing.assert_allclose(simulator.random_point(5), start, atol=1e-5)
    np.testing.assert_allclose(simulator.step(start, start + np.array([9.0, 0, 0])), reached, atol=1e-4)
    assert calls(habitat_log, "recompute_navmesh")[-1] == "recompute_navmesh 0.05 1.5 0.1 0.2"


def test_scaled_copy_is_the_mesh_in_metres(tmp_path):
    """Read back by trimesh: vertices times the scale, triangles and binary parts as they were; then it is gone."""
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.creation.icosphere(radius=150.0)
    mesh.apply_translation([10.0, 200.0, -30.0])
    (tmp_path / "ball.glb").write_bytes(trimesh.Scene(mesh).export(file_type="glb"))
    with in_metres(SceneFile(path=str(tmp_path / "ball.glb"), scale_m=0.01, up="z")) as scene:
        assert (scene.scale_m, scene.up) == (1.0, "z")
        found = trimesh.load(scene.path, force="mesh")
    np.testing.assert_allclose(found.bounds, mesh.bounds * 0.01, atol=1e-5)
    assert found.area == pytest.approx(mesh.area * 1e-4, rel=1e-5)
    assert not Path(scene.path).parent.exists()


@pytest.mark.parametrize(
    ("name", "gltf", "message"),
    [
        ("room.ply", {}, r"cannot be applied to \.ply files"),
        ("room.glb", {"nodes": []}, "not a .glb file of glTF 2.0 with a scene"),
        ("room.glb", {"scenes": [{"nodes": [0]}], "nodes": [{}], "images": [{"uri": "a.png"}]}, "parts in other files"),
    ],
)
def test_what_cannot_be_scaled_is_refused(simulator, tmp_path, name, gltf, message):
    scene = write_glb(tmp_path / name, gltf)
    with pytest.raises(SceneError, match=name + ": .*" + message):
        simulator.load(SceneFile(path=scene.path, scale_m=0.01))


# One simulator for many scenes


def test_one_simulator_serves_many_scenes(simulator, tmp_path, habitat_log):
    first, second = write(tmp_path), write(tmp_path, {**ROOM, "wall": [0.0, 0.2]}, "other.glb")
    for scene in (first, first, second, first):
        simulator.load(scene)
        simulator.render(pose(np.array([2.0, 2.0, 0.0]), 0.0))
    assert calls(habitat_log, "import") == ["import quiet quiet"]
    assert (
        len(calls(habitat_log, "open")),
        len(calls(habitat_log, "reconfigure")),
        len(calls(habitat_log, "close")),
    ) == (1, 2, 0)
    simulator.close()
    simulator.close()
    assert len(calls(habitat_log, "close")) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no mesh", "habitat-sim cannot load it: Trade::AbstractImporter::openFile"),
        ({"room": [[0, 0, 0], [0.1, 3, 0.1]]}, "nowhere to walk"),
        ({"room": [[0, 0, 0], [9, 1, 9]]}, "nowhere to walk"),
    ],
)
def test_bad_scenes_are_told_and_passed_over(simulator, tmp_path, content, message):
    bad, good = write(tmp_path, content, "bad.glb"), write(tmp_path)
    for _ in range(2):
        with pytest.raises(SceneError, match=r"bad\.glb: .*" + message):
            simulator.load(bad)
        with pytest.raises(AssertionError):
            simulator.random_point(0)
        simulator.load(good)
        assert simulator.random_point(0) is not None


@pytest.mark.parametrize("key", ["path", "navmesh", "stage_config"])
def test_missing_files_are_named(simulator, tmp_path, key):
    fields = {"path": write(tmp_path).path, key: str(tmp_path / "absent")}
    with pytest.raises(SceneError, match="absent: no such file"):
        simulator.load(SceneFile(**fields))


# The walk


def test_walk_of_the_paper_runs_on_it(simulator, tmp_path):
    simulator.load(write(tmp_path))
    found = list(locations(simulator, "room", Walk(rule="paper", attempts=2)))
    assert [len(seen) for seen in found] == [24, 24]
    for seen in found[0]:
        assert isinstance(seen, Seen)
        assert seen.picture.depth.min() > 0
        assert (np.abs(seen.agent.point[[0, 2]]) <= [3.9 + 1e-5, 2.9 + 1e-5]).all()
        assert 1.2 <= seen.agent.eye_m <= 1.8
