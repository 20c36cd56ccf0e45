"""`mimic-shard import` as a person runs it."""

import subprocess
import sys
import zipfile

import cv2
import numpy as np

from mimic_wds.cli.import_ import import_
from mimic_wds.cli.info import info
from mimic_wds.cli.show import show
from mimic_wds.cli.verify import verify


def make_zip(path, side=224):
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(3):
            for name in ("0000", "0001"):
                image = cv2.resize(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8), (side, side))
                archive.writestr(f"Gibson/Adrian/{number}/{name}.jpg", cv2.imencode(".jpg", image)[1].tobytes())
    return path


def test_import_info_and_verify(tmp_path, capsys):
    path = make_zip(tmp_path / "Gibson.zip")
    assert import_("mimic3m", (path,), out=tmp_path / "out", workers=1, option=("licence=as published",)) == 0
    said = capsys.readouterr().out
    assert "3 pairs in 1 shard(s)" in said
    assert "fault: missing_correspondences" in said
    assert info(tmp_path / "out") == 0
    assert "licence of gibson: as published" in capsys.readouterr().out
    assert verify(tmp_path / "out") == 0


def test_views_of_another_size_are_told(tmp_path, capsys):
    path = make_zip(tmp_path / "Gibson.zip", side=240)
    assert import_("mimic3m", (path,), out=tmp_path / "out", workers=1) == 3
    assert "for wrong_size give the size of the views with --size" in capsys.readouterr().out
    assert import_("mimic3m", (path,), out=tmp_path / "other", workers=1, size=240, recompute=True) == 0
    assert verify(tmp_path / "other") == 0


def test_the_command(tmp_path):
    command = [sys.executable, "-m", "mimic_wds.cli.main", "import", "mimic3m", str(tmp_path / "no.zip"), "--out", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "no such file or folder" in done.stderr) == (2, True)


def test_single_images(shared_data, tmp_path, capsys):
    root = shared_data / "labels" / "imagenet" / "train"
    assert import_("image-folder", (root,), out=tmp_path / "out", workers=1, size=128) == 0
    said = capsys.readouterr().out
    assert "30 images of 14 classes" in said
    assert "30 images in 1 shard(s)" in said
    assert "pairs" not in said
    assert info(tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "single images, 14 classes" in said
    assert "criteria: preset import, size 128" in said
    assert verify(tmp_path / "out") == 0
    assert show(tmp_path / "out", out=tmp_path / "some.png", num=3) == 0
    said = capsys.readouterr().out
    assert said.count("x128 pixels") + said.count(" 128x") >= 3
    assert "3 image(s) drawn" in said
    assert cv2.imread(str(tmp_path / "some.png")).shape == (3 * (18 + 224 + 8), 672, 3)


def test_what_is_not_known_is_not_shown_as_a_number(tmp_path, capsys):
    path = make_zip(tmp_path / "Gibson.zip")
    assert import_("mimic3m", (path,), out=tmp_path / "out", workers=1) == 0
    capsys.readouterr()
    assert show(tmp_path / "out", out=tmp_path / "some.png") == 0
    said = capsys.readouterr().out
    assert said.count("overlap not known") == 3
    assert "-1" not in said.replace(str(tmp_path), "")
