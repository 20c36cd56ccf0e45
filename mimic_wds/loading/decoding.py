"""One sample's bytes to pixels and correspondences; what is wrong with it has a name that can be counted."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.storage.sample import decode_array


class BadSample(ValueError):
    """A sample that cannot be used; `args[0]` is the reason that is counted."""


def decode_into(data: bytes, out: NDArray[np.uint8]) -> None:
    """Decode a JPEG into `out` (H, W, 3) uint8 RGB. Raises BadSample when it does not decode or has another size.

    Decoding as BGR and turning the channels round on the way into `out` costs no more than decoding as RGB and copying,
    and works in every OpenCV.
    """
    bgr = decode_bgr(data)
    if bgr.shape != out.shape:
        raise BadSample("image_of_another_size")
    cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=out)


def decode_bgr(data: bytes) -> NDArray[np.uint8]:
    """A JPEG of any size as (H, W, 3) uint8 BGR. Raises BadSample when it does not decode."""
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        bgr = None
    if bgr is None:
        raise BadSample("jpeg_does_not_decode")
    return np.asarray(bgr, np.uint8)


def decode_corr(data: bytes, num_patches: int) -> NDArray[np.int16]:
    """The correspondences (L,) in a corr.npy. Raises BadSample when they are no one-to-one map of L patches."""
    try:
        corr = decode_array(data, "corr.npy")
    except ValueError:
        raise BadSample("correspondences_unreadable") from None
    if corr.shape != (num_patches,) or corr.dtype != np.int16:
        raise BadSample("correspondences_of_another_shape")
    if not _is_one_to_one(corr):
        raise BadSample("correspondences_not_one_to_one")
    return corr


def _is_one_to_one(corr: NDArray[np.int16]) -> bool:
    """True if every entry is -1 or a patch that no other entry names."""
    try:
        uses = np.bincount(corr + 1)  # of -1, of patch 0, of patch 1, ...
    except ValueError:  # an entry below -1
        return False
    return len(uses) <= len(corr) + 1 and bool((uses[1:] <= 1).all())
