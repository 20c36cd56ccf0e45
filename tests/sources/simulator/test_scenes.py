"""3D scenes from a file to shards: the real readers, floors, renderers and the build."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from obj_rooms import furnished, write_room
from simulator.navigation.rooms import room

from mimic_wds.cli.main import run
from mimic_wds.curation.recipe import make_recipe
from mimic_wds.geometry.covisibility import covisibility
from mimic_wds.pairs import Fault, SceneError
from mimic_wds.sources.scenes import FLIP, HM3D, Gibson, Matterport, Meshes
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.maps import decode_depth
from mimic_wds.storage.reader import open_shards
from mimic_wds.storage.verify import verify


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return write_room(tmp_path_factory.mktemp("in") / "house" / "house.obj")


def build(out, *paths, options=(), criteria=(), source="mesh", **more):
    arguments = ["build", "--source", source, *map(str, paths), "--out", str(out), "--workers", "1"]
    for flag, values in (("-o", ("backend=numba", *options)), ("-c", criteria)):
        for value in values:
            arguments += [flag, value]
    return run([*arguments, *(f"--{key}={value}" for key, value in more.items())])


def samples(folder):
    shards = open_shards(folder, read_manifest(folder))
    return [shard.sample(i) for shard in shards for i in range(len(shard))]


@pytest.fixture(scope="module")
def built(house, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "walk"
    stored = ("store_truth=true", "store_depth=true")
    assert build(out, house.parent, options=("attempts=3",), criteria=stored) == 0
    return out


def test_a_build_of_a_scene_is_sound(built):
    manifest = read_manifest(built)
    assert list(verify(built)) == []
    assert manifest.views == {"mesh": 3 * 24}
    assert manifest.candidates == {"mesh": 3 * 128}
    assert 1 <= manifest.kept["mesh"] <= 3
    assert manifest.versions["renderer"].startswith("numba ")


def test_pairs_join_ring_a_with_b_or_c_of_one_attempt(built):
    for sample in samples(built):
        (attempt0, view0), (attempt1, view1) = (frame.split("-") for frame in (sample.frame0, sample.frame1))
        assert attempt0 == attempt1
        assert view0[0] == "a"
        assert view1[0] in "bc"
    attempts = [sample.frame0.split("-")[0] for sample in samples(built)]
    assert len(set(attempts)) == len(attempts)


def test_stored_cameras_are_those_of_the_walk(built):
    for sample in samples(built):
        for camera in (sample.truth.camera0, sample.truth.camera1):
            assert camera.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]] == pytest.approx([128, 128, 111.5, 111.5])
            assert 1.2 <= camera.pose[1, 3] <= 1.8 + 0.01
            assert camera.pose[:3, 1] == pytest.approx([0, -1, 0], abs=1e-9)  # the camera's y points down
        turn = sample.truth.camera0.pose[:3, :3].T @ sample.truth.camera1.pose[:3, :3]
        angle = np.degrees(np.arctan2(turn[0, 2], turn[0, 0]))
        assert round(angle, 3) % 15 == pytest.approx(0, abs=0.01)


def test_stored_depth_and_cameras_give_the_stored_covisibility(built):
    for sample in samples(built)[:2]:
        depths = [decode_depth(sample.maps[f"{view}.depth.png"]) for view in (0, 1)]
        poses = [camera.pose @ FLIP for camera in (sample.truth.camera0, sample.truth.camera1)]
        again = covisibility(depths[0], poses[0], depths[1], poses[1], sample.truth.camera0.intrinsics)
        assert sample.truth.covisibility == pytest.approx(again, abs=0.005)  # millimetres are rounded


def test_stored_depth_lies_on_the_walls_and_boxes(built):
    """The room is 8 x 2.8 x 7 m: every point seen lies within it, most on its sides."""
    sample = samples(built)[0]
    depth = decode_depth(sample.maps["0.depth.png"]).astype(float)
    rows, columns = np.indices(depth.shape)
    rays = np.stack([(columns - 111.5) / 128, (rows - 111.5) / 128, np.ones(depth.shape)], axis=-1) * depth[..., None]
    points = rays @ sample.truth.camera0.pose[:3, :3].T + sample.truth.camera0.pose[:3, 3]
    assert depth.min() > 0
    assert (points > -0.005).all()
    assert (points < np.array([8, 2.8, 7]) + 0.005).all()
    gaps = np.minimum(np.abs(points), np.abs(points - [8, 2.8, 7])).min(axis=-1)
    assert np.mean(gaps < 0.005) > 0.5


def test_the_same_bytes_again(house, built, tmp_path):
    again = tmp_path / "again"
    stored = ("store_truth=true", "store_depth=true")
    assert build(again, house.parent, options=("attempts=3",), criteria=stored, name="walk") == 0
    assert [s.sha256 for s in read_manifest(again).shards] == [s.sha256 for s in read_manifest(built).shards]


def test_turned_and_scaled_copies_give_the_same_pairs(built, tmp_path):
    copies = {
        "up=z": write_room(tmp_path / "z" / "house" / "house.obj", z_up=True),
        "scale_m=0.01": write_room(tmp_path / "cm" / "house" / "house.obj", units_per_m=100),
    }
    expected = [(sample.key, sample.overlap) for sample in samples(built)]
    for number, (option, path) in enumerate(copies.items()):
        assert build(tmp_path / str(number), path.parent, options=("attempts=3", option)) == 0
        assert [(sample.key, sample.overlap) for sample in samples(tmp_path / str(number))] == expected


def test_broken_and_unwalkable_scenes_are_outcomes(house, tmp_path, capsys):
    folder = tmp_path / "scenes"
    write_room(folder / "good.obj")
    write_room(folder / "closet.obj", room((0, 0, 0), (2.0, 2.5, 2.0)))
    (folder / "torn.glb").write_bytes(b"glTF\2\0\0\0")
    (folder / "empty.ply").write_text("ply\nformat ascii 1.0\nelement vertex 0\nend_header\n")
    assert build(tmp_path / "out", folder, options=("attempts=3",)) == 3
    manifest = read_manifest(tmp_path / "out")
    assert manifest.kept["mesh"] >= 1
    assert sorted(manifest.failed_scenes) == [f"mesh/scenes/{name}" for name in ("closet", "empty", "torn")]
    assert "lower min_island_m" in manifest.failed_scenes["mesh/scenes/closet"]
    assert str(tmp_path) not in json.dumps(manifest.failed_scenes)


def test_views_into_nothing_are_dropped_as_empty(tmp_path):
    """A room without its two long walls: views along it show nothing to the sides."""
    triangles = furnished()
    open_sides = triangles[~((triangles[:, :, 2] == 0).all(axis=1) | (triangles[:, :, 2] == 7).all(axis=1))]
    path = write_room(tmp_path / "open.obj", open_sides)
    assert build(tmp_path / "out", path, options=("attempts=2", "max_empty=0.05")) in (0, 3)
    assert read_manifest(tmp_path / "out").dropped["mesh"]["empty_view"] > 100


def test_the_paper_preset_walks_as_the_released_code():
    tables = [{"source": name, "paths": ["x"]} for name in ("hm3d", "gibson", "matterport")]
    tables.append({"source": "mesh", "paths": ["x"], "attempts": 7})
    recipe = make_recipe(name="x", out=Path("x"), preset_name="paper", criteria={}, sources=tables, where="test")
    hm3d, gibson, matterport, mesh = recipe.sources
    assert [type(s) for s in recipe.sources] == [HM3D, Gibson, Matterport, Meshes]
    assert (hm3d.walk, hm3d.attempts, hm3d.min_island_m, hm3d.min_texture) == ("paper", 3000, 6.0, 1000)
    assert (gibson.attempts, matterport.attempts) == (3000, 500)
    assert (mesh.walk, mesh.attempts) == ("paper", 7)


def test_a_scene_without_large_floors_says_what_it_found(house):
    source = Meshes(paths=(str(house),), backend="numba", attempts=3, min_island_m=20.0)
    (scene,) = source.scenes()
    views = source.views(scene)
    assert [next(views).reason for _ in range(3)] == ["island_too_small"] * 3
    with pytest.raises(
        SceneError, match=r"none of 3 places is on a floor of 20 m radius, the largest found has [45]\.\d m"
    ):
        next(views)


def test_pairs_end_where_the_criteria_say(house, tmp_path):
    assert build(tmp_path / "out", house, options=("attempts=1000",), criteria=("max_pairs_per_scene=2",)) == 0
    assert read_manifest(tmp_path / "out").num_samples == 2


def test_multiview_pairs_see_the_same_things(house, tmp_path):
    criteria = ("estimator=truth", "min_overlap=0", "max_overlap=1", "store_truth=true", "size=256")
    code = build(tmp_path / "out", house, options=("num_pairs=3",), criteria=criteria, source="multiview")
    assert code == 0
    found = samples(tmp_path / "out")
    assert list(verify(tmp_path / "out")) == []
    assert len(found) == 3
    for sample in found:
        # stored with the true principal point, half a pixel from the one that CroCo accepts pairs with
        assert sample.truth.covisibility >= 0.5 - 0.01
        assert sample.overlap > 0
        focal = 128 / np.tan(np.radians(30))
        assert sample.truth.camera0.intrinsics[0].tolist() == pytest.approx([focal, 0, 127.5])


def test_options_that_cannot_be_are_told():
    for changes, message in (
        ({"crop": 300}, "crop must be"),
        ({"crop": 223}, "as even or odd"),
        ({"attempts": 0}, "attempts must be 1 or more"),
        ({"max_empty": 1.5}, "max_empty is a share"),
    ):
        with pytest.raises(ValueError, match=message):
            Meshes(paths=("x",), **changes)


def test_refused_places_are_counted(house):
    source = Meshes(paths=(str(house),), backend="numba", attempts=2, min_island_m=20.0)
    (scene,) = source.scenes()
    views = source.views(scene)
    assert isinstance(next(views), Fault)


WITHOUT_NUMBA = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numba" else found(name, *rest)
from mimic_wds.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize("verb", [["build", "--source", "mesh"], ["render-labels"]])
def test_without_the_extra_there_is_one_message(house, tmp_path, verb):
    command = [sys.executable, "-c", WITHOUT_NUMBA, *verb, str(house), "--out", str(tmp_path / "o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: 3D scenes need packages that are not installed: pip install 'mimic-wds[sim]'"
    assert not (tmp_path / "o").exists()
