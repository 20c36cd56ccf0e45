"""MannequinChallenge and RealEstate10K: lists of YouTube time stamps with the videos, or clips cut from them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from mimic_wds.pairs import Chain, Fault, Policy, Scene, SceneError, View
from mimic_wds.sources.base import existing, natural_key
from mimic_wds.sources.camera_lists import find_videos, on_grid, read_list, video_address, video_id
from mimic_wds.sources.listing import unique, walk, what_is_there
from mimic_wds.sources.video import VIDEO_SUFFIXES, check_grid, read_at, read_grid, relative_name, video_scene

#: Folder that downloaders put clips cut by the lists in: "<clip>/trims/0.mp4".
_TRIMS = "trims"

#: Between the list and the video in the path of a scene.
_AND = "|"


@dataclass(frozen=True, kw_only=True)
class RealEstate10K:
    """One clip is one scene; consecutive frames are tried.

    Frames are those nearest to the listed time stamps on the grid. Videos that are cut to clips are read from their
    start. A list whose video is not there is counted as a fault, since many videos are no longer online.
    """

    name: ClassVar[str] = "realestate10k"
    reads: ClassVar[str] = (
        "RealEstate10K lists (CLIP.txt) with the videos, found by the YouTube id in the name of a file or its folder; "
        "or clips cut from them (trims/*, CLIP.mp4)"
    )

    paths: tuple[str, ...]
    every_s: float = 1.0  #: seconds between the frames, by the listed time stamps or the clip's
    every_frames: int = 0  #: frames of the list or the clip between the frames; if set, every_s does not count
    retry: bool = False  #: when two frames overlap too much, try the first with the next but one
    bottom_crop: float = 0.0  #: share of the rows to cut off at the bottom, in [0, 1)
    licence: str = "lists CC BY 4.0 (RealEstate10K, Google LLC); videos: terms of YouTube and their owners"

    def __post_init__(self) -> None:
        check_grid(self.every_s, self.every_frames)
        if not 0 <= self.bottom_crop < 1:
            raise ValueError(f"bottom_crop is a share of the rows in [0, 1), got {self.bottom_crop}")

    def policy(self, scene: Scene) -> Policy:
        """Consecutive frames."""
        return Chain(retry=self.retry)

    def scenes(self) -> list[Scene]:
        """One scene per list, named by its path without ".txt", and one per clip that is cut already.

        Names are relative to the parent of the path given. Without any list every video is a clip. Raises ValueError,
        too, when there are lists but no video for any of them.
        """
        held = _Held([(path, root) for root in existing(self.paths) for path in _files(root)])
        clips, listed = held.clips(), list(held.pairs())
        if not clips and not any(video for _, video in listed):
            raise ValueError(self._nothing(held))
        scenes = [video_scene(self.name, relative_name(path, held.roots[path]), path) for path in clips]
        scenes += [self._listed(path, held.roots[path], video) for path, video in listed]
        return unique(scenes, "give their common parent folder instead")

    def _listed(self, path: Path, root: Path, video: Path | None) -> Scene:
        """The scene of a list. It is as large as its list, for only the clip is read of the video."""
        name = relative_name(path, root).removesuffix(path.suffix)
        both = f"{path}{_AND}{video}" if video else str(path)
        return Scene(source=self.name, name=name, path=both, num_bytes=path.stat().st_size)

    def _nothing(self, held: "_Held") -> str:
        """The message that there is nothing to read."""
        if not held.lists:
            return "; ".join(f"{root}: expected {self.reads}; {what_is_there(Path(root))}" for root in self.paths)
        address = next(iter(held.lists.values()))
        return (
            f"{', '.join(self.paths)}: found {len(held.lists)} list(s) and {len(held.videos)} video(s), none of which "
            f"belongs to a list; a video's name contains its YouTube id, e.g. {video_id(address)!r} of {address}"
        )

    def views(self, scene: Scene) -> Iterator[View | Fault]:
        """The frames of a clip without their bottom rows. Raises SceneError when none can be read."""
        for view in self._stored(scene):
            yield without_bottom(view, self.bottom_crop) if isinstance(view, View) else view

    def _stored(self, scene: Scene) -> Iterator[View | Fault]:
        path, _, video = scene.path.partition(_AND)
        if not path.lower().endswith(".txt"):
            yield from read_grid(scene.path, every_s=self.every_s, every_frames=self.every_frames)
            return
        if not video:
            yield Fault("video_missing", f"{path}: no video of {video_address(Path(path))}")
            return
        try:
            cameras = read_list(Path(path))
        except (OSError, ValueError) as error:
            raise SceneError(str(error)) from None
        yield from (Fault("unreadable_list_line", f"{path}: line {number}") for number in cameras.damaged)
        times_us = on_grid(cameras.times_us, self.every_s, self.every_frames)
        yield from read_at(video, [time_us / 1e6 for time_us in times_us], [str(time_us) for time_us in times_us])


@dataclass(frozen=True, kw_only=True)
class Mannequin(RealEstate10K):
    """MannequinChallenge: the same lists, of videos whose bottom rows often hold captions.

    One frame a second, no second try and a fifth of the rows cut off are MIMIC's (arXiv 2306.15128, released code).
    """

    name: ClassVar[str] = "mannequin"
    reads: ClassVar[str] = RealEstate10K.reads.replace("RealEstate10K", "MannequinChallenge")

    bottom_crop: float = 0.2  #: share of the rows to cut off at the bottom, in [0, 1)
    licence: str = "lists CC BY 4.0 (MannequinChallenge, Google LLC); videos: terms of YouTube and their owners"


def without_bottom(view: View, share: float) -> View:
    """The view without that share of its rows, at least one row."""
    height = view.image.shape[0]
    return replace(view, image=view.image[: max(1, height - round(height * share))])


class _Held:
    """What lies in the paths given: lists with the address in each, and videos."""

    def __init__(self, files: list[tuple[Path, Path]]):
        self.roots = dict(files)  #: file -> the path given that it is at or below
        self.videos = sorted((p for p in self.roots if p.suffix.lower() in VIDEO_SUFFIXES), key=_by_name)
        texts = (p for p in self.roots if p.suffix.lower() == ".txt")
        self.lists = {path: address for path in texts if (address := video_address(path))}
        self._stems = {path.stem for path in self.lists}

    def clips(self) -> list[Path]:
        """The videos that are cut to clips."""
        return [path for path in self.videos if not self.lists or path.parent.name == _TRIMS or self._names(path)]

    def pairs(self) -> Iterator[tuple[Path, Path | None]]:
        """Each list with its video, None if that is missing; lists whose clips are cut already are left out."""
        clips = self.clips()
        whole = sorted(set(self.videos) - set(clips), key=_by_name)
        cut = {name for path in clips for name in self._names(path)}
        ids = {path: video_id(address) for path, address in self.lists.items()}
        videos = find_videos((name for name in ids.values() if name), whole)
        yield from ((path, videos.get(ids[path])) for path in self.lists if path.stem not in cut)

    def _names(self, video: Path) -> set[str]:
        """The lists that a video or one of the two folders above it is called by."""
        return self._stems & {video.stem, video.parent.name, video.parent.parent.name}


def _by_name(path: Path) -> list[tuple[bool, int | str]]:
    return natural_key(str(path))


def _files(root: Path) -> Iterator[Path]:
    """The texts and videos at or below a path."""
    every = [root] if root.is_file() else (Path(file.path) for _, files in walk(root) for file in files)
    return (path for path in every if path.suffix.lower() in VIDEO_SUFFIXES | {".txt"})
