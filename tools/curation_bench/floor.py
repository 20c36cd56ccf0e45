"""Ways to spend less than SIFT costs: what they gain, and how many decisions they change."""

import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from curation_bench.pictures import GOP, made_up_scenes, write_pan
from curation_bench.sides import Outcome, Pair, timed
from mimic_wds.curation.criteria import Criteria
from mimic_wds.geometry import features, homography, overlap
from mimic_wds.geometry.features import Features
from mimic_wds.pairs import DropReason, Image, Overlap
from mimic_wds.sources.video import Video


def below_floor(pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """What cheaper keypoints gain in CPU time of one image, and how many decisions they change; all pixels vote."""
    ways, seconds = cheaper_ways(), {name: list[float]() for name in cheaper_ways()}
    kept: dict[str, list[bool]] = {name: [] for name in ways}
    for image0, image1 in pairs:
        for name, describe in ways.items():
            f0 = timed(partial(describe, image0), seconds[name])
            kept[name].append(isinstance(decide(f0, describe(image1), is_binary=name.startswith("ORB")), Overlap))
    report = {}
    print(f"\n{'keypoints':34}{'ms/image':>10}{'gain':>8}{'flipped':>10}{'kept':>8}")
    reference = kept["default"]
    for name in ways:
        gain = statistics.median(a / b for a, b in zip(seconds["default"], seconds[name], strict=True))
        flipped = sum(a != b for a, b in zip(reference, kept[name], strict=True)) / len(pairs)
        share = sum(kept[name]) / len(pairs)
        cost = 1000 * statistics.median(seconds[name])
        print(f"{name:34}{cost:10.2f}{gain:8.2f}{flipped:10.1%}{share:8.1%}")
        report[name] = {"ms_per_image": cost, "gain": gain, "flipped": flipped, "kept": share}
    report["key frames only"] = key_frames_only()
    return report


def cheaper_ways() -> dict[str, Callable[[Image], Features]]:
    """Ways to describe an image, the default first; the first three give the same numbers."""
    reused = cv2.SIFT.create()
    as_bytes = cv2.SIFT_create(0, 3, 0.04, 10, 1.6, cv2.CV_8U)
    return {
        "default": lambda image: detect(cv2.SIFT.create(), image),
        "one detector used again (exact)": partial(detect, reused),
        "descriptors as bytes (exact)": partial(detect, as_bytes),
        "SIFT, 500 keypoints": partial(detect, cv2.SIFT.create(nfeatures=500)),
        "SIFT, 300 keypoints": partial(detect, cv2.SIFT.create(nfeatures=300)),
        "SIFT, contrast 0.06": partial(detect, cv2.SIFT.create(contrastThreshold=0.06)),
        "SIFT, precise upscale": partial(detect, cv2.SIFT.create(enable_precise_upscale=True)),
        "SIFT of half the size": partial(detect, cv2.SIFT.create(), scale=2),
        "ORB, 500 keypoints": partial(detect, cv2.ORB.create(500)),
    }


def detect(detector: cv2.Feature2D, image: Image, scale: int = 1) -> Features:
    """Keypoints of an image, found in one that is `scale` times smaller."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if scale > 1:
        gray = cv2.resize(gray, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    keypoints, descriptors = detector.detectAndCompute(gray, None)
    if descriptors is None:
        return features.none()
    points = np.asarray(cv2.KeyPoint.convert(keypoints), np.float32).reshape(-1, 2)
    return Features((points + 0.5) * scale - 0.5 if scale > 1 else points, descriptors.astype(np.uint8))


def decide(f0: Features, f1: Features, *, is_binary: bool) -> Outcome:
    """Keep or drop by all pixels' votes."""
    criteria = Criteria()
    if not is_binary:
        return criteria.judge(overlap.measure(f0, f1, criteria.grid))
    if len(f0) == 0 or len(f1) == 0:
        return DropReason.NO_KEYPOINTS
    neighbours = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(f0.descriptors, f1.descriptors, k=2)
    matches = [n[0] for n in neighbours if len(n) == 2 and n[0].distance < criteria.lowe_ratio * n[1].distance]
    if len(matches) < criteria.min_matches:
        return DropReason.TOO_FEW_MATCHES
    fitted = homography.fit(f0.points[[m.queryIdx for m in matches]], f1.points[[m.trainIdx for m in matches]])
    if fitted is None or not homography.is_usable(fitted[0]):
        return DropReason.NO_HOMOGRAPHY
    corr = overlap.correspondences(fitted[0], criteria.grid, *overlap.vote_points(criteria.grid))
    H_0to1, inliers = fitted
    measured = Overlap(
        ratio=overlap.overlap_ratio(corr),
        corr_0to1=corr,
        H_0to1=H_0to1,
        num_matches=len(matches),
        num_inliers=int(inliers.sum()),
    )
    return criteria.judge(measured)


def key_frames_only() -> dict[str, float]:
    """CPU seconds of one frame a second in one pass, beside decoding nothing but key frames."""
    if not importlib.util.find_spec("av"):
        print("key frames only: not measured, PyAV is not installed (pip install av)")
        return {}
    import av

    with tempfile.TemporaryDirectory(prefix="bench-curation-") as folder:
        path = Path(folder) / "pan.mp4"
        write_pan(path, made_up_scenes()[0][0], seconds=60)
        source = Video(paths=(str(path),))
        (scene,) = source.scenes()
        one_pass, keys = list[float](), list[float]()
        all_frames = timed(lambda: sum(1 for _ in source.views(scene)), one_pass)

        def key_frames() -> int:
            with av.open(str(path)) as file:
                file.streams.video[0].codec_context.skip_frame = "NONKEY"
                return sum(frame.to_ndarray(format="rgb24").ndim == 3 for frame in file.decode(video=0))

        num_keys = timed(key_frames, keys)
    print(
        f"key frames only, GOP {GOP}: {num_keys} frames in {keys[0]:.3f} s, one pass: {all_frames} frames in "
        f"{one_pass[0]:.3f} s"
    )
    return {"key_frames": num_keys, "key_frames_s": keys[0], "frames": all_frames, "one_pass_s": one_pass[0]}
