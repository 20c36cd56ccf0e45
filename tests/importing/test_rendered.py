"""What is rendered anew: labels for finetuning, and the views that CroCo's metadata lists."""

import json

import cv2
import numpy as np
import pytest
from obj_rooms import write_room

from mimic_wds.cli.main import run
from mimic_wds.geometry.covisibility import shares
from mimic_wds.importing.labels import RenderedLabels
from mimic_wds.loading.dataset import ImageDataset
from mimic_wds.sources.simulator.base import SceneFile
from mimic_wds.sources.simulator.embedded import EmbeddedSimulator
from mimic_wds.sources.simulator.multiview import MultiviewSettings, sample_pair
from mimic_wds.sources.simulator.multiview_metadata import scene_metadata, write_metadata
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.maps import decode_depth, decode_map, decode_normal
from mimic_wds.storage.reader import open_shards
from mimic_wds.storage.verify import verify


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return write_room(tmp_path_factory.mktemp("in") / "house.obj")


def samples(folder):
    shards = open_shards(folder, read_manifest(folder))
    return [shard.sample(i) for shard in shards for i in range(len(shard))]


@pytest.fixture(scope="module")
def labels(house, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "labels"
    assert run(["render-labels", str(house), "--out", str(out), "--views", "8", "--size", "128", "--workers", "1"]) == 0
    return out


def points_of(sample):
    """Where in the world each pixel looks."""
    depth = decode_depth(sample.maps["0.depth.png"]).astype(float)
    rows, columns = np.indices(depth.shape)
    rays = np.stack([columns, rows, np.ones(depth.shape)], axis=-1) @ np.linalg.inv(sample.camera.intrinsics).T
    return (rays * depth[..., None]) @ sample.camera.pose[:3, :3].T + sample.camera.pose[:3, 3]


def test_labels_are_a_sound_data_set_of_images(labels):
    manifest = read_manifest(labels)
    assert (manifest.kind, manifest.maps, manifest.truth) == ("images", ["depth", "normal", "semseg"], True)
    assert manifest.kept == {"mesh": 8}
    assert list(verify(labels)) == []
    with ImageDataset(labels) as dataset:
        assert len(dataset) == 8


def test_depth_and_cameras_put_every_pixel_on_the_room(labels):
    for sample in samples(labels):
        points = points_of(sample)
        assert (points > -0.01).all()
        assert (points < np.array([8, 2.8, 7]) + 0.01).all()
        gaps = np.minimum(np.abs(points), np.abs(points - [8, 2.8, 7])).min(axis=-1)
        assert np.mean(gaps < 0.01) > 0.3


def test_normals_are_those_of_the_walls_and_face_the_camera(labels):
    for sample in samples(labels):
        normal, points = decode_normal(sample.maps["0.normal.png"]), points_of(sample)
        world = normal @ sample.camera.pose[:3, :3].T
        assert np.abs(np.sort(np.abs(world), axis=-1) - [0, 0, 1]).max() < 0.02  # all surfaces are along the axes
        floor = np.abs(points[..., 1]) < 0.005
        upward = np.abs(world[floor] - [0, 1, 0]).max(axis=-1) < 0.02
        assert upward.size == 0 or upward.mean() > 0.95  # the others are the lowest millimetres of walls
        towards = sample.camera.pose[:3, 3] - points
        assert ((towards * world).sum(axis=-1) > -0.05).all()


def test_scenes_without_names_have_no_classes(labels):
    assert read_manifest(labels).semseg_classes == []
    assert not decode_map("semseg", samples(labels)[0].maps["0.semseg.png"]).any()


def test_views_look_up_and_down_by_at_most_the_pitch(labels):
    pitches = [np.degrees(np.arcsin(-sample.camera.pose[1, 2])) for sample in samples(labels)]
    assert max(np.abs(pitches)) <= 15
    assert np.std(pitches) > 3


def test_named_parts_are_classes(shared_data, tmp_path):
    scene = shared_data / "scenes" / "living_room" / "living_room.glb"
    code = run(
        [
            "render-labels",
            str(scene),
            "--out",
            str(tmp_path / "o"),
            "--views",
            "4",
            "-o",
            'maps=["depth","semseg"]',
            "--workers",
            "1",
        ]
    )
    assert code == 0
    manifest = read_manifest(tmp_path / "o")
    assert {"floor", "sofa", "table"} <= set(manifest.semseg_classes)
    assert manifest.maps == ["depth", "semseg"]
    floor = manifest.semseg_classes.index("floor") + 1
    for sample in samples(tmp_path / "o"):
        classes, points = decode_map("semseg", sample.maps["0.semseg.png"]), points_of(sample)
        assert (classes > 0).mean() > 0.8
        if (classes == floor).any():
            assert np.abs(points[classes == floor][:, 1]).max() < 0.1


def test_options_that_cannot_be_are_told():
    for options, message in (
        ({"maps": ("depht",)}, "maps are some of depth, normal, semseg"),
        ({"views": 0}, "views must be 1 or more"),
        ({"source": "video"}, "source 'video' has no 3D scenes"),
    ):
        with pytest.raises(ValueError, match=message):
            RenderedLabels(paths=("x",), **options).plan(None)


@pytest.fixture(scope="module")
def released(house, tmp_path_factory):
    """A metadata.json as CroCo's release has it, and the pictures that it was made with."""
    settings = MultiviewSettings(size=(128, 128))
    simulator = EmbeddedSimulator(settings.lens, renderer="numba")
    simulator.load(SceneFile(path=str(house)))
    pairs = {number: sample_pair(simulator, shares, "house", number, settings) for number in range(3)}
    simulator.close()
    folder = tmp_path_factory.mktemp("metadata") / "hm3d" / "house"
    folder.mkdir(parents=True)
    metadata = scene_metadata(SceneFile(path="hm3d/house.obj"), pairs, 3, settings)
    write_metadata(folder / "metadata.json", metadata)
    return folder, pairs


def import_metadata(folder, out, *options):
    arguments = ["import", "habitat-metadata", str(folder), "--out", str(out), "--size", "128", "--workers", "1"]
    for option in ("backend=numba", *options):
        arguments += ["-o", option]
    return run(arguments)


def test_released_metadata_is_rendered_again(released, house, tmp_path):
    folder, pairs = released
    assert import_metadata(folder.parent, tmp_path / "o", f"roots=hm3d={house.parent}") == 0
    assert list(verify(tmp_path / "o")) == []
    found = samples(tmp_path / "o")
    assert [(s.frame0, s.frame1) for s in found] == [(f"{n:08d}-0", f"{n:08d}-1") for n in range(3)]
    for sample, pair in zip(found, pairs.values(), strict=True):
        for data, view in ((sample.image0_jpg, pair.view0), (sample.image1_jpg, pair.view1)):
            expected = cv2.imencode(".jpg", view.picture.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
            assert data == expected.tobytes()
        assert (sample.overlap, sample.num_inliers) == (-1, -1)


def test_scenes_that_are_not_there_are_outcomes(released, tmp_path):
    folder, _ = released
    assert import_metadata(folder, tmp_path / "o", f"roots=hm3d={tmp_path}") == 3
    manifest = read_manifest(tmp_path / "o")
    assert "no such scene" in manifest.failed_scenes["habitat/hm3d/house.obj"]
    assert manifest.dropped == {"habitat": {"unreadable": 3}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["roots=hm3d"], "roots must be LABEL=FOLDER"),
        (["roots=gibson=/data"], "begins with no label that a folder is given for"),
    ],
)
def test_roots_are_checked(released, tmp_path, capsys, options, message):
    folder, _ = released
    assert import_metadata(folder, tmp_path / "o", *options) == 2
    assert message in capsys.readouterr().err


def test_malformed_metadata_is_one_message(tmp_path, capsys):
    (tmp_path / "metadata.json").write_text(json.dumps({"scene": "hm3d/x.glb"}))
    assert import_metadata(tmp_path, tmp_path / "o", "roots=hm3d=/data") == 2
    assert "metadata.json" in capsys.readouterr().err
