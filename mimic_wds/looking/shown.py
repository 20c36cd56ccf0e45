"""A sample as it stands on a page: pictures inside the page, and where the frame of one view lies in the other."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.looking.page import data_uri
from mimic_wds.looking.pictures import decode_view, facts, tinted_views
from mimic_wds.looking.viewer_outline import outline
from mimic_wds.pairs import Image, PairSample, Sample

#: JPEG quality of drawn pictures.
QUALITY = 80

#: Single images with a longer side, in pixels, are shown smaller: a page should hold many.
MOST_SIDE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a template needs of a sample; addresses hold the pictures themselves."""

    key: str
    source: str
    scene: str
    told: str  #: what is known of it, in a few words
    size: tuple[int, int]  #: (height, width) of its views in pixels
    view0: str
    view1: str = ""
    patches0: str = ""  #: with patches in colours
    patches1: str = ""
    warped: str = ""  #: view 0 as seen from view 1, transparent elsewhere; "" without a homography
    frame: str = ""  #: points of the frame of view 0 in view 1, as SVG has them


def shown(sample: Sample) -> Shown:
    """Draw a sample. Raises ValueError when a view does not decode."""
    known = {"key": sample.key, "source": sample.source, "scene": sample.scene, "told": facts(sample)}
    if not isinstance(sample, PairSample):
        return Shown(**known, size=sample.size, view0=data_uri(_fitting(sample.image_jpg)))
    image0, image1 = decode_view(sample.image0_jpg), decode_view(sample.image1_jpg)
    patches0, patches1 = map(_jpeg, tinted_views(sample, image0, image1))
    H = np.asarray(sample.H_0to1, np.float64)
    warped, frame = "", ""
    if np.isfinite(H).all() and abs(np.linalg.det(H)) > 0:
        warped = data_uri(_warped(image0, H, sample.size), "image/webp")
        frame = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline(H, sample.size))
    return Shown(
        **known,
        size=sample.size,
        view0=data_uri(sample.image0_jpg),
        view1=data_uri(sample.image1_jpg),
        patches0=data_uri(patches0),
        patches1=data_uri(patches1),
        warped=warped,
        frame=frame,
    )


def _jpeg(image: Image) -> bytes:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()


def _fitting(jpeg: bytes) -> bytes:
    """A JPEG file as it is, or shrunk to MOST_SIDE. Raises ValueError when it does not decode."""
    image = decode_view(jpeg)
    scale = MOST_SIDE / max(image.shape[:2])
    if scale >= 1:
        return jpeg
    width, height = (max(1, round(side * scale)) for side in image.shape[1::-1])
    return _jpeg(np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8))


def _warped(image0: Image, H: NDArray[np.float64], size: tuple[int, int]) -> bytes:
    """View 0 in the frame of view 1 as WebP, transparent where it does not reach; without what is behind the camera."""
    height, width = size
    w = H[2, 0] * np.arange(width) + H[2, 1] * np.arange(height)[:, None] + H[2, 2]
    before = w * np.sign(w.sum()) > 0  # a homography is known up to its sign; most of the frame is before the camera
    opaque = np.dstack([cv2.cvtColor(image0, cv2.COLOR_RGB2BGR), 255 * before.astype(np.uint8)])
    moved = cv2.warpPerspective(opaque, H, size[::-1], flags=cv2.INTER_LINEAR)
    _, data = cv2.imencode(".webp", moved, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return data.tobytes()
