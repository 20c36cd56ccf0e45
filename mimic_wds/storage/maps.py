"""Maps that are stored beside a view, as PNGs of its size: depth, surface normals, classes of the pixels.

Depth: 16-bit grey, whole millimetres along the optical axis, 0 = not known. Normals: 8-bit RGB, (n + 1) * 127.5 of the
unit normal's parts right, down, forward (as Taskonomy and Omnidata store them), (0, 0, 0) = not known: no unit normal
gives it. Classes: 8-bit grey, 0 = none or another, v = the v-th of the manifest's `semseg_classes`, from 1.
"""

from collections.abc import Iterator, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.storage.pictures import decode_png

#: Millimetres; farther is not known.
MAX_DEPTH_MM = 2**16 - 1

#: zlib level: 1 takes a third of the time of the default 6 and 10 % more bytes on rendered depth.
_COMPRESSION = [cv2.IMWRITE_PNG_COMPRESSION, 1]

#: What a map's pixels are: dtype and number of channels.
_PIXELS = {"depth": (np.uint16, 1), "normal": (np.uint8, 3), "semseg": (np.uint8, 1)}


def encode_depth(depth: NDArray[np.float32]) -> bytes:
    """Depth (H, W) in metres as PNG; what is not positive and finite, or 65.5 m away and more, is not known."""
    millimetres = np.rint(np.asarray(depth, np.float64) * 1000)
    known = (millimetres > 0) & (millimetres <= MAX_DEPTH_MM)
    stored: NDArray[np.uint16] = np.where(known, millimetres, 0).astype(np.uint16)
    return _png(stored)


def decode_depth(data: bytes) -> NDArray[np.float32]:
    """Depth (H, W) in metres, 0 = not known. Raises ValueError when it does not decode."""
    return decode_map("depth", data).astype(np.float32) / np.float32(1000)


def encode_normal(normal: NDArray[np.floating]) -> bytes:
    """Unit normals (H, W, 3) right, down, forward as PNG; (0, 0, 0) = not known."""
    known = np.linalg.norm(normal, axis=-1, keepdims=True) > 0.5
    rgb: NDArray[np.uint8] = np.where(known, np.rint((np.clip(normal, -1, 1) + 1) * 127.5), 0).astype(np.uint8)
    return _png(np.ascontiguousarray(rgb[..., ::-1]))


def decode_normal(data: bytes) -> NDArray[np.float32]:
    """Unit normals (H, W, 3) right, down, forward; (0, 0, 0) = not known. Raises ValueError when it does not decode."""
    rgb = decode_map("normal", data)
    normal = rgb.astype(np.float32) / np.float32(127.5) - 1
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), np.float32(1e-6))
    normal[~rgb.any(axis=-1)] = 0
    return normal


def encode_semseg(classes: NDArray[np.integer]) -> bytes:
    """Classes (H, W) as PNG; 0 = none or another."""
    assert classes.size
    assert 0 <= classes.min() <= classes.max() <= 255
    return _png(classes.astype(np.uint8))


def decode_map(name: str, data: bytes) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The pixels of a map "depth", "normal" (RGB) or "semseg". Raises ValueError when they are not what they should."""
    pixels = decode_png(data)
    if pixels is None:
        raise ValueError(f"a {name} map does not decode")
    dtype, channels = _PIXELS[name]
    if pixels.dtype != dtype or pixels.ndim != (3 if channels == 3 else 2):
        raise ValueError(f"a {name} map has pixels of {pixels.dtype} {pixels.shape}, expected {np.dtype(dtype)}")
    flipped: NDArray[np.uint8] | NDArray[np.uint16] = pixels[..., ::-1] if channels == 3 else pixels
    return flipped


def check_maps(maps: Mapping[str, bytes], size: tuple[int, int], num_classes: int) -> Iterator[tuple[str, str]]:
    """What is wrong with the maps of a sample, member name -> data: (kind, message) each."""
    for member, data in maps.items():
        name = member.split(".")[1]
        try:
            pixels = decode_map(name, data)
        except ValueError as error:
            yield "map", f"{member}: {error}"
            continue
        if pixels.shape[:2] != size:
            yield "map", f"{member} has size {pixels.shape[:2]}, the sample says {size}"
        if name == "semseg" and int(pixels.max()) > num_classes:
            yield "map", f"{member} has class {int(pixels.max())}, the data set names {num_classes}"


def _png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    ok, data = cv2.imencode(".png", pixels, _COMPRESSION)
    assert ok
    return data.tobytes()
