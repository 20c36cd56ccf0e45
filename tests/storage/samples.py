"""Samples that are right in every respect, made without mining: a shift by whole patches has a known map."""

import cv2
import numpy as np

from mimic_wds.pairs import Counts, ImageSample, PairSample, Scene
from mimic_wds.storage.layout import image_key, sample_key
from mimic_wds.storage.packing import pack
from mimic_wds.storage.staging import SceneStage

SIDE, PATCH = 64, 16
CRITERIA = {"preset": "default", "min_overlap": 0.5, "max_overlap": 0.8, "size": SIDE, "patch_size": PATCH}


def shift_map():
    """Correspondences of a shift by one patch to the right in a 4 x 4 grid: 12 of 16 patches."""
    corr = np.arange(16, dtype=np.int16).reshape(4, 4) + 1
    corr[:, 3] = -1
    return corr.ravel()


def make_sample(number=0, source="video", scene="clip.mp4", **changes):
    rng = np.random.default_rng(number)
    images = [rng.integers(0, 256, (SIDE // 4, SIDE // 4, 3), dtype=np.uint8) for _ in range(2)]
    jpegs = [cv2.imencode(".jpg", cv2.resize(i, (SIDE, SIDE)), [cv2.IMWRITE_JPEG_QUALITY, 90])[1] for i in images]
    frame0, frame1 = f"{number:06d}", f"{number + 1:06d}"
    values = {
        "key": sample_key(source, scene, frame0, frame1),
        "image0_jpg": jpegs[0].tobytes(),
        "image1_jpg": jpegs[1].tobytes(),
        "corr_0to1": shift_map(),
        "overlap": 0.75,
        "H_0to1": np.array([[1, 0, 16], [0, 1, 0], [0, 0, 1]], float),
        "num_inliers": 20 + number,
        "size": (SIDE, SIDE),
        "patch_size": PATCH,
        "source": source,
        "scene": scene,
        "frame0": frame0,
        "frame1": frame1,
        "time0_s": number / 3,
        "time1_s": (number + 1) / 3,
    }
    return PairSample(**{**values, **changes})


def stage(staging, number, samples, scene="clip.mp4", error=""):
    """Stage one scene with these samples."""
    staging.mkdir(parents=True, exist_ok=True)
    with SceneStage(staging, number) as open_stage:
        for sample in samples:
            open_stage.add(sample)
        counts = Counts(kept=len(samples), dropped={"too_few_matches": 2}, views=len(samples) + 3)
        open_stage.finish(Scene(source="video", name=scene, path=f"/in/{scene}"), counts, error)


def make_data_set(folder, per_scene=(3, 0, 4), name="tiny", max_shard_bytes=30_000):
    """A data set of a few samples in a few shards; returns its manifest."""
    staging = folder.parent / f"{folder.name}-staging"
    for number, count in enumerate(per_scene):
        scene = f"clip{number}.mp4"
        stage(staging, number, [make_sample(10 * number + i, scene=scene) for i in range(count)], scene)
    folder.mkdir(parents=True, exist_ok=True)
    description = {"criteria": CRITERIA, "versions": {"opencv": cv2.__version__}, "licences": {"video": "CC0"}}
    return pack(staging, len(per_scene), folder, name, max_shard_bytes, description)


def make_image(number=0, source="image-folder", classes=("cat", "dog"), **changes):
    """A single image, every one of another size, its classes by turns."""
    rng = np.random.default_rng(number)
    height, width = 40 + 7 * number % 60, 100 - 11 * number % 50
    image = cv2.resize(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), (width, height))
    scene, frame = classes[number % len(classes)] if classes else "", f"{number:03d}.JPEG"
    values = {
        "key": image_key(source, scene, frame),
        "image_jpg": cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes(),
        "size": (height, width),
        "source": source,
        "scene": scene,
        "frame": frame,
        "label": number % len(classes) if classes else -1,
    }
    return ImageSample(**{**values, **changes})


def make_image_set(folder, images, classes=("cat", "dog"), name="single", max_shard_bytes=12_000):
    """A data set of these single images; returns its manifest."""
    staging = folder.parent / f"{folder.name}-staging"
    staging.mkdir(parents=True)
    with SceneStage(staging, 0) as open_stage:
        for image in images:
            open_stage.add(image)
        counts = Counts(kept=len(images), dropped={"unreadable": 1}, views=len(images))
        open_stage.finish(Scene(source="image-folder", name="images", path="/in"), counts)
    folder.mkdir(parents=True)
    description = {"criteria": {"preset": "import", "size": 0}, "versions": {}, "licences": {"image-folder": "CC0"}}
    return pack(
        staging, 1, folder, name, max_shard_bytes, {**description, "kind": "images", "classes": sorted(classes)}
    )
