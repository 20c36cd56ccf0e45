"""Folders of single images: their classes, their bytes, what is encoded anew and what is lost."""

import io
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from published import jpeg, run_import, write_tree

from mimic_wds.executors.local import LocalExecutor
from mimic_wds.importing import base
from mimic_wds.importing.image_folder import usable_jpeg
from mimic_wds.importing.run import Target
from mimic_wds.storage.jpeg import jpeg_head
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.reader import open_shards
from mimic_wds.storage.verify import verify


def read_all(folder):
    shards = open_shards(folder, read_manifest(folder))
    return [shard.sample(i) for shard in shards for i in range(len(shard))]


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def picture(height=60, width=80, seed=0):
    """A smooth BGR picture whose four quarters have different colours."""
    small = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def encoded(image, suffix=".jpg", *options):
    settings = [cv2.IMWRITE_JPEG_QUALITY, 95, *options] if suffix == ".jpg" else []
    return cv2.imencode(suffix, image, settings)[1].tobytes()


def turned(data, orientation, order="<"):
    """The JPEG with an EXIF tag that says how to turn it."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    tiff = mark + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff + data[2:]


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_imagenet_with_its_classes(shared_data, tmp_path):
    root = shared_data / "labels" / "imagenet"
    files = sorted((root / "train").rglob("*.JPEG"))
    manifest = run_import(tmp_path / "out", "image-folder", [root / "train"], source="imagenet", licence="research")
    assert manifest.classes == sorted(path.name for path in (root / "train").iterdir())
    assert len(manifest.classes) == 14
    assert (manifest.kept, manifest.views, manifest.dropped) == (
        {"imagenet": len(files)},
        {"imagenet": len(files)},
        {"imagenet": {}},
    )
    assert manifest.licences == {"imagenet": "research"}
    samples = read_all(tmp_path / "out")
    assert [sample.image_jpg for sample in samples] == [path.read_bytes() for path in files]
    for sample, path in zip(samples, files, strict=True):
        assert (sample.scene, sample.frame) == (path.parent.name, path.name)
        assert manifest.classes[sample.label] == path.parent.name
        assert sample.size == cv2.imread(str(path)).shape[:2]
    assert list(verify(tmp_path / "out")) == []
    with pytest.raises(ValueError, match="holds train, val, which are no classes: give one of them"):
        run_import(tmp_path / "both", "image-folder", [root])


def test_a_flat_folder_has_no_classes(tmp_path):
    files = {f"{number}.jpg": jpeg(number, (48, 64)) for number in range(3)}
    manifest = run_import(tmp_path / "out", "image-folder", [write_tree(tmp_path / "in", files)])
    assert manifest.classes == []
    assert [(s.scene, s.frame, s.label) for s in read_all(tmp_path / "out")] == [("", f"{n}.jpg", -1) for n in range(3)]
    assert list(verify(tmp_path / "out")) == []


def test_images_may_lie_deeper_and_beside_the_classes(tmp_path):
    names = ("b/x/1.jpg", "b/1.jpg", "a/1.jpg", "loose.jpg", "a/notes.txt", ".hidden/1.jpg", "a/._1.jpg")
    root = write_tree(tmp_path / "in", {name: jpeg(0, (48, 64)) for name in names})
    run_import(tmp_path / "out", "image-folder", [root])
    found = [(s.scene, s.frame, s.label) for s in read_all(tmp_path / "out")]
    assert found == [("", "loose.jpg", -1), ("a", "1.jpg", 0), ("b", "1.jpg", 1), ("b", "x/1.jpg", 1)]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_pictures_that_exif_turns_are_stored_upright(orientation, order):
    """Readers that pass over the tag, as many do, see what those see that follow it."""
    data = turned(encoded(picture()), orientation, order)
    assert jpeg_head(data).orientation == orientation
    jpeg_bytes, size, faults = usable_jpeg(data, 0)
    upright = cv2.imdecode(np.frombuffer(jpeg_bytes, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert size == upright.shape[:2] == ((60, 80) if orientation <= 4 else (80, 60))
    assert np.abs(upright.astype(int) - decoded(data)).mean() < 2
    assert (jpeg_bytes == data, faults) == ((True, ()) if orientation == 1 else (False, ("saved_anew",)))


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (encoded(picture()), True),
        (encoded(picture()[:, :, 0]), True),  # grey: every reader makes three equal channels of it
        (encoded(picture()) + b"\0" * 7, True),
        (encoded(picture()) + b"trailing bytes", True),
        (encoded(picture(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1), False),
        (encoded(picture(), ".png"), False),  # as n02105855_2933.JPEG of ImageNet
        (encoded(picture(), ".webp"), False),
        (encoded(np.dstack([picture(), np.full((60, 80), 128, np.uint8)]), ".png"), False),
    ],
)
def test_plain_jpegs_are_copied_and_others_saved_as_such(data, kept):
    jpeg_bytes, size, faults = usable_jpeg(data, 0)
    assert size == (60, 80)
    assert faults == (() if kept else ("saved_anew",))
    assert data.startswith(jpeg_bytes) is kept
    assert jpeg_bytes.endswith(b"\xff\xd9")
    assert jpeg_head(jpeg_bytes).is_plain
    assert np.abs(decoded(jpeg_bytes).astype(int) - decoded(data)).mean() < 3


def test_cmyk_is_made_rgb():
    """As the 22 CMYK files of ImageNet; Pillow writes them inverted, as Photoshop does."""
    pillow = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pillow.fromarray(picture()[:, :, ::-1].copy()).convert("CMYK").save(file, "JPEG", quality=95)
    assert jpeg_head(file.getvalue())[:3] == ((60, 80), 4, True)
    jpeg_bytes, size, faults = usable_jpeg(file.getvalue(), 0)
    assert (size, faults, jpeg_head(jpeg_bytes).components) == ((60, 80), ("saved_anew",), 3)
    assert np.abs(decoded(jpeg_bytes).astype(int) - picture()).mean() < 6


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", encoded(picture())[:-200], b"\xff\xd8\xff\xd9", encoded(picture(), ".png")[:60], b"\xff\xd8"],
)
def test_what_cannot_be_read_is_not_used(data):
    assert usable_jpeg(data, 0) is None


@pytest.mark.parametrize(("height", "width", "short_side"), [(60, 80, 30), (90, 61, 60), (500, 61, 60), (64, 64, 16)])
def test_large_images_are_shrunk_to_a_short_side(height, width, short_side):
    data = encoded(cv2.GaussianBlur(picture(height, width), (0, 0), 3))
    jpeg_bytes, size, faults = usable_jpeg(data, short_side)
    assert (min(size), faults) == (short_side, ())
    assert max(size) / min(size) == pytest.approx(max(height, width) / min(height, width), rel=0.5 / short_side)
    expected = cv2.resize(decoded(data), size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(decoded(jpeg_bytes).astype(int) - expected).mean() < 3
    assert usable_jpeg(data, min(height, width))[0] == data


def test_damaged_images_are_counted(tmp_path):
    files = {f"cat/{number}.jpg": jpeg(number, (48, 64)) for number in range(4)}
    files |= {"cat/torn.jpg": jpeg(9)[:-50], "cat/empty.jpg": b""}
    files |= {"dog/text.jpg": b"moved away", "dog/real.jpg": jpeg(8)}
    files["dog/is-a-png.JPEG"] = encoded(picture(), ".png")
    root = write_tree(tmp_path / "in", files)
    (root / "dog" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    manifest = run_import(tmp_path / "out", "image-folder", [root])
    assert manifest.candidates == {"image-folder": 10}
    assert manifest.kept == {"image-folder": 6}
    assert manifest.dropped == {"image-folder": {"unreadable": 4}}
    assert manifest.faults == {"image-folder": {"saved_anew": 1}}
    assert list(verify(tmp_path / "out")) == []


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Eleven images of three classes, in units of four."""
    monkeypatch.setattr(base, "UNIT_PAIRS", 4)
    files = {f"class{number % 3}/{number}.jpg": jpeg(number, (48, 64 + 8 * number)) for number in range(11)}
    return write_tree(tmp_path / "in", files)


def test_a_killed_import_goes_on_to_the_same_bytes(tree, tmp_path):
    run_import(tmp_path / "whole", "image-folder", [tree])
    run_import(tmp_path / "two", "image-folder", [tree], executor=LocalExecutor(2))
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from published import run_import\n"
        "from mimic_wds.importing import base; base.UNIT_PAIRS = 4\n"
        "from mimic_wds.storage import staging; add = staging.SceneStage.add\n"
        "staging.SceneStage.add = lambda self, sample: (time.sleep(0.05), add(self, sample))\n"
        "run_import(__import__('pathlib').Path(sys.argv[3]), 'image-folder', [sys.argv[2]])\n"
    )
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", program, Path(__file__).parent, tree, out])
    deadline = time.monotonic() + 60
    while not list(out.rglob("001.*")) and not list(out.rglob(".001.*")):  # in the second unit
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run_import(out, "image-folder", [tree], resume=True)
    assert contents(out) == contents(tmp_path / "whole") == contents(tmp_path / "two")


def test_shrinking_is_part_of_what_the_data_set_is(tree, tmp_path):
    manifest = run_import(tmp_path / "out", "image-folder", [tree], size=32)
    assert manifest.criteria == {"preset": "import", "size": 32}
    assert {min(sample.size) for sample in read_all(tmp_path / "out")} == {32}
    assert list(verify(tmp_path / "out")) == []
    with pytest.raises(ValueError, match="made in another way"):
        run_import(tmp_path / "out", "image-folder", [tree], resume=True)


def test_mistakes_are_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no images here or below; expected \.bmp, "):
        run_import(tmp_path / "out", "image-folder", [tmp_path / "empty"])
    write_tree(tmp_path, {"train.tar": b"x"})
    with pytest.raises(ValueError, match=r"train\.tar: is no folder; unpack archives first"):
        run_import(tmp_path / "out", "image-folder", [tmp_path / "train.tar"])
    with pytest.raises(ValueError, match="reads one folder, 2 paths are given"):
        run_import(tmp_path / "out", "image-folder", [tmp_path, tmp_path])
    with pytest.raises(ValueError, match="no overlap to measure"):
        Target(out=tmp_path, name="x", size=0, kind="images", recompute=True)
    with pytest.raises(ValueError, match="no whole patches"):
        Target(out=tmp_path, name="x", size=0)
