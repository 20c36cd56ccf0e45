"""The pictures on surfaces: decoding them, and folding a material's colour into them."""

import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.formats import basis

log = logging.getLogger(__name__)

#: Texels: pictures with a longer side are halved until they fit.
MAX_SIDE = 8192

#: What a surface gets whose picture is missing or broken.
GREY = np.full((1, 1, 3), 128, np.uint8)


def solid(factor: Sequence[float]) -> NDArray[np.uint8]:
    """A texture of 1 x 1 with one colour, red, green and blue in 0..1. Bytes are proportional to the numbers."""
    return np.rint(np.clip(np.array(factor[:3], np.float64), 0, 1) * 255).astype(np.uint8).reshape(1, 1, 3)


def tinted(texture: NDArray[np.uint8], factor: Sequence[float]) -> NDArray[np.uint8]:
    """The texture with its bytes multiplied by a colour, as habitat-sim does: no conversion to linear light."""
    if all(f == 1 for f in factor[:3]):
        return texture
    steps = np.arange(256)[:, None] * np.clip(np.array(factor[:3], np.float64), 0, None)
    table = np.rint(np.clip(steps, 0, 255)).astype(np.uint8)
    return np.asarray(cv2.LUT(texture, table.reshape(1, 256, 3)), np.uint8)


def read(path: Path, where: str) -> NDArray[np.uint8]:
    """The picture of a file; grey, with a warning, when it is missing."""
    try:
        data = path.read_bytes()
    except OSError as error:
        log.warning("%s: texture %s cannot be read (%s), grey instead", where, path, error.strerror)
        return GREY
    return decode(data, f"{where}: texture {path.name}")


def decode(data: bytes | memoryview, where: str) -> NDArray[np.uint8]:
    """The picture (h, w, 3) of a PNG, JPEG, WebP, KTX 2 or Basis file; grey, with a warning, when it is broken.

    Alpha is dropped. Raises BasisMissing for the last two when their decoder is not installed.
    """
    texture = basis.decode(bytes(data), where) if basis.is_basis(data) else _decode(data)
    if texture is None:
        log.warning("%s cannot be decoded, grey instead", where)
        return GREY
    height, width = texture.shape[:2]
    shrink = 1
    while max(height, width) > MAX_SIDE * shrink:
        shrink *= 2
    if shrink > 1:
        size = max(1, width // shrink), max(1, height // shrink)
        log.warning("%s is %d x %d, reduced to %d x %d", where, width, height, *size)
        texture = np.asarray(cv2.resize(texture, size, interpolation=cv2.INTER_AREA), np.uint8)
    return texture


def _decode(data: bytes | memoryview) -> NDArray[np.uint8] | None:
    # Pictures on surfaces are never turned by their EXIF data.
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return None if pixels is None else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
