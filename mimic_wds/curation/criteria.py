"""What makes a pair good enough: thresholds of the overlap, the size views are brought to, and two presets of them."""

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from mimic_wds.geometry.patches import PatchGrid
from mimic_wds.pairs import DropReason, Image, Overlap
from mimic_wds.settings import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Thresholds of a build. Defaults: MIMIC's (arXiv 2306.15128, appendix C) with exact votes."""

    min_overlap: float = 0.50  #: a kept pair overlaps more than this ...
    max_overlap: float = 0.75  #: ... and less than this (the paper's text says 70 %, its appendix and code 75 %)
    size: int = 224  #: pixels; views are brought to size x size before anything is measured
    fit: Literal["squash", "crop"] = "squash"  #: squash the aspect ratio (the paper), or crop the centre square
    patch_size: int = 16
    points_per_patch: int = 0  #: points that vote for a patch; 0 = all its pixels, exact; the paper draws 100
    lowe_ratio: float = 0.7
    min_matches: int = 11
    ransac_px: float = 5.0
    jpeg_quality: int = 95

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
        _ = self.grid

    @property
    def grid(self) -> PatchGrid:
        """The patch grid of a view. Raises ValueError when `size` is no multiple of `patch_size`."""
        return PatchGrid(self.size, self.size, self.patch_size)

    def judge(self, measured: Overlap | DropReason) -> Overlap | DropReason:
        """Keep a measured overlap strictly within the bounds, else the reason why not."""
        if isinstance(measured, DropReason):
            return measured
        if measured.ratio <= self.min_overlap:
            return DropReason.OVERLAP_TOO_SMALL
        return DropReason.OVERLAP_TOO_LARGE if measured.ratio >= self.max_overlap else measured


#: "default" mends the defects of the released code (exact votes); "paper" draws 100 points a patch as it did.
PRESETS = {"default": Criteria(), "paper": replace(Criteria(), points_per_patch=100)}


def preset(name: str) -> Criteria:
    """The named criteria. Raises ValueError naming the known ones."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}{nearest(name, list(PRESETS))}")
    return PRESETS[name]


def fit_image(image: Image, criteria: Criteria) -> Image:
    """Bring an image to (size, size, 3): squash it (bilinear, the paper) or crop its centre square (area)."""
    if criteria.fit == "crop":
        height, width = image.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    if image.shape[:2] == (criteria.size, criteria.size):
        return image
    interpolation = cv2.INTER_AREA if criteria.fit == "crop" else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (criteria.size, criteria.size), interpolation=interpolation), np.uint8)
