"""Tiny labelled data sets whose labels can be seen in the pictures, and scripts run in this process."""

import sys
from pathlib import Path
from runpy import run_path

import cv2
import numpy as np

from mimic_wds.pairs import Counts, ImageSample, Scene
from mimic_wds.storage.layout import image_key
from mimic_wds.storage.maps import encode_depth, encode_normal, encode_semseg
from mimic_wds.storage.packing import pack
from mimic_wds.storage.staging import SceneStage

ROOT = Path(__file__).parents[2]
CLASSES = ["near", "far"]


def make_field(number, height, width):
    """A smooth field in [0, 1]."""
    rng = np.random.default_rng(number)
    return cv2.resize(rng.random((3, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def make_labelled(folder, num=6, shape=(64, 64), first=0, maps=("depth", "normal", "semseg")):
    """Images whose grey is (255 * field), depth 1 + 4 * field metres, normals tilted by it, two classes."""
    staging = folder.parent / f"{folder.name}-staging"
    staging.mkdir(parents=True)
    with SceneStage(staging, 0) as stage:
        for number in range(first, first + num):
            stage.add(make_sample(number, shape, maps))
        stage.finish(Scene(source="mesh", name="house", path="/in"), Counts(kept=num, views=num))
    folder.mkdir()
    description = {"criteria": {}, "versions": {}, "licences": {"mesh": "CC0"}, "kind": "images", "maps": list(maps)}
    classes = {"semseg_classes": CLASSES if "semseg" in maps else []}
    return pack(staging, 1, folder, "labelled", 10**6, {**description, **classes})


def make_sample(number, shape, maps):
    field = make_field(number, *shape)
    angle = field * np.pi / 3
    encoded = {
        "depth": encode_depth(1 + 4 * field),
        "normal": encode_normal(np.stack([np.sin(angle), 0 * angle, -np.cos(angle)], axis=-1)),
        "semseg": encode_semseg((field > 0.5).astype(int) + 1),
    }
    grey = np.repeat(np.rint(field * 255).astype(np.uint8)[..., None], 3, axis=-1)
    return ImageSample(
        key=image_key("mesh", "house", f"{number:05d}"),
        image_jpg=cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes(),
        size=shape,
        source="mesh",
        scene="house",
        frame=f"{number:05d}",
        label=-1,
        maps={f"0.{name}.png": encoded[name] for name in maps},
    )


def run_script(monkeypatch, name, *arguments):
    """Exit code of a script of finetune/."""
    path = str(ROOT / "finetune" / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
    try:
        run_path(path, run_name="__main__")
    except SystemExit as stop:
        return stop.code
    return 0
