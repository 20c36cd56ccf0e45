"""One candidate pair, step by step: what a build does with it, with everything in between kept to be looked at.

The verdict is that of `scene.judge` itself; what leads to it is computed again by the functions that `judge` uses.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimic_wds.curation.criteria import TRUTH, Criteria
from mimic_wds.curation.scene import DescribedView, Tally, describe, judge, make_estimator, pair_generator
from mimic_wds.curation.selection import Outcome
from mimic_wds.geometry import features, homography, overlap
from mimic_wds.pairs import Fault, Scene, View
from mimic_wds.storage.layout import sample_key


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Votes:
    """Where the patches of one view go in the other. L patches."""

    winners: NDArray[np.intp]  #: (L,) the patch that most of a patch's points fall in; L = "out"
    corr: NDArray[np.int16]  #: (L,) the same one-to-one: -1 for "out" and for those that come second

    @property
    def ratio(self) -> float:
        """Share of patches with a place of their own."""
        return overlap.overlap_ratio(self.corr)

    @property
    def num_out(self) -> int:
        """Patches that leave the other view."""
        return int((self.winners == len(self.corr)).sum())

    @property
    def num_taken(self) -> int:
        """Patches whose place an earlier one has."""
        return len(self.corr) - self.num_out - int((self.corr >= 0).sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """What became of a pair; None from the step on that was not reached."""

    view0: DescribedView
    view1: DescribedView
    matches: NDArray[np.int64] | None = None  #: (M, 2) places in the features of both views
    H_0to1: NDArray[np.float64] | None = None  #: (3, 3)
    inliers: NDArray[np.bool_] | None = None  #: (M,)
    forward: Votes | None = None  #: from view 0 to view 1
    backward: Votes | None = None  #: from view 1 to view 0
    outcome: Outcome


def trace(scene: Scene, views: Iterable[View | Fault], criteria: Criteria) -> Trace:
    """Follow two views of a scene through a build. Raises ValueError for an estimator without keypoints."""
    if criteria.estimator == TRUTH:
        raise ValueError('a pair of pictures has no depth and poses: leave out -c estimator="truth"')
    estimator = make_estimator(criteria)
    view0, view1 = describe(views, criteria, estimator, Tally())
    outcome = judge(scene, view0, view1, criteria, estimator)
    found = Trace(view0=view0, view1=view1, outcome=outcome)
    if view0.unusable or view1.unusable or not (len(view0.features) and len(view1.features)):
        return found
    matches = features.match(view0.features, view1.features, criteria.lowe_ratio)
    points0, points1 = view0.features.points[matches[:, 0]], view1.features.points[matches[:, 1]]
    fitted = homography.fit(points0, points1, criteria.ransac_px) if len(matches) >= criteria.min_matches else None
    if fitted is None:
        return Trace(view0=view0, view1=view1, matches=matches, outcome=outcome)
    H_0to1, inliers = fitted
    forward = backward = None
    if homography.is_usable(H_0to1):
        key = sample_key(scene.source, scene.name, view0.frame, view1.frame)
        drawn = overlap.vote_points(criteria.grid, criteria.points_per_patch, pair_generator(key, criteria))
        ways = (H_0to1, np.linalg.inv(H_0to1).astype(np.float64))
        forward, backward = (_votes(H, points, criteria) for H, points in zip(ways, drawn, strict=True))
    return Trace(
        view0=view0, view1=view1, matches=matches, H_0to1=H_0to1, inliers=inliers, forward=forward, backward=backward,
        outcome=outcome,
    )  # fmt: skip


def _votes(H: NDArray[np.float64], points: NDArray[np.float32], criteria: Criteria) -> Votes:
    winners = overlap.vote(H, criteria.grid, points, criteria.fold_horizon)
    return Votes(winners=winners, corr=overlap.one_to_one(winners))
