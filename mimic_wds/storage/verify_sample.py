"""Does one sample say the truth? Every check yields (kind, message) for what is wrong; none raises."""

from collections.abc import Callable, Generator, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import Camera, ImageSample, PairSample, PairTruth
from mimic_wds.storage.jpeg import jpeg_head
from mimic_wds.storage.layout import image_key, is_key, sample_key
from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.maps import check_maps
from mimic_wds.storage.pictures import decode_jpeg

#: Gives the (L,) correspondences that follow from a sample's stored homography.
Recompute = Callable[[PairSample], NDArray[np.int16]]

#: Decodes all of a JPEG's coefficients, where damage shows, and saves the transform to pixels, which cannot fail.
ALL_BUT_PIXELS = cv2.IMREAD_REDUCED_GRAYSCALE_8

#: A homography with a larger condition number cannot be inverted in float64.
MAX_CONDITION = 1e12


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
    head = jpeg_head(data)
    if head is None or decode_jpeg(data, ALL_BUT_PIXELS) is None:
        yield "jpeg", f"{number}.jpg does not decode"
    elif head.size != size:
        yield "jpeg", f"{number}.jpg has size {head.size}, the sample says {size}"


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
