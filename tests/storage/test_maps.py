"""Maps and cameras that are stored beside the views: exact codecs, data sets that have them, and what verify says."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from samples import CRITERIA, SIDE, make_image, make_sample

from mimic_wds.loading.dataset import PairDataset
from mimic_wds.pairs import Camera, Counts, PairTruth, Scene
from mimic_wds.storage import maps
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.packing import pack
from mimic_wds.storage.reader import Shard, open_shards
from mimic_wds.storage.staging import SceneStage
from mimic_wds.storage.verify import verify

DEPTH = np.linspace(0, 6, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)


def camera(x_m=0.0):
    K = np.array([[128, 0, 31.5], [0, 128, 31.5], [0, 0, 1]], float)
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(np.array([0.1, 0.2, 0.3 + x_m]))[0]
    pose[0, 3] = x_m
    return Camera(intrinsics=K, pose=pose)


def rendered(number=0, **changes):
    """A pair with cameras and depth."""
    depth = {f"{view}.depth.png": maps.encode_depth(DEPTH + view) for view in (0, 1)}
    truth = PairTruth(camera0=camera(), camera1=camera(0.5), covisibility=0.625)
    return replace(make_sample(number), **{"truth": truth, "maps": depth, **changes})


def pack_samples(folder, samples, **description):
    staging = folder.parent / f"{folder.name}-staging"
    staging.mkdir(parents=True)
    with SceneStage(staging, 0) as stage:
        for sample in samples:
            stage.add(sample)
        stage.finish(Scene(source="video", name="clip.mp4", path="/in"), Counts(kept=len(samples), views=9))
    folder.mkdir()
    known = {"criteria": CRITERIA, "versions": {}, "licences": {"video": "CC0"}}
    return pack(staging, 1, folder, "tiny", 10**6, {**known, **description})


@given(arrays(np.float32, (5, 7), elements=st.floats(0, 65, width=32)))
def test_depth_is_exact_to_half_a_millimetre(depth):
    back = maps.decode_depth(maps.encode_depth(depth))
    assert np.abs(back - depth).max() <= 0.0005 + 1e-5


def test_depth_that_is_not_known_or_too_far_is_zero():
    depth = np.array([[0, -1, np.nan, np.inf, 65.5359, 65.535, 0.0004]], np.float32)
    assert maps.decode_depth(maps.encode_depth(depth)).tolist() == [[0, 0, 0, 0, 0, np.float32(65.535), 0]]


def test_depth_is_a_16_bit_png_in_millimetres():
    pixels = cv2.imdecode(np.frombuffer(maps.encode_depth(np.full((2, 3), 1.234, np.float32)), np.uint8), -1)
    assert (pixels.dtype, pixels.tolist()) == (np.uint16, [[1234] * 3] * 2)


@given(arrays(np.float64, (4, 3, 3), elements=st.floats(-1, 1)))
def test_normals_are_exact_to_half_a_grey_level_each(vectors):
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    normals = np.where(lengths > 1e-3, vectors / np.maximum(lengths, 1e-3), 0)
    back = maps.decode_normal(maps.encode_normal(normals))
    known = lengths[..., 0] > 1e-3
    assert not back[~known].any()
    assert (back[known] * normals[known]).sum(axis=-1).min(initial=1) > np.cos(np.radians(0.6))


def test_normals_have_red_right_green_down_blue_forward():
    axes = np.eye(3)[None]
    rgb = maps.decode_map("normal", maps.encode_normal(axes))
    assert rgb.tolist() == [[[255, 128, 128], [128, 255, 128], [128, 128, 255]]]


def test_a_data_set_with_cameras_and_depth(tmp_path):
    samples = [rendered(number) for number in range(3)]
    manifest = pack_samples(tmp_path / "d", samples, maps=["depth"], truth=True)
    assert manifest.format_version == 2
    assert list(verify(tmp_path / "d")) == []
    (shard,) = open_shards(tmp_path / "d", read_manifest(tmp_path / "d"))
    assert shard.members == ("0.jpg", "1.jpg", "corr.npy", "json", "0.depth.png", "1.depth.png")
    back = shard.sample(1)
    assert back.maps == samples[1].maps
    assert back.truth.covisibility == 0.625
    assert np.array_equal(back.truth.camera1.pose, camera(0.5).pose)
    assert np.array_equal(back.truth.camera0.intrinsics, camera().intrinsics)
    facts = json.loads(shard.read(1)["json"])
    assert facts["intrinsics0"] == [128, 128, 31.5, 31.5]
    assert facts["pose1"] == camera(0.5).pose[:3].ravel().tolist()
    assert PairDataset(tmp_path / "d").read(1)[1]["0.jpg"] == samples[1].image0_jpg


def test_a_camera_that_is_not_known_is_zeros(tmp_path):
    sample = rendered(truth=PairTruth(camera0=None, camera1=None))
    pack_samples(tmp_path / "d", [sample], maps=["depth"], truth=True)
    assert list(verify(tmp_path / "d")) == []
    (shard,) = open_shards(tmp_path / "d", read_manifest(tmp_path / "d"))
    facts = json.loads(shard.read(0)["json"])
    assert (facts["intrinsics0"], facts["pose1"], facts["covisibility"]) == ([0.0] * 4, [0.0] * 12, -1.0)
    assert shard.sample(0).truth.camera0 is None


def broken(**parts):
    good = camera()
    return PairTruth(camera0=replace(good, **parts), camera1=good, covisibility=0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": {"0.depth.png": b"", "1.depth.png": maps.encode_depth(DEPTH)}}, "a depth map does not decode"),
        ({"maps": {f"{v}.depth.png": maps.encode_depth(DEPTH[:-1]) for v in "01"}}, "0.depth.png has size (63, 64)"),
        ({"maps": {f"{v}.depth.png": maps.encode_semseg(np.zeros((9, 9), int)) for v in "01"}}, "pixels of uint8"),
        ({"truth": broken(pose=np.diag([1.0, 1, -1, 1]))}, "no rotation as its pose"),
        ({"truth": broken(intrinsics=np.zeros((3, 3)) + np.diag([-1, 1, 1]))}, "no rotation as its pose"),
        ({"truth": PairTruth(camera0=None, camera1=None, covisibility=1.5)}, "its co-visibility is 1.5"),
        ({"truth": None}, "does not say where its cameras were"),
    ],
)
def test_verify_names_what_is_wrong(tmp_path, changes, message):
    pack_samples(tmp_path / "d", [rendered(**changes)], maps=["depth"], truth=True)
    assert message in " ".join(str(problem) for problem in verify(tmp_path / "d"))


def test_shards_without_the_maps_that_the_manifest_lists_are_refused(tmp_path):
    pack_samples(tmp_path / "d", [rendered()], maps=["depth", "normal"], truth=True)
    with pytest.raises(ValueError, match=r"its samples have the members 0\.jpg, .*1\.depth\.png, the manifest says"):
        open_shards(tmp_path / "d", read_manifest(tmp_path / "d"))


@pytest.mark.parametrize("names", [["normal", "depth"], ["depth", "depth"], ["colour"]])
def test_the_manifest_lists_known_maps_in_order(tmp_path, names):
    pack_samples(tmp_path / "d", [rendered()], maps=names, truth=True)
    with pytest.raises(ValueError, match="expected some of depth, normal, semseg"):
        read_manifest(tmp_path / "d")


def test_single_images_with_all_maps(tmp_path):
    image = make_image(0, "video", classes=())
    height, width = image.size
    normal = np.tile([0.0, 0, -1], (height, width, 1))
    stored = {
        "0.depth.png": maps.encode_depth(np.full(image.size, 2, np.float32)),
        "0.normal.png": maps.encode_normal(normal),
        "0.semseg.png": maps.encode_semseg(np.arange(height * width).reshape(height, width) % 3),
    }
    sample = replace(image, camera=camera(), maps=stored)
    description = {"kind": "images", "licences": {}, "criteria": {}, "maps": list(maps_of(stored)), "truth": True}
    pack_samples(tmp_path / "d", [sample], **description, semseg_classes=["floor", "wall"])
    assert list(verify(tmp_path / "d")) == []
    manifest = read_manifest(tmp_path / "d")
    with Shard(tmp_path / "d" / manifest.shards[0].name) as shard:
        back = shard.sample(0)
    assert back.maps == stored
    assert maps.decode_normal(back.maps["0.normal.png"])[0, 0] == pytest.approx([0, 0, -1], abs=0.005)
    assert np.array_equal(back.camera.pose, camera().pose)


def maps_of(stored):
    return dict.fromkeys(member.split(".")[1] for member in stored)
