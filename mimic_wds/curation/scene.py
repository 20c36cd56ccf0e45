"""One scene -> its kept pairs: views are brought to size and described once, then every candidate is judged."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.curation.checks import difference_hash
from mimic_wds.curation.criteria import TRUTH, Criteria
from mimic_wds.curation.fitting import fit_camera, fit_depth, fit_image
from mimic_wds.curation.image_filter import keeps, load_image_filter
from mimic_wds.curation.privacy import load_face_blur
from mimic_wds.curation.rendered import depth_maps, measure_truth, pair_truth
from mimic_wds.curation.selection import Candidate, Outcome, select
from mimic_wds.geometry import features, overlap
from mimic_wds.geometry.estimator import ESTIMATORS, OverlapEstimator
from mimic_wds.geometry.features import Features
from mimic_wds.pairs import (
    Camera,
    Counts,
    DropReason,
    Fault,
    Image,
    Overlap,
    PairSample,
    Policy,
    Scene,
    View,
)
from mimic_wds.sources.texture import laplacian_variance
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
    camera: Camera | None = None
    depth: NDArray[np.float32] | None = None  #: (size, size) metres
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
    estimator, kept = make_estimator(criteria), Kept(criteria.min_hash_bits)
    described = describe(views, criteria, estimator, tally)
    for candidate in select(policy, described, lambda a, b: judge(scene, a, b, criteria, estimator)):
        outcome = candidate.outcome
        if isinstance(outcome, Overlap):
            sample = pack(scene, candidate, outcome, criteria)
            outcome = kept.refuses(sample.key, candidate.view0.image, candidate.view1.image) or outcome
        if isinstance(outcome, DropReason):
            tally.dropped[outcome.value] += 1
            continue
        tally.kept += 1
        yield sample
        if tally.kept == criteria.max_pairs_per_scene:
            return


def make_estimator(criteria: Criteria) -> OverlapEstimator | None:
    """The estimator that the criteria name; None = depth and poses, no picture is looked at."""
    if criteria.estimator == TRUTH:
        return None
    return ESTIMATORS[criteria.estimator](
        lowe_ratio=criteria.lowe_ratio,
        min_matches=criteria.min_matches,
        ransac_px=criteria.ransac_px,
        points_per_patch=criteria.points_per_patch,
        fold_horizon=criteria.fold_horizon,
    )


class Kept:
    """The kept pairs of a scene, to tell another one that is the same or nearly so."""

    def __init__(self, min_hash_bits: int):
        self._min_bits = min_hash_bits
        self._keys: set[str] = set()
        self._hashes: list[tuple[int, int]] = []

    def refuses(self, key: str, image0: Image, image1: Image) -> DropReason | None:
        """Why a pair must not be kept beside the others; if None, it is one of them from now on."""
        if key in self._keys:
            return DropReason.DUPLICATE_KEY
        if self._min_bits:
            looks = difference_hash(image0), difference_hash(image1)
            if any(self._is_near(looks, other) for other in self._hashes):
                return DropReason.NEAR_DUPLICATE
            self._hashes.append(looks)
        self._keys.add(key)
        return None

    def _is_near(self, looks: tuple[int, int], other: tuple[int, int]) -> bool:
        """True if both views are near those of the other pair."""
        return all((a ^ b).bit_count() < self._min_bits for a, b in zip(looks, other, strict=True))


def describe(
    views: Iterable[View | Fault], criteria: Criteria, estimator: OverlapEstimator | None, tally: Tally
) -> Iterator[DescribedView]:
    """Bring each view to size and compute its features; count what cannot be used."""
    spec = criteria.image_filter
    allowed = partial(keeps, load_image_filter(spec), spec) if spec else None
    blur = load_face_blur() if criteria.blur_faces else None
    for view in views:
        if isinstance(view, Fault):
            tally.faults[view.reason] += 1
            if view.frame:
                yield DescribedView(frame=view.frame, unusable=DropReason.UNREADABLE)
            continue
        tally.views += 1
        if view.unusable:
            yield DescribedView(frame=view.frame, unusable=view.unusable)
            continue
        if allowed is not None and not allowed(view):
            yield DescribedView(frame=view.frame, unusable=DropReason.VETOED)
            continue
        image = fit_image(blur(view.image)[0] if blur else view.image, criteria)
        if criteria.min_texture and laplacian_variance(image) < criteria.min_texture:
            yield DescribedView(frame=view.frame, unusable=DropReason.LOW_TEXTURE)
            continue
        yield DescribedView(
            frame=view.frame,
            image=image,
            features=estimator.describe(image) if estimator else features.none(),
            time_s=view.time_s,
            camera=fit_camera(view.camera, view.image.shape, criteria) if view.camera else None,
            depth=fit_depth(view.depth, criteria) if view.depth is not None else None,
        )


def judge(
    scene: Scene, view0: DescribedView, view1: DescribedView, criteria: Criteria, estimator: OverlapEstimator | None
) -> Outcome:
    """Measure the overlap of two views and hold it against the criteria."""
    if unusable := view0.unusable or view1.unusable:
        return unusable
    if estimator is None:
        return criteria.judge(measure_truth(view0, view1, criteria.grid))
    key = sample_key(scene.source, scene.name, view0.frame, view1.frame)
    rng = pair_generator(key, criteria)
    return criteria.judge(
        estimator.measure(view0.image, view0.features, view1.image, view1.features, criteria.grid, rng)
    )


def pair_generator(key: str, criteria: Criteria) -> np.random.Generator | None:
    """The generator of a pair's sampled points, seeded by its key alone, so no order of work changes it; or None."""
    if criteria.points_per_patch == 0:
        return None
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"))


def stored_correspondences(sample: PairSample, criteria: Criteria) -> np.ndarray:
    """The (L,) correspondences that a sample's stored homography gives under `criteria`, to check it against."""
    points = overlap.vote_points(criteria.grid, criteria.points_per_patch, pair_generator(sample.key, criteria))
    return overlap.correspondences(sample.H_0to1, criteria.grid, *points, folded=criteria.fold_horizon)


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
        truth=pair_truth(view0, view1) if criteria.store_truth else None,
        maps=depth_maps(view0, view1) if criteria.store_depth else {},
    )


def encode_jpeg(image: Image, quality: int) -> bytes:
    """Baseline JPEG, 4:2:0, of an (H, W, 3) RGB image."""
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return data.tobytes()
