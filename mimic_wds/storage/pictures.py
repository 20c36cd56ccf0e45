"""Decoding the pictures of a data set, which may come from anybody: what their headers ask for is looked at first."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.storage.jpeg import jpeg_head

#: Pixels that a stored picture has at most, 8192 x 8192: a header of 50 bytes can ask for a thousand times as many.
MAX_PIXELS = 2**26

_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def decode_jpeg(data: bytes, flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8] | None:
    """A whole JPEG file as OpenCV's `flags` say, by default (H, W, 3) BGR; None for anything else."""
    head = jpeg_head(data)
    pixels = _decode(data, flags) if head is not None and head.size[0] * head.size[1] <= MAX_PIXELS else None
    return None if pixels is None else np.asarray(pixels, np.uint8)


def decode_png(data: bytes) -> NDArray[np.uint8] | NDArray[np.uint16] | None:
    """A PNG file as it is stored, (H, W) or (H, W, channels) BGR; None for anything else."""
    width, height = (int.from_bytes(data[len(_PNG) + at : len(_PNG) + at + 4], "big") for at in (0, 4))
    if not data.startswith(_PNG) or width * height > MAX_PIXELS:
        return None
    return _decode(data, cv2.IMREAD_UNCHANGED)


def _decode(data: bytes, flags: int) -> NDArray[np.uint8] | NDArray[np.uint16] | None:
    try:
        pixels: NDArray[np.uint8] | NDArray[np.uint16] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)  # type: ignore[assignment]
    except cv2.error:
        return None
    return pixels
