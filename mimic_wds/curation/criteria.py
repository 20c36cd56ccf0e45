"""What makes a pair good enough: thresholds of the overlap, the size views are brought to, and two presets of them."""

from dataclasses import dataclass, replace
from typing import Literal

from mimic_wds.curation.checks import is_plausible, is_zoom
from mimic_wds.geometry.estimator import ESTIMATORS
from mimic_wds.geometry.patches import PatchGrid
from mimic_wds.pairs import DropReason, Overlap
from mimic_wds.settings import nearest

#: The estimator that needs no keypoints: what the renderer knows.
TRUTH = "truth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Thresholds of a build. Defaults: MIMIC's (arXiv 2306.15128) with exact votes; checks beyond it are off (0)."""

    min_overlap: float = 0.50  #: a kept pair overlaps more than this (section 3, appendix C) ...
    max_overlap: float = 0.75  #: ... and less than this (section 3 says 70 %, appendix C and the code 75 %)
    size: int = 224  #: pixels; views are brought to size x size before anything is measured (appendix C)
    fit: Literal["squash", "crop"] = "squash"  #: squash the aspect ratio (appendix C), or crop the centre square
    patch_size: int = 16  #: pixels (section 3)
    estimator: str = "homography"  #: what measures the overlap (section 3): a name in geometry/estimator.py, or ...
    #: ... "truth": depth and poses of rendered views; no homography is stored then
    points_per_patch: int = 0  #: points that vote for a patch; 0 = all its pixels, exact; the paper draws 100 (app. C)
    fold_horizon: bool = False  #: as the code: points behind the horizon fall back into the image instead of "out"
    lowe_ratio: float = 0.7  #: of a match's distance to the second best (appendix C)
    min_matches: int = 11  #: that pass the ratio test (appendix C: more than 10)
    ransac_px: float = 5.0  #: reprojection threshold (appendix C)
    jpeg_quality: int = 95  #: of the stored views (the code's)

    min_inliers: int = 0  #: matches that the homography must agree with
    min_inlier_ratio: float = 0.0  #: share of the matches that it must agree with
    max_scale: float = 0.0  #: drop homographies that fold a frame over or scale it by more than this
    drop_zooms: bool = False  #: drop a pair when one view lies wholly within the other
    min_texture: float = 0.0  #: Laplacian variance of a view (appendix C.1 asks 1000 of rendered ones)
    min_hash_bits: int = 0  #: drop pairs whose difference hashes differ by fewer bits (of 64) from a kept one's
    max_pairs_per_scene: int = 0  #: leave a scene when it has given so many
    blur_faces: bool = False  #: blur the faces that a detector finds (docs/privacy.md)
    store_truth: bool = False  #: store what a renderer knows: cameras and co-visibility (docs/shard-format.md)
    store_depth: bool = False  #: store the depth of rendered views
    image_filter: str = ""  #: "package.module:function" or an entry point that says which frames may be used

    def __post_init__(self) -> None:
        if not 0 <= self.min_overlap < self.max_overlap <= 1:
            raise ValueError(f"need 0 <= min_overlap < max_overlap <= 1, got {self.min_overlap} and {self.max_overlap}")
        if not 0 < self.lowe_ratio <= 1:
            raise ValueError(f"lowe_ratio must lie in (0, 1], got {self.lowe_ratio}")
        if self.min_matches < 4:
            raise ValueError(f"min_matches must be 4 or more (a homography needs four points), got {self.min_matches}")
        if self.points_per_patch < 0 or self.ransac_px <= 0:
            raise ValueError("points_per_patch must be 0 or more and ransac_px above 0")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must lie in 1..100, got {self.jpeg_quality}")
        if self.max_scale and self.max_scale <= 1:
            raise ValueError(f"max_scale must be above 1, or 0 for no limit, got {self.max_scale}")
        for name in ("min_inliers", "min_inlier_ratio", "min_texture", "min_hash_bits", "max_pairs_per_scene"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 (off) or more, got {getattr(self, name)}")
        known = [*ESTIMATORS, TRUTH]
        if self.estimator == TRUTH and (self.min_inliers or self.min_inlier_ratio or self.max_scale or self.drop_zooms):
            raise ValueError(
                "the true overlap has no homography: leave out max_scale, drop_zooms and checks of inliers"
            )
        if self.estimator not in known:
            raise ValueError(f"unknown estimator {self.estimator!r}{nearest(self.estimator, known)}")
        _ = self.grid

    @property
    def grid(self) -> PatchGrid:
        """The patch grid of a view. Raises ValueError when `size` is no multiple of `patch_size`."""
        return PatchGrid(self.size, self.size, self.patch_size)

    def judge(self, measured: Overlap | DropReason) -> Overlap | DropReason:
        """Keep a measured overlap strictly within the bounds that passes the checks, else the reason why not."""
        if isinstance(measured, DropReason):
            return measured
        if -1 < measured.num_inliers < max(self.min_inliers, self.min_inlier_ratio * measured.num_matches):
            return DropReason.TOO_FEW_INLIERS
        if self.max_scale and not is_plausible(measured.H_0to1, self.size, self.max_scale):
            return DropReason.IMPLAUSIBLE_WARP
        if measured.ratio <= self.min_overlap:
            return DropReason.OVERLAP_TOO_SMALL
        if measured.ratio >= self.max_overlap:
            return DropReason.OVERLAP_TOO_LARGE
        return DropReason.ZOOM if self.drop_zooms and is_zoom(measured.H_0to1, self.size) else measured


#: "default" mends the defects of the released code; "paper" draws 100 points a patch and folds the horizon as it did.
PRESETS = {"default": Criteria(), "paper": replace(Criteria(), points_per_patch=100, fold_horizon=True)}


def preset(name: str) -> Criteria:
    """The named criteria. Raises ValueError naming the known ones."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}{nearest(name, list(PRESETS))}")
    return PRESETS[name]
