"""Foreign tars, written by webdataset and by tarfile, are read; what they hold beside the pictures is named."""

import io
import tarfile

import cv2
import numpy as np
import pytest
import webdataset
from published import jpeg, run_import

from mimic_wds.importing.base import Plan
from mimic_wds.importing.registry import make_format
from mimic_wds.importing.run import Target
from mimic_wds.storage.reader import open_shards
from mimic_wds.storage.verify import verify


def write_tar(path, samples):
    with webdataset.TarWriter(str(path)) as writer:
        for key, members in samples.items():
            writer.write({"__key__": key, **members})
    return path


def read(folder, manifest):
    shards = open_shards(folder, manifest)
    found = [shard.sample(i) for shard in shards for i in range(len(shard))]
    for shard in shards:
        shard.close()
    return found


def two(number):
    return {"left.jpg": jpeg(number), "right.jpg": jpeg(number + 100), "json": b"{}", "depth.png": b"x"}


def plan(path, **options) -> Plan:
    return make_format("wds", [str(path)], options).plan(Target(out=path, name="x", size=224))


LEFT_RIGHT = {"image0": "left.jpg", "image1": "Right.JPG"}


def test_pairs_are_read_and_other_members_named(tmp_path):
    path = write_tar(tmp_path / "train-000001.tar", {f"scene/{n:04d}": two(n) for n in range(3)})
    manifest = run_import(tmp_path / "out", "wds", [path], **LEFT_RIGHT)
    found = read(tmp_path / "out", manifest)
    assert [(s.scene, s.frame0, s.frame1) for s in found] == [
        ("train-000001", f"scene/{n:04d}-0", f"scene/{n:04d}-1") for n in range(3)
    ]
    assert found[2].image1_jpg == jpeg(102)
    assert found[2].overlap == -1.0
    assert plan(path, **LEFT_RIGHT).notes == ["members that are not imported: depth.png, json"]
    assert list(verify(tmp_path / "out")) == []


def test_names_that_are_not_there_are_told(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"0": two(0)})
    with pytest.raises(ValueError, match=r"no 0\.jpg and no 1\.jpg; they have depth.png, json, left.jpg, right.jpg"):
        plan(path)


def test_a_picture_of_another_format_becomes_a_jpeg(tmp_path):
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8), (224, 224))
    png = cv2.imencode(".png", image)[1].tobytes()
    path = write_tar(
        tmp_path / "a.tar", {"0": {"0.png": png, "1.jpg": jpeg(1)}, "1": {"0.png": b"no", "1.jpg": jpeg(1)}}
    )
    manifest = run_import(tmp_path / "out", "wds", [path], image0="0.png")
    assert (manifest.kept, manifest.dropped) == ({"wds": 1}, {"wds": {"unreadable": 1}})
    (sample,) = read(tmp_path / "out", manifest)
    decoded = cv2.imdecode(np.frombuffer(sample.image0_jpg, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(decoded.astype(int) - image).mean() < 4


def test_every_sample_is_kept_or_counted(tmp_path):
    samples = {f"{n}": two(n) for n in range(5)}
    del samples["1"]["right.jpg"]
    samples["2"]["left.jpg"] = b"\xff\xd8 cut"
    samples["3"]["left.jpg"] = jpeg(1, (112, 112))
    path = write_tar(tmp_path / "a.tar", samples)
    again = write_tar(tmp_path / "b.tar", {"0": two(0)})
    with tarfile.open(again, "a") as tar:
        for name, data in two(9).items():
            info = tarfile.TarInfo(f"x/1.{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    manifest = run_import(tmp_path / "out", "wds", [tmp_path], **LEFT_RIGHT)
    assert manifest.kept == {"wds": 4}
    assert manifest.dropped == {"wds": {"missing_view": 1, "unreadable": 1, "sizes_differ": 1}}
    assert path.exists()


def test_a_key_that_comes_again_is_counted(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for key in ("0", "1", "0"):
            for name, data in two(int(key)).items():
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    manifest = run_import(tmp_path / "out", "wds", [tmp_path / "a.tar"], **LEFT_RIGHT)
    assert (manifest.kept, manifest.dropped) == ({"wds": 2}, {"wds": {"duplicate_key": 1}})


@pytest.mark.parametrize("cut", [1024, 5000, 60_000])
def test_a_torn_tar_gives_what_it_has_and_is_named(tmp_path, cut):
    path = write_tar(tmp_path / "a.tar", {f"{n}": two(n) for n in range(4)})
    data = path.read_bytes().rstrip(b"\0")
    path.write_bytes(data[: -(-len(data) // 512) * 512 - cut])
    write_tar(tmp_path / "b.tar", {"0": two(7)})
    manifest = run_import(tmp_path / "out", "wds", [tmp_path], **LEFT_RIGHT)
    assert 2 <= manifest.kept["wds"] <= 5
    assert list(manifest.failed_scenes) == ["wds/a"]
    assert str(tmp_path) not in manifest.failed_scenes["wds/a"]
    assert list(verify(tmp_path / "out")) == []


def test_two_tars_of_one_name_are_told(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_tar(tmp_path / folder / "a.tar", {"0": two(0)})
    with pytest.raises(ValueError, match="another tar has the same name"):
        plan(tmp_path, **LEFT_RIGHT)
