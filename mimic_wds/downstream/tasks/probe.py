"""Labels of images from frozen features: MAE's linear probe (arXiv 2111.06377) as MIMIC runs it on ImageNet-1K."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Unpack

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image as PILImage
from torch import Tensor, nn
from torch.optim import Optimizer

from mimic_wds.downstream.config import FinetuneConfig
from mimic_wds.downstream.data import own_order
from mimic_wds.downstream.metrics import classification as metric
from mimic_wds.downstream.optimizer import LARS
from mimic_wds.downstream.schedules import warmup_steps
from mimic_wds.downstream.task import Protocol, Row, Task, Weights, with_outputs
from mimic_wds.loading.augment import Augmentation, ResizedCrop
from mimic_wds.loading.dataset import Dataset, ImageDataset
from mimic_wds.loading.decoding import BadSample
from mimic_wds.loading.loader import Share
from mimic_wds.loading.parts import JPEG, Part, PartBatch, PartLoader
from mimic_wds.loading.transforms import normalize
from mimic_wds.models.heads.probe import LinearProbe
from mimic_wds.models.vit import Encoder
from mimic_wds.pairs import Image
from mimic_wds.training.schedule import learning_rate

#: Crops of training images: their share of the area, drawn once, sides cut to the image (MAE).
TRAINED_ON = Augmentation(crop=ResizedCrop(scale=(0.08, 1.0), tries=1), flip=True)

#: At evaluation the short side is 256 where the model sees 224.
SHRUNK_TO = 256 / 224

#: Images that go through the model together.
IMAGES_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProbeBatch(PartBatch):
    """A micro-batch of B images, on the CPU."""

    image: Tensor  #: (B, H, W, 3) uint8 RGB
    label: Tensor  #: (B,) int64


def decode_label(data: bytes) -> NDArray[np.int64]:
    """The class of a sample. Raises BadSample when it has none."""
    label = msgspec.json.decode(data)["label"]
    if label < 0:
        raise BadSample("no_label")
    return np.array(label, np.int64)


class Probe(Task):
    """A linear layer on frozen features, of the class token or (`model.head` = "mean") the mean of all others.

    Neither MAE nor CroCo puts a loss on the class token; so the mean is worth a second probe.
    """

    name = "probe"
    protocols = (
        Protocol(
            name="paper",
            told="short side 256 (bicubic), centre crop 224, top-1 and top-5; also the field's",
            scores=metric.scores,
            headline="top1",
            higher_is_better=True,
        ),
    )

    def open(self, where: str, labels: Sequence[Path] = ()) -> Dataset:
        """See `Task`: labels lie in the shards."""
        if labels:
            raise ValueError(f"--labels {labels[0]}: probe has its labels in the shards; leave it out")
        dataset = ImageDataset(where)
        if not dataset.classes:
            dataset.close()
            raise ValueError(
                f"{where}: its manifest names no classes of images; `mimic-shard pack-labels imagenet` makes such data "
                "sets from a folder per class"
            )
        return dataset

    def fill_in(self, config: FinetuneConfig, samples: Dataset, weights: Weights) -> FinetuneConfig:
        """Classes of the data set, and whether the encoder has a class token. Raises ValueError if it must have."""
        has_token = not weights or "cls_token" in weights
        if not has_token and config.model.head != "mean":
            raise ValueError(f'{config.init}: this encoder has no class token: set model.head = "mean"')
        if not config.model.frozen:
            raise ValueError("probe looks at a frozen encoder: set model.frozen = true")
        config = replace(config, model=replace(config.model, class_token=has_token))
        return with_outputs(config, len(samples.manifest.classes), weights)

    def build(self, config: FinetuneConfig) -> LinearProbe:
        """See `Task`. Raises ValueError for an unknown head."""
        head = config.model.head or "class"
        if head not in ("class", "mean"):
            raise ValueError(f"model.head = {head!r}: probe has class and mean (which tokens are looked at)")
        dim, depth, heads = config.model.shape
        encoder = Encoder(
            image_size=config.model.image_size,
            patch_size=config.model.patch_size,
            dim=dim,
            depth=depth,
            heads=heads,
            class_token=config.model.class_token,
            rotary=config.model.rotary,
        )
        encoder.initialise()
        return LinearProbe(encoder, config.model.outputs, token=head)  # type: ignore[arg-type]

    def encoder_weights(self, model: nn.Module, weights: Weights) -> tuple[dict[str, Tensor], list[str]]:
        """All of the encoder, its final norm too; positions of as many patches only."""
        assert isinstance(model.encoder, nn.Module)
        own = model.encoder.state_dict()
        return {name: weights[name] for name in own if name in weights}, sorted(set(weights) - set(own))

    def optimizer(self, model: nn.Module, config: FinetuneConfig) -> Optimizer:
        """LARS on the linear layer."""
        assert isinstance(model, LinearProbe)
        return LARS(model.head.parameters(), lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay)

    def rate(self, config: FinetuneConfig, step: int) -> float:
        """MAE's: linear warm-up from 0, then half a cosine."""
        steps = config.run.steps
        warmup = warmup_steps(steps, config.optimizer.warmup)
        return learning_rate(step, peak=config.optimizer.lr, warmup_epochs=warmup, schedule_epochs=steps)

    def loader(self, samples: Dataset, config: FinetuneConfig, **share: Unpack[Share]) -> PartLoader[ProbeBatch]:
        """See `Task`."""
        return PartLoader(
            samples,
            parts={"image": JPEG, "label": Part(member="json", decode=decode_label, dtype=np.int64)},
            make=ProbeBatch,
            size=(config.model.image_size, config.model.image_size),
            augmentation=TRAINED_ON if config.run.augment else Augmentation(),
            **own_order(samples, share),
        )

    def inputs(self, batch: ProbeBatch, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) and classes (B,)."""
        return normalize(batch.image, device), batch.label.to(device)

    def loss(self, model: nn.Module, config: FinetuneConfig, *inputs: Tensor) -> Tensor:
        """Cross-entropy ()."""
        images, labels = inputs
        return F.cross_entropy(model(images).float(), labels)

    def rows(
        self, model: nn.Module, config: FinetuneConfig, dataset: Dataset, numbers: Sequence[int], device: torch.device
    ) -> Iterator[Row]:
        """Right at first, right among five."""
        remaining = iter(numbers)
        while some := list(islice(remaining, IMAGES_AT_ONCE)):
            read = [dataset.read(number) for number in some]
            labels = np.array([decode_label(members["json"]) for _, members in read])
            pixels = np.stack([centre(members["0.jpg"], config.model.image_size) for _, members in read])
            logits = model(normalize(torch.from_numpy(pixels), device)).float().cpu().numpy()
            for number, (key, _), row in zip(some, read, metric.statistics(logits, labels), strict=True):
                yield number, key, {"paper": row}

    def check(self, config: FinetuneConfig, dataset: Dataset) -> None:
        """The data set has as many classes as the model."""
        if (classes := len(dataset.manifest.classes)) != config.model.outputs:
            raise ValueError(
                f"{dataset.folder}: has {classes} classes, the model was trained for {config.model.outputs}"
            )


def centre(jpeg: bytes, size: int) -> Image:
    """The middle (size, size, 3) of a JPEG, resized as torchvision does it: by PIL, bicubic, with antialias.

    Raises ValueError when it does not decode.
    """
    try:
        picture = PILImage.open(io.BytesIO(jpeg)).convert("RGB")
    except OSError as error:
        raise ValueError(f"a JPEG does not decode: {error}") from None
    short = round(size * SHRUNK_TO)
    scale = short / min(picture.size)
    shape = [short if side == min(picture.size) else int(side * scale) for side in picture.size]
    left, top = (round((side - size) / 2) for side in shape)
    return np.asarray(picture.resize(shape, PILImage.Resampling.BICUBIC).crop((left, top, left + size, top + size)))
