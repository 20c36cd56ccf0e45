"""Real Basis Universal files: KTX 2 from an encoder, and the same payload in the older `.basis` container."""

import struct

import cv2
import numpy as np
import pytest


def ktx2(image: np.ndarray, codec: str = "etc1s") -> bytes:
    """An image (h, w, 3) RGB as KTX 2; skips the test where there is no encoder."""
    alktx2 = pytest.importorskip("alktx2", reason="no encoder of Basis textures; pip install alktx2")
    png = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()
    return bytes(alktx2.encode_bytes_to_ktx2(png, mime="png", codec=codec, quality=100))


def basis(file: bytes, *, y_flipped: bool) -> bytes:
    """A KTX 2 file with one ETC1S image as `.basis` (basis_universal, basis_file_headers.h): codebooks are the same."""
    width, height = struct.unpack_from("<II", file, 20)
    (scheme,) = struct.unpack_from("<I", file, 44)
    assert scheme == 1, "ETC1S with BasisLZ"
    start, _ = struct.unpack_from("<QQ", file, 64)
    level, _, _ = struct.unpack_from("<QQQ", file, 80)
    num_endpoints, num_selectors, endpoints, selectors, tables, _ = struct.unpack_from("<HHIIII", file, start)
    _, offset, length, _, _ = struct.unpack_from("<5I", file, start + 20)
    levels = struct.unpack_from("<I", file, 40)[0]
    books = start + 20 + 20 * levels
    parts = [file[books : books + endpoints], file[books + endpoints :][:selectors]]
    parts += [file[books + endpoints + selectors :][:tables], file[level + offset :][:length]]
    at = [77 + 23]
    for part in parts:
        at.append(at[-1] + len(part))
    blocks = -(-width // 4), -(-height // 4)
    slice_ = _u24(0) + bytes([0, 0]) + struct.pack("<4H", width, height, *blocks)
    slice_ += struct.pack("<IIH", at[3], length, _crc16(parts[3]))
    data = slice_ + b"".join(parts)
    rest = struct.pack("<IH", len(data), _crc16(data)) + _u24(1) + _u24(1)
    rest += bytes([0]) + struct.pack("<H", 1 | (2 if y_flipped else 0)) + bytes([0]) + _u24(0) + bytes(12)
    rest += struct.pack("<HI", num_endpoints, at[0]) + _u24(endpoints)
    rest += struct.pack("<HI", num_selectors, at[1]) + _u24(selectors)
    rest += struct.pack("<IIIII", at[2], tables, 77, 0, 0)
    return struct.pack("<2sHHH", b"sB", 0x13, 77, _crc16(rest)) + rest + data


def _u24(number: int) -> bytes:
    return number.to_bytes(3, "little")


def _crc16(data: bytes) -> int:
    crc = 0xFFFF
    for byte in data:
        q = byte ^ (crc >> 8)
        k = (q >> 4) ^ q
        crc = (((crc << 8) ^ k) ^ (k << 5) ^ (k << 12)) & 0xFFFF
    return crc ^ 0xFFFF
