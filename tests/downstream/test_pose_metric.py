"""COCO's precision of joints: pycocotools' own numbers, and resampling against a data set that is really duplicated."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mimic_wds.downstream.metrics import pose


def people(num_images=30, seed=0):
    """Annotations and detections of a few people per image, of different sizes, some missed, some invented."""
    rng = np.random.default_rng(seed)
    images = [{"id": 100 + i, "width": 640, "height": 480} for i in range(num_images)]
    annotations, detections = [], []
    for image in images:
        for _ in range(rng.integers(0, 4)):
            side = float(rng.uniform(40, 200))
            x, y = rng.uniform(0, 400, 2)
            joints = np.stack([rng.uniform(x, x + side, 17), rng.uniform(y, y + side, 17), rng.integers(0, 3, 17)], 1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": 1,
                    "bbox": [float(x), float(y), side, side],
                    "area": side * side * 0.6,
                    "iscrowd": 0,
                    "num_keypoints": int((joints[:, 2] > 0).sum()),
                    "keypoints": joints.ravel().tolist(),
                }
            )
            if rng.random() < 0.85:
                found = joints + rng.normal(0, side * rng.uniform(0.005, 0.06), joints.shape)
                found[:, 2] = 1
                detections.append(
                    {
                        "image_id": image["id"],
                        "category_id": 1,
                        "keypoints": found.ravel().tolist(),
                        "score": float(rng.random()),
                    }
                )
    categories = [{"id": 1, "name": "person", "keypoints": [str(i) for i in range(17)], "skeleton": []}]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, detections


def reference(annotations, detections, tmp_path):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(annotations))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(detections)), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def duplicated(annotations, detections, places):
    ids = sorted(image["id"] for image in annotations["images"])
    images, truth, found = [], [], []
    for new, place in enumerate(places):
        old = ids[place]
        images.append({"id": new + 1, "width": 640, "height": 480})
        for one in annotations["annotations"]:
            if one["image_id"] == old:
                truth.append({**one, "image_id": new + 1, "id": len(truth) + 1})
        found += [{**one, "image_id": new + 1} for one in detections if one["image_id"] == old]
    return {**annotations, "images": images, "annotations": truth}, found


def test_scores_are_those_of_pycocotools(tmp_path):
    annotations, detections = people()
    expected = reference(annotations, detections, tmp_path)
    found = pose.scores(pose.match(copy.deepcopy(annotations), copy.deepcopy(detections)))
    assert list(found.values()) == pytest.approx(list(expected), abs=0)
    assert 0.2 < found["AP"] < 0.95


def test_resampled_matches_are_a_duplicated_data_set(tmp_path):
    annotations, detections = people()
    evaluation = pose.match(copy.deepcopy(annotations), copy.deepcopy(detections))
    before = pose.scores(evaluation)
    for seed in range(3):
        places = np.sort(np.random.default_rng(seed).integers(0, 30, 30))
        expected = reference(*duplicated(annotations, detections, places), tmp_path)
        found = pose.scores(pose.resampled(evaluation, places))
        assert list(found.values()) == pytest.approx(list(expected), abs=0)
    assert pose.scores(evaluation) == before  # the original is left alone


def test_bootstrap_of_precision():
    annotations, detections = people()
    evaluation = pose.match(annotations, detections)
    found = pose.bootstrap(evaluation, resamples=20)["AP"]
    assert found.minimum < found.mean < found.maximum
    assert abs(found.mean - pose.scores(evaluation)["AP"]) < 3 * found.std


def test_detections_of_another_data_set_are_refused():
    annotations, detections = people()
    with pytest.raises(ValueError, match="image 7"):
        pose.match(annotations, [{**detections[0], "image_id": 7}])
    with pytest.raises(ValueError, match="none at all"):
        pose.match(annotations, [])
