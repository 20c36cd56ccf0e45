"""Single images in folders, as ImageNet is published: `train/n02084071/n02084071_1.JPEG`; or all in one folder."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

import cv2
import msgspec
import numpy as np

from mimic_wds.importing import base
from mimic_wds.importing.base import Lost, Made, Plan, Settings, Unit, existing
from mimic_wds.importing.walk import walk
from mimic_wds.pairs import ImageSample, Kind, Scene
from mimic_wds.sources.images import IMAGE_SUFFIXES
from mimic_wds.storage.jpeg import trimmed_jpeg
from mimic_wds.storage.layout import image_key

#: Of images that are saved anew, as of the views that a build makes.
JPEG_QUALITY = 95

#: Folders that hold a data set each, not a class.
_SPLITS = frozenset({"train", "val", "valid", "validation", "test"})


class _Listed(msgspec.Struct, array_like=True):
    """An image of a unit."""

    scene: str  #: name of its class, or ""
    frame: str  #: path from the folder of its class
    label: int


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Every image below a folder; a folder in that folder is a class, its images may lie deeper."""

    name: ClassVar[str] = "image-folder"
    reads: ClassVar[str] = "a folder of images, or of one folder of images per class, as ImageNet's train"
    kind: ClassVar[Kind] = "images"
    default_size: ClassVar[int] = 0

    paths: tuple[str, ...]
    source: str = "image-folder"  #: name that the images are counted under
    licence: str = ""  #: goes into the manifest

    def plan(self, settings: Settings) -> Plan:
        """All images, sorted by class and path; labels number the sorted classes."""
        if len(self.paths) != 1:
            raise ValueError(f"{self.name}: reads one folder, {len(self.paths)} paths are given")
        (root,) = existing(self.paths)
        found = _find(root)
        classes = sorted({scene for scene, _ in found} - {""})
        if classes and {name.lower() for name in classes} <= _SPLITS:
            raise ValueError(f"{root}: holds {', '.join(classes)}, which are no classes: give one of them")
        labels = {"": -1, **{name: number for number, name in enumerate(classes)}}
        listed = [_Listed(scene, frame, labels[scene]) for scene, frame in found]
        notes = [f"{len(listed)} images of {len(classes)} classes"]
        return Plan(units=list(_units(root, self.source, listed)), notes=notes, classes=classes)

    def pairs(self, unit: Unit, settings: Settings) -> Iterator[Made | Lost]:
        """Read the images of a unit."""
        root = Path(unit.scene.path)
        for listed in msgspec.msgpack.decode(zlib.decompress(unit.payload), type=list[_Listed]):
            path = root / listed.scene / listed.frame
            try:
                data = path.read_bytes()
            except OSError:
                data = b""
            yield _made(data, listed, unit.scene.source, settings.size) or Lost(base.UNREADABLE, str(path))


def _find(root: Path) -> list[tuple[str, str]]:
    """(class, path from its folder) of every image below `root`, sorted. Raises ValueError when there are none."""
    if not root.is_dir():
        raise ValueError(f"{root}: is no folder; unpack archives first")
    found = []
    for folder, files in walk(root):
        scene, _, below = folder.partition("/")
        for file in files:
            if PurePosixPath(file).suffix.lower() in IMAGE_SUFFIXES:
                found.append((scene, f"{below}/{file}" if below else file))
    if not found:
        raise ValueError(f"{root}: no images here or below; expected {', '.join(sorted(IMAGE_SUFFIXES))}")
    return sorted(found)


def _units(root: Path, source: str, listed: list[_Listed]) -> Iterator[Unit]:
    """The images in pieces."""
    for start in range(0, len(listed), base.UNIT_PAIRS):
        part = listed[start : start + base.UNIT_PAIRS]
        yield Unit(
            scene=Scene(source=source, name=f"images {start} to {start + len(part) - 1}", path=str(root)),
            payload=zlib.compress(msgspec.msgpack.encode(part), 1),
            num_pairs=len(part),
        )


def _made(data: bytes, listed: _Listed, source: str, short_side: int) -> Made | None:
    """The sample of an image, or None if it is none that can be used."""
    usable = usable_jpeg(data, short_side)
    if usable is None:
        return None
    jpeg, size, faults = usable
    sample = ImageSample(
        key=image_key(source, listed.scene, listed.frame),
        image_jpg=jpeg,
        size=size,
        source=source,
        scene=listed.scene,
        frame=listed.frame,
        label=listed.label,
    )
    return Made(sample, faults)


def usable_jpeg(data: bytes, short_side: int) -> tuple[bytes, tuple[int, int], tuple[str, ...]] | None:
    """An image file as a JPEG that every reader takes alike, its (height, width), and what was wrong with the file.

    The very bytes of a baseline JPEG, grey or in colour, that is not turned by its EXIF tag and whose short side is at
    most `short_side` (0 = any). Others are decoded, shrunk to that and saved anew. None when the file cannot be read.
    """
    head, faults = None, [base.SAVED_ANEW]
    if data.startswith(b"\xff\xd8"):
        data, head = trimmed_jpeg(data)
        if head is None:
            return None
    if head is not None and head.is_plain:
        if not 0 < short_side < min(head.size):
            return data, head.size, ()
        faults = []
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:  # more pixels than OpenCV decodes
        image = None
    if image is None:
        return None
    height, width = image.shape[:2]
    if 0 < short_side < min(height, width):
        scale = short_side / min(height, width)
        height, width = (max(short_side, round(side * scale)) for side in (height, width))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return jpeg.tobytes(), (height, width), tuple(faults)
