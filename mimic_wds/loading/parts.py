"""Samples of any make-up: a task states which members it wants, how each decodes, and the dataclass of its batches.

    @dataclass(frozen=True, slots=True, kw_only=True, eq=False)
    class DepthBatch(PartBatch):
        image: Tensor  # (B, H, W, 3) uint8
        depth: Tensor  # (B, H, W) float32, metres

    parts = {"image": JPEG, "depth": Part(member="0.depth.png", decode=decode_depth, is_picture=True)}
    loader = PartLoader(dataset, parts=parts, make=DepthBatch, size=(224, 224), augmentation="mae", global_batch=64)

Nothing here knows a task. Order, state, threads and bad samples are `Loader`'s.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, Unpack

import cv2
import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from mimic_wds.loading.augment import (
    Augmentation,
    Draws,
    Preset,
    ResizedCrop,
    ScaledCrop,
    SlidingCrop,
    draw_for,
    resolve,
    view_box,
)
from mimic_wds.loading.crops import Box, central_box, covered, cut_into
from mimic_wds.loading.dataset import Dataset
from mimic_wds.loading.decoding import BadSample, decode_rgb, picture_size
from mimic_wds.loading.loader import Loader, Pending, Share

#: An array of a sample, as its decoder gives it.
Array: TypeAlias = NDArray[Any]

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One field of a batch: a member of each sample, decoded.

    A picture is cut, resized and mirrored as its view is (the digit that its member begins with): uint8 colours
    smoothly, all else by the nearest pixel, so that no value arises that was not there but `fill`. A JPEG far larger
    than what is wanted is decoded smaller, by 2, 4 or 8.
    """

    member: str  #: "0.depth.png", "json", ...
    decode: Callable[[bytes], Array]  #: raises ValueError, or BadSample with a reason of its own
    is_picture: bool = False  #: (H, W) or (H, W, C); else any one shape
    is_smooth: bool = False  #: (H, W, 3) uint8 colours, of a JPEG
    fill: int = 0  #: of a picture, beyond its right and lower side
    mirror: Callable[[Array], Array] | None = None  #: what a mirror changes in the values themselves: normals, say
    shape: tuple[int, ...] = ()  #: of one sample; of a picture what follows (H, W)
    dtype: DTypeLike = np.float32


#: The first view's colours, and the second's.
JPEG, JPEG1 = (
    Part(member=f"{view}.jpg", decode=decode_rgb, is_picture=True, is_smooth=True, shape=(3,), dtype=np.uint8)
    for view in (0, 1)
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartBatch:
    """What every batch of B samples has; a task adds its fields, all of them tensors (B, ...)."""

    keys: tuple[str, ...]
    rows: Tensor  #: (B,) int64: places in the global batch
    jitter: Tensor | None = None  #: (B, 4) float32: how colours of view 0 are to change, see `transforms.normalize`

    def __len__(self) -> int:
        return len(self.keys)


class PartLoader(Loader[Batch]):
    """Samples of any kind of data set, as `parts` say; pictures are given as (height, width) = `size`.

    What an augmentation crops, it crops from the largest part in the middle that has the shape of `size`; but the boxes
    of "mae" choose their own shape, and choose from all of the picture. Views are never exchanged. A replaced sample
    takes the draws of the one whose place it takes.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        parts: Mapping[str, Part],
        make: Callable[..., Batch],
        size: tuple[int, int],
        augmentation: Preset | Augmentation = "none",
        **share: Unpack[Share],
    ):
        """`make` is called with a tensor for each of `parts`, and with keys, rows and jitter.

        Raises ValueError as `Loader` does, for an unknown preset, and for members that the samples do not have.
        """
        have = dataset.manifest.members
        if missing := sorted({part.member for part in parts.values()} - set(have)):
            raise ValueError(
                f"{dataset.folder}: its samples have no {', '.join(missing)}, which are needed here; "
                f"they have {', '.join(have)}"
            )
        self.parts, self.make, self.size = dict(parts), make, size
        self.colours = [name for name, part in parts.items() if part.is_smooth]
        self.num_views = 2 if dataset.kind == "pairs" else 1
        self.augmentation = resolve(augmentation)
        super().__init__(dataset, pixels=lambda rows: (len(self.colours), rows, *size, 3), **share)

    def _pending(self, epoch: int, rows: NDArray[np.int64], indices: NDArray[np.int64]) -> "_PendingParts[Batch]":
        draws = draw_for(self.augmentation, self.order.seed, epoch, indices, num_views=self.num_views)
        return _PendingParts(self, self._memory.take(), rows, draws)


class _PendingParts(Pending[Batch]):
    """A micro-batch while threads fill it."""

    def __init__(self, loader: PartLoader[Batch], colours: Tensor, rows: NDArray[np.int64], draws: Draws):
        super().__init__(rows)
        self.loader, self.draws = loader, draws
        self.tensors = dict(zip(loader.colours, colours.unbind(), strict=True))
        for name, part in loader.parts.items():
            if name not in self.tensors:
                shape = (*loader.size, *part.shape) if part.is_picture else part.shape
                self.tensors[name] = torch.from_numpy(np.zeros((len(rows), *shape), part.dtype))
        self.arrays = {name: tensor.numpy() for name, tensor in self.tensors.items()}

    def put(self, place: int, key: str, members: Mapping[str, bytes]) -> None:
        """Decode one sample into its place. Raises BadSample with the reason."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, part in self.loader.parts.items():
            data, out, view = members[part.member], self.arrays[name][place, ...], part.member[0]
            if part.is_smooth:
                size = picture_size(data)
                if shapes.setdefault(view, size) != size:
                    raise BadSample("picture_of_another_size")
                _cut_jpeg(data, size, self._box(place, int(view), size), out)
                continue
            array = _decode(part, data)
            if part.is_picture:
                if array.ndim != 2 + len(part.shape) or shapes.setdefault(view, array.shape[:2]) != array.shape[:2]:
                    raise BadSample("picture_of_another_size")
                _cut_part(part, array, self._box(place, int(view), array.shape[:2]), out)
            elif array.shape != out.shape:
                raise BadSample("value_of_another_shape")
            else:
                out[...] = array
        self.keys[place] = key

    def batch(self) -> Batch:
        """The micro-batch, once all of it is there."""
        jitter = None if self.draws.jitter is None else torch.from_numpy(self.draws.jitter[0])
        rows = torch.from_numpy(self.rows.copy())
        return self.loader.make(**self.tensors, keys=tuple(self.keys), rows=rows, jitter=jitter)

    def _box(self, place: int, view: int, shape: tuple[int, ...]) -> Box:
        """The part of a picture of (height, width) = `shape` that is given."""
        augmentation, size = self.loader.augmentation, self.loader.size
        ratio = size[1] / size[0]
        if isinstance(augmentation.crop, ResizedCrop | SlidingCrop | ScaledCrop):
            return view_box(augmentation, self.draws, place, view, shape[0], shape[1], ratio)
        middle = central_box(shape[0], shape[1], (ratio, ratio))
        box = view_box(augmentation, self.draws, place, view, middle.height, middle.width)
        return box._replace(x=middle.x + box.x, y=middle.y + box.y)


def _decode(part: Part, data: bytes) -> Array:
    """A member's array. Raises BadSample when it does not decode."""
    try:
        return part.decode(data)
    except BadSample:
        raise
    except ValueError:
        name = part.member.split(".")[-2:][0]  # of "0.depth.png" and "json": "depth" and "json"
        raise BadSample(f"{name}_unreadable") from None


def _cut_jpeg(data: bytes, size: tuple[int, int], box: Box, out: Array) -> None:
    """Write the box of a JPEG of `size` into `out`, resized to it; decoded smaller where that is still large enough."""
    height, width = out.shape[:2]
    needed = covered(box, size, (height, width))
    seen = min(box.height, size[0] - box.y), min(box.width, size[1] - box.x)
    factor = next(f for f in (8, 4, 2, 1) if f == 1 or (seen[0] >= f * needed[0] and seen[1] >= f * needed[1]))
    small = Box(box.x // factor, box.y // factor, box.width // factor, box.height // factor, box.mirror)
    cut_into(decode_rgb(data, factor), small, out)


def _cut_part(part: Part, array: Array, box: Box, out: Array) -> None:
    """Write the box of a map into `out`, resized to it."""
    height, width = out.shape[:2]
    rows, cols = covered(box, array.shape[:2], (height, width))
    cut = array[box.y : box.y + box.height, box.x : box.x + box.width]
    cut = cv2.resize(cut, (cols, rows), interpolation=cv2.INTER_NEAREST_EXACT)
    cut = cut.reshape(rows, cols, *out.shape[2:])
    if box.mirror:
        cut = cut[:, ::-1] if part.mirror is None else part.mirror(cut[:, ::-1])
    if (rows, cols) != (height, width):
        out[...] = part.fill
    out[:rows, :cols] = cut
