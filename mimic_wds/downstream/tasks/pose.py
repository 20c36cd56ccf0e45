"""Joints of people, as MIMIC finetunes ViTPose-B on COCO: the recipe of ViTPose's base configuration.

The paper names neither the head nor the source of the boxes; ViTPose's defaults are the classic head and detections.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mimic_wds.downstream.config import FinetuneConfig
from mimic_wds.downstream.data import Chosen, own_order
from mimic_wds.downstream.joints import (
    INPUT,
    Frame,
    decode,
    frame_of,
    merge_mirrored,
    person_score,
    suppress,
    warp_matrix,
)
from mimic_wds.downstream.losses import joint_heat_maps
from mimic_wds.downstream.metrics import pose as metric
from mimic_wds.downstream.metrics.bootstrap import Floats, as_plain
from mimic_wds.downstream.people import (
    People,
    PeopleImages,
    PoseBatch,
    PoseLoader,
    clipped,
    cut_out,
    joints_of,
    open_people,
)
from mimic_wds.downstream.schedules import step_rate, warmup_steps
from mimic_wds.downstream.task import Columns, Protocol, Row, Scored, Task, Weights, with_outputs
from mimic_wds.loading.dataset import Dataset
from mimic_wds.loading.decoding import decode_rgb
from mimic_wds.loading.loader import Share
from mimic_wds.loading.transforms import normalize
from mimic_wds.models.heads.pose import ClassicHead, PoseEncoder, PoseModel, SimpleHead, pose_weights
from mimic_wds.pairs import Image
from mimic_wds.storage.coco import NUM_JOINTS, PERSON

#: Images whose people go through the model together.
IMAGES_AT_ONCE = 8

#: A person to look for: where, and how sure the box is.
Sought = tuple[Frame, float]


def no_sums(_: Floats) -> dict[str, Floats]:
    """Precision of ranked detections is no sum over images."""
    raise AssertionError


class Pose(Task):
    """17 joints of each person as heat maps, from crops of 256 x 192 pixels."""

    name = "pose"
    protocols = (
        Protocol(
            name="paper",
            told="boxes of the detector that is given; mirrored too; suppressed at 0.9; COCOeval, 20 people an image",
            scores=no_sums,
            headline="AP",
            higher_is_better=True,
        ),
        Protocol(
            name="true boxes",
            told="annotated boxes, 1 to 2 points of AP more than detected ones; else as above",
            scores=no_sums,
            headline="AP",
            higher_is_better=True,
        ),
    )

    def open(self, where: str, labels: Sequence[Path] = ()) -> PeopleImages:
        """See `people.open_people`."""
        return open_people(where, labels)

    def samples(self, chosen: Dataset) -> People:
        """The people of the chosen images."""
        assert isinstance(chosen, Chosen)
        images = chosen.whole
        assert isinstance(images, PeopleImages)
        return People(images, chosen.indices.tolist())

    def fill_in(self, config: FinetuneConfig, samples: Dataset, weights: Weights) -> FinetuneConfig:
        """See `Task`. Raises ValueError for another size of crops."""
        if (config.model.image_size, config.model.patch_size) != (INPUT[1], 16):
            raise ValueError(f"pose looks at {INPUT[1]} x {INPUT[0]} pixels: set model.image_size = {INPUT[1]}, and "
                             "leave model.patch_size = 16")  # fmt: skip
        if weights and "pos_embed" not in weights:
            raise ValueError(f"--init {config.init}: ViTPose adds positions to its tokens, this encoder's are rotary")
        return with_outputs(config, NUM_JOINTS)

    def build(self, config: FinetuneConfig) -> PoseModel:
        """See `Task`. Raises ValueError for an unknown head."""
        dim, depth, heads = config.model.shape
        kinds: dict[str, Any] = {"classic": ClassicHead, "simple": SimpleHead}
        if config.model.head not in ("", *kinds):
            raise ValueError(f"model.head = {config.model.head!r}: pose has {' and '.join(kinds)}")
        head = kinds[config.model.head or "classic"](dim=dim)
        encoder = PoseEncoder(dim=dim, depth=depth, heads=heads, drop_path=config.model.drop_path)
        return PoseModel(encoder, head, frozen=config.model.frozen)

    def encoder_weights(self, model: nn.Module, weights: Weights) -> tuple[dict[str, Tensor], list[str]]:
        """All but the norm behind the blocks, which is ViTPose's own."""
        encoder = model.encoder
        assert isinstance(encoder, PoseEncoder)
        found, left = pose_weights(weights, *encoder.grid)
        own = {f"last_norm.{name}": value for name, value in encoder.last_norm.state_dict().items()}
        return {**found, **own}, left

    def rate(self, config: FinetuneConfig, step: int) -> float:
        """Warm-up, then falling to a tenth at `optimizer.drops`."""
        steps = config.run.steps
        warmup = warmup_steps(steps, config.optimizer.warmup)
        drops = [round(share * steps) for share in config.optimizer.drops]
        return step_rate(step, peak=config.optimizer.lr, warmup=warmup, drops=drops)

    def loader(self, samples: Dataset, config: FinetuneConfig, **share: Unpack[Share]) -> PoseLoader:
        """See `Task`."""
        assert isinstance(samples, People)
        return PoseLoader(samples, augment=config.run.augment, **own_order(samples, share))

    def inputs(self, batch: PoseBatch, device: torch.device) -> tuple[Tensor, ...]:
        """Crops (B, 3, 256, 192), heat maps (B, J, 64, 48), weights (B, J)."""
        return normalize(batch.image, device), batch.maps.to(device), batch.weights.to(device)

    def loss(self, model: nn.Module, config: FinetuneConfig, *inputs: Tensor) -> Tensor:
        """See `losses.joint_heat_maps`."""
        images, maps, weights = inputs
        return joint_heat_maps(model(images), maps, weights)

    def rows(
        self, model: nn.Module, config: FinetuneConfig, dataset: Dataset, numbers: Sequence[int], device: torch.device
    ) -> Iterator[Row]:
        """Detections of every image in COCO's format, by protocol."""
        assert isinstance(dataset, PeopleImages)
        remaining = iter(numbers)
        while some := list(islice(remaining, IMAGES_AT_ONCE)):
            read = [dataset.read(number) for number in some]
            pictures = [decode_rgb(members["0.jpg"]) for _, members in read]
            found = {
                name: find_people(model, pictures, [sought(dataset, number, name) for number in some], device)
                for name in self._names(dataset)
            }
            for place, number in enumerate(some):
                rows = {name: as_results(dataset.ids[number], people[place]) for name, people in found.items()}
                yield number, read[place][0], rows

    def scores(self, dataset: Dataset, rows: Sequence[Row], *, resamples: int = 0, seed: int = 0) -> Scored:
        """COCOeval's ten numbers."""
        assert isinstance(dataset, PeopleImages)
        scored: Scored = {}
        for protocol in self.protocols:
            if protocol.name in self._names(dataset):
                matched = metric.match(dataset.plain(), [each for row in rows for each in row[2][protocol.name]])
                spread = as_plain(metric.bootstrap(matched, resamples=resamples, seed=seed)) if resamples else {}
                scores = metric.scores(matched)
                scored[protocol.name] = {
                    "told": protocol.told, "headline": protocol.headline, "scores": scores, "spread": spread,
                }  # fmt: skip
        return scored

    def write(self, folder: Path, rows: Sequence[Row]) -> None:
        """Detections in COCO's result format, a file per protocol."""
        for name in rows[0][2]:
            detections = [each for row in rows for each in row[2][name]]
            (folder / f"keypoints-{name.replace(' ', '-')}.json").write_text(json.dumps(detections))

    def panels(
        self, model: nn.Module, config: FinetuneConfig, dataset: Dataset, number: int, device: torch.device
    ) -> Columns:
        """The first person of each of some images, with the joints found and the true ones."""
        assert isinstance(dataset, PeopleImages)
        crops: list[Image] = []
        found: list[Image] = []
        true: list[Image] = []
        for index in range(len(dataset)):
            if len(crops) < number and (people := dataset.people(index)):
                image = decode_rgb(dataset.read(index)[1]["0.jpg"])
                frame = frame_of(clipped(people[0].bbox, image.shape[:2]) or people[0].bbox)
                ((joints, _),) = look_at(model, [(image, frame)], device)
                crop, matrix = crop_of(image, frame), warp_matrix(frame)
                given, visible = joints_of(people[0])
                crops.append(crop)
                found.append(dotted(crop, joints @ matrix[:, :2].T + matrix[:, 2]))
                true.append(dotted(crop, (given @ matrix[:, :2].T + matrix[:, 2])[visible > 0]))
        titles = ("input", "prediction", "truth")
        return [(title, np.stack(each)) for title, each in zip(titles, (crops, found, true), strict=True) if each]

    def _names(self, dataset: PeopleImages) -> list[str]:
        """Protocols that can be followed with what is there."""
        return [each.name for each in self.protocols if each.name != "paper" or dataset.boxes is not None]


def sought(dataset: PeopleImages, number: int, protocol: str) -> list[Sought]:
    """Where to look for people in an image."""
    if protocol == "paper":
        assert dataset.boxes is not None
        return [(frame_of(each.bbox), each.score) for each in dataset.boxes.get(dataset.ids[number], [])]
    boxes = (clipped(person.bbox, dataset.sizes[dataset.ids[number]]) for person in dataset.people(number))
    return [(frame_of(box), 1.0) for box in boxes if box]


def find_people(
    model: nn.Module, pictures: Sequence[Image], sought: Sequence[Sequence[Sought]], device: torch.device
) -> list[list[tuple[Floats, Floats, float]]]:
    """For each picture the people that stay: joints (J, 2), their scores (J,), and the person's; best first."""
    crops = [(image, frame) for image, wanted in zip(pictures, sought, strict=True) for frame, _ in wanted]
    looked = iter(look_at(model, crops, device))
    found = []
    for wanted in sought:
        people = [(*next(looked), box_score) for _, box_score in wanted]
        scores = np.array([person_score(box_score, own) for _, own, box_score in people])
        areas = np.array([frame.size.prod() for frame, _ in wanted])
        joints = np.array([joints for joints, _, _ in people]).reshape(-1, NUM_JOINTS, 2)
        kept = suppress(joints, scores, areas)
        found.append([(people[n][0], people[n][1], float(scores[n])) for n in kept])
    return found


def look_at(
    model: nn.Module, crops: Sequence[tuple[Image, Frame]], device: torch.device, batch: int = 64
) -> Iterator[tuple[Floats, Floats]]:
    """Joints (J, 2) in pixels of the picture and their scores (J,), of the crop and its mirror image together."""
    for start in range(0, len(crops), batch):
        some = crops[start : start + batch]
        pixels = torch.from_numpy(np.stack([crop_of(*each) for each in some]))
        images = normalize(pixels, device)
        with torch.inference_mode():
            maps, mirrored = (model(each).float().cpu().numpy() for each in (images, images.flip(-1)))
        for one, other, (_, frame) in zip(maps, mirrored, some, strict=True):
            yield decode(merge_mirrored(one, other), frame)


def crop_of(image: Image, frame: Frame) -> Image:
    """(256, 192, 3) of a picture."""
    out = np.empty((INPUT[1], INPUT[0], 3), np.uint8)
    cut_out(image, warp_matrix(frame), out)
    return out


def as_results(image_id: int, people: Sequence[tuple[Floats, Floats, float]]) -> list[dict[str, Any]]:
    """The people of an image as rows of COCO's result format."""
    return [
        {
            "image_id": image_id,
            "category_id": PERSON,
            "keypoints": np.column_stack([joints, scores]).ravel().tolist(),
            "score": score,
        }
        for joints, scores, score in people
    ]


def dotted(crop: Image, joints: Floats) -> NDArray[np.uint8]:
    """A crop with joints (n, 2) marked."""
    drawn = crop.copy()
    for x, y in joints:
        cv2.circle(drawn, (round(float(x)), round(float(y))), 3, (255, 160, 0), -1, cv2.LINE_AA)
    return drawn
