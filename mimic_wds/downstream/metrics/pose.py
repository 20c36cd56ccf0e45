"""COCO's average precision of joints, by pycocotools, and its spread over resampled test sets.

Precision of ranked detections is no sum over images. But what each image's detections match does not depend on other
images: resampling COCOeval's per-image matches and accumulating again gives the very numbers of a data set in which
images occur several times.
"""

import contextlib
import copy
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mimic_wds.downstream.metrics.bootstrap import Spread, draw_counts, spread

#: COCOeval's summary of joints, in its order.
NAMES = ("AP", "AP50", "AP75", "AP_medium", "AP_large", "AR", "AR50", "AR75", "AR_medium", "AR_large")


def match(annotations: dict[str, Any], detections: Sequence[dict[str, Any]]) -> COCOeval:
    """Match detected joints with annotated ones, image by image.

    `annotations` as in person_keypoints_val2017.json; each detection has image_id, category_id, keypoints (51 numbers)
    and score. Raises ValueError when there are no detections, or they are of images without annotations.
    """
    known = {image["id"] for image in annotations["images"]}
    strangers = {d["image_id"] for d in detections} - known
    if not detections or strangers:
        told = f"of image {min(strangers)}, which the annotations do not have" if strangers else "none at all"
        raise ValueError(f"the detections are {told}: is this the result file of another data set?")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(list(detections)), "keypoints")
        evaluation.evaluate()
    return evaluation


def scores(evaluation: COCOeval) -> dict[str, float]:
    """COCO's ten numbers in [0, 1]; -1 where nothing could be counted."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NAMES, map(float, evaluation.stats), strict=True))


def resampled(evaluation: COCOeval, images: NDArray[np.integer]) -> COCOeval:
    """The same matches for a test set of the images at these places (of the sorted ids), any of them repeatedly."""
    num_images = len(evaluation._paramsEval.imgIds)
    matches = np.empty(len(evaluation.evalImgs), object)
    matches[:] = evaluation.evalImgs  # one category, four areas, all images
    other = copy.copy(evaluation)
    other.params, other._paramsEval = copy.copy(evaluation.params), copy.copy(evaluation._paramsEval)
    other.evalImgs = list(matches.reshape(-1, num_images)[:, images].ravel())
    other.params.imgIds = other._paramsEval.imgIds = list(range(len(images)))
    return other


def bootstrap(evaluation: COCOeval, *, resamples: int = 100, seed: int = 0) -> dict[str, Spread]:
    """Spread of the ten numbers over resampled test sets."""
    counts = draw_counts(len(evaluation._paramsEval.imgIds), resamples, seed).astype(np.int64)
    found = [scores(resampled(evaluation, np.repeat(np.arange(len(row)), row))) for row in counts]
    return {name: spread(np.array([each[name] for each in found])) for name in NAMES}
