"""Flow between two views: where each patch of view 0 lies in view 1, learned from the stored homographies.

Not a task of the paper: what pretraining on pairs should help with most directly, and no label is needed for it beyond
what every data set of pairs has. The head compares patches: one projection of the last tokens of both views, and a
distribution over the patches of view 1 for each patch of view 0. Its mean is the place that is predicted.

Shapes: B pairs, L patches of a view, rows x cols of them; places (x, y) in pixels of the view as the model sees it.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Unpack

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimic_wds.downstream.config import FinetuneConfig
from mimic_wds.downstream.data import own_order
from mimic_wds.downstream.dense import dense_encoder
from mimic_wds.downstream.metrics.bootstrap import ratio
from mimic_wds.downstream.task import Columns, Protocol, Row, Task, Weights, with_outputs
from mimic_wds.loading.augment import Preset, carry_homography, view_matrix
from mimic_wds.loading.batch import PairBatch
from mimic_wds.loading.crops import Box, cut
from mimic_wds.loading.dataset import Dataset, PairDataset
from mimic_wds.loading.decoding import decode_rgb
from mimic_wds.loading.loader import Share
from mimic_wds.loading.pairs import PairLoader, read_homography
from mimic_wds.loading.transforms import normalize
from mimic_wds.models.heads.base import EncoderAndHead
from mimic_wds.models.heads.encoder import DenseEncoder
from mimic_wds.pairs import Image

#: Width of what patches are compared by, and the first temperature of their similarities.
COMPARED, TEMPERATURE = 256, 0.1

#: Pairs that go through the model together at evaluation.
PAIRS_AT_ONCE = 16


class FlowModel(EncoderAndHead):
    """Normalised views (B, 3, H, W) twice -> logits (B, L, L): how well patches of view 0 go with those of view 1."""

    def __init__(self, encoder: DenseEncoder, dim: int, *, frozen: bool = False) -> None:
        super().__init__(encoder, nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, COMPARED)), frozen=frozen)
        self.last = len(encoder.blocks) - 1
        self.log_temperature = nn.Parameter(torch.tensor(TEMPERATURE).log())

    def forward(self, image0: Tensor, image1: Tensor) -> Tensor:
        """See the class."""
        (tokens,) = self.encoder(torch.cat([image0, image1]), [self.last])
        own, other = F.normalize(self.head(tokens.flatten(2).transpose(1, 2)), dim=-1).chunk(2)
        return own @ other.transpose(1, 2) / self.log_temperature.exp()


class Flow(Task):
    """Places of patches in the other view."""

    name = "flow"
    protocols = (
        Protocol(
            name="standard",
            told="end-point error in pixels of the model's input, at patches of view 0 whose middle is in view 1",
            scores=lambda sums: {
                "epe_px": ratio(sums[..., 1], sums[..., 0]),
                "within_half_patch": ratio(sums[..., 2], sums[..., 0]),
                "within_patch": ratio(sums[..., 3], sums[..., 0]),
                "epe_px_same_place": ratio(sums[..., 4], sums[..., 0]),
            },
            headline="epe_px",
            higher_is_better=False,
        ),
    )

    def open(self, where: str, labels: Sequence[Path] = ()) -> Dataset:
        """See `Task`: any data set of pairs."""
        if labels:
            raise ValueError(f"--labels {labels[0]}: flow is learned from the homographies in the shards; leave it out")
        return PairDataset(where)

    def fill_in(self, config: FinetuneConfig, samples: Dataset, weights: Weights) -> FinetuneConfig:
        """See `Task`: two numbers, x and y, for each patch."""
        return with_outputs(config, 2, weights)

    def build(self, config: FinetuneConfig) -> FlowModel:
        """See `Task`."""
        return FlowModel(dense_encoder(config), config.model.shape[0], frozen=config.model.frozen)

    def loader(self, samples: Dataset, config: FinetuneConfig, **share: Unpack[Share]) -> PairLoader:
        """Pairs as CroCo crops and colours them; homographies follow."""
        assert isinstance(samples, PairDataset)
        augmentation: Preset = "croco" if config.run.augment else "none"
        share = own_order(samples, share)
        size = config.model.image_size
        return PairLoader(samples, augmentation=augmentation, size=size, homographies=True, **share)

    def inputs(self, batch: PairBatch, device: torch.device) -> tuple[Tensor, ...]:
        """Both views (B, 3, H, W), homographies (B, 3, 3)."""
        assert batch.H_0to1 is not None
        views = normalize(batch.image0, device, batch.jitter0), normalize(batch.image1, device, batch.jitter1)
        return *views, batch.H_0to1.to(device)

    def loss(self, model: nn.Module, config: FinetuneConfig, *inputs: Tensor) -> Tensor:
        """Cross-entropy () with the bilinear weights of the four patches around the true place, whose mean it is."""
        image0, image1, H = inputs
        places, known = true_places(H, config.model.image_size, config.model.patch_size)
        target = bilinear(places, config.model.image_size, config.model.patch_size)
        losses = -(target * model(image0, image1).float().log_softmax(-1)).sum(-1)
        return (losses * known).sum() / known.sum().clamp(min=1)

    def rows(
        self, model: nn.Module, config: FinetuneConfig, dataset: Dataset, numbers: Sequence[int], device: torch.device
    ) -> Iterator[Row]:
        """(5,) of each pair: patches, their errors added up, those within half a patch and one, and of no motion."""
        size, patch = config.model.image_size, config.model.patch_size
        remaining = iter(numbers)
        while some := list(islice(remaining, PAIRS_AT_ONCE)):
            keys, views, H = read_pairs(dataset, some, size)
            found = predict(model, views, size, patch, device)
            true, known = true_places(H, size, patch)
            errors, still = ((each - true).norm(dim=-1) for each in (found, centres(size, patch)))
            sums = [known, errors * known, (errors < patch / 2) & known, (errors < patch) & known, still * known]
            statistics = torch.stack([each.double().nan_to_num().sum(1) for each in sums], 1).numpy()
            for number, key, row in zip(some, keys, statistics, strict=True):
                yield number, key, {"standard": row}

    def panels(
        self, model: nn.Module, config: FinetuneConfig, dataset: Dataset, number: int, device: torch.device
    ) -> Columns:
        """View 0, and view 1 brought onto it by what was predicted and by the truth."""
        size, patch = config.model.image_size, config.model.patch_size
        _, views, H = read_pairs(dataset, range(min(number, len(dataset))), size)
        found, (true, known) = predict(model, views, size, patch, device), true_places(H, size, patch)
        true = torch.where(known[..., None], true, -1.0)
        brought = [np.stack([bring(v[1], each) for v, each in zip(views, places, strict=True)])
                   for places in (found, true)]  # fmt: skip
        return [("input", views[:, 0]), ("prediction", brought[0]), ("truth", brought[1])]


def read_pairs(dataset: Dataset, numbers: Sequence[int], size: int) -> tuple[list[str], Image, Tensor]:
    """Keys, views (N, 2, size, size, 3), homographies (N, 3, 3). Raises ValueError when a view does not decode."""
    keys, views, matrices = [], [], []
    for number in numbers:
        key, members = dataset.read(number)
        pictures = [decode_rgb(members[name]) for name in ("0.jpg", "1.jpg")]
        boxes = [Box(0, 0, picture.shape[1], picture.shape[0]) for picture in pictures]
        moves = [view_matrix(box, (size, size)) for box in boxes]
        keys.append(key)
        views.append(np.stack([cut(picture, box, (size, size)) for picture, box in zip(pictures, boxes, strict=True)]))
        matrices.append(carry_homography(read_homography(members["json"]), *moves))
    return keys, np.stack(views), torch.from_numpy(np.stack(matrices))


def predict(model: nn.Module, views: Image, size: int, patch: int, device: torch.device) -> Tensor:
    """Places (N, L, 2) of the patches of view 0 in view 1, on the CPU: means of the distributions."""
    own, other = (normalize(torch.from_numpy(views[:, view].copy()), device) for view in (0, 1))
    with torch.inference_mode():
        shares = model(own, other).float().softmax(-1).cpu()
    return shares @ centres(size, patch)


def centres(size: int, patch: int) -> Tensor:
    """Middles (L, 2) of the patches of a view."""
    along = torch.arange(size // patch) * patch + (patch - 1) / 2
    return torch.stack(torch.meshgrid(along, along, indexing="xy"), dim=-1).reshape(-1, 2)


def true_places(H: Tensor, size: int, patch: int) -> tuple[Tensor, Tensor]:
    """Where H_0to1 (B, 3, 3) takes the middles of patches: (B, L, 2), and whether that is in view 1 (B, L)."""
    points = F.pad(centres(size, patch).to(H), (0, 1), value=1.0) @ H.transpose(1, 2)
    places = (points[..., :2] / points[..., 2:]).float()
    inside = ((places >= -0.5) & (places <= size - 0.5)).all(-1)  # not so for nan
    return places, inside & (points[..., 2] > 0)


def bilinear(places: Tensor, size: int, patch: int) -> Tensor:
    """Weights (B, L, L) of the patches of view 1 around places (B, L, 2), which are cut to its outermost middles."""
    side = size // patch
    scaled = ((places.nan_to_num() - (patch - 1) / 2) / patch).clamp(0, side - 1)
    hats = (1 - (scaled[..., None] - torch.arange(side, device=places.device)).abs()).clamp(min=0)  # (B, L, 2, side)
    across, down = hats.unbind(2)
    return (down[..., :, None] * across[..., None, :]).flatten(2)


def bring(view1: Image, places: Tensor) -> Image:
    """View 1 (size, size, 3) onto view 0, by the places (L, 2) of its patches; black where they are outside."""
    side = round(len(places) ** 0.5)
    field = cv2.resize(places.reshape(side, side, 2).numpy(), view1.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.remap(view1, field, None, cv2.INTER_LINEAR), np.uint8)  # type: ignore[call-overload]
