"""Folders of photographs: one folder is one scene."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np

from mimic_wds.pairs import AllPairs, Fault, Policy, Scene, View
from mimic_wds.sources.base import check_unique, existing, natural_key, walk_files

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})

#: Smaller pictures hold no detail at 224 pixels; they are counted as faults.
MIN_SIDE = 64


@dataclass(frozen=True, kw_only=True)
class Images:
    """Every folder that holds images is a scene; its pairs are tried in natural order of the file names."""

    name: ClassVar[str] = "images"
    reads: ClassVar[str] = "folders of images (jpg, png, webp, bmp, tif, ppm); one folder = one scene"

    paths: tuple[str, ...]
    keep: Literal["all", "smallest"] = "all"  #: keep every accepted pair, or the one with the smallest overlap
    max_gap: int = 0  #: try only pairs at most this many files apart; 0 = all pairs
    licence: str = ""  #: goes into the manifest

    def __post_init__(self) -> None:
        if self.max_gap < 0:
            raise ValueError(f"max_gap must be 0 (all pairs) or more, got {self.max_gap}")

    def policy(self, scene: Scene) -> Policy:
        """All pairs of a folder."""
        return AllPairs(keep=self.keep, max_gap=self.max_gap)

    def scenes(self) -> list[Scene]:
        """One scene per folder with images, named by its path relative to the parent of the path given."""
        scenes: list[Scene] = []
        for root in existing(self.paths):
            if root.is_file():
                raise ValueError(f"{root}: source 'images' reads folders, this is a file; give its folder")
            folders: Counter[Path] = Counter()
            for file in walk_files(root, IMAGE_SUFFIXES):
                folders[file.parent] += file.stat().st_size
            if not folders:
                raise ValueError(f"{root}: no images here or below; expected {', '.join(sorted(IMAGE_SUFFIXES))}")
            base = root.resolve().parent
            scenes += [
                Scene(
                    source=self.name,
                    name=folder.resolve().relative_to(base).as_posix(),
                    path=str(folder),
                    num_bytes=num_bytes,
                )
                for folder, num_bytes in folders.items()
            ]
        return sorted(check_unique(scenes), key=lambda scene: natural_key(scene.name))

    def views(self, scene: Scene) -> Iterator[View | Fault]:
        """The images of the folder itself (not of its subfolders) in natural order."""
        files = [p for p in Path(scene.path).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
        for path in sorted(files, key=lambda p: natural_key(p.name)):
            yield read_view(path, path.name)


def read_view(path: Path, frame: str) -> View | Fault:
    """The image file as the view called `frame`, or the fault in its place."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    return decode_view(data, frame, str(path))


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
