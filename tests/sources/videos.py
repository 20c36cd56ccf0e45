"""Real video files for tests: every frame says its number, so a test can tell which frames it got."""

import struct
from pathlib import Path

import cv2
import numpy as np

BITS = 8


def numbered_frame(number: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A frame with `number` in binary as eight black and white columns in its upper half; the lower half is grey."""
    frame = np.full((height, width, 3), 128, np.uint8)
    for bit in range(BITS):
        left = bit * width // BITS
        frame[: height // 2, left : left + width // BITS] = 255 if number >> bit & 1 else 0
    return frame


def read_number(image: np.ndarray) -> int:
    """The number that a decoded frame says."""
    height, width = image.shape[:2]
    centres = [(bit * width // BITS) + width // BITS // 2 for bit in range(BITS)]
    return sum(1 << bit for bit, x in enumerate(centres) if image[height // 4, x].mean() > 128)


def write_video(path: Path, num_frames: int, fps: float = 10.0, size: tuple[int, int] = (96, 128)) -> Path:
    """Write numbered frames; the container follows the file's ending."""
    height, width = size
    code = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, (width, height))
    assert writer.isOpened()
    for number in range(num_frames):
        writer.write(numbered_frame(number, height, width))
    writer.release()
    return path


def rotate_by_metadata(path: Path, degrees: int) -> None:
    """Write a clockwise display rotation into the track header of an .mp4, as phones do."""
    a, b, c, d = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4
    version = data[start]
    matrix = start + (52 if version else 40)
    values = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = struct.pack(">9i", *values)
    path.write_bytes(data)


def texture(seed: int, height: int, width: int) -> np.ndarray:
    """Noise at several scales: SIFT finds hundreds of keypoints on it."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.random((height // s, width // s, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        for s in (4, 12, 40)
    ]
    return (np.mean(layers, axis=0) * 255).clip(0, 255).astype(np.uint8)


def write_pan(
    path: Path, num_frames: int, step: int = 64, seed: int = 0, side: int = 224, marked: bool = False
) -> Path:
    """A view of `side` pixels panning over a texture, `step` pixels a frame: neighbours overlap by 1 - step / side.

    marked: with a white corner in every frame.
    """
    canvas = texture(seed, side, side + step * num_frames)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 1.0, (side, side))
    assert writer.isOpened()
    for number in range(num_frames):
        frame = canvas[:, number * step : number * step + side].copy()
        if marked:
            frame[:16, :16] = 255
        writer.write(frame)
    writer.release()
    return path
