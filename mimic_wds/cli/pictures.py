"""Pictures of pairs (after figure 8 of MIMIC, arXiv 2306.15128): patches that correspond have the same colour."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import Image, PairSample, invert_correspondences

GAP = 8  # pixels between the parts
CAPTION = 18  # pixels for the line of text above a pair
TINT = 0.45  # weight of the colour over the picture


def pair_picture(sample: PairSample) -> Image:
    """A pair as one RGB picture: the two views plain, then tinted; a caption with overlap, inliers and key."""
    image0, image1 = (_decode(data) for data in (sample.image0_jpg, sample.image1_jpg))
    rows, cols = (side // sample.patch_size for side in sample.size)
    colours = patch_colours(rows, cols)
    tinted0 = tint(image0, np.where(sample.corr_0to1 >= 0, np.arange(rows * cols), -1), colours, sample.patch_size)
    tinted1 = tint(image1, invert_correspondences(sample.corr_0to1), colours, sample.patch_size)
    gap = np.full((sample.size[0], GAP, 3), 255, np.uint8)
    views = np.hstack([image0, gap, image1, gap, tinted0, gap, tinted1])
    picture = np.full((sample.size[0] + CAPTION + GAP, views.shape[1], 3), 255, np.uint8)
    picture[CAPTION:-GAP] = views
    text = f"overlap {sample.overlap:.3f}   {sample.num_inliers} inliers   {sample.key}"
    cv2.putText(picture, text, (2, CAPTION - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return picture


def patch_colours(rows: int, cols: int) -> NDArray[np.uint8]:
    """(rows * cols, 3) RGB: hue runs along the columns, brightness down the rows, so neighbours look alike."""
    row, col = np.divmod(np.arange(rows * cols), cols)
    hsv = np.stack([col * 180 / cols, np.full(rows * cols, 255), 255 - row * 155 / rows], axis=1)
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8)[None], cv2.COLOR_HSV2RGB)[0], np.uint8)


def tint(image: Image, colour_of: NDArray[np.integer], colours: NDArray[np.uint8], patch_size: int) -> Image:
    """Lay over each patch p the colour number colour_of[p]; patches with -1 turn grey."""
    rows, cols = (side // patch_size for side in image.shape[:2])
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    per_patch = np.where((colour_of >= 0)[:, None], colours[np.maximum(colour_of, 0)], 0).reshape(rows, cols, 3)
    layer = per_patch.repeat(patch_size, 0).repeat(patch_size, 1).astype(np.float64)
    matched = (colour_of >= 0).reshape(rows, cols).repeat(patch_size, 0).repeat(patch_size, 1)[..., None]
    return np.where(matched, (1 - TINT) * image + TINT * layer, 0.6 * grey + 80).clip(0, 255).astype(np.uint8)


def _decode(data: bytes) -> Image:
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError("a JPEG of this pair does not decode; run `mimic-shard verify` on the folder")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
