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

from mimic_wds.loading.crops import SCALE, TRIES, Box, draw, random_box, scaled_box, sliding_box
from mimic_wds.loading.order import swap_views

Preset: TypeAlias = Literal["none", "mimic", "croco", "mae"]

#: Purposes of draws, one for each view; 0 exchanges views (`order.py`).
CROP_PURPOSES, JITTER_PURPOSES = (1, 2), (3, 4)

#: Numbers that describe the colours of a view: brightness, contrast, saturation, which of the orders; hue, grey.
NUM_JITTER, NUM_STRONG_JITTER = 4, 6

#: Draws for them: besides, whether colours change at all.
NUM_JITTER_DRAWS = 7


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
    """Factors of brightness, contrast and saturation are uniform in 1 +- `strength`, applied in a random order.

    With `hue` it turns by up to so much either way; a `share` of the views changes, a share of `grey` loses its colour.
    """

    strength: float = 0.4
    brightness: float | None = None  #: None = `strength`
    saturation: float | None = None  #: None = `strength`
    hue: float = 0.0  #: of a whole turn
    share: float = 1.0
    grey: float = 0.0  #: share of all views

    @property
    def is_strong(self) -> bool:
        """Whether hue or grey have a say, which costs time."""
        return self.hue > 0 or self.grey > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingCrop:
    """The largest box of the wanted shape, at a random place: the short side is kept, the long one cut (MultiMAE)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledCrop:
    """The picture's longest side is that of the crop times a number in `scale`; a box at a random place, padded at the
    right and below where it leaves the picture (MultiMAE's augmentation for classes of pixels).
    """

    scale: tuple[float, float] = (0.1, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What may be done to a sample."""

    swap: bool = False  #: exchange the views of a pair with probability 1/2
    crop: ShiftedCrop | ResizedCrop | SlidingCrop | ScaledCrop | None = None  #: of each view by itself
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
    """How the colours of a view of some samples (N,) change, as `transforms.change_colours` takes it: (N, 4) or (N, 6).

    Three factors and an order; of a strong jitter also the turn of the hue, and whether colour goes.
    """
    draws = draw(seed, epoch, samples, JITTER_PURPOSES[view], NUM_JITTER_DRAWS)
    strengths = [jitter.strength if each is None else each for each in (jitter.brightness, None, jitter.saturation)]
    draws[:, :3] = 1 + np.array(strengths) * (2 * draws[:, :3] - 1)
    draws[:, 3] = np.floor(draws[:, 3] * (24 if jitter.is_strong else 6))
    draws[:, 4] = jitter.hue * (2 * draws[:, 4] - 1)
    unchanged = draws[:, 6] >= jitter.share
    draws[unchanged, :3], draws[unchanged, 4] = 1, 0
    draws[:, 5] = draws[:, 5] < jitter.grey
    return draws[:, : NUM_STRONG_JITTER if jitter.is_strong else NUM_JITTER].astype(np.float32)


def view_box(
    augmentation: Augmentation, draws: Draws, place: int, view: int, height: int, width: int, ratio: float = 1.0
) -> Box:
    """The part of a view of (height, width) pixels that is given, by the draws of the sample at `place`.

    `ratio` is the width by height of what is given, where the crop has to know.
    """
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
        case SlidingCrop():
            box = sliding_box(own, height, width, ratio)
        case ScaledCrop(scale=scale):
            box = scaled_box(own, height, width, ratio, scale)
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
