"""The true overlap of two views whose depth and poses are known, to measure overlap estimators against.

The same patches and the same vote as `mimic_wds.geometry.overlap`, with the surface itself in the homography's place:

1. every pixel of view 0 is lifted by its depth and projected into view 1; it lands in the nearest pixel there, or it is
   "out": no surface, behind the camera, beyond the border, or hidden, when view 1 sees another depth there;
2. a patch goes to the patch that most of its pixels land in; "out" competes; of equals the one that reaches the winning
   count first wins;
3. one-to-one in raster order, and the smaller of both directions, ties keep the inverted 1-to-0 map.

Pixel (column c, row r) has its centre at (c + 0.5, r + 0.5), camera axes are OpenCV's (x right, y down, z forward), and
depth is measured along z. Views keep their own resolution; their patches are those of the grid that the estimator saw,
as shares of the picture: an image squashed to the grid's size has the same ones.
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mimic_wds.geometry.overlap import one_to_one, overlap_ratio
from mimic_wds.geometry.patches import PatchGrid
from mimic_wds.pairs import invert_correspondences

#: A pixel is seen in the other view if the depth there is its own within TOLERANCE_M + TOLERANCE_SHARE * depth.
#: Both were fitted: with them the shares of visible pixels of 50 rendered pairs are those stated with the renders, to
#: the last digit. Wide enough for the nearest pixel of a slanted surface, narrow enough to tell a thing from the wall
#: behind it.
TOLERANCE_M = 0.01
TOLERANCE_SHARE = 0.015

#: Bounds of an accepted overlap in points, strict: MIMIC's (arXiv 2306.15128), appendix C and section 3.
BOUNDS = {"50-75": (50.0, 75.0), "50-70": (50.0, 70.0)}

#: Name -> figure; None where there is nothing to take it of.
Figures: TypeAlias = dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PosedDepth:
    """What one view sees, and from where. Raises ValueError on arrays of other shapes and on impossible cameras."""

    depth_m: NDArray[np.float64]  #: (H, W) along the camera's z axis; 0 = no surface
    K: NDArray[np.float64]  #: (3, 3) intrinsics, in pixels of `depth_m`
    camera_to_world: NDArray[np.float64]  #: (4, 4), metres

    def __post_init__(self) -> None:
        if self.depth_m.ndim != 2:
            raise ValueError(f"depth must be (height, width), got shape {self.depth_m.shape}")
        for name, matrix, side in (("K", self.K, 3), ("the pose", self.camera_to_world, 4)):
            if matrix.shape != (side, side) or not np.isfinite(matrix).all():
                raise ValueError(f"{name} must be {side} x {side} finite numbers, got shape {matrix.shape}")
        if not np.array_equal(self.K[2], (0, 0, 1)) or self.K[0, 0] <= 0 or self.K[1, 1] <= 0 or self.K[1, 0]:
            raise ValueError("K must be fx s cx, 0 fy cy, 0 0 1 with fx and fy above 0")
        rotation = self.camera_to_world[:3, :3]
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
            raise ValueError("the pose is not a rotation and a translation (camera to world)")
        if not np.array_equal(self.camera_to_world[3], (0, 0, 0, 1)):
            raise ValueError("the last row of the pose must be 0 0 0 1")


@dataclass(frozen=True, slots=True, eq=False)
class TrueOverlap:
    """How two views truly overlap."""

    ratio: float  #: share of patches with a distinct counterpart, smaller of both directions, in [0, 1]
    corr_0to1: NDArray[np.int16]  #: (L,) as `mimic_wds.pairs.Overlap` has it
    winners_0to1: NDArray[np.int64]  #: (L,) the patch of view 1 that each patch of view 0 goes to; L = "out"
    winners_1to0: NDArray[np.int64]  #: (L,) the other way

    def places(self) -> NDArray[np.bool_]:
        """(L, L): True where most pixels of patch i of view 0 land in patch j of view 1, or the other way round."""
        num_patches = len(self.corr_0to1)
        table = np.zeros((num_patches, num_patches), bool)
        patches = np.arange(num_patches)
        for winners, cells in ((self.winners_0to1, table), (self.winners_1to0, table.T)):
            inside = winners < num_patches
            cells[patches[inside], winners[inside]] = True
        return table


@dataclass(frozen=True, slots=True, eq=False)
class CorrespondenceErrors:
    """How far estimated correspondences lie from the true ones."""

    distances: NDArray[np.int64]  #: (N,) in patches, of the estimated ones that have a true place; a diagonal step is 1
    num_phantom: int  #: patches with an estimated counterpart but no true place: hidden or out of the picture
    num_missed: int  #: patches with a true counterpart that the estimate leaves without


def true_overlap(view0: PosedDepth, view1: PosedDepth, grid: PatchGrid, *, occlusion: bool = True) -> TrueOverlap:
    """The overlap that depth and poses give, on the patches of `grid`; without `occlusion` nothing hides anything."""
    forward = patch_winners(view0, view1, grid, occlusion=occlusion)
    backward = patch_winners(view1, view0, grid, occlusion=occlusion)
    corr_0to1, corr_1to0 = one_to_one(forward), one_to_one(backward)
    smaller = np.count_nonzero(corr_0to1 >= 0) < np.count_nonzero(corr_1to0 >= 0)
    corr = corr_0to1 if smaller else invert_correspondences(corr_1to0)
    return TrueOverlap(overlap_ratio(corr), corr, forward, backward)


def patch_winners(
    source: PosedDepth, target: PosedDepth, grid: PatchGrid, *, occlusion: bool = True
) -> NDArray[np.int64]:
    """The patch of `target` that most pixels of each patch of `source` land in, (L,); L for "out"."""
    pixels = landing_pixels(source, target, occlusion=occlusion)
    target_patches = np.append(pixel_patches(target.depth_m.shape, grid).ravel(), grid.num_patches)
    source_patches = pixel_patches(source.depth_m.shape, grid)
    return plurality(source_patches.ravel(), target_patches[pixels.ravel()], grid.num_patches)


def landing_pixels(source: PosedDepth, target: PosedDepth, *, occlusion: bool = True) -> NDArray[np.int64]:
    """For each pixel of `source` the flat index of the pixel of `target` that shows the same point, (H, W); -1 = none.

    The nearest pixel is taken. With `occlusion` the depth there must agree (`TOLERANCE_M`, `TOLERANCE_SHARE`).
    """
    x, y, z = project(source, target)
    height, width = target.depth_m.shape
    seen = (source.depth_m > 0) & (z > 0) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
    column, row = np.where(seen, x, 0).astype(np.int64), np.where(seen, y, 0).astype(np.int64)
    if occlusion:
        there = target.depth_m[row, column]
        seen &= np.abs(z - there) < TOLERANCE_M + TOLERANCE_SHARE * there
    return np.where(seen, row * width + column, -1)


def project(
    source: PosedDepth, target: PosedDepth
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Where each pixel centre of `source` lies in `target`: x and y in pixels and z in metres, (H, W) each.

    x and y mean nothing where z <= 0 (behind the camera) or the source has no depth.
    """
    target_from_source = np.linalg.inv(target.camera_to_world) @ source.camera_to_world
    row, column = np.indices(source.depth_m.shape)
    centres = np.stack([column + 0.5, row + 0.5, np.ones(row.shape)], axis=-1)
    points = centres @ np.linalg.inv(source.K).T * source.depth_m[..., None]
    moved = points @ target_from_source[:3, :3].T + target_from_source[:3, 3]
    x, y, z = np.moveaxis(moved @ target.K.T, -1, 0)
    in_front = np.where(z > 0, z, 1)  # K's last row is 0 0 1, so this is z itself
    return x / in_front, y / in_front, z


def pixel_patches(shape: tuple[int, ...], grid: PatchGrid) -> NDArray[np.int64]:
    """The patch of each pixel of a picture of `shape` that is cut in as many rows and columns as `grid`, (H, W).

    A pixel belongs to the patch that its top left corner lies in.
    """
    height, width = shape
    rows = np.arange(height) * grid.rows // height
    columns = np.arange(width) * grid.cols // width
    return np.asarray(rows[:, None] * grid.cols + columns, np.int64)


def plurality(patches: NDArray[np.int64], labels: NDArray[np.int64], num_patches: int) -> NDArray[np.int64]:
    """The most frequent label of each patch, (L,); patches and labels (N,) name patch and vote of every point.

    Labels are patches of the other view or L, "out". Patches may have different numbers of points, at least one each.
    Of equals the label that reaches its full count first wins, as in `mimic_wds.geometry.overlap`.
    """
    num_labels = num_patches + 1
    cells = patches * num_labels + labels
    counts = np.bincount(cells, minlength=num_patches * num_labels).reshape(num_patches, num_labels)
    last = np.full(num_patches * num_labels, len(cells))
    last[cells] = np.arange(len(cells))  # of repeated cells the last assignment stays
    is_winner = counts == counts.max(axis=1, keepdims=True)
    return np.asarray(np.where(is_winner, last.reshape(counts.shape), len(cells) + 1).argmin(axis=1), np.int64)


def correspondence_errors(corr_0to1: NDArray[np.int16], truth: TrueOverlap, grid: PatchGrid) -> CorrespondenceErrors:
    """Compare estimated correspondences (L,) with the truth.

    A patch's true places are where most of its pixels land in view 1, and the patches of view 1 most of whose pixels
    land in it: a one-to-one map comes from either direction, so both count, and the truth scores 0 against itself.
    """
    places = truth.places()
    (mapped,) = np.nonzero(corr_0to1 >= 0)
    has_place = places[mapped].any(axis=1)
    steps = np.where(places[mapped], patch_distances(grid)[corr_0to1[mapped]], grid.num_patches)
    return CorrespondenceErrors(
        distances=steps.min(axis=1, initial=grid.num_patches)[has_place],
        num_phantom=int(np.count_nonzero(~has_place)),
        num_missed=int(np.count_nonzero((truth.corr_0to1 >= 0) & (corr_0to1 < 0))),
    )


def patch_distances(grid: PatchGrid) -> NDArray[np.int64]:
    """Steps from patch to patch, (L, L); the eight neighbours of a patch are one step away."""
    places = np.stack(np.divmod(np.arange(grid.num_patches), grid.cols), axis=1)
    return np.asarray(np.abs(places[:, None] - places[None]).max(axis=2), np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScore:
    """What the estimator said of one pair, and the truth; overlaps in points, 0..100. The rest counts patches."""

    folder: str
    view0: str
    view1: str
    kind: str
    true: float
    measure_ms: float
    stored: float | None  #: the true overlap that pairs.json states
    estimated: float | None = None  #: None = not measured
    dropped: str = ""  #: why not
    distances: dict[int, int] = field(default_factory=dict)  #: patches off -> estimated correspondences
    phantom: int = 0  #: estimated correspondences of patches that are hidden or out in truth
    missed: int = 0  #: true correspondences of patches that the estimate leaves without
    num_true: int = 0  #: true correspondences


def score_figures(scores: Sequence[PairScore]) -> Figures:
    """The figures of some pairs; a figure of nothing is None."""
    measured = [s for s in scores if s.estimated is not None]
    figures: Figures = {"pairs": len(scores), "measured": len(measured)}
    figures["measure_ms"] = statistics.median(s.measure_ms for s in scores)
    figures |= overlap_figures(measured) | correspondence_figures(measured)
    for name, bounds in BOUNDS.items():
        figures |= {f"{key} {name}": value for key, value in acceptance(scores, *bounds).items()}
    return figures


def overlap_figures(scores: Sequence[PairScore]) -> Figures:
    """Errors of the overlap in points; all pairs are measured ones."""
    if not scores:
        return dict.fromkeys(("true", "estimated", "bias", "mean_error", "median_error", "p90_error", "worst_error"))
    true, estimated = np.array([(s.true, s.estimated) for s in scores]).T
    errors = np.abs(estimated - true)
    return {
        "true": float(true.mean()),
        "estimated": float(estimated.mean()),
        "bias": float((estimated - true).mean()),
        "mean_error": float(errors.mean()),
        "median_error": float(np.median(errors)),
        "p90_error": float(np.quantile(errors, 0.9)),
        "worst_error": float(errors.max()),
    }


def acceptance(scores: Sequence[PairScore], low: float, high: float) -> Figures:
    """Precision and recall of "overlap strictly within the bounds"; a pair that was not measured is not accepted."""
    in_range = [low < s.true < high for s in scores]
    accepted = [s.estimated is not None and low < s.estimated < high for s in scores]
    right = sum(a and t for a, t in zip(accepted, in_range, strict=True))
    return {
        "in_range": sum(in_range),
        "accepted": sum(accepted),
        "right": right,
        "precision": _share(right, sum(accepted)),
        "recall": _share(right, sum(in_range)),
    }


def correspondence_figures(scores: Sequence[PairScore]) -> Figures:
    """Accuracy of the patch correspondences, those of all pairs together; all pairs are measured ones."""
    distances: Counter[int] = sum((Counter(s.distances) for s in scores), Counter())
    placed, phantom = distances.total(), sum(s.phantom for s in scores)
    return {
        "mapped": placed + phantom,
        "mean_distance": _share(sum(steps * count for steps, count in distances.items()), placed),
        "exact": _share(distances[0], placed),
        "within_1": _share(distances[0] + distances[1], placed),
        "phantom": _share(phantom, placed + phantom),
        "missed": _share(sum(s.missed for s in scores), sum(s.num_true for s in scores)),
    }


def _share(part: float, whole: float) -> float | None:
    """part / whole, None of nothing."""
    return part / whole if whole else None
