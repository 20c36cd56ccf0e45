"""Filming a walk: poses to frames, frames to a video file."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.raster import Camera, Mesh, Renderer

#: MPEG-4 part 2, which OpenCV's wheels can encode: 30 dB on the house, and as many SIFT matches as without loss.
CODEC = "mp4v"


def frames(
    mesh: Mesh,
    poses: NDArray[np.float64],
    *,
    size: tuple[int, int],
    hfov_deg: float,
    supersample: bool = False,
    num_threads: int = 1,
) -> Iterator[NDArray[np.uint8]]:
    """Render each of the poses (N, 4, 4): (H, W, 3) uint8 RGB, in order; size is (height, width)."""
    renderer = Renderer(mesh)

    def shoot(pose: NDArray[np.float64]) -> NDArray[np.uint8]:
        return renderer.render(Camera(pose, hfov_deg, size), supersample=supersample)[0]

    with ThreadPoolExecutor(num_threads) as pool:
        todo = iter(poses)
        ahead: deque[Future[NDArray[np.uint8]]] = deque()
        ahead.extend(pool.submit(shoot, pose) for pose in islice(todo, 4 * num_threads))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(shoot, pose) for pose in islice(todo, 1))


def write_video(path: Path, images: Iterable[NDArray[np.uint8]], fps: float) -> int:
    """Write images (H, W, 3) uint8 RGB, all of one size, to an .mp4 file; returns how many.

    The file appears under its name only when it is complete. Raises ValueError when there are no images, when their
    sizes differ, or the name does not end in .mp4; OSError when the file cannot be written.
    """
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"{path}: the name of the video must end in .mp4")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.tmp-{os.getpid()}.mp4")
    try:
        count = _encode(unfinished, images, fps)
        written = _count_frames(unfinished)
        if written != count:
            raise OSError(f"{path}: only {written} of {count} frames could be written; is the disk full?")
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _encode(path: Path, images: Iterable[NDArray[np.uint8]], fps: float) -> int:
    """Encode the images to `path` and count them."""
    count, size, writer = 0, (0, 0), None
    try:
        for image in images:
            if writer is None:
                size = image.shape[1::-1]
                writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*CODEC), fps, size)
                if not writer.isOpened():
                    raise OSError(f"{path}: OpenCV cannot write an {CODEC} video here; is the folder writable?")
            if image.shape[1::-1] != size:
                raise ValueError(f"frame {count} has (width, height) {image.shape[1::-1]}, the ones before have {size}")
            writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            count += 1
    finally:
        if writer is not None:
            writer.release()
    if count == 0:
        raise ValueError(f"{path}: there are no frames to write")
    return count


def _count_frames(path: Path) -> int:
    """How many frames of the file can be read, without decoding them."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        count = 0
        while capture.grab():
            count += 1
        return count
    finally:
        capture.release()
