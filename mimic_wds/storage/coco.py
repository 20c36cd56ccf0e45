"""COCO's files of people as they are distributed: annotated joints, and boxes that a detector has found.

Fields are COCO's (https://cocodataset.org/#format-data); boxes are (x, y, width, height) in pixels, joints 17 times
x, y, v with v = 0 not given, 1 hidden, 2 seen. Fields that are not needed here are not read.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

#: Joints of a person, and the category of people.
NUM_JOINTS, PERSON = 17, 1

Box = tuple[float, float, float, float]

#: What is read of a file.
Read = TypeVar("Read")


class CocoImage(msgspec.Struct, frozen=True):
    """An image of an annotation file."""

    id: int
    file_name: str
    height: int
    width: int


class Person(msgspec.Struct, frozen=True):
    """Someone in an image, or a crowd."""

    id: int
    image_id: int
    category_id: int
    bbox: Box
    area: float  #: of the person's outline, pixels squared
    iscrowd: int
    keypoints: list[float]  #: 51 numbers
    num_keypoints: int

    @property
    def is_trained_on(self) -> bool:
        """One person with an area and a joint that is given: crowds and people without joints are not learned from."""
        return not self.iscrowd and self.area > 0 and self.num_keypoints > 0 and min(self.bbox[2:]) > 0


class Annotations(msgspec.Struct, frozen=True):
    """`person_keypoints_{train,val}2017.json`."""

    images: list[CocoImage]
    annotations: list[Person]

    def by_image(self) -> dict[int, list[Person]]:
        """The people of every image, those of images without any too, in the order of the ids of the images."""
        found: dict[int, list[Person]] = {image.id: [] for image in sorted(self.images, key=lambda image: image.id)}
        for person in self.annotations:
            found[person.image_id].append(person)
        return found


class Detection(msgspec.Struct, frozen=True):
    """A row of a detector's result file, such as `COCO_val2017_detections_AP_H_56_person.json`."""

    image_id: int
    category_id: int
    bbox: Box
    score: float


def read_annotations(path: Path) -> Annotations:
    """The people of a file. Raises ValueError naming it when it is not one of joints, or does not fit together."""
    found = _read(path, Annotations, "COCO's person_keypoints_train2017.json or person_keypoints_val2017.json")
    if not found.images or not found.annotations:
        raise ValueError(f"{path}: has {len(found.images)} images and {len(found.annotations)} people")
    _check_unique(path, "image", (image.id for image in found.images))
    _check_unique(path, "annotation", (person.id for person in found.annotations))
    known = {image.id for image in found.images}
    for person in found.annotations:
        if problem := _problem(person, known):
            raise ValueError(f"{path}: annotation {person.id} {problem}")
    if not any(person.is_trained_on for person in found.annotations):
        raise ValueError(f"{path}: not one of its {len(found.annotations)} people has a joint that is given")
    return found


def read_detections(path: Path) -> dict[int, list[Detection]]:
    """Detected people by image; other categories are left out. Raises ValueError naming a file that has none."""
    rows = [row for row in _read(path, list[Detection], "a detector's result file") if row.category_id == PERSON]
    if not rows:
        raise ValueError(f"{path}: has no boxes of category {PERSON}, people")
    found: dict[int, list[Detection]] = {}
    for row in rows:
        if min(row.bbox[2:]) > 0:
            found.setdefault(row.image_id, []).append(row)
    return found


def coco_frame(image_id: int) -> str:
    """The name of an image's frame, as COCO names its file: "000000000139"."""
    return f"{image_id:012d}"


def _read(path: Path, kind: type[Read], expected: str) -> Read:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"{path}: is not {expected}: {error}") from None


def _check_unique(path: Path, what: str, ids: Iterable[int]) -> None:
    ((most, times),) = Counter(ids).most_common(1)
    if times > 1:
        raise ValueError(f"{path}: {what} {most} is there {times} times")


def _problem(person: Person, known: set[int]) -> str:
    """What is wrong with an annotation, or nothing."""
    if person.category_id != PERSON:
        return f"has category {person.category_id}, expected {PERSON}, people only: give the file of keypoints"
    if person.image_id not in known:
        return f"is of image {person.image_id}, which the file does not list"
    if len(person.keypoints) != 3 * NUM_JOINTS:
        return f"has {len(person.keypoints)} numbers as keypoints, expected {3 * NUM_JOINTS}"
    given = sum(value > 0 for value in person.keypoints[2::3])
    if not set(person.keypoints[2::3]) <= {0, 1, 2} or given != person.num_keypoints:
        return f"says num_keypoints = {person.num_keypoints}, its visibilities (0, 1 or 2) give {given}"
    return ""
