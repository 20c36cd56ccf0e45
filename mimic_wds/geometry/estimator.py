"""What measures the overlap of two views, behind one small interface: images and features in, an `Overlap` out.

To add an estimator, write its module with a frozen dataclass of plain options and name the class in `ESTIMATORS`;
`tools/bench_overlap_truth.py` scores it against rendered truth.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from mimic_wds.geometry import features, homography, overlap
from mimic_wds.geometry.features import Features
from mimic_wds.geometry.patches import PatchGrid
from mimic_wds.pairs import DropReason, Image, Overlap


class OverlapEstimator(Protocol):
    """Measures how two views overlap."""

    name: ClassVar[str]

    def describe(self, image: Image) -> Features:
        """What `measure` needs of an image (H, W, 3), computed once however many pairs it is in."""
        ...

    def measure(
        self,
        image0: Image,
        features0: Features,
        image1: Image,
        features1: Features,
        grid: PatchGrid,
        rng: np.random.Generator | None = None,
    ) -> Overlap | DropReason:
        """How two views overlap, or why that cannot be told. All that is random comes from `rng`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HomographyEstimator:
    """SIFT, Lowe's ratio test, one homography by RANSAC (MIMIC, arXiv 2306.15128, section 3 and appendix C).

    Exact for planar scenes and for cameras that only turn; under translation it says too much.
    """

    name: ClassVar[str] = "homography"

    lowe_ratio: float = features.LOWE_RATIO
    min_matches: int = overlap.MIN_MATCHES
    ransac_px: float = homography.RANSAC_PX
    points_per_patch: int = 0  #: drawn from `rng`; 0 = all pixels vote, nothing is random
    fold_horizon: bool = False  #: as the released code: points behind the horizon fall back into the image

    def describe(self, image: Image) -> Features:
        """SIFT keypoints of an image (H, W, 3)."""
        return features.extract(image)

    def measure(
        self,
        image0: Image,
        features0: Features,
        image1: Image,
        features1: Features,
        grid: PatchGrid,
        rng: np.random.Generator | None = None,
    ) -> Overlap | DropReason:
        """The overlap under the homography that the matched keypoints agree on."""
        return overlap.measure(
            features0,
            features1,
            grid,
            ratio=self.lowe_ratio,
            min_matches=self.min_matches,
            ransac_px=self.ransac_px,
            num_points=self.points_per_patch,
            folded=self.fold_horizon,
            rng=rng,
        )


ESTIMATORS: dict[str, type[HomographyEstimator]] = {HomographyEstimator.name: HomographyEstimator}
