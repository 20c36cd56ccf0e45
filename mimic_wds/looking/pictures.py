"""Pictures of samples; of pairs (after figure 8 of MIMIC, arXiv 2306.15128) patches that correspond share a colour."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import Image, ImageSample, PairSample, Sample, invert_correspondences
from mimic_wds.storage.pictures import decode_jpeg

GAP = 8  # pixels between the parts
CAPTION = 18  # pixels for the line of text above a sample
CANVAS = (224, 672)  # (height, width) in pixels that a single image is fitted into, under a caption as long as a pair's
TINT = 0.45  # weight of the colour over the picture
LEFT, MIDDLE, RIGHT = (np.array(colour, float) for colour in ((0, 70, 220), (230, 50, 150), (255, 205, 0)))
DARKER = 0.6  # how much darker the last row would be, one below it


def pair_picture(sample: PairSample) -> Image:
    """A pair as one RGB picture: the two views plain, then tinted; a caption with what `facts` says, and the key."""
    image0, image1 = (decode_view(data) for data in (sample.image0_jpg, sample.image1_jpg))
    tinted0, tinted1 = tinted_views(sample, image0, image1)
    gap = np.full((sample.size[0], GAP, 3), 255, np.uint8)
    return _captioned(np.hstack([image0, gap, image1, gap, tinted0, gap, tinted1]), sample)


def tinted_views(sample: PairSample, image0: Image, image1: Image) -> tuple[Image, Image]:
    """Both views with their patches in colours; patches that correspond have the same one, others are grey."""
    rows, cols = (side // sample.patch_size for side in sample.size)
    colours = patch_colours(rows, cols)
    own = np.where(sample.corr_0to1 >= 0, np.arange(rows * cols), -1)
    return (
        tint(image0, own, colours, sample.patch_size),
        tint(image1, invert_correspondences(sample.corr_0to1), colours, sample.patch_size),
    )


def image_picture(sample: ImageSample) -> Image:
    """A single image as one RGB picture: shrunk to fit into CANVAS, with a caption."""
    image, (height, width) = decode_view(sample.image_jpg), CANVAS
    scale = min(height / image.shape[0], width / image.shape[1], 1.0)
    shape = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    canvas = np.full((height, width, 3), 255, np.uint8)
    canvas[: shape[1], : shape[0]] = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    return _captioned(canvas, sample)


def facts(sample: Sample) -> str:
    """What is known of a sample, in a few words: "overlap 0.612  34 inliers", "class 3 n02084071"."""
    if isinstance(sample, ImageSample):
        named = f"class {sample.label} {sample.scene}" if sample.label >= 0 else "no class"
        return f"{named}  {sample.size[1]}x{sample.size[0]} pixels"
    overlap = f"overlap {sample.overlap:.3f}" if sample.overlap >= 0 else "overlap not known"
    return f"{overlap}  {sample.num_inliers} inliers" if sample.num_inliers >= 0 else overlap


def _captioned(content: Image, sample: Sample) -> Image:
    """A picture with a line of text above it."""
    picture = np.full((content.shape[0] + CAPTION + GAP, content.shape[1], 3), 255, np.uint8)
    picture[CAPTION:-GAP] = content
    text = f"{facts(sample)}  {sample.key}"
    cv2.putText(picture, text, (2, CAPTION - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return picture


def patch_colours(rows: int, cols: int) -> NDArray[np.uint8]:
    """(rows * cols, 3) RGB: from blue over magenta to yellow along the columns, darker down the rows.

    Neighbours look alike, and eyes that cannot tell red from green still see blue, grey and yellow. `assets/view.js`
    has the same.
    """
    row, col = np.divmod(np.arange(rows * cols), cols)
    along = np.interp(col, (0, (cols - 1) / 2, max(cols - 1, 1)), (0, 1, 2))[:, None]
    colours = np.where(along < 1, LEFT + along * (MIDDLE - LEFT), MIDDLE + (along - 1) * (RIGHT - MIDDLE))
    return np.rint(colours * (1 - DARKER * row / rows)[:, None]).astype(np.uint8)


def tint(image: Image, colour_of: NDArray[np.integer], colours: NDArray[np.uint8], patch_size: int) -> Image:
    """Lay over each patch p the colour number colour_of[p]; patches with -1 turn grey."""
    rows, cols = (side // patch_size for side in image.shape[:2])
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    per_patch = np.where((colour_of >= 0)[:, None], colours[np.maximum(colour_of, 0)], 0).reshape(rows, cols, 3)
    layer = per_patch.repeat(patch_size, 0).repeat(patch_size, 1).astype(np.float64)
    matched = (colour_of >= 0).reshape(rows, cols).repeat(patch_size, 0).repeat(patch_size, 1)[..., None]
    return np.where(matched, (1 - TINT) * image + TINT * layer, 0.6 * grey + 80).clip(0, 255).astype(np.uint8)


def decode_view(data: bytes) -> Image:
    """A view as (H, W, 3) RGB. Raises ValueError when it does not decode."""
    bgr = decode_jpeg(data)
    if bgr is None:
        raise ValueError("a JPEG of this sample does not decode; run `mimic-shard verify` on the folder")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
