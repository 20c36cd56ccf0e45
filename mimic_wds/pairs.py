"""The core types: what flows from one stage to the next.

Conventions of the whole project, stated once:

- The two views of a pair are 0 and 1, as a suffix. ``H_0to1`` takes pixel (x, y, 1) of image 0 to image 1.
- Images are (height, width, 3) uint8 RGB. Points are (x, y); arrays are (rows, columns).
- Patches are numbered in raster order from the top left, from 0; -1 means "none". L is the number of patches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: Image: (H, W, 3) uint8 RGB.
Image: TypeAlias = NDArray[np.uint8]

#: What the samples of a data set are: pairs of views, or single images.
Kind: TypeAlias = Literal["pairs", "images"]


class DropReason(StrEnum):
    """Why a candidate pair was not kept. Every candidate is kept or has exactly one of these."""

    UNREADABLE = "unreadable"  #: one of the views could not be read (it is counted as a fault, too)
    EMPTY_VIEW = "empty_view"  #: too much of one of the views, rendered from a scan, shows nothing
    VETOED = "vetoed"  #: the recipe's image filter refused one of the views
    LOW_TEXTURE = "low_texture"  #: one of the views is blurred or bare: Laplacian variance below ``min_texture``
    NO_DEPTH = "no_depth"  #: the overlap is to be that of depth and poses, but a view has none
    NO_KEYPOINTS = "no_keypoints"  #: one of the views has none
    TOO_FEW_MATCHES = "too_few_matches"  #: fewer than ``min_matches`` pass the ratio test
    NO_HOMOGRAPHY = "no_homography"  #: RANSAC found none
    BAD_HOMOGRAPHY = "bad_homography"  #: it is singular or not finite
    TOO_FEW_INLIERS = "too_few_inliers"  #: below ``min_inliers`` or ``min_inlier_ratio``
    IMPLAUSIBLE_WARP = "implausible_warp"  #: folds a frame over, or scales it by more than ``max_scale``
    ZOOM = "zoom"  #: one view lies wholly within the other
    OVERLAP_TOO_SMALL = "overlap_too_small"
    OVERLAP_TOO_LARGE = "overlap_too_large"
    NEAR_DUPLICATE = "near_duplicate"  #: looks like a pair of the scene that is kept already
    DUPLICATE_KEY = "duplicate_key"  #: a pair of the same key is kept already
    NOT_SELECTED = "not_selected"  #: within the bounds, but the policy keeps another pair of the group


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Camera:
    """The pinhole camera of a view. World: metres. Camera axes: x right, y down, z forward (OpenCV's)."""

    intrinsics: NDArray[np.float64]  #: (3, 3) K; whole numbers are pixel centres
    pose: NDArray[np.float64]  #: (4, 4) camera to world


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """One picture of a scene, as a source reads it (any size)."""

    image: Image  #: (H, W, 3) uint8 RGB
    frame: str  #: names the view within its scene; becomes part of the sample key
    time_s: float = -1.0  #: time stamp in seconds; -1 = the source has no clock
    camera: Camera | None = None  #: None = not known
    depth: NDArray[np.float32] | None = None  #: (H, W) metres along the optical axis, 0 = not known
    unusable: DropReason | None = None  #: why the source would not have it in a pair


@dataclass(frozen=True, slots=True)
class Fault:
    """A file or frame that could not be used. Counted by reason; never stops a build."""

    reason: str  #: "unreadable_image", "too_small", ...
    where: str  #: which file or frame, for the log
    frame: str = ""  #: set when it stands in the place of this view: its candidates are dropped as unreadable


class SceneError(ValueError):
    """A whole scene that cannot be read (a broken video, say): the outcome of that scene, not the end of a build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The unit of work: views that may overlap each other. Cheap to list; nothing is read yet."""

    source: str  #: name in the registry of sources, e.g. "video"
    name: str  #: unique within its source, the same in every build of the same input
    path: str  #: file or folder that it is read from
    num_bytes: int = 0  #: size of what is read, so that the largest scenes start first; 0 = not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Policy for ordered views: try (i, i+1); with ``retry``, on too large an overlap try (i, i+2).

    After a kept retry the chain goes on from i+2, otherwise from i+1 (MIMIC, arXiv 2306.15128, appendix C.1).
    """

    retry: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AllPairs:
    """Policy for unordered views: try every pair (i, j), i < j, of a scene.

    keep="all" keeps every accepted pair, keep="smallest" the one with the smallest accepted overlap (first of equals).
    max_gap > 0 tries only pairs with j - i <= max_gap.
    """

    keep: Literal["all", "smallest"] = "all"
    max_gap: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Policy for views that come in groups of ``heads + tails``: each head is tried with each tail of its group.

    Of every group the pair with the smallest accepted overlap is kept (first of equals). ScanNet's windows are 10 heads
    and 10 tails (MIMIC, appendix C.1), fixed frame gaps 1 and 1, the walk through a 3D scene 8 and 16. The source
    chooses which frames make up a group, and reads no others. Faults keep their place in the group.
    """

    heads: int
    tails: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Policy for pairs that are known already: try these, named by the frames of their views, in this order."""

    pairs: tuple[tuple[str, str], ...]


Policy: TypeAlias = Chain | AllPairs | Windows | Listed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlap:
    """How two views overlap: one homography and the patch correspondences it gives."""

    ratio: float  #: share of patches with a distinct counterpart, smaller of both directions, in [0, 1]
    corr_0to1: NDArray[np.int16]  #: (L,) for each patch of image 0 the patch of image 1, or -1; one-to-one
    H_0to1: NDArray[np.float64]  #: (3, 3)
    num_matches: int
    num_inliers: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairSample:
    """A kept pair as it is stored: one sample of a shard."""

    kind: ClassVar[Kind] = "pairs"

    key: str  #: [a-z0-9_-] only, unique in the data set
    image0_jpg: bytes
    image1_jpg: bytes
    corr_0to1: NDArray[np.int16]  #: (L,) for each patch of image 0 the patch of image 1, or -1
    overlap: float  #: in [0, 1]
    H_0to1: NDArray[np.float64]  #: (3, 3)
    num_inliers: int
    size: tuple[int, int]  #: (height, width) of both images
    patch_size: int
    source: str
    scene: str
    frame0: str
    frame1: str
    time0_s: float = -1.0  #: -1 = the source has no clock
    time1_s: float = -1.0
    truth: "PairTruth | None" = None  #: what a renderer knows of the pair; None = not asked for
    maps: Mapping[str, bytes] = field(default_factory=dict)  #: what is stored beside it: "0.depth.png" -> its bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairTruth:
    """What a renderer knows of a pair, at the size of the stored views."""

    camera0: Camera | None  #: None = not known
    camera1: Camera | None
    covisibility: float = -1.0  #: CroCo's 3D measure (geometry/covisibility.py), in [0, 1]; -1 = not known


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSample:
    """A single image as it is stored: one sample of a shard of images."""

    kind: ClassVar[Kind] = "images"

    key: str  #: [a-z0-9_-] only, unique in the data set
    image_jpg: bytes
    size: tuple[int, int]  #: (height, width), of this image
    source: str
    scene: str  #: name of its class, "" = none
    frame: str
    label: int = -1  #: number of its class in the manifest's `classes`; -1 = none
    camera: Camera | None = None  #: stored if it is there
    maps: Mapping[str, bytes] = field(default_factory=dict)  #: what is stored beside it: "0.depth.png" -> its bytes


#: A record of a shard; all those of a data set are of one kind.
Sample: TypeAlias = PairSample | ImageSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What happened to the candidates of a scene, or of a whole build. Always adds up: kept + dropped = candidates."""

    kept: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)  #: DropReason value -> candidates
    faults: Mapping[str, int] = field(default_factory=dict)  #: reason -> files or frames that could not be read
    views: int = 0  #: views read

    @property
    def candidates(self) -> int:
        """Pairs tried."""
        return self.kept + sum(self.dropped.values())

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            kept=self.kept + other.kept,
            dropped=_add(self.dropped, other.dropped),
            faults=_add(self.faults, other.faults),
            views=self.views + other.views,
        )


def _add(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in sorted({*a, *b})}


def invert_correspondences(corr: NDArray[np.int16]) -> NDArray[np.int16]:
    """Turn a one-to-one map (L,) round: corr_0to1 to corr_1to0 and back, -1 = none."""
    inverted = np.full_like(corr, -1)
    (used,) = np.nonzero(corr >= 0)
    inverted[corr[used]] = used
    return inverted
