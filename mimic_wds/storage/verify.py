"""Is a data set whole, and does every sample say the truth? Every problem is named; none ends the search."""

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import Camera, ImageSample, PairSample, PairTruth
from mimic_wds.storage.files import is_temporary
from mimic_wds.storage.index import Index, index_path, index_tar, read_index
from mimic_wds.storage.layout import STAGING_NAME, image_key, index_name, is_key, sample_key
from mimic_wds.storage.manifest import Manifest, ShardInfo, histogram, read_manifest
from mimic_wds.storage.maps import check_maps
from mimic_wds.storage.reader import Shard

#: Gives the (L,) correspondences that follow from a sample's stored homography.
Recompute = Callable[[PairSample], NDArray[np.int16]]

#: A homography with a larger condition number cannot be inverted in float64.
MAX_CONDITION = 1e12


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    shard: str  #: file (or folder) that it is about
    key: str  #: of the sample that it is about, or ""
    kind: str  #: short name of the check that failed
    message: str

    def __str__(self) -> str:
        return f"{self.shard}{' ' if self.key else ''}{self.key}: {self.message} [{self.kind}]"


@dataclass
class _Seen:
    """What the shards looked at so far hold."""

    owners: dict[str, str] = field(default_factory=dict)  #: key -> shard
    overlaps: list[float] = field(default_factory=list)
    is_complete: bool = True  #: False once a sample could not be read


def verify(folder: Path, recompute: Recompute | None = None) -> Iterator[Problem]:
    """Recount, rehash and decode the data set in `folder`; yield every problem.

    `recompute` gives the correspondences of a stored homography to compare with; without it they are only checked to
    fit the grid. Never raises for a damaged data set.
    """
    try:
        manifest = read_manifest(folder)
    except ValueError as error:
        yield Problem(str(folder), "", "manifest", str(error))
        return
    folder = folder if folder.is_dir() else folder.parent
    yield from _files(folder, manifest)
    seen = _Seen()
    for info in manifest.shards:
        try:
            yield from _shard(folder / info.name, info, manifest, recompute, seen)
        except OSError as error:
            seen.is_complete = False
            if not isinstance(error, FileNotFoundError):  # that is already reported
                yield Problem(info.name, "", "unreadable", f"cannot be read: {error.strerror}")
    yield from _totals(folder, manifest)
    if manifest.classes != sorted(set(manifest.classes)):
        yield Problem(str(folder), "", "manifest", "its classes are not sorted, or one comes twice")
    if seen.is_complete:
        yield from _histogram(folder, manifest, seen.overlaps)


def _files(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """Files that are missing, and shards that the manifest does not know."""
    listed = {info.name for info in manifest.shards}
    for name in sorted(listed | {index_name(name) for name in listed}):
        if not (folder / name).is_file():
            yield Problem(name, "", "missing", "is missing")
    for path in sorted(folder.iterdir()):
        foreign = path.suffix == ".tar" and path.name not in listed
        foreign |= path.suffix == ".idx" and path.with_suffix(".tar").name not in listed
        if foreign or is_temporary(path.name) or path.name == STAGING_NAME:
            yield Problem(path.name, "", "extra", "does not belong to the data set: the manifest does not list it")


def _shard(
    path: Path, info: ShardInfo, manifest: Manifest, recompute: Recompute | None, seen: _Seen
) -> Iterator[Problem]:
    """One shard: bytes, hash, structure, index, then every sample."""
    size = path.stat().st_size
    if size != info.bytes:
        yield Problem(path.name, "", "bytes", f"has {size} bytes, the manifest says {info.bytes}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != info.sha256:
        yield Problem(path.name, "", "sha256", f"has sha256 {digest[:16]}..., the manifest says {info.sha256[:16]}...")
    try:
        index, keys = index_tar(path, manifest.members)
    except ValueError as error:
        seen.is_complete = False
        yield Problem(path.name, "", "structure", str(error).removeprefix(f"{path}: "))
        return
    if len(index) != info.samples:
        yield Problem(path.name, "", "samples", f"holds {len(index)} samples, the manifest says {info.samples}")
    yield from _index(path, index)
    yield from _samples(path, info, keys, index, manifest, recompute, seen)


def _index(path: Path, walked: Index) -> Iterator[Problem]:
    """The stored index against the one walked."""
    if not index_path(path).is_file():
        return  # already reported as missing
    try:
        stored = read_index(index_path(path))
    except ValueError as error:
        yield Problem(index_name(path.name), "", "index", str(error))
        return
    if not np.array_equal(stored.spans, walked.spans):
        yield Problem(index_name(path.name), "", "index", f"does not describe {path.name}")


def _samples(
    path: Path,
    info: ShardInfo,
    keys: list[str],
    index: Index,
    manifest: Manifest,
    recompute: Recompute | None,
    seen: _Seen,
) -> Iterator[Problem]:
    """Every sample of a shard, and the counts per source."""
    sources: Counter[str] = Counter()
    with Shard(path, index, manifest.members) as shard:
        for i, key in enumerate(keys):
            if key in seen.owners:
                yield Problem(path.name, key, "key", f"the key is also in {seen.owners[key]}")
            seen.owners[key] = path.name
            try:
                sample = shard.sample(i)
            except ValueError as error:
                seen.is_complete = False
                yield Problem(path.name, key, "sample", str(error))
                continue
            sources[sample.source] += 1
            if isinstance(sample, PairSample):
                seen.overlaps.append(sample.overlap)
                found = check_sample(sample, manifest, recompute)
            else:
                found = check_image(sample, manifest)
            for kind, message in found:
                yield Problem(path.name, key, kind, message)
    if dict(sources) != info.sources:
        yield Problem(path.name, "", "sources", f"holds {dict(sources)} per source, the manifest says {info.sources}")


def check_sample(
    sample: PairSample, manifest: Manifest, recompute: Recompute | None = None
) -> Iterator[tuple[str, str]]:
    """What is wrong with one pair: (kind, message) each."""
    expected_key = sample_key(sample.source, sample.scene, sample.frame0, sample.frame1)
    if not is_key(sample.key) or sample.key != expected_key:
        yield "key", f"should be {expected_key!r} by its source, scene and frames"
    yield from _declared(sample, manifest)
    for number, data in enumerate((sample.image0_jpg, sample.image1_jpg)):
        yield from _picture(number, data, sample.size)
    homography_is_sound = _invertible(sample.H_0to1)
    if not homography_is_sound and not (may_lack_homography(manifest) and lacks_homography(sample)):
        yield "homography", "is not finite or cannot be inverted"
    if homography_is_sound and sample.num_inliers < 0:
        yield "homography", f"is there, its number of inliers is {sample.num_inliers}"
    grid_fits = yield from _correspondences(sample)
    if not grid_fits:
        return
    if recompute is not None and homography_is_sound and not np.array_equal(recompute(sample), sample.corr_0to1):
        yield "correspondences", "are not those that the stored homography gives"
    yield from _overlap(sample, manifest)
    yield from check_maps(sample.maps, sample.size, len(manifest.semseg_classes))
    if (sample.truth is not None) != manifest.truth:
        yield "truth", f"{'says' if sample.truth else 'does not say'} where its cameras were, unlike the data set"
    elif sample.truth is not None:
        yield from _truth(sample.truth)


def _truth(truth: PairTruth) -> Iterator[tuple[str, str]]:
    """Are the cameras cameras, and the co-visibility one?"""
    for number, camera in enumerate((truth.camera0, truth.camera1)):
        if camera is not None and not is_camera(camera):
            yield "truth", f"the camera of view {number} has no rotation as its pose, or is not finite"
    if not (truth.covisibility == -1 or 0 <= truth.covisibility <= 1):
        yield "truth", f"its co-visibility is {truth.covisibility}, expected 0..1, or -1 if not known"


def is_camera(camera: Camera) -> bool:
    """True if a camera has a positive focal length and a rotation."""
    turn = camera.pose[:3, :3]
    if not (np.isfinite(camera.pose).all() and np.isfinite(camera.intrinsics).all()):
        return False
    is_rotation = np.allclose(turn @ turn.T, np.eye(3), atol=1e-4) and np.linalg.det(turn) > 0
    return bool(is_rotation) and float(camera.intrinsics[[0, 1], [0, 1]].min()) > 0


def check_image(sample: ImageSample, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """What is wrong with one image: (kind, message) each."""
    expected_key = image_key(sample.source, sample.scene, sample.frame)
    if sample.key != expected_key:
        yield "key", f"should be {expected_key!r} by its source, scene and frame"
    yield from _picture(0, sample.image_jpg, sample.size)
    most = manifest.criteria.get("size")
    if isinstance(most, int) and 0 < most < min(sample.size):
        yield "size", f"its size is {sample.size}, the short sides of the data set are at most {most}"
    yield from check_maps(sample.maps, sample.size, len(manifest.semseg_classes))
    if (sample.camera is not None) != manifest.truth or (sample.camera and not is_camera(sample.camera)):
        yield "truth", "its camera is missing, malformed, or not expected here"
    classes = manifest.classes
    if not classes and sample.label == -1:
        return
    if not -1 <= sample.label < len(classes):
        yield "label", f"its label is {sample.label}, the data set has {len(classes)} classes"
    elif sample.scene != (classes[sample.label] if sample.label >= 0 else ""):
        yield "label", f"its label is {sample.label}, that of its scene {sample.scene!r} is another"


def _declared(sample: PairSample, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Size and patch size are those of the data set."""
    side, patch = manifest.criteria.get("size"), manifest.criteria.get("patch_size")
    if side is not None and sample.size != (side, side):
        yield "size", f"its views have size {sample.size}, those of the data set {(side, side)}"
    if patch is not None and sample.patch_size != patch:
        yield "size", f"its patch size is {sample.patch_size}, that of the data set {patch}"


def _picture(number: int, data: bytes, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    """Does the JPEG decode, completely, to the declared size?"""
    if not data.startswith(b"\xff\xd8") or not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        yield "jpeg", f"{number}.jpg is not a whole JPEG file"
        return
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        yield "jpeg", f"{number}.jpg does not decode"
    elif image.shape[:2] != size:
        yield "jpeg", f"{number}.jpg has size {image.shape[:2]}, the sample says {size}"


def _invertible(H: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(H).all()) and float(np.linalg.cond(H)) < MAX_CONDITION


def _correspondences(sample: PairSample) -> Generator[tuple[str, str], None, bool]:
    """Shape, range and one-to-one; returns whether they fit the grid."""
    height, width = sample.size
    patch = sample.patch_size
    if patch <= 0 or height % patch or width % patch or min(height, width) <= 0:
        yield "size", f"size {sample.size} is no multiple of the patch size {patch}"
        return False
    num_patches = (height // patch) * (width // patch)
    if sample.corr_0to1.shape != (num_patches,):
        yield "correspondences", f"have shape {sample.corr_0to1.shape}, {num_patches} patches are in the grid"
        return False
    used = sample.corr_0to1[sample.corr_0to1 != -1]
    if used.size and (used.min() < 0 or used.max() >= num_patches):
        yield "correspondences", f"lie outside the grid of {num_patches} patches"
        return False
    if len(np.unique(used)) != len(used):
        yield "correspondences", "are not one-to-one"
    return True


def may_lack_homography(manifest: Manifest) -> bool:
    """True for an imported data set, whose makers may not tell, and for one of overlaps by depth and poses."""
    return manifest.criteria.get("preset") == "import" or manifest.criteria.get("estimator") == "truth"


def lacks_homography(sample: PairSample) -> bool:
    """True if the sample says that its homography is not known: nine zeros, and -1 inliers."""
    return sample.num_inliers == -1 and not sample.H_0to1.any()


def _overlap(sample: PairSample, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """The stored overlap against the correspondences and the criteria.

    Without homography and correspondences it is not known: -1.
    """
    counted = float(np.count_nonzero(sample.corr_0to1 >= 0) / len(sample.corr_0to1))
    if counted == 0 and may_lack_homography(manifest) and lacks_homography(sample):
        counted = -1.0
    if sample.overlap != counted:
        yield "overlap", f"is stored as {sample.overlap}, the correspondences give {counted}"
    low, high = manifest.criteria.get("min_overlap"), manifest.criteria.get("max_overlap")
    if isinstance(low, int | float) and isinstance(high, int | float) and not low < sample.overlap < high:
        yield "overlap", f"{sample.overlap} is not between {low} and {high}, the criteria of the data set"


def _totals(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """Do the manifest's own counts add up?"""
    in_shards: Counter[str] = Counter()
    for info in manifest.shards:
        in_shards.update(info.sources)
    kept = {source: count for source, count in manifest.kept.items() if count}
    if kept != dict(in_shards):
        yield Problem(str(folder), "", "manifest", f"says {kept} kept per source, its shards hold {dict(in_shards)}")
    for source, candidates in manifest.candidates.items():
        accounted = manifest.kept.get(source, 0) + sum(manifest.dropped.get(source, {}).values())
        if accounted != candidates:
            message = f"{source}: {candidates} candidates, but kept and dropped are {accounted}"
            yield Problem(str(folder), "", "manifest", message)


def _histogram(folder: Path, manifest: Manifest, overlaps: list[float]) -> Iterator[Problem]:
    """The manifest's histogram of overlaps against the samples'."""
    if manifest.overlap_histogram != histogram(overlaps):
        yield Problem(str(folder), "", "manifest", "its overlap_histogram is not that of the samples")
