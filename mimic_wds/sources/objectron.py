"""Objectron: videos of objects, `videos/<class>/batch-<i>/<j>/video.MOV` as downloaded."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mimic_wds.pairs import Chain, Fault, Policy, Scene, View
from mimic_wds.sources.base import existing
from mimic_wds.sources.listing import unique, walk, what_is_there
from mimic_wds.sources.video import VIDEO_SUFFIXES, check_grid, read_grid, video_scene

#: "<class>/batch-<i>/<j>", as the data set's own index files name a video.
_VIDEO = re.compile(r"[^/]+/batch-\d+/\d+")


@dataclass(frozen=True, kw_only=True)
class Objectron:
    """One video is one scene; consecutive frames are tried, the next but one when they are too alike.

    Scenes are named as in the data set's index ("chair/batch-3/12"), whichever of the folders is given. How MIMIC chose
    frames of Objectron is not published; the defaults are those of its other videos (arXiv 2306.15128, appendix C.1).
    """

    name: ClassVar[str] = "objectron"
    reads: ClassVar[str] = "Objectron videos: CLASS/batch-I/J/video.MOV, at any depth"

    paths: tuple[str, ...]
    every_s: float = 1.0  #: seconds between the frames, by the video's time stamps
    every_frames: int = 0  #: frames between the frames; if set, every_s does not count
    retry: bool = True  #: when two frames overlap too much, try the first with the next but one
    licence: str = "C-UDA 1.0, Computational Use of Data Agreement (Objectron, Google LLC)"  #: goes into the manifest

    def __post_init__(self) -> None:
        check_grid(self.every_s, self.every_frames)

    def policy(self, scene: Scene) -> Policy:
        """Consecutive frames."""
        return Chain(retry=self.retry)

    def scenes(self) -> list[Scene]:
        """One scene per video, named CLASS/batch-I/J. Videos in other folders are passed over."""
        scenes: list[Scene] = []
        for root in existing(self.paths):
            found = [scene for path in _files(root) if (scene := _scene(path)) is not None]
            if not found:
                raise ValueError(f"{root}: expected {self.reads}; {what_is_there(root)}")
            scenes += found
        return unique(scenes, "keep one of them")

    def views(self, scene: Scene) -> Iterator[View | Fault]:
        """The frames of the grid, upright by the rotation in the file's metadata. Raises SceneError if none decodes."""
        return read_grid(scene.path, every_s=self.every_s, every_frames=self.every_frames)


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for _, files in walk(root):
        yield from (Path(file.path) for file in files)


def _scene(path: Path) -> Scene | None:
    """The video as a scene, if its folders are Objectron's."""
    name = "/".join(path.absolute().parts[-4:-1])
    if path.suffix.lower() not in VIDEO_SUFFIXES or not _VIDEO.fullmatch(name):
        return None
    return video_scene(Objectron.name, name, path)
