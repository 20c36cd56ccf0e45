"""A catalog: what the samples of some data sets are, a few numbers each, so that millions can be chosen from.

13 bytes a sample, 8 more with ranks and 87 more with keys; a text per scene. Of every sample the JSON is read, once;
pictures are not decoded. By default every shard is held against its sha256 first, so that damaged bytes are never
copied into a data set whose hashes then call them right.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from mimic_wds.storage.expression import Expression
from mimic_wds.storage.facts import Facts, facts_type
from mimic_wds.storage.layout import MAX_KEY, is_key
from mimic_wds.storage.manifest import HISTOGRAM_BINS, Manifest, ShardInfo, read_manifest
from mimic_wds.storage.reader import REPAIR, Shard
from mimic_wds.storage.tar import BLOCK, END, has_header
from mimic_wds.storage.threads import in_threads

#: Bin of an overlap that is not in the histogram: not known, or of an image.
NO_BIN = 255

#: Told what is done: ("reading" or "writing", shards done, shards in all).
Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class DataSet:
    """A whole data set in a local folder."""

    folder: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a scan finds out beside the sizes and scenes of samples."""

    seed: int | None = None  #: rank every sample by its key and this seed
    keys: bool = False  #: remember the keys
    where: Expression | None = None  #: say of every sample whether this is true


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Catalog:
    """The samples of data sets, numbered through their shards in order; N samples, S scenes."""

    data_sets: list[DataSet]
    shards: list[tuple[int, ShardInfo]]  #: number of the data set, and what its manifest says
    first: NDArray[np.int64]  #: (shards + 1,) number of each shard's first sample; N at the end
    start: NDArray[np.uint32]  #: (N,) where the sample begins in its tar, in blocks of 512 bytes
    blocks: NDArray[np.uint32]  #: (N,) that it takes
    scene: NDArray[np.uint32]  #: (N,) its scene, a number in `scenes`
    bin: NDArray[np.uint8]  #: (N,) of the overlap in the manifest's histogram; NO_BIN = in none
    scenes: dict[tuple[str, str], int]  #: (source, scene) -> number from 0, in the order of first appearance
    sources: list[str]  #: sorted
    source: NDArray[np.uint32]  #: (S,) of each scene, a number in `sources`
    rank: NDArray[np.uint64]  #: (N,) if wanted: blake2b of key and seed; evenly distributed
    key: NDArray[np.bytes_]  #: (N,) if wanted
    passed: NDArray[np.bool_]  #: (N,) if wanted: whether the expression is true

    def __len__(self) -> int:
        return len(self.blocks)

    def per_source(self, numbers: NDArray[np.int64]) -> dict[str, int]:
        """How many of these samples each source has, sorted, without zeros."""
        counts = np.bincount(self.source[self.scene[numbers]], minlength=len(self.sources))
        return {name: int(count) for name, count in zip(self.sources, counts, strict=True) if count}

    def path(self, shard: int) -> Path:
        """Where a shard lies."""
        number, info = self.shards[shard]
        return self.data_sets[number].folder / info.name

    def shard_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) the shards that these samples are in."""
        return np.searchsorted(self.first, numbers, side="right") - 1

    def keys_of(self, numbers: NDArray[np.int64]) -> list[str]:
        """The keys of these samples, read from their headers."""
        keys: list[str] = [""] * len(numbers)
        shards = self.shard_of(numbers)
        for shard in np.unique(shards).tolist():
            with self.path(shard).open("rb") as file:
                for at in np.flatnonzero(shards == shard).tolist():
                    header = os.pread(file.fileno(), BLOCK, int(self.start[numbers[at]]) * BLOCK)
                    keys[at] = header[:100].partition(b".")[0].decode("ascii", "replace")
        return keys


def open_data_set(folder: Path) -> DataSet:
    """A data set that samples are taken from. Raises ValueError when it is none."""
    manifest = read_manifest(folder)
    return DataSet(folder if folder.is_dir() else folder.parent, manifest)


def scan(
    data_sets: list[DataSet],
    wanted: Wanted | None = None,
    *,
    check: bool = True,
    workers: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> Catalog:
    """Read the catalog of data sets, the samples of the first one first.

    `check` holds every shard against its sha256. Raises ValueError naming shard and sample for damaged ones.
    """
    wanted = wanted or Wanted()
    shards = [(number, info) for number, data_set in enumerate(data_sets) for info in data_set.manifest.shards]
    first = np.cumsum([0, *(info.samples for _, info in shards)], dtype=np.int64)
    size, scenes = int(first[-1]), dict[tuple[str, str], int]()
    arrays = _Found(
        start=np.empty(size, np.uint32),
        blocks=np.empty(size, np.uint32),
        scene=np.empty(size, np.uint32),
        bin=np.empty(size, np.uint8),
        rank=np.empty(size if wanted.seed is not None else 0, np.uint64),
        key=np.empty(size if wanted.keys else 0, f"S{MAX_KEY}"),
        passed=np.empty(size if wanted.where is not None else 0, np.bool_),
    )

    def one(shard: tuple[int, ShardInfo]) -> tuple[_Found, list[tuple[str, str]]]:
        return _scan_shard(data_sets[shard[0]], shard[1], wanted, check)

    for number, (part, names) in enumerate(in_threads(one, shards, workers)):
        numbers = np.array([scenes.setdefault(name, len(scenes)) for name in names], np.uint32)
        arrays.put(int(first[number]), replace(part, scene=numbers[part.scene]))
        progress("reading", number + 1, len(shards))
    sources = sorted({source for source, _ in scenes})
    numbered = {name: number for number, name in enumerate(sources)}
    return Catalog(
        data_sets=data_sets,
        shards=shards,
        first=first,
        scenes=scenes,
        sources=sources,
        source=np.fromiter((numbered[source] for source, _ in scenes), np.uint32, len(scenes)),
        **arrays.arrays(),
    )


def bins(overlaps: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The bins of the manifest's histogram that overlaps lie in, as `manifest.histogram` counts them; or NO_BIN."""
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    found = np.minimum(np.searchsorted(edges, overlaps, side="right") - 1, HISTOGRAM_BINS - 1)
    return np.where((overlaps >= 0) & (overlaps <= 1), found, NO_BIN).astype(np.uint8)


def rank_of(key: bytes, seed: int) -> int:
    """A number in [0, 2**64) that follows from a text and a seed, whatever else there is."""
    digest = hashlib.blake2b(key, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little")


def check_seed(seed: int) -> None:
    """Raise ValueError unless `rank_of` takes this seed."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"--seed must be 0 or more and below 2**64, got {seed}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """What a scan has found in one shard or in all, like the arrays of a catalog."""

    start: NDArray[np.uint32]
    blocks: NDArray[np.uint32]
    scene: NDArray[np.uint32]
    bin: NDArray[np.uint8]
    rank: NDArray[np.uint64]
    key: NDArray[np.bytes_]
    passed: NDArray[np.bool_]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of them by name."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def put(self, at: int, part: "_Found") -> None:
        """Fill in what a shard, whose first sample has the number `at`, holds."""
        others = part.arrays()
        for name, array in self.arrays().items():
            if len(array):
                array[at : at + len(others[name])] = others[name]


def _scan_shard(
    data_set: DataSet, info: ShardInfo, wanted: Wanted, check: bool
) -> tuple[_Found, list[tuple[str, str]]]:
    """Read the JSON of every sample of a shard; also the scenes that its samples' numbers are of."""
    path, members = data_set.folder / info.name, data_set.manifest.members
    with Shard(path, members=members) as shard:
        if (len(shard), shard.index.tar_bytes) != (info.samples, info.bytes):
            raise ValueError(f"{path}: is not the shard that the manifest lists: {REPAIR}")
        if check:
            _check_hash(path, info)
        notes = _Notes(data_set.manifest, wanted)
        spans = shard.index.spans[:, members.index("json")].tolist()
        with path.open("rb") as file:
            for offset, length in spans:
                data = os.pread(file.fileno(), BLOCK + length, offset - BLOCK)
                key, _, field_ = data[:100].rstrip(b"\0").partition(b".")
                if field_ != b"json" or not has_header(data, 0, key + b".json", length):
                    raise ValueError(f"{path}: a sample is not where its index says: {REPAIR}")
                if not is_key(key.decode("ascii", "replace"), data_set.manifest.kind):
                    raise ValueError(f"{path}: {key!r} is no key: {REPAIR}")
                try:
                    notes.take(key, data[BLOCK:])
                except ValueError as error:
                    raise ValueError(f"{path}: {key.decode('ascii', 'replace')}.json: {error}; {REPAIR}") from None
        starts = shard.index.spans[:, 0, 0] // BLOCK - 1
        ends = np.append(starts[1:], (info.bytes - len(END)) // BLOCK)
    return notes.found(starts.astype(np.uint32), (ends - starts).astype(np.uint32)), list(notes.scenes)


def _check_hash(path: Path, info: ShardInfo) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != info.sha256:
        raise ValueError(
            f"{path}: has sha256 {digest[:16]}..., the manifest says {info.sha256[:16]}...: it is damaged, and would "
            f"be copied as if it were whole; {REPAIR}"
        )


@dataclass(slots=True)
class _Notes:
    """Collects what the samples of one shard say."""

    manifest: Manifest
    wanted: Wanted
    scenes: dict[tuple[str, str], int] = field(default_factory=dict)
    scene: list[int] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    rank: list[int] = field(default_factory=list)
    key: list[bytes] = field(default_factory=list)
    passed: list[bool] = field(default_factory=list)
    decoder: msgspec.json.Decoder["Facts"] = field(init=False)

    def __post_init__(self) -> None:
        where = self.wanted.where
        self.decoder = msgspec.json.Decoder(facts_type(self.manifest, everything=where is not None))

    def take(self, key: bytes, json: bytes) -> None:
        """Note one sample. Raises ValueError for JSON that is not that of a sample."""
        try:
            facts = self.decoder.decode(json)
        except RecursionError:
            raise ValueError("is nested too deeply") from None
        wanted, name = self.wanted, (facts.source, facts.scene)
        self.scene.append(self.scenes.setdefault(name, len(self.scenes)))
        self.overlaps.append(facts.overlap)
        if wanted.seed is not None:
            self.rank.append(rank_of(key, wanted.seed))
        if wanted.keys:
            self.key.append(key)
        if wanted.where is not None:
            self.passed.append(wanted.where.holds(key.decode("ascii", "replace"), facts))

    def found(self, start: NDArray[np.uint32], blocks: NDArray[np.uint32]) -> _Found:
        """All notes as arrays."""
        return _Found(
            start=start,
            blocks=blocks,
            scene=np.array(self.scene, np.uint32),
            bin=bins(np.array(self.overlaps, np.float64)),
            rank=np.array(self.rank, np.uint64),
            key=np.array(self.key, f"S{MAX_KEY}"),
            passed=np.array(self.passed, np.bool_),
        )
