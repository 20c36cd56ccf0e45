"""DeMoN's HDF5 files, written with h5py as its documentation says, and folders of images."""

import sys

import cv2
import numpy as np
import pytest
from pictures import encode, frames, mine, pan, read, read_elsewhere, same, write

from mimic_wds.pairs import AllPairs, Fault, SceneError
from mimic_wds.sources.base import Source
from mimic_wds.sources.demon import Demon

h5py = pytest.importorskip("h5py", reason="DeMoN's files are HDF5: pip install 'mimic-wds[eval]'")


def add_view(file, scene: str, view: int, data: bytes, form: str = "webp") -> None:
    """/scene/frames/t0/vK/{image,camera,depth} as 1D arrays of chars and doubles."""
    group = file.require_group(f"{scene}/frames/t0/v{view}")
    group.create_dataset("image", data=np.frombuffer(data, np.int8)).attrs["format"] = np.bytes_(form)
    group.create_dataset("camera", data=np.zeros(17)).attrs["format"] = np.bytes_("pinhole")
    group.create_dataset("depth", data=np.zeros(9, np.int8)).attrs["format"] = np.bytes_("lz4half")


def write_file(path, scenes: dict[str, list[bytes]]):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_group(".config")
        for scene, views in scenes.items():
            for k, data in enumerate(views):
                add_view(file, scene, k, data)
    return path


@pytest.fixture
def webp():
    return [encode(image, ".webp") for image in pan(12, 20)]


def test_scenes_are_groups_and_views_are_in_natural_order(tmp_path, webp):
    path = write_file(tmp_path / "demon/sun3d_train.h5", {"b.10": webp, "b.9": webp[:2]})
    with h5py.File(path, "a") as file:
        file["notes"] = 3
        file.create_group("empty")
        add_view(file, "jpeg", 0, encode(pan(1, 1)[0]), "jpg")
    source = Demon(paths=(str(tmp_path / "demon"),))
    assert isinstance(source, Source)
    assert {name: frames(found) for name, found in read(source).items()} == {
        "demon/sun3d_train.h5/b.9": [("t0-v0", "view"), ("t0-v1", "view")],
        "demon/sun3d_train.h5/b.10": [(f"t0-v{k}", "view") for k in range(12)],
        "demon/sun3d_train.h5/jpeg": [("t0-v0", "view")],
    }
    scene = source.scenes()[0]
    assert scene.path == f"{path}::b.9"
    assert scene.num_bytes == len(webp[0]) + len(webp[1])
    assert source.policy(scene) == AllPairs(keep="smallest")
    assert next(s.name for s in Demon(paths=(str(path),)).scenes()) == "sun3d_train.h5/b.9"


def test_images_are_those_that_were_stored(tmp_path):
    image = pan(1, 1)[0]
    path = write_file(tmp_path / "x.h5", {"s": [encode(image, ".png")]})
    ((view,),) = read(Demon(paths=(str(path),))).values()
    assert np.array_equal(view.image, image)


def test_exported_and_plain_folders_are_scenes(tmp_path, webp):
    pngs = [encode(image, ".png") for image in pan(3, 20)]
    exported = {f"s.1/frames/t0/v{k}/image.png": data for k, data in enumerate(pngs)}
    exported |= {"s.1/frames/t0/v0/depth.png": pngs[0], "s.1/frames/t0/viewpoint_pairs.txt": b"0 1"}
    plain = {f"train/s.2/{k:07d}.png": data for k, data in enumerate(pngs)} | {"train/s.2/cam.txt": b"1"}
    root = write(tmp_path / "demon", exported | plain)
    source = Demon(paths=(str(root),))
    assert {name: frames(found) for name, found in read(source).items()} == {
        "demon/s.1": [(f"t0-v{k}", "view") for k in range(3)],
        "demon/train/s.2": [(f"{k:07d}.png", "view") for k in range(3)],
    }
    assert [s.num_bytes for s in source.scenes()] == [sum(map(len, pngs))] * 2
    path = write_file(tmp_path / "file.h5", {"s": pngs})
    from_file = {"s": next(iter(read(Demon(paths=(str(path),))).values()))}
    assert same(from_file, {"s": read(source)["demon/s.1"]})
    with_file = write_file(root / "more.h5", {"s.3": pngs[:1]})
    assert with_file.exists()
    assert len(source.scenes()) == 3


def test_another_process_reads_the_same(tmp_path, webp):
    source = Demon(paths=(str(write_file(tmp_path / "x.h5", {"s": webp[:2], "t": [b"broken", webp[0]]})),))
    assert read_elsewhere(source) == [["t0-v0", "t0-v1"], ["!t0-v0", "t0-v1"]]


def test_damaged_views_are_faults_in_their_place(tmp_path, webp):
    path = write_file(tmp_path / "x.h5", {"s": [webp[0], webp[1][:200], webp[2]]})
    with h5py.File(path, "a") as file:
        views = file["s/frames/t0"]
        del views["v2/image"]
        views["v3/image"] = np.zeros((96, 128, 3), np.uint8)  # pixels are no encoded image
        views["v4"] = 1.0
        views["v5/image"] = h5py.ExternalLink("elsewhere.h5", "/image")
        views["v6/image"] = np.frombuffer(encode(pan(1, 1)[0][:30, :30], ".png"), np.int8)
        views.create_dataset("v7/image", shape=(2**40,), dtype=np.int8, chunks=True)  # says a terabyte, holds nothing
    ((*found,),) = read(Demon(paths=(str(path),))).values()
    assert frames(found) == [
        ("t0-v0", "view"),
        *((f"t0-v{k}", "unreadable_image") for k in range(1, 6)),
        ("t0-v6", "image_too_small"),
        ("t0-v7", "image_too_large"),
    ]
    assert all(f"{path}::s/{f.frame}" == f.where for f in found if isinstance(f, Fault))


def test_bytes_damaged_in_the_file_are_a_fault(tmp_path, webp):
    path = write_file(tmp_path / "x.h5", {"s": webp[:2]})
    data = bytearray(path.read_bytes())
    at = data.index(webp[1])
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    assert frames(next(iter(read(Demon(paths=(str(path),))).values()))) == [
        ("t0-v0", "view"),
        ("t0-v1", "unreadable_image"),
    ]


def test_broken_groups_and_files_are_broken_scenes(tmp_path, webp):
    path = write_file(tmp_path / "x.h5", {"s": webp[:2], "t": webp[:1]})
    with h5py.File(path, "a") as file:
        del file["s/frames"]
        file["s/frames"] = 1.0
    source = Demon(paths=(str(path),))
    first, second = source.scenes()
    assert (first.name, first.num_bytes) == ("x.h5/s", 0)
    with pytest.raises(SceneError, match=r"x.h5::s: has no frames/t0/v0"):
        list(source.views(first))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(SceneError, match="is no whole HDF5 file") as error:
        list(source.views(second))
    assert str(error.value).startswith(second.path)
    with pytest.raises(ValueError, match=r"x\.h5: is no whole HDF5 file"):
        source.scenes()
    path.unlink()
    with pytest.raises(SceneError):
        list(source.views(second))


def test_without_h5py_the_command_to_type_is_named(tmp_path, webp, monkeypatch):
    path = write_file(tmp_path / "x.h5", {"s": webp[:2]})
    monkeypatch.setitem(sys.modules, "h5py", None)  # what an import of a package that is not there meets
    with pytest.raises(ValueError, match=r"pip install 'mimic-wds\[eval\]'"):
        Demon(paths=(str(path),)).scenes()


def test_what_is_there_instead_is_said(tmp_path):
    (tmp_path / "sun3d_train.tgz").touch()
    with pytest.raises(ValueError, match=r"expected HDF5 files .*found 1 .tgz file; .* unpack sun3d_train.tgz"):
        Demon(paths=(str(tmp_path),)).scenes()
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images/x"] = 1
    with pytest.raises(ValueError, match="no DeMoN scenes here"):
        Demon(paths=(str(tmp_path),)).scenes()


def test_the_pair_with_the_smallest_accepted_overlap_is_kept(tmp_path):
    views = [encode(image, ".png") for image in pan(4, 45)]  # 80, 60, 40 % for 1, 2, 3 apart
    path = write_file(tmp_path / "x.h5", {"s": views})
    kept, counts = mine(Demon(paths=(str(path),)))
    assert [(p.frame0, p.frame1) for p in kept] in ([("t0-v0", "t0-v2")], [("t0-v1", "t0-v3")])
    assert kept[0].overlap == pytest.approx(1 - 90 / 224, abs=0.03)
    assert (counts.candidates, counts.kept, counts.dropped["not_selected"]) == (6, 1, 1)


def test_the_sample_file(shared_data):
    source = Demon(paths=(str(shared_data / "images/demon"),))
    found = read(source)
    assert list(found) == [f"demon/living_room_multiview.h5/living_room.00000{k}" for k in range(4)]
    assert all(frames(views) == [(f"t0-v{k}", "view") for k in range(4)] for views in found.values())
    assert all(v.image.shape == (240, 320, 3) for views in found.values() for v in views)
    with h5py.File(source.scenes()[0].path.partition("::")[0]) as file:
        for scene, views in found.items():
            for k, view in enumerate(views):
                stored = file[f"{scene.rpartition('/')[2]}/frames/t0/v{k}/image"][()]
                bgr = cv2.imdecode(stored.view(np.uint8), cv2.IMREAD_COLOR)
                assert np.array_equal(view.image, bgr[..., ::-1])
