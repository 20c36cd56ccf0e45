"""ScanNet: `.sens` files as downloaded, or exported colour frames; pairs from windows of 60 frames."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import DirEntry
from pathlib import Path
from typing import ClassVar, Literal

from mimic_wds.pairs import Fault, Policy, Scene, SceneError, View, Windows
from mimic_wds.sources.base import existing
from mimic_wds.sources.images import decode_view, read_view
from mimic_wds.sources.listing import unique, walk, what_is_there
from mimic_wds.sources.sens import SensReader
from mimic_wds.sources.video import relative_name

#: Exported colour frames: "17.jpg" (SensReader, python), "000100.jpg" (frames_25k), "frame-000017.color.jpg" (C++).
_COLOR_FRAME = re.compile(r"(?:frame-?)?(\d+)(?:\.color)?\.jpe?g", re.IGNORECASE)

#: Folder of a scene that an export puts its colour frames in; the scene is called by the folder above.
_COLOR_FOLDER = "color"


@dataclass(frozen=True, kw_only=True)
class ScanNet:
    """Windows of frames: each of the first is tried with each of the last, the pair that overlaps least is kept.

    A window begins at every `stride`-th frame; frames are counted by their place in the scene, not by their number.
    The defaults are MIMIC's (arXiv 2306.15128, appendix C.1): windows w = 0, 60, ... < n - 60 of a scene with n frames,
    10 frames from w on, 10 from w + 49 on.
    """

    name: ClassVar[str] = "scannet"
    reads: ClassVar[str] = "ScanNet scenes: SCENE/SCENE.sens, or folders of jpgs with a number for a name (SCENE/color)"

    paths: tuple[str, ...]
    window: int = 60  #: frames that a window spans; a scene needs one more
    stride: int = 60  #: frames from the start of a window to that of the next
    heads: int = 10  #: frames at the start of a window
    tails: int = 10  #: frames at its end
    gap: int = 49  #: frames from the start of a window to the first of its tails
    stream: Literal["any", "sens", "color"] = "any"  #: which to read; any = the .sens file where a scene has both
    licence: str = "ScanNet Terms of Use (non-commercial research and education)"  #: goes into the manifest

    def __post_init__(self) -> None:
        if min(self.stride, self.heads, self.tails) < 1:
            raise ValueError(
                f"stride, heads and tails must be 1 or more, got {self.stride}, {self.heads} and {self.tails}"
            )
        if not self.heads <= self.gap <= self.window - self.tails:
            raise ValueError(
                f"heads, then tails from gap on, must fit in a window: need heads <= gap <= window - tails, "
                f"got {self.heads}, {self.gap} and {self.window} - {self.tails}"
            )

    def policy(self, scene: Scene) -> Policy:
        """Each head of a window with each of its tails, the smallest accepted overlap is kept."""
        return Windows(heads=self.heads, tails=self.tails)

    def scenes(self) -> list[Scene]:
        """One scene per `.sens` file or folder of colour frames, named by the scene's folder.

        Names are relative to the parent of the path given: "scans/scene0000_00".
        """
        scenes: list[Scene] = []
        for root in existing(self.paths):
            found = _in_file(root) if root.is_file() else _in_folder(root)
            chosen = list(self._choose(found))
            if not chosen:
                wanted = {"any": self.reads, "sens": ".sens files", "color": "folders of jpgs called by numbers"}
                raise ValueError(f"{root}: expected {wanted[self.stream]}; {what_is_there(root)}")
            scenes += chosen
        return unique(scenes, "give their common parent folder, or keep one of them")

    def _choose(self, found: Iterable[Scene]) -> Iterator[Scene]:
        """One scene of each name: of the stream wanted, `.sens` before frames. Two of one kind are left for a check."""
        kinds: dict[str, dict[bool, list[Scene]]] = {}
        for scene in found:
            kinds.setdefault(scene.name, {}).setdefault(_is_sens(scene), []).append(scene)
        for by_kind in kinds.values():
            both = {"any": (True, False), "sens": (True,), "color": (False,)}[self.stream]
            yield from next((by_kind[is_sens] for is_sens in both if is_sens in by_kind), [])

    def views(self, scene: Scene) -> Iterator[View | Fault]:
        """The frames of each window, heads then tails. Raises SceneError when the scene cannot be read."""
        return self._sens_views(scene) if _is_sens(scene) else self._color_views(scene)

    def _sens_views(self, scene: Scene) -> Iterator[View | Fault]:
        try:
            reader = SensReader(Path(scene.path))
        except (OSError, ValueError) as error:
            raise SceneError(f"{scene.path}: {error}") from None
        with reader:
            num_frames = len(reader.frames)
            if not num_frames:
                raise SceneError(f"{scene.path}: holds no complete frame of the {reader.promised} promised")
            for index in self._wanted(num_frames):
                yield _sens_view(reader, index, scene.path)
            if num_frames < reader.promised:
                yield Fault("file_cut_short", f"{scene.path}: {num_frames} of {reader.promised} frames are there")
        yield from self._too_short(scene, num_frames)

    def _color_views(self, scene: Scene) -> Iterator[View | Fault]:
        try:
            numbers = color_frames(path.name for path in Path(scene.path).iterdir())
        except OSError as error:
            raise SceneError(f"{scene.path}: cannot be read ({error.strerror})") from None
        names = list(numbers)
        for index in self._wanted(len(names)):
            yield read_view(Path(scene.path, names[index]), str(numbers[names[index]]))
        yield from self._too_short(scene, len(names))

    def _wanted(self, num_frames: int) -> list[int]:
        return window_frames(
            num_frames, window=self.window, stride=self.stride, heads=self.heads, tails=self.tails, gap=self.gap
        )

    def _too_short(self, scene: Scene, num_frames: int) -> Iterator[Fault]:
        if num_frames <= self.window:
            yield Fault("too_few_frames", f"{scene.path}: {num_frames} frames; a window needs {self.window + 1}")


def window_frames(num_frames: int, *, window: int, stride: int, heads: int, tails: int, gap: int) -> list[int]:
    """The frames of all windows of a scene, by their place in it: of each window its heads, then its tails."""
    return [
        start + place
        for start in range(0, num_frames - window, stride)
        for place in (*range(heads), *range(gap, gap + tails))
    ]


def color_frames(names: Iterable[str]) -> Mapping[str, int]:
    """The file names that are colour frames with their numbers, in the order of the numbers."""
    matches = ((name, _COLOR_FRAME.fullmatch(name)) for name in names)
    numbers = {name: int(match[1]) for name, match in matches if match}
    return dict(sorted(numbers.items(), key=lambda item: (item[1], item[0])))


def _sens_view(reader: SensReader, index: int, path: str) -> View | Fault:
    try:
        data = reader.color(index)
    except OSError:
        data = b""
    return decode_view(data, str(index), f"{path}: frame {index}")


def _is_sens(scene: Scene) -> bool:
    return scene.path.lower().endswith(".sens")


def _in_file(path: Path) -> list[Scene]:
    """The scene that a file is, if it is one."""
    if path.suffix.lower() != ".sens":
        return []
    return [Scene(source=ScanNet.name, name=path.stem, path=str(path), num_bytes=path.stat().st_size)]


def _in_folder(root: Path) -> Iterator[Scene]:
    for folder, files in walk(root):
        name = relative_name(folder, root)
        sens = [file for file in files if file.name.lower().endswith(".sens")]
        for file in sens:
            stem = Path(file.name).stem
            yield Scene(
                source=ScanNet.name,
                name=name if folder.name == stem else f"{name}/{stem}",
                path=file.path,
                num_bytes=file.stat().st_size,
            )
        yield from _color_scene(folder, files, name)


def _color_scene(folder: Path, files: list[DirEntry[str]], name: str) -> Iterator[Scene]:
    """The folder as a scene, if it holds colour frames. Its size is estimated by one frame: there may be millions."""
    frames = color_frames(file.name for file in files)
    if not frames:
        return
    size = next(file.stat().st_size for file in files if file.name in frames)
    if folder.name == _COLOR_FOLDER:
        name = name.rpartition("/")[0] or folder.resolve().parent.name
    yield Scene(source=ScanNet.name, name=name, path=str(folder), num_bytes=len(frames) * size)
