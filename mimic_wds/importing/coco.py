"""COCO 2017's images of people as they are distributed, as data sets of single images.

The joints stay in COCO's own file, which training and scoring read beside the data set: a sample is an image with its
maps, and people, of whom an image has any number, are no map. The key of a sample gives its image's id.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from mimic_wds.importing import base
from mimic_wds.importing.base import Lost, Made, Plan, Settings, Unit, existing
from mimic_wds.importing.image_folder import usable_jpeg
from mimic_wds.pairs import ImageSample, Kind, Scene
from mimic_wds.storage.coco import CocoImage, coco_frame, read_annotations
from mimic_wds.storage.layout import image_key

#: The image has another size than its annotations say: its joints would lie elsewhere.
NOT_AS_ANNOTATED = "not_as_annotated"

#: Images of one unit.
_UNIT = 200


@dataclass(frozen=True, kw_only=True)
class CocoPose:
    """`annotations/person_keypoints_SPLIT2017.json` and `SPLIT2017/*.jpg`: every image of the file, people or not."""

    name: ClassVar[str] = "coco-pose"
    reads: ClassVar[str] = "the folder that holds annotations, train2017 and val2017"
    kind: ClassVar[Kind] = "images"
    default_size: ClassVar[int] = 0

    paths: tuple[str, ...]
    split: Literal["train", "val"] = "train"
    licence: str = ""  #: goes into the manifest

    def plan(self, settings: Settings) -> Plan:
        """Units of the images of the split by id. Raises ValueError for a file that is not one of joints."""
        (root,) = existing(self.paths)
        found = read_annotations(root / "annotations" / f"person_keypoints_{self.split}2017.json")
        images = sorted(found.images, key=lambda image: image.id)
        folder = root / f"{self.split}2017"
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; unpack {self.split}2017.zip here")
        people = sum(person.is_trained_on for person in found.annotations)
        units = [
            _unit(self.name, folder, images[start : start + _UNIT], start) for start in range(0, len(images), _UNIT)
        ]
        return Plan(units=units, notes=[f"{len(images)} images, {people} people with joints that can be learned from"])

    def pairs(self, unit: Unit, settings: Settings) -> Iterator[Made | Lost]:
        """Copy JPEGs as they are."""
        folder = Path(unit.scene.path)
        for image in msgspec.msgpack.decode(unit.payload, type=list[CocoImage]):
            yield _made(self.name, folder, image)


def _unit(source: str, folder: Path, images: list[CocoImage], start: int) -> Unit:
    scene = Scene(source=source, name=f"{folder.name} {start} to {start + len(images) - 1}", path=str(folder))
    return Unit(scene=scene, payload=msgspec.msgpack.encode(images), num_pairs=len(images))


def _made(source: str, folder: Path, image: CocoImage) -> Made | Lost:
    path = folder / Path(image.file_name).name  # never leads out of the folder
    if not path.is_file():
        return Lost(base.MISSING_FILES, str(path))
    usable = usable_jpeg(path.read_bytes(), 0)
    if usable is None:
        return Lost(base.UNREADABLE, str(path))
    jpeg, size, faults = usable
    if size != (image.height, image.width):
        return Lost(NOT_AS_ANNOTATED, str(path))
    frame = coco_frame(image.id)
    sample = ImageSample(
        key=image_key(source, folder.name, frame),
        image_jpg=jpeg,
        size=size,
        source=source,
        scene=folder.name,
        frame=frame,
    )
    return Made(sample, faults)
