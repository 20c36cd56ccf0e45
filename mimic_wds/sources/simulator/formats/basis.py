"""Basis Universal textures: `.basis` files (GOOGLE_texture_basis, as in HM3D) and `.ktx2` (KHR_texture_basisu)."""

import logging
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import SceneError

log = logging.getLogger(__name__)

KTX2 = b"\xabKTX 20\xbb\r\n\x1a\n"
BASIS = b"sB"

#: Key of a KTX 2 file for its orientation; "rd" = top row first (KTX 2.0 specification, section 5.2).
ORIENTATION = b"KTXorientation\0"


class BasisMissing(SceneError):
    """A scene has Basis Universal textures, and their decoder is not installed."""


def is_basis(data: bytes | memoryview) -> bool:
    """Whether a picture is a `.ktx2` or `.basis` file."""
    return bytes(data[: len(KTX2)]) == KTX2 or bytes(data[:2]) == BASIS


def decode(data: bytes, where: str) -> NDArray[np.uint8] | None:
    """The picture (h, w, 3), top row first; None when it is broken. Raises BasisMissing without the decoder.

    habitat-sim's converter stores the bottom row first and says so in the file's header.
    """
    opengl_basisu = _decoder(where)
    try:
        texture = opengl_basisu.open(data)
        pixels = texture.transcode("rgba8").data
    except opengl_basisu.BasisuError as error:
        log.warning("%s: %s", where, error)
        return None
    bottom_first = texture.y_flipped or _orientation(data)[1:2] == b"u"
    return np.ascontiguousarray(pixels[::-1, :, :3] if bottom_first else pixels[..., :3])


def _orientation(data: bytes) -> bytes:
    """What a KTX 2 file says of its rows and columns, two letters; nothing when it is silent."""
    if data[: len(KTX2)] != KTX2:
        return b""
    start = int.from_bytes(data[56:60], "little")  # of the key/value data; their length follows
    pairs = data[start : start + int.from_bytes(data[60:64], "little")]
    _, found, value = pairs.partition(ORIENTATION)
    return value[:2] if found else b""


def _decoder(where: str) -> ModuleType:
    try:
        import opengl_basisu
    except ImportError as error:
        raise BasisMissing(
            f"{where}: is a Basis Universal texture; install the decoder with pip install 'mimic-wds[basis]', or put "
            "the file with plain textures beside it (NAME.glb beside NAME.basis.glb; HM3D has it in its 'glb' download)"
        ) from error
    return opengl_basisu
