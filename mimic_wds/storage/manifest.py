"""The manifest: what a data set holds. Written last; a folder with a manifest is a whole data set."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np

from mimic_wds.pairs import Kind
from mimic_wds.settings import check_names
from mimic_wds.storage.files import atomic_write
from mimic_wds.storage.layout import MANIFEST_NAME, MAPS, check_dataset_name, is_shard_name, members_of

#: Readers of version 1 know pairs of four members only, and must refuse anything else.
FORMAT_VERSIONS = (1, 2)

#: Fields of the manifest that version 1 does not have.
_NEW_IN_2 = ("kind", "classes", "maps", "semseg_classes", "truth")

#: Overlap histogram: this many equal bins over 0..1.
HISTOGRAM_BINS = 20

#: Bytes that a file has at most.
MOST_BYTES = 2**62

Plain: TypeAlias = bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardInfo:
    """One shard as the manifest lists it."""

    name: str  #: file name in the data set's folder
    bytes: int
    sha256: str
    samples: int
    sources: dict[str, int]  #: samples per source
    generation: int = 0  #: in which generation it was added


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts between neighbouring edges."""

    edges: list[float]
    counts: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All that a reader must know of a data set."""

    format_version: int
    name: str
    id: str  #: first 16 hex digits of the sha256 over the first generation's shard hashes
    generation: int
    shards: list[ShardInfo]
    criteria: dict[str, Plain]  #: thresholds of the build, and its preset
    versions: dict[str, str]  #: of this package, OpenCV and numpy
    candidates: dict[str, int]  #: samples (pairs, or images) tried, per source
    kept: dict[str, int]  #: samples kept, per source
    dropped: dict[str, dict[str, int]]  #: source -> reason -> samples; kept + dropped = candidates
    faults: dict[str, dict[str, int]]  #: source -> reason -> files or frames that could not be read
    views: dict[str, int]  #: views read, per source
    scenes: dict[str, int]  #: per source
    failed_scenes: dict[str, str]  #: "source/scene" -> what was wrong with it
    overlap_histogram: Histogram
    licences: dict[str, str]  #: source -> licence note
    kind: Kind = "pairs"  #: what the samples are
    classes: list[str] = field(default_factory=list)  #: of images: the names that their labels number, sorted
    maps: list[str] = field(default_factory=list)  #: of each view that are stored beside it: "depth", ...
    semseg_classes: list[str] = field(default_factory=list)  #: names of the pixel classes 1, 2, ... of "semseg"
    truth: bool = False  #: whether the samples say where their cameras were

    @property
    def num_samples(self) -> int:
        """Samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def members(self) -> tuple[str, ...]:
        """Members of each sample, in their order."""
        return members_of(self.kind, self.maps)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a data set's folder (or the file itself). Raises ValueError naming what is wrong."""
    file = path / MANIFEST_NAME if path.is_dir() or path.suffix != ".json" else path
    if not path.exists():
        raise ValueError(f"{path}: no such data set; expected a folder with a {MANIFEST_NAME}")
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: no {MANIFEST_NAME} here: not a data set, or its build is unfinished") from None
    return decode_manifest(data, str(file))


def decode_manifest(data: bytes, file: str) -> Manifest:
    """The manifest in `data`, which came from `file`. Raises ValueError naming it and what is wrong."""
    found = _fields(data, file)
    version = found.get("format_version")
    if version not in FORMAT_VERSIONS:
        known = " and ".join(map(str, FORMAT_VERSIONS))
        raise ValueError(f"{file}: format version {version!r}; this program reads versions {known}")
    check_names(Manifest, found, file)
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.ValidationError as error:
        raise ValueError(f"{file}: {error}") from None
    if version != format_version(manifest.kind, manifest.maps, manifest.truth):
        raise ValueError(f"{file}: format version {version} does not hold {manifest.kind} like these")
    if [name for name in MAPS if name in manifest.maps] != manifest.maps:
        raise ValueError(f"{file}: maps are {manifest.maps}, expected some of {', '.join(MAPS)}, in this order")
    _check_shards(manifest, file)
    return manifest


def _fields(data: bytes, file: str) -> dict[str, object]:
    """The fields of a manifest but its long list of shards, which is decoded once only, straight to its type."""
    try:
        found = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        return {name: None if name == "shards" else msgspec.json.decode(raw) for name, raw in found.items()}
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"{file}: not valid JSON: {error}") from None


def _check_shards(manifest: Manifest, file: str) -> None:
    """Raise ValueError for a shard that is empty, listed twice, or not named NAME-000000.tar: no name leads away."""
    try:
        check_dataset_name(manifest.name)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    known: set[str] = set()
    for shard in manifest.shards:
        if not is_shard_name(manifest.name, shard.name):
            raise ValueError(
                f"{file}: {shard.name!r} is no shard of {manifest.name!r}: expected {manifest.name}-000000.tar"
            )
        if shard.name in known:
            raise ValueError(f"{file}: lists {shard.name} twice")
        if not (0 < shard.samples < shard.bytes < MOST_BYTES and 0 <= shard.generation < MOST_BYTES):
            raise ValueError(f"{file}: {shard.name} cannot have {shard.samples} samples in {shard.bytes} bytes")
        known.add(shard.name)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a data set atomically."""
    with atomic_write(folder / MANIFEST_NAME) as file:
        file.write(msgspec.json.format(encode_manifest(manifest), indent=1) + b"\n")


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON, fields in their order and tables sorted by key: equal manifests give equal bytes."""
    encoder = msgspec.json.Encoder(order="deterministic")
    left_out = _NEW_IN_2 if manifest.format_version == 1 else ()
    names = (part.name for part in fields(manifest) if part.name not in left_out)
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), encoder.encode(getattr(manifest, name))) for name in names)


def manifest_hash(manifest: Manifest) -> str:
    """sha256 (hex) of the manifest's canonical JSON: names the exact contents of a data set."""
    return hashlib.sha256(encode_manifest(manifest)).hexdigest()


def format_version(kind: Kind, maps: Sequence[str] = (), truth: bool = False) -> int:
    """The oldest version of the format that can hold such samples."""
    return 1 if kind == "pairs" and not maps and not truth else 2


def histogram(overlaps: Sequence[float]) -> Histogram:
    """How many overlaps lie in each of HISTOGRAM_BINS equal bins over 0..1."""
    counts, edges = np.histogram(overlaps, bins=HISTOGRAM_BINS, range=(0, 1))
    return Histogram(edges=[round(float(edge), 6) for edge in edges], counts=counts.tolist())


def dataset_id(shards: list[ShardInfo]) -> str:
    """Identity of a data set, kept by later generations: from the hashes of its first generation's shards."""
    hashes = "".join(shard.sha256 for shard in shards if shard.generation == 0)
    return hashlib.sha256(hashes.encode()).hexdigest()[:16]
