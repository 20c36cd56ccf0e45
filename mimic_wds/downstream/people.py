"""People in images, as COCO annotates them, and the crops that a pose model learns from.

The joints stay in COCO's own file, beside the data set of images that `mimic-shard pack-labels coco-pose` packs.
Lengths are pixels of the image unless said otherwise; joints (J, 2) are (x, y), with COCO's visibility (J,): 0 not
given, 1 hidden, 2 seen.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import cv2
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimic_wds.downstream.joints import INPUT, MAP, MIRRORED, Frame, encode, frame_of, warp_matrix
from mimic_wds.downstream.metrics.bootstrap import Floats
from mimic_wds.loading.crops import draw
from mimic_wds.loading.dataset import Dataset, ImageDataset
from mimic_wds.loading.decoding import BadSample, decode_rgb
from mimic_wds.loading.loader import Loader, Pending, Share
from mimic_wds.loading.parts import PartBatch
from mimic_wds.pairs import Image
from mimic_wds.storage.coco import NUM_JOINTS, Annotations, Box, Detection, Person, read_annotations, read_detections

#: Purposes of draws (`loading/augment.py` has 1 to 4): of every epoch, and once for all.
PURPOSE, PURPOSE_ONCE = 5, 6

#: ViTPose's augmentation, its half bodies, and the joints above the hips.
HALF_BODY_SHARE, HALF_BODY_LEAST, HALF_BODY_PADDING, NUM_UPPER = 0.3, 8, 1.5, 11
SCALE_DEVIATION, SCALE_RANGE = 0.5, (0.5, 1.5)
TURN_SHARE, TURN_DEVIATION_DEG, TURN_MOST_DEG = 0.6, 40.0, 80.0
SHIFT_SHARE, SHIFT_MOST = 0.3, 0.2


class PeopleImages(Dataset):
    """A data set of images, the people annotated in them and, at evaluation, boxes that a detector has found."""

    kind = "images"

    def __init__(self, images: Dataset, annotations: Annotations, boxes: Mapping[int, list[Detection]] | None = None):
        """Raises ValueError when an image is not annotated: the file is of another split."""
        self.images, self.boxes = images, boxes
        self.manifest, self.hash, self.folder = images.manifest, images.hash, images.folder
        self.ids = [_image_id(images, index) for index in range(len(images))]
        self.by_id = annotations.by_image()
        if strangers := [found for found in self.ids if found not in self.by_id]:
            raise ValueError(
                f"{self.folder}: {len(strangers)} of its {len(self.ids)} images are not in the annotations, the first "
                f"is {strangers[0]}: are they of another split?"
            )
        self.sizes = {image.id: (image.height, image.width) for image in annotations.images}

    def __len__(self) -> int:
        return len(self.ids)

    def close(self) -> None:
        """Close the images."""
        self.images.close()

    def locate(self, index: int) -> Any:
        """See `Dataset`."""
        return self.images.locate(index)

    def read(self, index: int) -> tuple[str, Mapping[str, bytes]]:
        """See `Dataset`."""
        return self.images.read(index)

    def expect(self, groups: Iterator[list[int]]) -> None:
        """See `Dataset`."""

    def will_read(self, indices: Iterable[int]) -> None:
        """See `Dataset`."""
        self.images.will_read(indices)

    def people(self, index: int) -> list[Person]:
        """Those of an image that can be learned from and scored by their true boxes."""
        shape = self.sizes[self.ids[index]]
        return [each for each in self.by_id[self.ids[index]] if each.is_trained_on and clipped(each.bbox, shape)]

    def plain(self) -> dict[str, Any]:
        """The annotations of these images, as COCOeval takes them."""
        ids = sorted(self.ids)
        people = [person for number in ids for person in self.by_id[number]]
        return {
            "images": [{"id": number} for number in ids],
            "annotations": msgspec.to_builtins(people),
            "categories": [{"id": 1, "name": "person"}],
        }


class People(PeopleImages):
    """The people of some of the images, numbered through: what a step of training counts."""

    def __init__(self, images: PeopleImages, chosen: Sequence[int]):
        """`chosen`: the images. Raises ValueError when nobody is in them."""
        self.images, self.boxes, self.ids, self.by_id, self.sizes = (
            images.images, images.boxes, images.ids, images.by_id, images.sizes,
        )  # fmt: skip
        self.manifest, self.hash, self.folder = images.manifest, images.hash, images.folder
        self.listed = [(index, person) for index in chosen for person in images.people(index)]
        if not self.listed:
            raise ValueError(f"{self.folder}: nobody with joints is in the {len(chosen)} images to learn from")

    def __len__(self) -> int:
        return len(self.listed)

    def locate(self, index: int) -> Any:
        """The image of a person."""
        return self.images.locate(self.listed[index][0])

    def read(self, index: int) -> tuple[str, Mapping[str, bytes]]:
        """The image of a person, and the person as one more member."""
        number, person = self.listed[index]
        key, members = self.images.read(number)
        return key, {**members, "person": msgspec.msgpack.encode(person)}

    def will_read(self, indices: Iterable[int]) -> None:
        """See `Dataset`."""
        self.images.will_read(self.listed[index][0] for index in indices)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoseBatch(PartBatch):
    """A micro-batch of B people, on the CPU."""

    image: Tensor  #: (B, 256, 192, 3) uint8 RGB
    maps: Tensor  #: (B, J, 64, 48) float32
    weights: Tensor  #: (B, J) float32


class PoseLoader(Loader[PoseBatch]):
    """People, cut out and with heat maps; every draw is a function of seed, epoch and person."""

    def __init__(self, people: People, *, augment: bool, **share: Unpack[Share]):
        """Raises ValueError as `Loader` does."""
        self.augment = augment
        super().__init__(people, pixels=lambda rows: (rows, INPUT[1], INPUT[0], 3), **share)

    def _pending(self, epoch: int, rows: NDArray[np.int64], indices: NDArray[np.int64]) -> "_PendingPose":
        draws = draw(self.order.seed, epoch, indices, PURPOSE, 10) if self.augment else None
        once = draw(self.order.seed, 0, indices, PURPOSE_ONCE, 3) if self.augment else None
        return _PendingPose(rows, self._memory.take(), draws, once)


class _PendingPose(Pending[PoseBatch]):
    """A micro-batch while threads fill it."""

    def __init__(self, rows: NDArray[np.int64], pixels: Tensor, draws: Floats | None, once: Floats | None):
        super().__init__(rows)
        self.pixels, self.draws, self.once = pixels, draws, once
        self.maps = np.zeros((len(rows), NUM_JOINTS, MAP[1], MAP[0]), np.float32)
        self.weights = np.zeros((len(rows), NUM_JOINTS), np.float32)

    def put(self, place: int, key: str, members: Mapping[str, bytes]) -> None:
        """Decode one sample into its place. Raises BadSample with the reason."""
        person = msgspec.msgpack.decode(members["person"], type=Person)
        image = decode_rgb(members["0.jpg"])
        box = clipped(person.bbox, image.shape[:2])
        if box is None:
            raise BadSample("box_outside_the_image")
        joints, visible = joints_of(person)
        if self.draws is None or self.once is None:
            matrix = warp_matrix(frame_of(box))
        else:
            matrix = drawn_matrix(box, joints, visible, image.shape[1], self.draws[place], self.once[place])
            if self.draws[place, 0] < 0.5:
                joints, visible = joints[list(MIRRORED)], visible[list(MIRRORED)]
        cut_out(image, matrix, self.pixels.numpy()[place])
        moved = joints @ matrix[:, :2].T + matrix[:, 2]
        self.maps[place], self.weights[place] = encode(moved, visible)
        self.keys[place] = key

    def batch(self) -> PoseBatch:
        """The micro-batch, once all of it is there."""
        return PoseBatch(
            keys=tuple(self.keys),
            rows=torch.from_numpy(self.rows.copy()),
            image=self.pixels,
            maps=torch.from_numpy(self.maps),
            weights=torch.from_numpy(self.weights),
        )


def open_people(where: str, labels: Sequence[Path]) -> PeopleImages:
    """A data set of `pack-labels coco-pose`, with `labels`: COCO's annotations and, if given, a detector's boxes.

    Raises ValueError when a file is missing or of another kind or split.
    """
    if not 1 <= len(labels) <= 2:
        raise ValueError(
            "--labels: pose wants COCO's person_keypoints_train2017.json or person_keypoints_val2017.json and, to "
            f"score, a detector's result file after it, if you have one; {len(labels)} files are given"
        )
    annotations = read_annotations(labels[0])
    return PeopleImages(ImageDataset(where), annotations, read_detections(labels[1]) if len(labels) > 1 else None)


def drawn_matrix(
    box: Box, joints: Floats, visible: NDArray[np.int64], width: int, draws: Floats, once: Floats
) -> Floats:
    """(2, 3): takes pixels of an image of this width to those of the input, augmented as ViTPose does.

    `draws` (10,) in [0, 1) are of this epoch, `once` (3,) for all epochs: a part of the boxes is misplaced for good.
    The first draw says whether left and right are exchanged.
    """
    frame = frame_of(box)
    if once[0] < SHIFT_SHARE:
        shift = (2 * once[1:] - 1) * SHIFT_MOST * np.array(box[2:])
        frame = Frame(centre=frame.centre + shift, size=frame.size)
    if (visible > 0).sum() > HALF_BODY_LEAST and draws[1] < HALF_BODY_SHARE:
        frame = half_body(joints[visible > 0], np.flatnonzero(visible > 0), normal(draws[2:4])) or frame
    scale = float(np.clip(1 + SCALE_DEVIATION * normal(draws[4:6]), *SCALE_RANGE))
    turn = float(np.clip(TURN_DEVIATION_DEG * normal(draws[7:9]), -TURN_MOST_DEG, TURN_MOST_DEG))
    mirrored = draws[0] < 0.5
    if mirrored:
        frame = Frame(centre=np.array([width - 1 - frame.centre[0], frame.centre[1]]), size=frame.size)
    frame = Frame(centre=frame.centre, size=frame.size * scale)
    matrix = warp_matrix(frame, turn if draws[6] < TURN_SHARE else 0.0)
    if not mirrored:
        return matrix
    mirror = np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]])
    return np.asarray(matrix @ mirror)


def half_body(given: Floats, numbers: NDArray[np.int64], chance: float) -> Frame | None:
    """A frame around the upper or the lower body, of the joints that are given (n, 2) with their numbers (n,).

    The upper one is taken for `chance` < 0.5, a standard normal draw (so in about 69 of 100), where it has more than
    two joints, and where the lower one has not. None without two joints, or when they have no extent.
    """
    upper, lower = given[numbers < NUM_UPPER], given[numbers >= NUM_UPPER]
    chosen = upper if (chance < 0.5 and len(upper) > 2) or len(lower) <= 2 else lower
    if len(chosen) < 2:
        return None
    least, most = chosen.min(axis=0), chosen.max(axis=0)
    if not (most > least).all():
        return None
    around = frame_of((float(least[0]), float(least[1]), *map(float, most - least)), HALF_BODY_PADDING)  # type: ignore[arg-type]
    return Frame(centre=chosen.mean(axis=0), size=around.size)


def normal(draws: Floats) -> float:
    """A standard normal number of two uniform ones in [0, 1) (Box and Muller)."""
    return math.sqrt(-2 * math.log(1 - float(draws[0]))) * math.cos(2 * math.pi * float(draws[1]))


def joints_of(person: Person) -> tuple[Floats, NDArray[np.int64]]:
    """Joints (J, 2) and visibility (J,)."""
    values = np.array(person.keypoints, np.float64).reshape(NUM_JOINTS, 3)
    return values[:, :2], values[:, 2].astype(np.int64)


def clipped(box: Box, shape: tuple[int, ...]) -> Box | None:
    """What of a box lies in an image of (height, width); None if nothing does. Widths count from centre to centre."""
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right = min(shape[1] - 1.0, left + max(0.0, box[2] - 1))
    bottom = min(shape[0] - 1.0, top + max(0.0, box[3] - 1))
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


def cut_out(image: Image, matrix: Floats, out: Image) -> None:
    """Write what `matrix` (2, 3) takes into the input, into `out`; black outside the image."""
    cv2.warpAffine(image, matrix, INPUT, dst=out, flags=cv2.INTER_LINEAR)


def _image_id(images: Dataset, index: int) -> int:
    """COCO's number of a sample, from its key. Raises ValueError when the data set is not one of COCO's images."""
    shard, place = images.locate(index)
    key = shard.key(place)
    number = key.rpartition("_")[2]
    if not number.isdigit():
        raise ValueError(f"{images.folder}: sample {key} is no image of COCO; pack them with pack-labels coco-pose")
    return int(number)
