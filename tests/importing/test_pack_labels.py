"""Benchmarks in their genuine formats, made small: every label comes back, what is broken is counted by reason."""

import cv2
import h5py
import numpy as np
import pytest
from scipy.io import savemat

from mimic_wds.cli.main import run
from mimic_wds.storage.layout import MAPS
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.maps import decode_depth, decode_map, decode_normal
from mimic_wds.storage.reader import open_shards
from mimic_wds.storage.verify import verify


def packed(task, *arguments, out, code=0):
    assert run(["pack-labels", task, *map(str, arguments), "--out", str(out), "--workers", "1"]) == code
    assert list(verify(out, depth="deep")) == []
    manifest = read_manifest(out)
    shards = open_shards(out, manifest)
    return manifest, [shard.sample(i) for shard in shards for i in range(len(shard))]


def pixels(jpeg):
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def smooth(rng, height, width, channels=3):
    return cv2.resize(rng.integers(0, 256, (5, 6, channels), dtype=np.uint8), (width, height))


@pytest.fixture
def nyu(tmp_path):
    """Six images of 48 x 64 in MATLAB's layout: axes in reverse, scenes as references to UTF-16 numbers."""
    rng = np.random.default_rng(0)
    images = np.stack([smooth(rng, 48, 64) for _ in range(6)])
    depths = rng.uniform(0.5, 9.99, (6, 48, 64)).astype(np.float32)
    depths[0, 0, 0] = 10.0  # what overflows in sixteenths of a bit of ten metres
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = images.transpose(0, 3, 2, 1)
        file["depths"] = depths.transpose(0, 2, 1)
        file["rawDepths"] = np.where(depths > 5, 0, depths).transpose(0, 2, 1)
        names = [f"kitchen_{number // 2:04d}" for number in range(6)]
        references = np.empty((1, 6), h5py.ref_dtype)
        for number, name in enumerate(names):
            text = file.create_dataset(f"#refs#/{number}", data=np.array([[ord(c)] for c in name], np.uint16))
            references[0, number] = text.ref
        file.create_dataset("scenes", data=references)
    splits = {"trainNdxs": np.array([[1], [2], [5]]), "testNdxs": np.array([[3], [4], [6]])}
    savemat(tmp_path / "splits.mat", splits)
    return tmp_path, images, depths


@pytest.mark.parametrize(("split", "numbers"), [("train", [0, 1, 4]), ("test", [2, 3, 5])])
def test_nyu(nyu, split, numbers):
    folder, images, depths = nyu
    manifest, samples = packed("nyu-depth", folder, "-o", f"split={split}", out=folder / "out")
    assert manifest.maps == ["depth"]
    assert [sample.frame for sample in samples] == [f"{number + 1:04d}" for number in numbers]
    assert [sample.scene for sample in samples] == [f"kitchen_{number // 2:04d}" for number in numbers]
    for sample, number in zip(samples, numbers, strict=True):
        assert np.abs(decode_depth(sample.maps["0.depth.png"]) - depths[number]).max() <= 0.0005001
        assert np.abs(pixels(sample.image_jpg).astype(int) - images[number]).max() <= 4


def test_nyu_as_the_sensor_saw_it(nyu):
    folder, _, depths = nyu
    file, splits = folder / "nyu_depth_v2_labeled.mat", folder / "splits.mat"
    _, samples = packed("nyu-depth", file, splits, "-o", "depth=raw", out=folder / "out")
    assert (decode_depth(samples[0].maps["0.depth.png"]) == 0).mean() == (depths[0] > 5).mean()


def test_nyu_that_is_none(nyu, capsys):
    folder, *_ = nyu
    (folder / "splits.mat").unlink()
    assert run(["pack-labels", "nyu-depth", str(folder), "--out", str(folder / "out")]) == 2
    assert "splits.mat: no such file" in capsys.readouterr().err
    (folder / "splits.mat").write_bytes(b"MATLAB")
    assert run(["pack-labels", "nyu-depth", str(folder), "--out", str(folder / "out")]) == 2
    assert "no splits.mat with trainNdxs" in capsys.readouterr().err
    savemat(folder / "splits.mat", {"trainNdxs": np.array([[7]])})
    assert run(["pack-labels", "nyu-depth", str(folder), "--out", str(folder / "out")]) == 2
    assert "holds 6 images, the split names number 7" in capsys.readouterr().err


@pytest.fixture
def taskonomy(tmp_path):
    """Four views of one building; of the last the mask is missing, of the third the normals are."""
    rng = np.random.default_rng(1)
    truth = {}
    for number in range(4):
        stem, normal = f"point_{number}_view_{number % 2}_domain", rng.normal(size=(40, 40, 3))
        normal = (normal / np.linalg.norm(normal, axis=-1, keepdims=True)).astype(np.float32)
        mask = rng.random((40, 40)) < 0.8
        files = {
            "rgb": (f"{stem}_rgb.png", smooth(rng, 40, 40)),
            "normal": (f"{stem}_normal.png", np.rint((normal[..., ::-1] + 1) * 127.5).astype(np.uint8)),
            "mask_valid": (f"{stem}_depth_zbuffer.png", (mask * 255).astype(np.uint8)),
        }
        for task, (name, picture) in files.items():
            if (number, task) not in ((2, "normal"), (3, "mask_valid")):
                (tmp_path / "set" / task / "darden").mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(tmp_path / "set" / task / "darden" / name), picture)
        truth[number] = normal * (mask if number != 3 else np.ones_like(mask))[..., None]
    return tmp_path, truth


def test_taskonomy(taskonomy):
    folder, truth = taskonomy
    manifest, samples = packed("taskonomy-normals", folder / "set", out=folder / "out")
    assert manifest.dropped["taskonomy-normals"] == {"bad_label": 1}
    assert [sample.frame for sample in samples] == ["0_0", "1_1", "3_1"]
    for sample, number in zip(samples, (0, 1, 3), strict=True):
        found = decode_normal(sample.maps["0.normal.png"])
        assert np.abs(found - truth[number]).max() < 0.013
        assert ((found == 0).all(-1) == (truth[number] == 0).all(-1)).all()


def test_the_first_of_a_list(taskonomy, tmp_path):
    folder, _ = taskonomy
    (folder / "list.csv").write_text("building,point,view\ndarden,3,1\ndarden,0,0\ndarden,1,1\n")
    options = ["-o", f"csv={folder / 'list.csv'}", "-o", "first=2"]
    _, samples = packed("taskonomy-normals", folder / "set", *options, out=folder / "out")
    assert [sample.frame for sample in samples] == ["3_1", "0_0"]


def test_a_list_that_is_none(taskonomy, capsys):
    folder, _ = taskonomy
    (folder / "list.csv").write_text("darden,3\n")
    options = ["-o", f"csv={folder / 'list.csv'}"]
    assert run(["pack-labels", "taskonomy-normals", str(folder / "set"), *options, "--out", str(folder / "o")]) == 2
    assert "row 1 is no building,point,view: 'darden,3'" in capsys.readouterr().err


def test_ade20k(tmp_path):
    rng = np.random.default_rng(2)
    root = tmp_path / "ADEChallengeData2016"
    for kind in ("images", "annotations"):
        (root / kind / "validation").mkdir(parents=True)
    masks, jpegs = {}, {}
    for number in range(1, 6):
        stem, mask = f"ADE_val_{number:08d}", rng.integers(0, 151, (30, 40), dtype=np.uint8)
        jpegs[stem] = cv2.imencode(".jpg", smooth(rng, 30, 40))[1].tobytes()
        (root / "images/validation" / f"{stem}.jpg").write_bytes(jpegs[stem])
        masks[stem] = mask * (number != 4)  # the fourth is empty: nothing in it has a name
        changed = {2: mask[:, :-1], 3: np.full_like(mask, 200)}.get(number, masks[stem])
        if number != 5:
            cv2.imwrite(str(root / "annotations/validation" / f"{stem}.png"), changed)
    manifest, samples = packed("ade20k", root, "-o", "split=validation", out=tmp_path / "out")
    assert manifest.dropped["ade20k"] == {"bad_label": 3}  # another size, a class beyond 150, none at all
    assert [sample.frame for sample in samples] == ["ADE_val_00000001", "ADE_val_00000004"]
    for sample in samples:
        assert sample.image_jpg == jpegs[sample.frame]
        assert (decode_map("semseg", sample.maps["0.semseg.png"]) == masks[sample.frame]).all()
    assert manifest.semseg_classes == [f"class {number}" for number in range(1, 151)]


@pytest.mark.parametrize(
    ("task", "where", "count", "name"),
    [
        ("nyu-depth", ("depth/nyu_depth_v2_labeled_tiny.mat", "depth/splits_tiny.mat"), 3, "depth"),
        ("taskonomy-normals", ("normals/taskonomy",), 8, "normal"),
        ("ade20k", ("semseg/ADEChallengeData2016",), 15, "semseg"),
    ],
)
def test_genuine_files(shared_data, tmp_path, task, where, count, name):
    manifest, samples = packed(task, *(shared_data / "labels" / part for part in where), out=tmp_path / "out")
    assert len(samples) == count
    assert manifest.maps == [name]
    assert set(manifest.maps) <= set(MAPS)


def test_an_unknown_task_is_told(tmp_path, capsys):
    assert run(["pack-labels", "nyu", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "no labels of 'nyu' can be packed" in capsys.readouterr().err
