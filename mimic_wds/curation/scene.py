"""One scene -> its kept pairs: views are brought to size and described once, then every candidate is judged."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from mimic_wds.curation.criteria import Criteria, fit_image
from mimic_wds.curation.selection import Candidate, Outcome, select
from mimic_wds.geometry import features, overlap
from mimic_wds.geometry.features import Features
from mimic_wds.pairs import Counts, DropReason, Fault, Image, Overlap, PairSample, Policy, Scene, View
from mimic_wds.storage.layout import sample_key


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DescribedView:
    """A view at the size of the data set with its features, computed once however many pairs it is tried in.

    One that cannot be used keeps its place with the reason why, so that its candidates are counted.
    """

    frame: str
    image: Image = field(default_factory=lambda: np.empty((0, 0, 3), np.uint8))  #: (size, size, 3)
    features: Features = field(default_factory=features.none)
    time_s: float = -1.0
    unusable: DropReason | None = None


class Tally:
    """Counts what happens while a scene is curated."""

    def __init__(self) -> None:
        self.kept = 0
        self.views = 0
        self.dropped: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def counts(self) -> Counts:
        """The counts so far."""
        return Counts(kept=self.kept, dropped=dict(self.dropped), faults=dict(self.faults), views=self.views)


def curate(
    scene: Scene, views: Iterable[View | Fault], policy: Policy, criteria: Criteria, tally: Tally
) -> Iterator[PairSample]:
    """Yield the kept pairs of a scene in order, counting every view, fault and candidate in `tally`."""
    described = describe(views, criteria, tally)
    for candidate in select(policy, described, lambda a, b: judge(scene, a, b, criteria)):
        if isinstance(candidate.outcome, Overlap):
            tally.kept += 1
            yield pack(scene, candidate, candidate.outcome, criteria)
        else:
            tally.dropped[candidate.outcome.value] += 1


def describe(views: Iterable[View | Fault], criteria: Criteria, tally: Tally) -> Iterator[DescribedView]:
    """Bring each view to size and compute its features; count what cannot be used."""
    for view in views:
        if isinstance(view, Fault):
            tally.faults[view.reason] += 1
            if view.frame:
                yield DescribedView(frame=view.frame, unusable=DropReason.UNREADABLE)
            continue
        tally.views += 1
        image = fit_image(view.image, criteria)
        yield DescribedView(frame=view.frame, image=image, features=features.extract(image), time_s=view.time_s)


def judge(scene: Scene, view0: DescribedView, view1: DescribedView, criteria: Criteria) -> Outcome:
    """Measure the overlap of two views and hold it against the criteria."""
    if unusable := view0.unusable or view1.unusable:
        return unusable
    key = sample_key(scene.source, scene.name, view0.frame, view1.frame)
    measured = overlap.measure(
        view0.features,
        view1.features,
        criteria.grid,
        ratio=criteria.lowe_ratio,
        min_matches=criteria.min_matches,
        ransac_px=criteria.ransac_px,
        num_points=criteria.points_per_patch,
        rng=pair_generator(key, criteria),
    )
    return criteria.judge(measured)


def pair_generator(key: str, criteria: Criteria) -> np.random.Generator | None:
    """The generator of a pair's sampled points, seeded by its key alone, so no order of work changes it; or None."""
    if criteria.points_per_patch == 0:
        return None
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"))


def stored_correspondences(sample: PairSample, criteria: Criteria) -> np.ndarray:
    """The (L,) correspondences that a sample's stored homography gives under `criteria`, to check it against."""
    points = overlap.vote_points(criteria.grid, criteria.points_per_patch, pair_generator(sample.key, criteria))
    return overlap.correspondences(sample.H_0to1, criteria.grid, *points)


def pack(scene: Scene, candidate: Candidate[DescribedView], measured: Overlap, criteria: Criteria) -> PairSample:
    """Encode a kept pair for storage."""
    view0, view1 = candidate.view0, candidate.view1
    return PairSample(
        key=sample_key(scene.source, scene.name, view0.frame, view1.frame),
        image0_jpg=encode_jpeg(view0.image, criteria.jpeg_quality),
        image1_jpg=encode_jpeg(view1.image, criteria.jpeg_quality),
        corr_0to1=measured.corr_0to1,
        overlap=measured.ratio,
        H_0to1=measured.H_0to1,
        num_inliers=measured.num_inliers,
        size=(criteria.size, criteria.size),
        patch_size=criteria.patch_size,
        source=scene.source,
        scene=scene.name,
        frame0=view0.frame,
        frame1=view1.frame,
        time0_s=view0.time_s,
        time1_s=view1.time_s,
    )


def encode_jpeg(image: Image, quality: int) -> bytes:
    """Baseline JPEG, 4:2:0, of an (H, W, 3) RGB image."""
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return data.tobytes()
