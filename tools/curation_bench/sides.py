"""What both sides of the benchmark share: settings, random points, the clock, how results are compared."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from mimic_wds.curation.criteria import Criteria
from mimic_wds.geometry import overlap
from mimic_wds.geometry.estimator import HomographyEstimator
from mimic_wds.pairs import DropReason, Image, Overlap

T = TypeVar("T")
Pair: TypeAlias = tuple[Image, Image]
Outcome: TypeAlias = Overlap | DropReason

#: The paper's settings: 100 points of each patch vote, drawn at random.
CRITERIA = Criteria(points_per_patch=100)
ESTIMATOR = HomographyEstimator(points_per_patch=100)


@dataclass
class Measured:
    """Seconds of both ways of a stage, one entry for each time that both did the same work."""

    baseline: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)  #: SIFT of the views and nothing else, where it was measured


class Clock:
    """Collects CPU seconds by name, and whether both sides agreed."""

    def __init__(self) -> None:
        self.stages: dict[str, Measured] = {}
        self.compared = 0
        self.different = 0

    def both(self, name: str, baseline: Callable[[], T], ours: Callable[[], T], *, swap: bool = False) -> tuple[T, T]:
        """Run and time both, in the other order with `swap`; returns what they return."""
        stage = self.stages.setdefault(name, Measured())
        if swap:
            second, first = timed(ours, stage.ours), timed(baseline, stage.baseline)
        else:
            first, second = timed(baseline, stage.baseline), timed(ours, stage.ours)
        return first, second

    def add(self, name: str, baseline_s: float, ours_s: float) -> None:
        """Note seconds that were measured elsewhere."""
        stage = self.stages.setdefault(name, Measured())
        stage.baseline.append(baseline_s)
        stage.ours.append(ours_s)

    def last(self, name: str) -> tuple[float, float]:
        """The newest seconds of a stage."""
        return self.stages[name].baseline[-1], self.stages[name].ours[-1]

    def check(self, expected: object, found: object) -> None:
        """Count a comparison of two results."""
        self.compared += 1
        self.different += expected != found


def timed(function: Callable[[], T], seconds: list[float]) -> T:
    """Call and note the CPU seconds, those of decoding threads included."""
    start = time.process_time()
    result = function()
    seconds.append(time.process_time() - start)
    return result


def ours(image0: Image, image1: Image, number: int) -> Outcome:
    """An isolated pair: both images described, points drawn, overlap measured."""
    features0, features1 = ESTIMATOR.describe(image0), ESTIMATOR.describe(image1)
    return ESTIMATOR.measure(image0, features0, image1, features1, CRITERIA.grid, np.random.default_rng(number))


def draw(number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The random points of a pair, the same for both sides."""
    return overlap.vote_points(CRITERIA.grid, CRITERIA.points_per_patch, np.random.default_rng(number))


def comparable(outcome: Outcome) -> object:
    """All that an outcome says, as plain values."""
    if isinstance(outcome, DropReason):
        return outcome.value
    corr, H = outcome.corr_0to1.tolist(), outcome.H_0to1.tolist()
    return [outcome.ratio, corr, H, outcome.num_matches, outcome.num_inliers]
