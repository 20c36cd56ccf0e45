"""From a foreign pair to a sample of ours; what is not known is marked as absent."""

from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.geometry import features, overlap
from mimic_wds.geometry.patches import PatchGrid
from mimic_wds.importing.base import SIZES_DIFFER, UNREADABLE, WRONG_SIZE, Lost, Made, RawPair, Settings
from mimic_wds.pairs import DropReason, Overlap, PairSample
from mimic_wds.storage.jpeg import jpeg_size
from mimic_wds.storage.layout import sample_key
from mimic_wds.storage.pictures import decode_jpeg

#: Stand in a sample for what is not known, with the types of what is.
ABSENT_OVERLAP = -1.0  #: with correspondences that are all -1
ABSENT_INLIERS = -1  #: with a homography of nine zeros


class Wanted(Settings, Protocol):
    """What a sample should be like."""

    @property
    def recompute(self) -> bool:
        """Measure homography, correspondences and overlap."""
        ...


def make_sample(pair: RawPair, wanted: Wanted) -> Made | Lost:
    """The sample of a pair, its pictures untouched; or why it has none."""
    where = f"{pair.source}/{pair.scene} {pair.frame0} {pair.frame1}"
    sizes = jpeg_size(pair.image0_jpg), jpeg_size(pair.image1_jpg)
    if None in sizes:
        return Lost(UNREADABLE, where)
    if sizes[0] != sizes[1]:
        return Lost(SIZES_DIFFER, where)
    if sizes[0] != (wanted.size, wanted.size):
        return Lost(WRONG_SIZE, where)
    if not wanted.recompute:
        return Made(_sample(pair, wanted, pair.corr_0to1, None), pair.faults)
    images = [_decode(data) for data in (pair.image0_jpg, pair.image1_jpg)]
    if images[0] is None or images[1] is None:
        return Lost(UNREADABLE, where)
    measured = measure(images[0], images[1], wanted)
    if isinstance(measured, DropReason):
        return Made(_sample(pair, wanted, pair.corr_0to1, None), (*pair.faults, f"not_measured_{measured.value}"))
    return Made(_sample(pair, wanted, measured.corr_0to1, measured), pair.faults)


def measure(image0: NDArray[np.uint8], image1: NDArray[np.uint8], settings: Settings) -> Overlap | DropReason:
    """The overlap of two RGB views of the right size, as a build measures it with its default criteria."""
    grid = PatchGrid(settings.size, settings.size, settings.patch_size)
    return overlap.measure(features.extract(image0), features.extract(image1), grid)


def _decode(data: bytes) -> NDArray[np.uint8] | None:
    """A JPEG as (H, W, 3) RGB, as the loader decodes it."""
    bgr = decode_jpeg(data)
    return None if bgr is None else np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _sample(pair: RawPair, settings: Settings, corr: NDArray[np.int16] | None, measured: Overlap | None) -> PairSample:
    """The sample with these correspondences and measurements, or without."""
    num_patches = (settings.size // settings.patch_size) ** 2
    return PairSample(
        key=sample_key(pair.source, pair.scene, pair.frame0, pair.frame1),
        image0_jpg=pair.image0_jpg,
        image1_jpg=pair.image1_jpg,
        corr_0to1=np.full(num_patches, -1, np.int16) if corr is None else corr,
        overlap=ABSENT_OVERLAP if corr is None else overlap.overlap_ratio(corr),
        H_0to1=measured.H_0to1 if measured else np.zeros((3, 3)),
        num_inliers=measured.num_inliers if measured else ABSENT_INLIERS,
        size=(settings.size, settings.size),
        patch_size=settings.patch_size,
        source=pair.source,
        scene=pair.scene,
        frame0=pair.frame0,
        frame1=pair.frame1,
    )
