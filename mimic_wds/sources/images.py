"""Photographs: one folder is one scene, on disk or in a zip or tar."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np

from mimic_wds.pairs import AllPairs, Fault, Listed, Policy, Scene, SceneError, View
from mimic_wds.sources.archives import ArchiveError, Member, MemberError, folders, is_archive, read_member, split_path
from mimic_wds.sources.base import check_unique, existing, natural_key
from mimic_wds.sources.listing import Folder, walk_folders, what_is_there
from mimic_wds.sources.pair_list import PairList, read_pairs

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})

#: Smaller pictures hold no detail at 224 pixels; they are counted as faults.
MIN_SIDE = 64


@dataclass(frozen=True, kw_only=True)
class Images:
    """Every folder that holds images is a scene; its pairs are tried in natural order of the file names.

    Zips and tars are read in place, as if they were folders. With `pairs` only the folders that it names are scenes,
    and only its pairs are tried, in its order.
    """

    name: ClassVar[str] = "images"
    reads: ClassVar[str] = (
        "folders of images (jpg, png, webp, bmp, tif, ppm), also in zips and tars; one folder = one scene"
    )

    paths: tuple[str, ...]
    keep: Literal["all", "smallest"] = "all"  #: keep every accepted pair, or the one with the smallest overlap
    max_gap: int = 0  #: try only pairs at most this many files apart; 0 = all pairs
    pairs: str = field(
        default="", metadata={"is_path": True}
    )  #: a text file with the pairs to try, "IMAGE0 IMAGE1" a line, relative to the one path given
    licence: str = ""  #: goes into the manifest

    def __post_init__(self) -> None:
        if self.max_gap < 0:
            raise ValueError(f"max_gap must be 0 (all pairs) or more, got {self.max_gap}")
        if self.pairs and (self.max_gap or self.keep != "all"):
            raise ValueError("pairs says which pairs are tried, all accepted ones are kept: leave out max_gap and keep")
        if self.pairs and len(self.paths) != 1:
            raise ValueError(f"the names in pairs are relative to one path, but {len(self.paths)} are given")

    def policy(self, scene: Scene) -> Policy:
        """All pairs of a folder, or those of it that are listed."""
        if self.pairs:
            return Listed(pairs=tuple(read_pairs(self.pairs).get(self._folder(scene), ())))
        return AllPairs(keep=self.keep, max_gap=self.max_gap)

    def scenes(self) -> list[Scene]:
        """One scene per folder with images, named by its path relative to the parent of the path given.

        Raises ValueError, too, for a pair whose images are not there, naming the line.
        """
        scenes: list[Scene] = []
        for root in existing(self.paths):
            base = root.resolve().name
            held = {folder.name: folder for folder in image_folders(root, self.name)}
            if self.pairs:
                held = _listed(held, read_pairs(self.pairs), self.pairs)
            scenes += [
                Scene(
                    source=self.name,
                    name=f"{base}/{folder.name}".strip("/"),
                    path=folder.path,
                    num_bytes=sum(folder.sizes.values()),
                )
                for folder in held.values()
            ]
        return sorted(check_unique(scenes), key=lambda scene: natural_key(scene.name))

    def views(self, scene: Scene) -> Iterator[View | Fault]:
        """The images of the folder itself (not of its subfolders) in natural order, or those that are listed."""
        listed = read_pairs(self.pairs).frames(self._folder(scene)) if self.pairs else None
        yield from read_views(scene, file_names(scene, IMAGE_SUFFIXES) if listed is None else listed)

    def _folder(self, scene: Scene) -> str:
        """The scene's name relative to the path given, as the list of pairs knows it."""
        return scene.name.removeprefix(Path(self.paths[0]).resolve().name).lstrip("/")


def _listed(held: dict[str, Folder], pairs: PairList, where: str) -> dict[str, Folder]:
    """The folders that have listed pairs, with their listed images only."""
    pairs.check({name: folder.sizes for name, folder in held.items()}, where)
    return {
        name: Folder(name, held[name].path, {frame: held[name].sizes[frame] for frame in pairs.frames(name)})
        for name in pairs
    }


def image_folders(root: Path, source: str) -> list[Folder]:
    """The folders with images at or below `root`, archives included. Raises ValueError if there are none."""
    if root.is_file() and not is_archive(root):
        raise ValueError(f"{root}: source {source!r} reads folders, this is a file; give its folder, a zip or a tar")
    found = list(walk_folders(root, IMAGE_SUFFIXES))
    if not found:
        expected = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"{root}: no images here or below; expected {expected}, {what_is_there(root)}")
    return found


def file_names(scene: Scene, suffixes: frozenset[str]) -> list[str]:
    """The files of a scene that is a folder, on disk or in an archive, naturally sorted; hidden ones are passed over.

    Raises SceneError when the folder or the archive cannot be listed.
    """
    folder, inner = split_path(scene.path)
    try:
        if folder.is_file():
            return sorted(folders(folder, suffixes)[inner], key=natural_key)
        found = [p.name for p in folder.iterdir() if p.suffix.lower() in suffixes and p.is_file()]
    except ArchiveError as error:
        raise SceneError(f"{scene.path}: {error.reason}") from None
    except KeyError:
        raise SceneError(f"{scene.path}: the archive has no such folder any more") from None
    except OSError as error:
        raise SceneError(f"{scene.path}: cannot be read ({error.strerror})") from None
    return sorted((name for name in found if not name.startswith(".")), key=natural_key)


def read_views(
    scene: Scene, names: Iterable[str], suffixes: frozenset[str] = IMAGE_SUFFIXES, ending: str = ""
) -> Iterator[View | Fault]:
    """The files called `names` of a scene that is a folder, on disk or in an archive; a missing one is a fault.

    A view is called by its file without `ending`. Raises SceneError when the archive cannot be listed.
    """
    folder, inner = split_path(scene.path)
    if not folder.is_file():
        for name in names:
            yield read_view(folder / name, name.removesuffix(ending))
        return
    try:
        held = folders(folder, suffixes).get(inner, {})
    except ArchiveError as error:
        raise SceneError(f"{scene.path}: {error.reason}") from None
    for name in names:
        if name in held:
            yield read_member_view(folder, held[name], name.removesuffix(ending))
        else:
            yield Fault("unreadable_image", f"{scene.path}/{name}", frame=name.removesuffix(ending))


def read_view(path: Path, frame: str) -> View | Fault:
    """The image file as the view called `frame`, or the fault in its place."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    return decode_view(data, frame, str(path))


def read_member_view(archive: Path, member: Member, frame: str) -> View | Fault:
    """The image in an archive as the view called `frame`, or the fault in its place."""
    where = f"{archive}: {member.name}"
    try:
        with archive.open("rb") as file:
            data = read_member(file, member)
    except MemberError as error:
        return Fault(str(error), where, frame=frame)
    except OSError:
        data = b""
    return decode_view(data, frame, where)


def decode_view(data: bytes, frame: str, where: str) -> View | Fault:
    """An encoded image (JPEG, PNG, ...) as the view called `frame`; `where` names it in the fault if it cannot be used.

    Decodes to (H, W, 3) uint8 RGB, upright by the EXIF tag; grey, alpha and 16 bit are converted.
    """
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        bgr = None
    if bgr is None:
        return Fault("unreadable_image", where, frame=frame)
    if min(bgr.shape[:2]) < MIN_SIDE:
        return Fault("image_too_small", where, frame=frame)
    return View(image=np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), frame=frame)
