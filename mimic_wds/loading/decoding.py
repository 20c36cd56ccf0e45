"""One sample's bytes to pixels and correspondences; what is wrong with it has a name that can be counted.

JPEGs are decoded by simplejpeg where it is installed (the `train` extra), else by OpenCV: the same pixels, since both
are libjpeg-turbo with its exact settings, but simplejpeg takes a sixth less time and writes RGB where it is wanted.
`tools/bench_loader.py --decoders` measures both beside others. Both release Python's lock while they decode.
"""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import Image
from mimic_wds.storage.jpeg import jpeg_head
from mimic_wds.storage.pictures import MAX_PIXELS, decode_jpeg
from mimic_wds.storage.sample import decode_array, encode_array

try:
    import simplejpeg
except ImportError:
    simplejpeg = None


#: How OpenCV is asked for a smaller picture.
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


class BadSample(ValueError):
    """A sample that cannot be used; `args[0]` is the reason that is counted."""


def decode_into(data: bytes, out: Image) -> None:
    """Decode a JPEG into `out` (H, W, 3) uint8 RGB. Raises BadSample when it does not decode or has another size."""
    if not _decoded_by_simplejpeg(data, out):
        rgb = _decode_by_opencv(data)
        if rgb.shape != out.shape:
            raise BadSample("image_of_another_size")
        out[...] = rgb


def decode_rgb(data: bytes, factor: int = 1) -> Image:
    """A JPEG of any size as (H, W, 3) uint8 RGB. Raises BadSample when it does not decode or has too many pixels.

    `factor` 2, 4 or 8 gives it smaller by that, rounded up: the transform to pixels, which is most of the work, is then
    done for so many fewer.
    """
    height, width = picture_size(data)
    if simplejpeg is not None:
        least = {"min_height": -(-height // factor), "min_width": -(-width // factor), "min_factor": factor}
        try:
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB", **least), np.uint8)
        except ValueError:
            pass  # OpenCV has the last word, so that a sample is bad or not whatever is installed
    return _decode_by_opencv(data, factor)


def picture_size(data: bytes) -> tuple[int, int]:
    """(height, width) in the header of a whole JPEG. Raises BadSample for any other file, and for too many pixels."""
    head = jpeg_head(data)
    if head is None or head.size[0] * head.size[1] > MAX_PIXELS:
        raise BadSample("jpeg_does_not_decode")
    return head.size


def _decoded_by_simplejpeg(data: bytes, out: Image) -> bool:
    """Whether simplejpeg has decoded a JPEG into `out`. False leaves `out` with any contents."""
    if simplejpeg is None or not out.flags.c_contiguous:
        return False
    try:
        return bool(simplejpeg.decode_jpeg(data, "RGB", buffer=out).shape == out.shape)
    except ValueError:  # damaged, of colours that it does not turn into RGB, or too large for `out`
        return False


def _decode_by_opencv(data: bytes, factor: int = 1) -> Image:
    """What `decode_rgb` does without simplejpeg."""
    bgr = decode_jpeg(data, REDUCED[factor])
    if bgr is None:
        raise BadSample("jpeg_does_not_decode")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def decode_corr(data: bytes, num_patches: int) -> NDArray[np.int16]:
    """The correspondences (L,) in a corr.npy. Raises BadSample when they are no one-to-one map of L patches."""
    header = _corr_header(num_patches)
    if data.startswith(header) and len(data) == len(header) + 2 * num_patches:
        corr = np.frombuffer(data, np.int16, offset=len(header))
    else:
        corr = _decode_any_corr(data, num_patches)
    if not _is_one_to_one(corr):
        raise BadSample("correspondences_not_one_to_one")
    return corr


@lru_cache(maxsize=16)
def _corr_header(num_patches: int) -> bytes:
    """What stands before the numbers in the corr.npy that this package writes."""
    data = encode_array(np.empty(num_patches, np.dtype("<i2")))
    return data[: len(data) - 2 * num_patches]


def _decode_any_corr(data: bytes, num_patches: int) -> NDArray[np.int16]:
    """What `decode_corr` does with another header."""
    try:
        corr = decode_array(data, "corr.npy")
    except ValueError:
        raise BadSample("correspondences_unreadable") from None
    if corr.shape != (num_patches,) or corr.dtype != np.int16:
        raise BadSample("correspondences_of_another_shape")
    return corr


def _is_one_to_one(corr: NDArray[np.int16]) -> bool:
    """True if every entry is -1 or a patch that no other entry names."""
    try:
        uses = np.bincount(corr + 1)  # of -1, of patch 0, of patch 1, ...
    except ValueError:  # an entry below -1
        return False
    return len(uses) <= len(corr) + 1 and (len(uses) == 1 or int(uses[1:].max()) <= 1)
