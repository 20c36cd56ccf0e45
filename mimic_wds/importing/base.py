"""What a foreign format is: units of work that give pairs or images, each found or lost for a reason."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import DropReason, Kind, Sample, Scene

#: Why a pair (or image) of the input is not in the data set. Every one of them is kept or has exactly one reason.
UNREADABLE = DropReason.UNREADABLE.value  #: a view is no whole JPEG file, or could not be read
DUPLICATE_KEY = DropReason.DUPLICATE_KEY.value  #: the same pair was found before
MISSING_VIEW = "missing_view"  #: one of its two pictures is not there
MISSING_FILES = "missing_files"  #: it is listed, its pictures are not there
NOT_LISTED = "not_listed"  #: its pictures are there, the list that was given does not have it
BAD_LIST_ROW = "bad_list_row"  #: a row of the list does not name a pair
SIZES_DIFFER = "sizes_differ"  #: its two views have different sizes
WRONG_SIZE = "wrong_size"  #: its views have another size than the data set
BAD_CROP = "bad_crop"  #: its crop does not lie in the picture

#: Faults of pairs that are kept: their correspondences are marked as absent.
MISSING_CORRESPONDENCES = "missing_correspondences"  #: there is no file of them
BAD_CORRESPONDENCES = "bad_correspondences"  #: not a one-to-one map between the patches of the two views
REFUSED_PICKLE = "refused_pickle"  #: the file asks for more than a dictionary of numbers: never loaded

#: Fault of an image that is kept.
SAVED_ANEW = "saved_anew"  #: its file is no JPEG, or one that not every reader shows alike: it is encoded again

#: Samples of one unit of work: large enough that starting it costs nothing, small enough that losing it does not hurt.
UNIT_PAIRS = 2000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawPair:
    """A pair as a foreign data set holds it."""

    source: str
    scene: str
    frame0: str
    frame1: str
    image0_jpg: bytes
    image1_jpg: bytes
    corr_0to1: NDArray[np.int16] | None = None  #: (L,), or None: not known
    faults: tuple[str, ...] = ()  #: what could not be read of it


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A sample, and what could not be read or measured of it."""

    sample: Sample
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """A pair or image that cannot be imported."""

    reason: str  #: one of the reasons above
    where: str  #: file or folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A piece of the import: read by one worker, staged as a whole, not read again on resuming."""

    scene: Scene  #: `source` is the data set that the pairs are counted under, `name` is unique within it
    payload: bytes = b""  #: what `Format.pairs` needs to find the pairs: msgpack of the format's own making
    num_pairs: int = 0  #: pairs that `Format.pairs` will give; 0 = not known
    dropped: Mapping[str, int] = field(default_factory=dict)  #: reason -> pairs known to be lost before any is read


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All units of an import, in the order of the new data set."""

    units: list[Unit]
    notes: list[str] = field(default_factory=list)  #: what the reader should know, one line each
    classes: list[str] = field(default_factory=list)  #: of images: the names that their labels number
    maps: list[str] = field(default_factory=list)  #: stored beside each view
    semseg_classes: list[str] = field(default_factory=list)  #: names of the pixel classes from 1
    truth: bool = False  #: whether the samples say where their cameras were


class Settings(Protocol):
    """What a format must know of the data set that is made."""

    @property
    def size(self) -> int:
        """Pixels, height and width of every view; of images the largest short side, 0 = any."""
        ...

    @property
    def patch_size(self) -> int:
        """Pixels, height and width of a patch."""
        ...


class Format(Protocol):
    """A foreign format: a frozen dataclass of plain options, so it travels to worker processes."""

    name: ClassVar[str]
    reads: ClassVar[str]  #: in one line what it expects on disk
    kind: ClassVar[Kind]  #: what it gives
    default_size: ClassVar[int]  #: pixels; size of its views unless told otherwise

    @property
    def paths(self) -> tuple[str, ...]:
        """Files or folders to read."""
        ...

    @property
    def licence(self) -> str:
        """Licence note of the material; goes into the manifest."""
        ...

    def plan(self, settings: Settings) -> Plan:
        """All units below `paths`. Raises ValueError when a path is missing or holds nothing to read.

        The samples of a source have different (scene, frame0, frame1), but for those of one unit that are equal.
        """
        ...

    def pairs(self, unit: Unit, settings: Settings) -> Iterator[RawPair | Made | Lost]:
        """The pairs of a unit in order, or its images as they are stored.

        Raises SceneError when the rest of the unit cannot be read.
        """
        ...


def existing(paths: tuple[str, ...]) -> list[Path]:
    """The paths, made absolute. Raises ValueError naming the first that does not exist."""
    if not paths:
        raise ValueError("no input path given: name at least one file or folder")
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
    return [Path(path).absolute() for path in paths]
