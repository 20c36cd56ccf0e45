"""3DStreetView: street photographs that show one target point in their centre, grouped by the target."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from mimic_wds.pairs import AllPairs, Fault, Policy, Scene, SceneError, View
from mimic_wds.sources.archives import Member, join_path, members, split_path
from mimic_wds.sources.base import existing
from mimic_wds.sources.images import read_member_view, read_view
from mimic_wds.sources.listing import unique, walk, what_is_there

#: <DatasetID>_<ImageID>_<ViewID>_<TargetID>.jpg (README of github.com/amir32002/3D_Street_View)
_NAME = re.compile(r"(\d+)_(\d+)_(\d+)_(\d+)\.jpg")

#: One view of a scene's path: its file name and, in a tar, the position and number of its bytes.
_ENTRY = re.compile(r"(\d+_\d+_\d+_\d+\.jpg)(?:@(\d+)\+(\d+))?")


@dataclass(frozen=True, kw_only=True)
class StreetView:
    """The images of one target are one scene, typically two to seven; every pair of them is tried.

    Reads the layout as it ships (a tar for each DatasetID), or unpacked in folders of any depth. A target's id is
    unique only within its DatasetID, so a scene is named "<DatasetID>-<TargetID>", a frame "<ImageID>-<ViewID>".

    There are many scenes, so a scene's path says all that is needed to read it: ``CONTAINER::FILE|FILE|...``, the
    container a folder or a tar; in a tar each file is ``NAME@OFFSET+BYTES``. Workers list neither.

    As in every source the bounds of the overlap are strict, where the released code took pairs on the bounds as well.
    """

    name: ClassVar[str] = "streetview"
    reads: ClassVar[str] = "3DStreetView: <DatasetID>_<ImageID>_<ViewID>_<TargetID>.jpg in folders or its tars"

    paths: tuple[str, ...]
    #: keep every accepted pair of a target (MIMIC's released code), or the one with the smallest overlap (the paper,
    #: arXiv 2306.15128, appendix C.1)
    keep: Literal["all", "smallest"] = "all"
    licence: str = "non-commercial use, no redistribution of the images (3D Street View)"  #: goes into the manifest

    def policy(self, scene: Scene) -> Policy:
        """All pairs of a target."""
        return AllPairs(keep=self.keep)

    def scenes(self) -> list[Scene]:
        """One scene per target, listed in one pass. Raises ValueError when there is none or one is in two places."""
        scenes: list[Scene] = []
        for root in existing(self.paths):
            found = [scene for container, targets in _targets(root) for scene in self._scenes(container, targets)]
            if not found:
                raise ValueError(
                    f"{root}: no 3DStreetView images here; expected <DatasetID>_<ImageID>_<ViewID>_<TargetID>.jpg in "
                    f"folders, or tars of them; {what_is_there(root)}"
                )
            scenes += found
        return unique(scenes, "give one of them: the aligned or the unaligned images, a tar or what was unpacked of it")

    def views(self, scene: Scene) -> Iterator[View | Fault]:
        """The images of the target in the order of their ids."""
        container, files = split_path(scene.path)
        for file in files.split("|"):
            entry = _ENTRY.fullmatch(file)
            if entry is None:
                raise SceneError(f"{scene.path}: does not say which images of {container} are read")
            name, offset, size = entry.groups()
            _, image, view, _ = PurePosixPath(name).stem.split("_")
            frame = f"{image}-{view}"
            if offset is None:
                yield read_view(container / name, frame)
            else:
                yield read_member_view(container, Member(name, int(size), int(offset), int(size), "plain"), frame)

    def _scenes(self, container: Path, targets: "Targets") -> Iterator[Scene]:
        for name, images in targets.items():
            ordered = sorted({ids: (entry, size) for ids, entry, size in images}.items())  # the last of one name counts
            entries = "|".join(entry for _, (entry, _) in ordered)
            num_bytes = sum(size for _, (_, size) in ordered)
            yield Scene(source=self.name, name=name, path=join_path(container, entries), num_bytes=num_bytes)


#: scene name -> its images as ((ImageID, ViewID), entry in the scene's path, bytes)
Targets = dict[str, list[tuple[tuple[int, int], str, int]]]


def _targets(root: Path) -> Iterator[tuple[Path, Targets]]:
    """The folders and tars at or below `root`, one at a time, each with its images by target."""
    if root.is_file():
        if root.suffix.lower() == ".tar":
            yield root, _in_tar(root)
        return
    for folder, files in walk(root):
        targets: Targets = {}
        for file in files:
            if file.name.lower().endswith(".tar"):
                yield Path(file.path), _in_tar(Path(file.path))
            elif match := _NAME.fullmatch(file.name):
                _add(targets, match, file.name, file.stat().st_size)
        yield folder, targets


def _in_tar(path: Path) -> Targets:
    targets: Targets = {}
    for member in members(path):
        name = member.name.rpartition("/")[2]
        if match := _NAME.fullmatch(name):
            _add(targets, match, f"{name}@{member.offset}+{member.size}", member.size)
    return targets


def _add(targets: Targets, match: re.Match[str], entry: str, size: int) -> None:
    dataset, image, view, target = match.groups()
    targets.setdefault(f"{dataset}-{target}", []).append(((int(image), int(view)), entry, size))
