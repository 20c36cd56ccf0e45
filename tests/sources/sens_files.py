"""Real `.sens` files for tests, written field by field in the order that ScanNet's reader documents."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

DEPTH = b"not read"


def write_sens(
    path: Path,
    images: Sequence[bytes],
    *,
    version: int = 4,
    compression: int = 2,
    promised: int | None = None,
    sensor: bytes = b"StructureSensor",
) -> list[int]:
    """Write encoded colour images as a `.sens` file; returns where each frame begins, then the end of the last."""
    eye = np.eye(4, dtype="<f4").tobytes()
    data = struct.pack("<IQ", version, len(sensor)) + sensor + 4 * eye
    data += struct.pack("<iiIIIIf", compression, 1, 128, 96, 64, 48, 1000.0)
    data += struct.pack("<Q", len(images) if promised is None else promised)
    starts = [len(data)]
    for number, image in enumerate(images):
        times_us = 33_333 * number, 33_333 * number + 5
        data += eye + struct.pack("<QQQQ", *times_us, len(image), len(DEPTH)) + image + DEPTH
        starts.append(len(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data + struct.pack("<Q", 0))
    return starts
