"""The linear probe on ImageNet's layout of folders: packing, the evaluation's crop, the scripts."""

import io
import json

import cv2
import numpy as np
import pytest
import torch
from labelled import run_script
from PIL import Image

from mimic_wds.cli.main import run as shard
from mimic_wds.downstream.tasks.probe import centre, decode_label
from mimic_wds.downstream.tasks.registry import get_task
from mimic_wds.models.build import ModelConfig, build_model
from mimic_wds.models.published import EXPORTS

CLASSES = ("n01440764", "n02102040", "n03394916")


def make_imagenet(root, split, num):
    """Pictures in three colours, of different shapes."""
    rng = np.random.default_rng(num)
    for label, name in enumerate(CLASSES):
        folder = root / split / name
        folder.mkdir(parents=True)
        for number in range(num):
            picture = rng.integers(0, 60, (40 + 8 * number, 56, 3), np.uint8)
            picture[..., label] += 150
            cv2.imwrite(str(folder / f"{name}_{number}.JPEG"), picture)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("imagenet")
    for split, num in (("train", 6), ("val", 3)):
        make_imagenet(place / "source", split, num)
        code = shard(["pack-labels", "imagenet", str(place / "source"), "--out", str(place / split),
                     "-o", f"split={split}"])  # fmt: skip
        assert code == 0
    (place / "probe.toml").write_text(
        'task = "probe"\nmodel = {size = "tiny", depth = 1, image_size = 32, frozen = true}\noptimizer = {lr = 10.0}\n'
        "run = {steps = 60, batch = 6, max_device_batch = 6, log_every = 20, evaluate_every = 20}\n"
    )
    return place


@pytest.mark.parametrize("head", ["class", "mean"])
def test_chain(monkeypatch, capsys, place, head):
    run = place / head
    arguments = [place / "probe.toml", "--data", place / "train", "--val", place / "val", "--init", "random"]
    assert run_script(monkeypatch, "finetune", *arguments, "--output", run, "--set", f"model.head={head}") == 0
    printed = capsys.readouterr().out
    assert f"{192 * 3 + 3} trained parameters, encoder frozen" in printed
    assert run_script(monkeypatch, "evaluate", run, "--data", place / "val", "--json", "--bootstrap", 10) == 0
    account = json.loads(capsys.readouterr().out)
    assert account["protocols"]["paper"]["scores"]["top5"] == 1.0  # of three classes
    assert account["protocols"]["paper"]["scores"]["top1"] == (1.0 if head == "mean" else pytest.approx(1.0, abs=0.35))
    assert np.load(run / "statistics.npz")["paper"].shape == (9, 3)
    assert run_script(monkeypatch, "report", run, "--output", run / "report.md") == 0
    assert "| MAE | fine-tuned | MIMIC-3M | 39.86 |" in (run / "report.md").read_text()


def test_encoders_without_a_class_token(monkeypatch, capsys, place):
    small = {"size": "tiny", "depth": 1, "image_size": 32, "mask_ratio": 0.75, "decoder_dim": 32, "decoder_heads": 2}
    model = build_model(ModelConfig(**small, decoder_depth=1, objective="croco", class_token=False))
    torch.save(EXPORTS["croco"](model.state_dict()), place / "croco.pth")
    arguments = [place / "probe.toml", "--data", place / "train", "--init", place / "croco.pth"]
    assert run_script(monkeypatch, "finetune", *arguments, "--output", place / "none") == 2
    assert 'set model.head = "mean"' in capsys.readouterr().err
    more = ["--output", place / "none", "--set", "model.head=mean", "--set", "run.steps=1"]
    assert run_script(monkeypatch, "finetune", *arguments, *more) == 0
    assert run_script(monkeypatch, "finetune", *arguments, *more, "--resume") == 0


def test_the_centre_is_torchvisions():
    transforms = pytest.importorskip("torchvision.transforms")
    expected = transforms.Compose([transforms.Resize(256, interpolation=3), transforms.CenterCrop(224)])
    rng = np.random.default_rng(0)
    for shape in ((300, 417), (500, 333), (256, 256), (101, 340)):
        data = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (*shape, 3), np.uint8)).save(data, "JPEG")
        assert np.array_equal(centre(data.getvalue(), 224), np.asarray(expected(Image.open(data))))
    with pytest.raises(ValueError, match="does not decode"):
        centre(b"\xff\xd8 nothing", 224)


def test_images_without_classes_are_refused(place, tmp_path, capsys):
    (tmp_path / "source" / "val").mkdir(parents=True)
    picture = next((place / "source" / "val").rglob("*.JPEG"))
    (tmp_path / "source" / "val" / "one.JPEG").write_bytes(picture.read_bytes())
    arguments = ["pack-labels", "imagenet", str(tmp_path / "source"), "--out", str(tmp_path / "out"), "-o", "split=val"]
    assert shard(arguments) == 2
    assert "sort those of val into the folders of their classes" in capsys.readouterr().err


def test_genuine_photographs_in_folders(shared_data, tmp_path):
    root = shared_data / "labels" / "imagenet"
    counts = {}
    for split in ("train", "val"):
        assert (
            shard(["pack-labels", "imagenet", str(root), "--out", str(tmp_path / split), "-o", f"split={split}"]) == 0
        )
        with get_task("probe").open(str(tmp_path / split)) as dataset:
            counts[split] = len(dataset)
            assert dataset.manifest.classes == sorted(path.name for path in (root / split).iterdir() if path.is_dir())
            for index in range(len(dataset)):
                key, members = dataset.read(index)
                assert dataset.manifest.classes[decode_label(members["json"])] in key
                assert centre(members["0.jpg"], 224).shape == (224, 224, 3)
    assert sum(counts.values()) == 44
