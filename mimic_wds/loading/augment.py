"""What is done to the views of a sample before a model sees them: four named presets, and draws that are its own.

Every choice is a pure function of (seed, epoch, sample): the same for any threads, ranks, and interruptions. Crops and
mirrors are applied while a JPEG is decoded, colours are changed on the device (`transforms.py`).

- "none": the views as they are stored.
- "mimic": the views of half of the pairs are exchanged, nothing else (arXiv 2306.15128, its released code).
- "croco": besides, 224 of 256 pixels a side are cut out of each view by itself, and each view's brightness, contrast
  and saturation change by themselves (arXiv 2210.10716; its authors named the factors: 0.6 to 1.4, no hue).
- "mae": random resized crops of each view by itself, and a mirror that both views share (arXiv 2111.06377).
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mimic_wds.loading.crops import SCALE, TRIES, Box, draw, random_box
from mimic_wds.loading.order import swap_views

Preset: TypeAlias = Literal["none", "mimic", "croco", "mae"]

#: Purposes of draws, one for each view; 0 exchanges views (`order.py`).
CROP_PURPOSES, JITTER_PURPOSES = (1, 2), (3, 4)

#: Numbers that describe the colours of a view: brightness, contrast, saturation, and which of the 6 orders.
NUM_JITTER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftedCrop:
    """A box of one size at a random place; `kept` is the share of each side that it has."""

    kept: float = 224 / 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizedCrop:
    """A box of random area and aspect ratio at a random place (`crops.random_box`)."""

    scale: tuple[float, float] = SCALE  #: least and most share of the picture's area
    tries: int = TRIES  #: draws until a box fits; 1: sides that do not are cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Jitter:
    """Factors of brightness, contrast and saturation are uniform in 1 +- `strength`, applied in a random order."""

    strength: float = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What may be done to a sample."""

    swap: bool = False  #: exchange the views of a pair with probability 1/2
    crop: ShiftedCrop | ResizedCrop | None = None  #: of each view by itself
    flip: bool = False  #: exchange left and right of both views with probability 1/2
    jitter: Jitter | None = None  #: of each view by itself

    @property
    def moves_patches(self) -> bool:
        """Patches of the views are no longer where the stored correspondences say."""
        return self.crop is not None or self.flip


PRESETS: dict[Preset, Augmentation] = {
    "none": Augmentation(),
    "mimic": Augmentation(swap=True),
    "croco": Augmentation(swap=True, crop=ShiftedCrop(), jitter=Jitter()),
    "mae": Augmentation(swap=True, crop=ResizedCrop(), flip=True),
}


def resolve(augmentation: Preset | Augmentation) -> Augmentation:
    """A preset by its name. Raises ValueError for an unknown one."""
    if isinstance(augmentation, Augmentation):
        return augmentation
    if augmentation not in PRESETS:
        raise ValueError(f"no augmentation is called {augmentation!r}; there are {', '.join(PRESETS)}")
    return PRESETS[augmentation]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draws:
    """What was drawn for N samples of V views."""

    swapped: NDArray[np.bool_]  #: (N,)
    crops: NDArray[np.float64] | None  #: (V, N, `crops.NUM_DRAWS`) in [0, 1)
    jitter: NDArray[np.float32] | None  #: (V, N, NUM_JITTER), see `draw_jitter`


def draw_for(
    augmentation: Augmentation, seed: int, epoch: int, samples: NDArray[np.int64], *, num_views: int = 2
) -> Draws:
    """All that is random about some samples (N,) in an epoch."""
    views, jitter = range(num_views), augmentation.jitter
    crops = [draw(seed, epoch, samples, CROP_PURPOSES[view]) for view in views if augmentation.moves_patches]
    colours = [draw_jitter(jitter, seed, epoch, samples, view) for view in views if jitter]
    return Draws(
        swapped=swap_views(seed, epoch, samples) & augmentation.swap,
        crops=np.stack(crops) if crops else None,
        jitter=np.stack(colours) if colours else None,
    )


def draw_jitter(jitter: Jitter, seed: int, epoch: int, samples: NDArray[np.int64], view: int) -> NDArray[np.float32]:
    """How the colours of a view of some samples (N,) change: (N, NUM_JITTER), three factors and an order in 0..5."""
    draws = draw(seed, epoch, samples, JITTER_PURPOSES[view], NUM_JITTER)
    draws[:, :3] = 1 + jitter.strength * (2 * draws[:, :3] - 1)
    draws[:, 3] = np.floor(draws[:, 3] * 6)
    return draws.astype(np.float32)


def view_box(augmentation: Augmentation, draws: Draws, place: int, view: int, height: int, width: int) -> Box:
    """The part of a view of (height, width) pixels that is given, by the draws of the sample at `place`."""
    if draws.crops is None:
        return Box(0, 0, width, height)
    own, mirror = draws.crops[view, place], float(draws.crops[0, place, -1])
    match augmentation.crop:
        case None:
            box = Box(0, 0, width, height)
        case ShiftedCrop(kept=kept):
            w, h = round(width * kept), round(height * kept)
            across, down = own[-3:-1].tolist()
            box = Box(int(across * (width - w + 1)), int(down * (height - h + 1)), w, h)
        case ResizedCrop(scale=scale, tries=tries):
            box = random_box(own, height, width, scale=scale, tries=tries)
    return box._replace(mirror=augmentation.flip and mirror < 0.5)


def view_matrix(box: Box, size: tuple[int, int]) -> NDArray[np.float64]:
    """(3, 3): takes pixel (x, y, 1) of a view to that of its `box` resized to (height, width) = `size`.

    Whole numbers are pixel centres, as everywhere; so the edge of an image is at -0.5, and edges meet edges.
    """
    across, down = size[1] / box.width, size[0] / box.height
    matrix = np.array(
        [[across, 0, across * (0.5 - box.x) - 0.5], [0, down, down * (0.5 - box.y) - 0.5], [0, 0, 1]], np.float64
    )
    if box.mirror:
        matrix[0] = [-across, 0, size[1] - 1 - matrix[0, 2]]
    return matrix


def carry_homography(
    H_0to1: NDArray[np.float64], matrix0: NDArray[np.float64], matrix1: NDArray[np.float64], *, swapped: bool = False
) -> NDArray[np.float64]:
    """The homography (3, 3) between the views as a model sees them; `swapped` says that they were exchanged before.

    It is not scaled: a point that lay in front of the camera (w > 0) still does.
    """
    between = np.linalg.inv(H_0to1) if swapped else H_0to1
    return np.asarray(matrix1 @ between @ np.linalg.inv(matrix0), np.float64)
