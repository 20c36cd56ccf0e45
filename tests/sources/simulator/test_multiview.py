"""Multiview-Habitat's pairs in a room of boxes, against the settings, k-d trees and what metadata renders again."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from box_rooms import ROOM, BoxRoom
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_wds.geometry.covisibility import covisible_literal, pinhole, shares, unproject, valid_fraction
from mimic_wds.sources.simulator import multiview as mv
from mimic_wds.sources.simulator import multiview_metadata as md
from mimic_wds.sources.simulator.base import Lens, SceneFile

pytest.importorskip("numba", reason="without numba these take long")
pytest.importorskip("scipy", reason="the k-d trees to compare with are scipy's")

SETTINGS = mv.MultiviewSettings(size=(48, 64))
#: A part of the ceiling and of two walls is missing.
HOLE = ((-3.1, 1.6, -2.6), (1.0, 2.7, 0.5))
NUM_PAIRS = 40


def room(**options):
    return BoxRoom(SETTINGS.lens, **options)


def draw(number, scene="room", changed=SETTINGS, **options):
    return mv.sample_pair(room(**options), shares, scene, number, changed)


@pytest.fixture(scope="module")
def pairs():
    """Pairs of a room with a hole, by number."""
    drawn = {number: draw(number, hole=HOLE) for number in range(NUM_PAIRS)}
    assert None not in drawn.values()
    return drawn


def angles_deg(rotation):
    """Pan, tilt and roll of a turn in a camera's own axes: pan @ tilt @ roll."""
    pan = np.arctan2(rotation[0, 2], rotation[2, 2])
    tilt = np.arcsin(-rotation[1, 2])
    roll = np.arctan2(rotation[1, 0], rotation[1, 1])
    return np.degrees([pan, tilt, roll])


# what is drawn


def test_pairs_are_good_by_k_d_trees(pairs):
    K = pinhole(SETTINGS.size, SETTINGS.hfov_deg)
    for pair in pairs.values():
        depths = [view.picture.depth for view in (pair.view0, pair.view1)]
        expected = covisible_literal(depths[0], pair.view0.pose, depths[1], pair.view1.pose, K)
        assert pair.covisibility == expected >= 0.5
        assert [pair.view0.valid, pair.view1.valid] == [valid_fraction(depth) for depth in depths]
        assert min(pair.view0.valid, pair.view1.valid) >= 0.7
    assert min(pair.view0.valid for pair in pairs.values()) < 1, "the hole is never seen"


def test_heights_and_headings_spread_over_their_ranges(pairs):
    heights = np.array([view.position[1] for pair in pairs.values() for view in (pair.view0, pair.view1)])
    assert 1.2 <= heights.min() < 1.3
    assert 1.7 < heights.max() <= 1.8
    differences = [pair.view0.position[1] - pair.view1.position[1] for pair in pairs.values()]
    assert np.count_nonzero(differences) == NUM_PAIRS, "each view has its own height"
    headings = np.array([angles_deg(pair.view0.pose[:3, :3]) for pair in pairs.values()])
    assert set(np.floor(headings[:, 0] / 90)) == {-2, -1, 0, 1}
    assert np.abs(headings[:, 1]).max() <= 10
    assert np.abs(headings[:, 2]).max() <= 5


def test_the_second_view_looks_at_the_middle_of_the_first_up_to_the_noise(pairs):
    K = pinhole(SETTINGS.size, SETTINGS.hfov_deg)
    turns = []
    for pair in pairs.values():
        cloud = unproject(pair.view0.picture.depth, K, pair.view0.pose)
        target = np.nanmean(cloud.reshape(-1, 3), axis=0)
        aimed = mv.look_at(pair.view1.position, target)
        turns.append(angles_deg(aimed.T @ pair.view1.pose[:3, :3]))
    turns = np.abs(turns)
    assert (turns.max(axis=0) <= np.array([3, 10, 5]) + 1e-9).all()
    assert (turns.max(axis=0) > np.array([3, 10, 5]) * 0.8).all()


def test_pairs_are_those_of_their_scene_and_number(pairs):
    for number in (0, 7):
        again, mine = draw(number, hole=HOLE), pairs[number]
        assert np.array_equal(again.view0.picture.image, mine.view0.picture.image)
        assert np.array_equal(again.view1.pose, mine.view1.pose)
        assert again.covisibility == mine.covisibility
    positions = [pair.view0.position for pair in pairs.values()]
    assert all(not np.array_equal(a, b) for a, b in pairwise(positions))
    assert not np.array_equal(draw(0, scene="another").view0.position, draw(0).view0.position)


def test_the_true_intrinsics_put_points_on_the_walls(pairs):
    """Points unprojected with the pair's own intrinsics lie on the room, to the precision of its depth."""
    low, high = np.array(ROOM)
    for pair in list(pairs.values())[:5]:
        points = unproject(pair.view0.picture.depth, pair.intrinsics, pair.view0.pose).reshape(-1, 3)
        points = points[~np.isnan(points[:, 0])]
        outside = np.maximum(low - points, points - high).max(axis=1)
        assert outside.max() < 1e-5
        assert np.median(np.abs(outside)) < 1e-5, "most pixels show walls, floor or ceiling"


def test_the_walk_has_its_steps():
    """Free to go anywhere, five steps end 2 m * root(5) away in x and in z, and at the height of the floor."""

    class Plain(BoxRoom):
        def snap(self, point):
            return point * (1, 0, 1)

    rng = np.random.default_rng(3)
    start = np.array([1.0, 0.0, -2.0])
    ends = np.array([mv.random_walk(Plain(), start, rng, SETTINGS) for _ in range(3000)])
    assert np.allclose(ends.std(axis=0)[[0, 2]], 2 * np.sqrt(5), rtol=0.05)
    assert np.allclose(ends.mean(axis=0), start, atol=0.3)


def test_steps_off_the_floor_are_not_taken():
    class Nowhere(BoxRoom):
        def snap(self, point):
            return None

    start = np.array([1.0, 0.0, -2.0])
    assert np.array_equal(mv.random_walk(Nowhere(), start, np.random.default_rng(0), SETTINGS), start)
    rng = np.random.default_rng(1)
    ends = np.array([mv.random_walk(room(), start, rng, SETTINGS) for _ in range(200)])
    assert all(np.array_equal(room().snap(end), end) for end in ends)


# when nothing is found


def count_rendered(changed, measure=shares, **options):
    simulator = room(**options)
    assert mv.sample_pair(simulator, measure, "room", 0, changed) is None
    return len(simulator.rendered)


def test_attempts_are_bounded():
    few = {"size": (48, 64), "reference_attempts": 3, "second_attempts": 7}
    everything = ((-9, -9, -9), (9, 9, 9))
    assert count_rendered(mv.MultiviewSettings(**few), hole=everything) == 3, "no second view of nothing"
    assert count_rendered(mv.MultiviewSettings(**few), lambda *_: (1.0, 0.49)) == 3 * (1 + 7)
    assert count_rendered(mv.MultiviewSettings(**few), boxes=[((-9, 0, -9), (9, 1, 9))]) == 0, "no floor"


def test_the_measure_gets_the_radius_and_both_shares_count():
    radii = []

    def measure(depth0, pose0, depth1, pose1, intrinsics, radius_m):
        radii.append(radius_m)
        return (0.9, 0.5) if len(radii) > 3 else (0.499, 0.9)

    pair = mv.sample_pair(room(), measure, "room", 0, mv.MultiviewSettings(size=(48, 64), radius_m=0.07))
    assert radii == [0.07] * 4
    assert (pair.covisibility, pair.seen0, pair.seen1) == (0.5, 0.9, 0.5)


def test_a_simulator_with_another_lens_is_refused():
    for lens, message in ((Lens(size=(48, 64)), "no depth"), (Lens(size=(64, 64), depth=True), r"\(64, 64\) pixels")):
        with pytest.raises(ValueError, match=message):
            mv.sample_pair(BoxRoom(lens), shares, "room", 0, SETTINGS)


@pytest.mark.parametrize(
    "options",
    [
        {"camera_height_m": (1.8, 1.2)},
        {"min_valid": 1.1},
        {"min_covisibility": -0.1},
        {"second_attempts": 0},
        {"reference_attempts": 0},
    ],
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        mv.MultiviewSettings(**options)


def test_defaults_are_those_of_the_release():
    assert mv.MultiviewSettings().lens == Lens(size=(256, 256), hfov_deg=60.0, depth=True)


# turns

coordinates = st.tuples(*[st.floats(-50, 50)] * 3).map(np.array)


@given(eye=coordinates, target=coordinates)
@settings(max_examples=200)
def test_look_at_looks_there_and_stands_upright(eye, target):
    rotation = mv.look_at(eye, target)
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) > 0
    distance = np.linalg.norm(target - eye)
    if distance > 1e-3:
        assert np.allclose(eye - distance * rotation[:, 2], target, atol=1e-6)
    assert rotation[1, 0] == 0, "the horizon is level"
    assert rotation[1, 1] >= 0


@given(pan=st.floats(-180, 180), tilt=st.floats(-90, 90), roll=st.floats(-180, 180))
@settings(max_examples=200)
def test_quaternions_are_their_rotations(pan, tilt, roll):
    rotation = mv.turned(np.eye(3), tilt, pan, roll)
    quaternion = mv.quaternion_of(rotation)
    assert abs(np.linalg.norm(quaternion) - 1) < 1e-12
    assert quaternion[0] >= 0
    assert np.allclose(mv.pose_of(np.zeros(3), quaternion)[:3, :3], rotation, atol=1e-12)


def test_quaternion_of_a_turn_to_the_left():
    """habitat-sim's: yaw a about +y is (cos a/2, 0, sin a/2, 0), and 45 degrees look along (-0.707, 0, -0.707)."""
    rotation = mv.turned(np.eye(3), 0, 45, 0)
    assert np.allclose(mv.quaternion_of(rotation), (np.cos(np.pi / 8), 0, np.sin(np.pi / 8), 0))
    assert np.allclose(-rotation[:, 2], (-np.sqrt(0.5), 0, -np.sqrt(0.5)))


# metadata

SCENE = SceneFile(path="hm3d/train/00001-abc/abc.basis.glb", navmesh="hm3d/train/00001-abc/abc.basis.navmesh")


@pytest.fixture
def metadata(pairs):
    return md.scene_metadata(SCENE, pairs, 1000, SETTINGS)


def test_metadata_comes_back_and_renders_the_very_same_pictures(pairs, metadata, tmp_path):
    md.write_metadata(tmp_path / "metadata.json", metadata)
    again = md.read_metadata(tmp_path / "metadata.json")
    assert [path.name for path in tmp_path.iterdir()] == ["metadata.json"]
    for name in ("scene", "navmesh", "views_count", "size", "generate_depth", "resolution", "hfov"):
        assert getattr(again, name) == getattr(metadata, name)
    rendered = dict(md.render_metadata(room(hole=HOLE), again))
    assert list(rendered) == [f"{number:08d}" for number in range(NUM_PAIRS)]
    for number, pair in pairs.items():
        pictures = rendered[f"{number:08d}"]
        for picture, view in zip(pictures, (pair.view0, pair.view1), strict=True):
            assert np.array_equal(picture.image, view.picture.image)
            assert np.array_equal(picture.depth, view.picture.depth)
    md.write_metadata(tmp_path / "again.json", again)
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "metadata.json").read_bytes()


def test_metadata_has_the_layout_of_the_release(pairs, metadata, tmp_path):
    md.write_metadata(tmp_path / "metadata.json", metadata)
    content = json.loads((tmp_path / "metadata.json").read_text())
    keys = "scene_dataset_config_file scene navmesh views_count size generate_depth resolution hfov multiviews"
    assert list(content) == keys.split()
    assert (content["views_count"], content["size"], content["resolution"], content["hfov"]) == (2, 1000, [48, 64], 60)
    views, pair = content["multiviews"]["00000003"], pairs[3]
    w, _, y, _ = views["orientations"][0]
    heading = angles_deg(pair.view0.pose[:3, :3])[0]
    assert np.degrees(2 * np.arctan2(y, w)) % 360 == pytest.approx(heading % 360, abs=3), "w comes first"
    assert views["covisibility_ratios"] == [pair.view0.valid, pair.covisibility]
    assert views["valid_fractions"] == [pair.view0.valid, pair.view1.valid]
    expected = [[pair.view0.valid, pair.seen0], [pair.seen1, pair.view1.valid]]
    assert views["pairwise_visibility_ratios"] == expected


def test_poses_of_metadata(pairs, metadata):
    for label, (pose0, pose1) in md.poses(metadata).items():
        assert np.array_equal(pose0, pairs[int(label)].view0.pose)
        assert np.array_equal(pose1, pairs[int(label)].view1.pose)


def test_rendering_in_another_size_is_refused(metadata):
    with pytest.raises(ValueError, match=r"64 x 64 pixels, the metadata says \(48, 64\)"):
        next(md.render_metadata(BoxRoom(Lens(size=(64, 64))), metadata))


VIEWS = {
    "positions": [[0, 1.5, 0], [1, 1.4, 2.0]],
    "orientations": [[1, 0, 0, 0], [0.6, 0, 0.8, 0]],
    "covisibility_ratios": [0.9, 0.6],
    "valid_fractions": [0.9, 0.8],
    "pairwise_visibility_ratios": [[0.9, 0.6], [0.7, 0.8]],
}
CONTENT = {
    "scene_dataset_config_file": None,
    "scene": "replica_cad/stages/a.glb",
    "navmesh": "replica_cad/navmeshes/a.navmesh",
    "views_count": 2,
    "size": 1,
    "generate_depth": False,
    "resolution": [256, 256],
    "hfov": 60,
    "multiviews": {"00000000": VIEWS},
}


def written(tmp_path, content):
    path = tmp_path / "metadata.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_file_with_more_keys_and_no_paths_is_read(tmp_path):
    content = {**CONTENT, "navmesh": None, "made_by": [1, {"a": 2}]}
    read = md.read_metadata(written(tmp_path, content))
    assert (read.scene_dataset_config_file, read.navmesh, read.hfov) == ("", "", 60.0)
    assert np.array_equal(read.multiviews["00000000"].positions[1], (1, 1.4, 2))


BAD_VIEWS = [
    ({"positions": [[0, 0]] * 2}, "positions has shape (2, 2), expected (2, 3)"),
    ({"positions": [[0, 0, 0], [0, 0]]}, "positions has rows of different lengths"),
    ({"positions": [[0, 0, "x"]] * 2}, "Expected `float`, got `str` - at `$.positions[0][2]`"),
    ({"orientations": [[0, 0, 0, 0]] * 2}, "orientations must be quaternions of length 1"),
    ({"orientations": [[1, 0, 0, 0]]}, "orientations has shape (1, 4), expected (2, 4)"),
    ({"covisibility_ratios": [0.9, 1.2]}, "covisibility_ratios must lie in 0..1"),
    ({"valid_fractions": [0.9, -0.1]}, "valid_fractions must lie in 0..1"),
    ({"valid_fractions": None}, "Expected `array`, got `null` - at `$.valid_fractions`"),
    ({"pairwise_visibility_ratios": [[1.0, 1.0]]}, "pairwise_visibility_ratios has shape (1, 2), expected (2, 2)"),
]


@pytest.mark.parametrize(("change", "message"), BAD_VIEWS)
def test_malformed_views_are_named(tmp_path, change, message):
    path = written(tmp_path, {**CONTENT, "multiviews": {"00000000": VIEWS, "00000017": {**VIEWS, **change}}})
    with pytest.raises(ValueError, match=re.escape(f"{path}: multiviews['00000017']: ") + ".*" + re.escape(message)):
        md.read_metadata(path)


BAD_FILES = [
    ("", "not valid JSON"),
    (json.dumps(CONTENT)[:-40], "not valid JSON"),
    ("[1, 2]", "Expected `object`, got `array`"),
    ('{"scene": "\\ud800"}', "not valid JSON"),
    ('{"more": ' + "[" * 100_000, "not valid JSON"),
    (json.dumps({k: v for k, v in CONTENT.items() if k != "hfov"}), "missing required field `hfov`"),
    (json.dumps(CONTENT).replace("1.4", "NaN"), "not valid JSON"),
    (json.dumps(CONTENT).replace("1.4", "1e999"), ""),
    (json.dumps({**CONTENT, "hfov": 180}), "$.hfov"),
    (json.dumps({**CONTENT, "resolution": [256]}), "$.resolution"),
    (json.dumps({**CONTENT, "resolution": [256, 10**9]}), "$.resolution"),
    (json.dumps({**CONTENT, "views_count": 3}), "positions of 2 views, but views_count is 3"),
    (json.dumps({**CONTENT, "multiviews": {"../../x": VIEWS}}), "multiviews['../../x']: a label has eight digits"),
    (json.dumps({**CONTENT, "scene": 5}), "$.scene"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES)
def test_malformed_files_are_named(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        md.read_metadata(path)


def places(content, path=()):
    """Where every value of nested containers stands."""
    yield path
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


@given(
    place=st.sampled_from([place for place in places(CONTENT) if place]),
    value=st.sampled_from([None, True, -1, 10**400, 1e300, "", "\0", [], {}, [[]], [[1, 2, 3]], {"a": [1]}]),
)
@settings(max_examples=200)
def test_anything_in_the_place_of_anything_is_read_or_named(tmp_path_factory, place, value):
    content = json.loads(json.dumps(CONTENT))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path, message = written(tmp_path_factory.getbasetemp(), content), ""
    try:
        read = md.read_metadata(path)
    except ValueError as error:
        message = str(error)
    if message:
        assert message.startswith(f"{path}: ")
    else:
        assert all(np.isfinite(pose).all() for poses in md.poses(read).values() for pose in poses)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"metadata\.json: cannot be read"):
        md.read_metadata(tmp_path / "metadata.json")


def test_labels_are_replaced_longest_first(tmp_path):
    read = md.read_metadata(written(tmp_path, CONTENT))
    roots = {"replica": "/data/replica_v1", "replica_cad": "/data/cad"}
    scene = md.scene_file(read, roots)
    assert (scene.path, scene.navmesh, scene.stage_config) == (
        "/data/cad/stages/a.glb",
        "/data/cad/navmeshes/a.navmesh",
        "",
    )
    assert scene.up == "z"
    assert md.local_path("replica/room_0/mesh.ply", "scene", roots) == "/data/replica_v1/room_0/mesh.ply"
    assert md.local_path("/here/a.glb", "scene", {"/here/": "/there"}) == "/there/a.glb"


@pytest.mark.parametrize(
    "path", ["hm3d/../../etc/passwd", "hm3d/a/..", "gibson/a.glb", "hm3d_more/a.glb", "/etc/passwd"]
)
def test_paths_outside_of_the_folders_are_refused(path):
    with pytest.raises(ValueError, match="scene is '"):
        md.local_path(path, "scene", {"hm3d": "/data/hm3d"})
