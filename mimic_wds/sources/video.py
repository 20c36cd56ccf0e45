"""Videos: frames on a regular grid in seconds or in frames, read in one sequential pass."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from mimic_wds.pairs import Chain, Fault, Policy, Scene, SceneError, View
from mimic_wds.sources.base import check_unique, existing, natural_key, walk_files

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mjpeg", ".mpg", ".mpeg", ".ts", ".3gp"})

#: A file is cut or damaged when it decodes less than this share of the frames that its header promises.
COMPLETE = 0.95

#: Time stamps are exact to this many seconds: a frame so much before a tick of the grid is at the tick.
CLOCK_S = 1e-5


@dataclass(frozen=True, kw_only=True)
class Video:
    """One video is one scene; consecutive frames of the grid are tried, the next but one when they are too alike."""

    name: ClassVar[str] = "video"
    reads: ClassVar[str] = "video files, or folders of them at any depth (mp4, mov, avi, mkv, webm, mjpeg, ...)"

    paths: tuple[str, ...]
    every_s: float = 1.0  #: seconds between the frames of the grid, by the video's time stamps
    every_frames: int = 0  #: frames between the frames of the grid; if set, every_s does not count
    retry: bool = True  #: when two frames overlap too much, try the first with the next but one
    licence: str = ""  #: goes into the manifest

    def __post_init__(self) -> None:
        if self.every_frames < 0 or (self.every_frames == 0 and not self.every_s > 0):
            raise ValueError(
                f"every_s must be above 0 and every_frames 0 or more, got {self.every_s} and {self.every_frames}"
            )

    def policy(self, scene: Scene) -> Policy:
        """Consecutive frames."""
        return Chain(retry=self.retry)

    def scenes(self) -> list[Scene]:
        """One scene per video, named by its path relative to the parent of the path given (a file: by its name)."""
        scenes: list[Scene] = []
        for root in existing(self.paths):
            files = [root] if root.is_file() else walk_files(root, VIDEO_SUFFIXES)
            if not files:
                raise ValueError(f"{root}: no videos here or below; expected {', '.join(sorted(VIDEO_SUFFIXES))}")
            base = root.resolve().parent
            scenes += [
                Scene(
                    source=self.name,
                    name=file.resolve().relative_to(base).as_posix(),
                    path=str(file),
                    num_bytes=file.stat().st_size,
                )
                for file in files
            ]
        return sorted(check_unique(scenes), key=lambda scene: natural_key(scene.name))

    def views(self, scene: Scene) -> Iterator[View | Fault]:
        """The frames of the grid, upright by the rotation in the file's metadata. Raises SceneError if none decodes."""
        capture = cv2.VideoCapture(scene.path, cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise SceneError(f"{scene.path}: cannot be opened as a video")
            yield from self._grid(capture, scene)
        finally:
            capture.release()

    def _grid(self, capture: cv2.VideoCapture, scene: Scene) -> Iterator[View | Fault]:
        """Grab every frame in order, decode to pixels only those of the grid."""
        fps = capture.get(cv2.CAP_PROP_FPS)
        clock = _Clock(fps)
        tick, index = 0, 0
        while capture.grab():
            time_s = clock.read(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, index)
            ticks = (time_s + CLOCK_S) / self.every_s
            due = index % self.every_frames == 0 if self.every_frames else ticks >= tick
            if due:
                tick = int(ticks) + 1  # a stretch without frames (variable frame rate) is skipped, not made up for
                ok, bgr = capture.retrieve()
                if ok:
                    rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
                    yield View(image=rgb, frame=f"{index:06d}", time_s=time_s)
                else:
                    yield Fault("unreadable_frame", f"{scene.path}: frame {index}", frame=f"{index:06d}")
            index += 1
        if index == 0:
            raise SceneError(f"{scene.path}: opens as a video but no frame can be decoded")
        promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if index < COMPLETE * promised:
            yield Fault("video_cut_short", f"{scene.path}: {index} of {promised:.0f} frames decode")


class _Clock:
    """Time stamps that never run backwards: the container's where it has them, else frame number / frame rate."""

    def __init__(self, fps: float):
        self.frame_s = 1 / fps if fps > 0 else 1 / 25
        self.last_s = -1.0
        self.first_s: float | None = None

    def read(self, stamp_s: float, index: int) -> float:
        """Seconds since the first frame, for the frame number `index` with the container's `stamp_s`."""
        if self.first_s is None:
            self.first_s = stamp_s
        stamp_s -= self.first_s
        if not np.isfinite(stamp_s) or stamp_s <= self.last_s:
            stamp_s = max(index * self.frame_s, self.last_s + self.frame_s)
        self.last_s = round(stamp_s, 6)
        return self.last_s
