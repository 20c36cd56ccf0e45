"""Videos: frames on a regular grid in seconds or in frames, read in one sequential pass.

What other sources of video share is here too: `read_grid` for a regular grid, `read_at` for frames at given times.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
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

#: `read_at` seeks to so long before the first time wanted, and only when it saves more than this.
RUN_UP_S = 5.0


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
        check_grid(self.every_s, self.every_frames)

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
            scenes += [video_scene(self.name, relative_name(file, root), file) for file in files]
        return sorted(check_unique(scenes), key=lambda scene: natural_key(scene.name))

    def views(self, scene: Scene) -> Iterator[View | Fault]:
        """The frames of the grid, upright by the rotation in the file's metadata. Raises SceneError if none decodes."""
        return read_grid(scene.path, every_s=self.every_s, every_frames=self.every_frames)


def relative_name(path: Path, root: Path) -> str:
    """The name of a scene at `path`, found at or below `root`: relative to the parent of `root`, links not followed."""
    return "/".join([root.resolve().name, *path.relative_to(root).parts])


def video_scene(source: str, name: str, file: Path) -> Scene:
    """A scene that is one video file."""
    return Scene(source=source, name=name, path=str(file), num_bytes=file.stat().st_size)


def check_grid(every_s: float, every_frames: int) -> None:
    """Raise ValueError unless the two options name a grid."""
    if every_frames < 0 or (every_frames == 0 and not every_s > 0):
        raise ValueError(f"every_s must be above 0 and every_frames 0 or more, got {every_s} and {every_frames}")


class Grid:
    """Says of each frame in order whether it is on a regular grid: the first at or after each tick."""

    def __init__(self, every_s: float, every_frames: int = 0):
        check_grid(every_s, every_frames)
        self.every_s, self.every_frames = every_s, every_frames
        self._tick = 0

    def has(self, index: int, time_s: float) -> bool:
        """True for a frame of the grid; `time_s` counts from the first frame."""
        if self.every_frames:
            return index % self.every_frames == 0
        ticks = (time_s + CLOCK_S) / self.every_s
        if ticks < self._tick:
            return False
        self._tick = int(ticks) + 1  # a stretch without frames (variable frame rate) is skipped, not made up for
        return True


def read_grid(path: str, *, every_s: float, every_frames: int = 0, upright: bool = True) -> Iterator[View | Fault]:
    """The frames of a video on a grid: every frame is grabbed, in order, those of the grid are decoded to pixels.

    Frames are called by their number. `upright` turns them by the rotation in the file's metadata. When clearly fewer
    frames decode than the header promises, a Fault without frame comes last. Raises SceneError if none decodes.
    """
    with opened(path, upright=upright) as capture:
        grid, index = Grid(every_s, every_frames), -1
        for index, time_s in grab(capture):
            if grid.has(index, time_s):
                yield retrieve(capture, path, f"{index:06d}", time_s)
        if index < 0:
            raise SceneError(f"{path}: opens as a video but no frame can be decoded")
        promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if index + 1 < COMPLETE * promised:
            yield Fault("video_cut_short", f"{path}: {index + 1} of {promised:.0f} frames decode")


def read_at(path: str, times_s: Sequence[float], names: Sequence[str]) -> Iterator[View | Fault]:
    """The frames of a video nearest to the given times (ascending, in seconds from its first frame), upright.

    The frame for `times_s[i]` is called `names[i]`; where the video has one frame for several times it stands for the
    last of them, and none is taken from after the last time. A far start is sought, then frames are read in order. When
    the video ends before the last time, a Fault without frame comes last. Raises SceneError if it has none for any.
    """
    wanted, found, last_s = 0, 0, 0.0
    with opened(path) as capture:
        reach_s = half_frame_s(capture) + CLOCK_S
        for _, last_s in grab(capture, seek=(path, times_s[0] - RUN_UP_S)):
            if last_s > times_s[-1] + reach_s:
                break
            if last_s + reach_s < times_s[wanted]:
                continue
            while wanted + 1 < len(times_s) and times_s[wanted + 1] <= last_s + reach_s:
                wanted += 1
            yield retrieve(capture, path, names[wanted], last_s)
            wanted, found = wanted + 1, found + 1
            if wanted == len(times_s):
                return
    if not found:
        span = f"{times_s[0]:.3f} to {times_s[-1]:.3f} s"
        raise SceneError(f"{path}: read to {last_s:.3f} s, has no frame within the {span} wanted")
    yield Fault("video_cut_short", f"{path}: read to {last_s:.3f} s; no frame for {len(times_s) - wanted} later times")


@contextmanager
def opened(path: str, *, upright: bool = True) -> Iterator[cv2.VideoCapture]:
    """An open video, released at the end. Raises SceneError when it cannot be opened."""
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise SceneError(f"{path}: cannot be opened as a video")
        if not upright:
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        yield capture
    finally:
        capture.release()


def half_frame_s(capture: cv2.VideoCapture) -> float:
    """Half the time between two frames, in seconds, by the video's own frame rate."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return 0.5 / fps if fps > 0 else 0.5 / 25


def grab(capture: cv2.VideoCapture, seek: tuple[str, float] | None = None) -> Iterator[tuple[int, float]]:
    """Grab the frames in order: number and time of each, in seconds from the first, so that it can be retrieved.

    With `seek`, the path and a time, the frames between the first and some frame before that time are left out if they
    are many; numbers then count what is grabbed.
    """
    clock, index = _Clock(capture.get(cv2.CAP_PROP_FPS)), 0
    while capture.grab():
        stamp_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        yield index, clock.read(stamp_s, index)
        if index == 0 and seek is not None and seek[1] > RUN_UP_S:
            _seek(capture, seek[0], stamp_s + seek[1])
        index += 1


def _seek(capture: cv2.VideoCapture, path: str, to_s: float) -> None:
    """Go to a frame at or before `to_s`; back to the second frame when the file cannot be sought."""
    capture.set(cv2.CAP_PROP_POS_MSEC, to_s * 1000)
    if not (capture.grab() and 0 < capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 <= to_s + CLOCK_S):
        capture.open(path, cv2.CAP_FFMPEG)
        capture.grab()


def retrieve(capture: cv2.VideoCapture, path: str, frame: str, time_s: float) -> View | Fault:
    """The frame just grabbed, as the view called `frame`."""
    ok, bgr = capture.retrieve()
    if not ok:
        return Fault("unreadable_frame", f"{path}: frame {frame}", frame=frame)
    return View(image=np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), frame=frame, time_s=time_s)


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
