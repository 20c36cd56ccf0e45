"""ARKitScenes: raw `.mov` files or folders of frames as downloaded, one frame a second, turned upright."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from os import DirEntry
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from mimic_wds.pairs import Chain, Fault, Policy, Scene, SceneError, View
from mimic_wds.sources.base import existing
from mimic_wds.sources.images import read_view
from mimic_wds.sources.listing import unique, walk, what_is_there
from mimic_wds.sources.trajectory import read_rotations, turns_by_metadata, turns_by_trajectory
from mimic_wds.sources.video import Grid, check_grid, read_grid, relative_name, video_scene

#: What a capture can be read from, the best first; all but "mov" are folders of frames of the same camera.
STREAMS = ("mov", "wide", "vga_wide", "lowres_wide")

#: Other folders of a capture, which hold millions of files.
_PASSED_OVER = frozenset({"lowres_depth", "highres_depth", "confidence", "ultrawide"}) | {
    f"{name}_intrinsics" for name in (*STREAMS, "ultrawide")
}

#: "<video id>_<seconds>.png"
_FRAME = re.compile(r"(\d+)_(\d+(?:\.\d+)?)\.png", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ARKitScenes:
    """One capture is one scene; consecutive frames are tried, the next but one when they are too alike.

    One frame a second and the second try are MIMIC's (arXiv 2306.15128, appendix C.1).
    """

    name: ClassVar[str] = "arkitscenes"
    reads: ClassVar[str] = (
        "ARKitScenes captures: ID/ID.mov, or folders ID/wide, ID/vga_wide, ID/lowres_wide of ID_SECONDS.png; "
        "upright by lowres_wide.traj, else by metadata.csv"
    )

    paths: tuple[str, ...]
    every_s: float = 1.0  #: seconds between the frames, by their time stamps
    every_frames: int = 0  #: frames between the frames; if set, every_s does not count
    retry: bool = True  #: when two frames overlap too much, try the first with the next but one
    rotate: Literal["auto", "none"] = "auto"  #: auto = by trajectory or metadata; none = as a video player shows them
    stream: Literal["any", "mov", "wide", "vga_wide", "lowres_wide"] = "any"  #: any = the first that a capture has
    licence: str = "CC BY-NC-SA 4.0 (ARKitScenes, Apple Inc.)"  #: goes into the manifest

    def __post_init__(self) -> None:
        check_grid(self.every_s, self.every_frames)

    def policy(self, scene: Scene) -> Policy:
        """Consecutive frames."""
        return Chain(retry=self.retry)

    def scenes(self) -> list[Scene]:
        """One scene per capture, named by its folder relative to the parent of the path given: "raw/Training/ID"."""
        scenes: list[Scene] = []
        for root in existing(self.paths):
            chosen = self._choose(_in_file(root) if root.is_file() else _in_folder(root))
            if not chosen:
                wanted = self.reads if self.stream == "any" else f"captures with {self.stream} (option stream)"
                raise ValueError(f"{root}: expected {wanted}; {what_is_there(root)}")
            scenes += chosen
        return unique(scenes, "give their common parent folder instead")

    def _choose(self, found: Iterator[tuple[str, Scene]]) -> list[Scene]:
        """One scene of each capture: that of the stream wanted, or of the best."""
        streams = STREAMS if self.stream == "any" else (self.stream,)
        captures: dict[str, dict[str, Scene]] = {}
        for stream, scene in found:
            captures.setdefault(scene.name, {})[stream] = scene
        best = (next((held[s] for s in streams if s in held), None) for held in captures.values())
        return [scene for scene in best if scene is not None]

    def views(self, scene: Scene) -> Iterator[View | Fault]:
        """The frames of the grid, upright. Raises SceneError when none can be read.

        A trajectory that cannot be read is a Fault without frame, and metadata.csv is asked instead.
        """
        turns: int | None = None
        if self.rotate == "auto":
            turns, faults = _quarter_turns(Path(scene.path))
            yield from faults
        for view in self._stored(scene, upright=turns is None):
            yield _turned(view, turns) if turns and isinstance(view, View) else view

    def _stored(self, scene: Scene, *, upright: bool) -> Iterator[View | Fault]:
        """The frames as they are stored; with `upright` a video's are turned by the rotation in its metadata."""
        if Path(scene.path).is_dir():
            return self._frames(Path(scene.path))
        return read_grid(scene.path, every_s=self.every_s, every_frames=self.every_frames, upright=upright)

    def _frames(self, folder: Path) -> Iterator[View | Fault]:
        """The frames of the grid of a folder, called by their time stamps."""
        try:
            stamps = frame_times(folder)
        except OSError as error:
            raise SceneError(f"{folder}: cannot be read ({error.strerror})") from None
        if not stamps:
            raise SceneError(f"{folder}: no frames called ID_SECONDS.png; {what_is_there(folder)}")
        grid = Grid(self.every_s, self.every_frames)
        for index, (path, stamp) in enumerate(stamps):
            if grid.has(index, float(stamp) - float(stamps[0][1])):
                view = read_view(path, stamp)
                yield replace(view, time_s=float(stamp)) if isinstance(view, View) else view


def frame_times(folder: Path) -> list[tuple[Path, str]]:
    """The frames of a folder with the time stamps in their names (seconds, as written), in order of time."""
    matches = ((path, _FRAME.fullmatch(path.name)) for path in folder.iterdir())
    return sorted(((path, match[2]) for path, match in matches if match), key=lambda item: (float(item[1]), item[0]))


def _turned(view: View, turns: int) -> View:
    """The view turned clockwise by so many quarters."""
    return replace(view, image=np.ascontiguousarray(np.rot90(view.image, -turns)))


def _quarter_turns(path: Path) -> tuple[int | None, list[Fault]]:
    """Quarter turns clockwise for a scene's stored frames, None when nothing says; and what could not be read."""
    folder, video_id = path.parent, _video_id(path)
    faults: list[Fault] = []
    for name in ("lowres_wide.traj", f"{video_id}.traj"):
        try:
            turns = turns_by_trajectory(read_rotations(folder / name))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            faults.append(Fault("unreadable_trajectory", str(error)))
            continue
        if turns is not None:
            return turns, faults
    return turns_by_metadata(folder, video_id), faults


def _video_id(path: Path) -> str:
    """The id of a capture: the stem of its .mov, or the name of the folder that its folder of frames is in."""
    return path.stem if path.suffix else _capture(path).name


def _capture(frames: Path) -> Path:
    """The folder of the capture that a folder of frames belongs to; in the 3dod set there is one in between."""
    parent = frames.resolve().parent
    return parent.parent if parent.name == f"{parent.parent.name}_frames" else parent


def _in_file(path: Path) -> Iterator[tuple[str, Scene]]:
    if path.suffix.lower() == ".mov":
        yield "mov", video_scene(ARKitScenes.name, path.stem, path)


def _in_folder(root: Path) -> Iterator[tuple[str, Scene]]:
    """All streams of all captures at or below a folder."""
    for folder, files in walk(root, _PASSED_OVER):
        name = relative_name(folder, root)
        for file in files:
            stem, suffix = Path(file.name).stem, Path(file.name).suffix
            if suffix.lower() == ".mov":
                own = name if folder.resolve().name == stem else f"{name}/{stem}"
                yield "mov", video_scene(ARKitScenes.name, own, Path(file.path))
        if folder.name in STREAMS:
            yield from _frame_scene(folder, files, name)


def _frame_scene(folder: Path, files: list[DirEntry[str]], name: str) -> Iterator[tuple[str, Scene]]:
    """The folder as a scene, if it holds frames. Its size is estimated by one of them: there may be millions."""
    frames = [file for file in files if _FRAME.fullmatch(file.name)]
    if not frames:
        return
    capture = _capture(folder)
    above = name.split("/")[: -1 if capture == folder.resolve().parent else -2]
    size = min(frames, key=lambda file: file.name).stat().st_size
    scene = Scene(
        source=ARKitScenes.name,
        name="/".join(above) or capture.name,
        path=str(folder),
        num_bytes=len(frames) * size,
    )
    yield folder.name, scene
