"""CO3D, Common Objects in 3D: photographs taken round an object, paired a fixed number of frames apart."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from mimic_wds.pairs import Fault, Policy, Scene, View, Windows
from mimic_wds.sources.archives import folders, is_archive, join_path
from mimic_wds.sources.base import existing
from mimic_wds.sources.images import file_names, read_views
from mimic_wds.sources.listing import unique, walk, what_is_there

JPEG = frozenset({".jpg"})

#: Folders of a sequence that hold no photographs; there are as many files in each as in "images".
OTHER_FOLDERS = frozenset({"depths", "masks", "depth_masks"})

_FRAME = re.compile(r"frame(\d+)\.jpg")


@dataclass(frozen=True, kw_only=True)
class Co3d:
    """One sequence is one scene; the views of a pair are `gap` frames apart, and a pair begins every `step` frames.

    Reads the official layout of CO3D v1 and v2 (github.com/facebookresearch/co3d), unpacked or in zips as shipped. A
    scene is named "category/sequence" wherever its files lie, so keys are the same before and after unpacking.
    """

    name: ClassVar[str] = "co3d"
    reads: ClassVar[str] = "CO3D: <category>/<sequence>/images/frame000001.jpg, or its zip files as downloaded"

    paths: tuple[str, ...]
    gap: int = 5  #: frames between the two views of a pair (released code of MIMIC, arXiv 2306.15128)
    step: int = 10  #: frames from the first view of a pair to that of the next (ibid.)
    licence: str = "CC BY-NC 4.0 (CO3D)"  #: goes into the manifest

    def __post_init__(self) -> None:
        if self.gap < 1 or self.step < 1:
            raise ValueError(f"gap and step must be 1 or more, got {self.gap} and {self.step}")

    def policy(self, scene: Scene) -> Policy:
        """Each pair is a group of its own."""
        return Windows(heads=1, tails=1)

    def scenes(self) -> list[Scene]:
        """One scene per sequence. Raises ValueError when there is none, or when one is there twice."""
        scenes: list[Scene] = []
        for root in existing(self.paths):
            found = list(self._scenes(root))
            if not found:
                raise ValueError(
                    f"{root}: no CO3D sequence here; expected <category>/<sequence>/images/frame000001.jpg, or zip "
                    f"files of such folders; {what_is_there(root)}"
                )
            scenes += found
        return unique(scenes, "leave one out (a zip and what was unpacked from it must not both be there)")

    def views(self, scene: Scene) -> Iterator[View | Fault]:
        """The frames that are paired, the two of a pair one after the other; no others are read."""
        yield from read_views(scene, self._paired(file_names(scene, JPEG)), JPEG, ending=".jpg")

    def _paired(self, names: Iterable[str]) -> list[str]:
        """The file names of the frames that are paired, the two of a pair one after the other."""
        frames = sorted((int(match[1]), name) for name in names if (match := _FRAME.fullmatch(name)))
        return [frames[i][1] for i in paired_indices(len(frames), self.gap, self.step)]

    def _scenes(self, root: Path) -> Iterator[Scene]:
        """The sequences at or below a folder, or in an archive."""
        if root.is_file():
            if is_archive(root):
                yield from self._in_archive(root)
            return
        for folder, files in walk(root, OTHER_FOLDERS):
            if folder.name == "images":
                by_name = {file.name: file for file in files}
                paired = self._paired(by_name)
                if any(_FRAME.fullmatch(name) for name in by_name):
                    num_bytes = sum(by_name[name].stat().st_size for name in set(paired))
                    yield self._scene(folder.resolve().as_posix(), str(folder), num_bytes)
            for file in files:
                if is_archive(Path(file.name)):
                    yield from self._in_archive(Path(file.path))

    def _in_archive(self, archive: Path) -> Iterator[Scene]:
        for inner, held in folders(archive, JPEG).items():
            if PurePosixPath(inner).name == "images" and any(_FRAME.fullmatch(name) for name in held):
                num_bytes = sum(held[name].size for name in set(self._paired(held)))
                yield self._scene(f"{archive.stem}/{inner}", join_path(archive, inner), num_bytes)

    def _scene(self, images: str, path: str, num_bytes: int) -> Scene:
        """The scene of an "images" folder: what is above it is the sequence, and above that the category."""
        category_and_sequence = images.split("/")[-3:-1]
        return Scene(source=self.name, name="/".join(category_and_sequence), path=path, num_bytes=num_bytes)


def paired_indices(num_frames: int, gap: int, step: int) -> Iterator[int]:
    """Positions of the paired frames in their order: i, i + gap for i = 0, step, 2 * step, ... < num_frames - gap - 1.

    The bound is the released code's (gap 5: i < n - 6), which lets the last frame go unused.
    """
    for i in range(0, num_frames - gap - 1, step):
        yield i
        yield i + gap
