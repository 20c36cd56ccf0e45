"""One shard held against the manifest: its bytes are read once, whatever is looked at."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import PairSample
from mimic_wds.storage.folder_place import FolderPlace
from mimic_wds.storage.index import Index, decode_index, index_tar
from mimic_wds.storage.layout import index_name, is_key
from mimic_wds.storage.manifest import Manifest, ShardInfo
from mimic_wds.storage.places import Place
from mimic_wds.storage.sample import decode, decode_image
from mimic_wds.storage.tar import BLOCK, END, keys_by_headers
from mimic_wds.storage.verify_sample import Recompute, check_image, check_sample

#: "fast": names, sizes and indexes; "default": every byte and the counts; "deep": every picture and number too.
Depth: TypeAlias = Literal["fast", "default", "deep"]

#: Bytes that are read and hashed at a time, in whole samples: they are hashed while they are in the processor's cache.
CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    shard: str  #: file (or place) that it is about
    key: str  #: of the sample that it is about, or ""
    kind: str  #: short name of the check that failed
    message: str

    def __str__(self) -> str:
        return f"{self.shard}{' ' if self.key else ''}{self.key}: {self.message} [{self.kind}]"


@dataclass(slots=True)
class Findings:
    """What a shard holds, and what is wrong with it."""

    name: str
    problems: list[Problem] = field(default_factory=list)
    sources: Counter[str] = field(default_factory=Counter)  #: samples per source
    overlaps: list[float] = field(default_factory=list)  #: of its pairs
    keys: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))  #: 64 bits of the hash of each
    is_complete: bool = True  #: False when a sample could not be read

    def add(self, kind: str, message: str, key: str = "", name: str = "") -> None:
        """Note a problem."""
        self.problems.append(Problem(name or self.name, key, kind, message))


class _Facts(msgspec.Struct):
    """What the counts need of a sample's JSON."""

    source: str
    overlap: float = -1.0


@dataclass(frozen=True, slots=True)
class Check:
    """What to hold shards against."""

    manifest: Manifest
    depth: Depth
    recompute: Recompute | None = None


def check_shard(place: Place, info: ShardInfo, size: int | None, check: Check) -> Findings:
    """Everything about one shard; `size` is that of its file, None if there is none. Raises OSError if unreadable."""
    found = Findings(info.name)
    index = _stored_index(place, info, found)
    if size is None:
        found.is_complete = False
        return found
    if size != info.bytes:
        found.add("bytes", f"has {size} bytes, the manifest says {info.bytes}")
    if check.depth == "fast":
        return found
    with local(place, [info.name]) as folder, (folder / info.name).open("rb") as file:
        hashed = _read_by_index(file, size, info.sha256, index, check, found) if index is not None else None
        if hashed is None:
            hashed = _read_by_walking(folder / info.name, index, check, found)
    if hashed != info.sha256:
        found.add("sha256", f"has sha256 {hashed[:16]}..., the manifest says {info.sha256[:16]}...")
    if found.is_complete and len(found.keys) != info.samples:
        found.add("samples", f"holds {len(found.keys)} samples, the manifest says {info.samples}")
    if found.is_complete and dict(found.sources) != info.sources:
        found.add("sources", f"holds {dict(found.sources)} per source, the manifest says {info.sources}")
    return found


@contextmanager
def local(place: Place, names: list[str]) -> Iterator[Path]:
    """A local folder with these files of a place: its own, or one of copies that are removed afterwards."""
    if isinstance(place, FolderPlace):
        yield place.folder
        return
    with TemporaryDirectory(prefix="mimic-wds-") as folder:
        for name in names:
            with (Path(folder) / name).open("wb") as file:
                file.writelines(place.stream(name))
        yield Path(folder)


def _stored_index(place: Place, info: ShardInfo, found: Findings) -> Index | None:
    """The index of a shard if it can be one of it."""
    name = index_name(info.name)
    try:
        index = decode_index(place.read(name), name)
    except FileNotFoundError:
        found.add("missing", "is missing", name=name)
        return None
    except ValueError as error:
        found.add("index", str(error).removeprefix(f"{name}: "), name=name)
        return None
    if (len(index), index.tar_bytes) != (info.samples, info.bytes):
        described = f"{len(index)} samples in {index.tar_bytes} bytes"
        found.add("index", f"describes {described}, the manifest says {info.samples} in {info.bytes}", name=name)
    return index


def _read_by_index(file: BinaryIO, size: int, sha256: str, index: Index, check: Check, found: Findings) -> str | None:
    """Read a tar as its index describes it; returns its sha256, or None, nothing noted, when that or it is another."""
    members = check.manifest.members
    if index.spans.shape[1] != len(members) or index.tar_bytes != size:
        return None
    digest, trial = hashlib.sha256(), Findings(found.name)
    keys: list[str] = []
    for first, end in _groups(index):
        start = index.sample_range(first)[0]
        data = file.read(index.sample_range(end - 1)[1] - start)
        digest.update(data)
        spans = index.spans[first:end] - (start, 0)
        here = keys_by_headers(data, spans, members)
        if here is None:
            return None
        keys += here
        wanted = range(len(members)) if check.depth == "deep" else (members.index("json"),)
        for key, ranges in zip(here, spans[:, wanted].tolist(), strict=True):
            _look(key, {members[i]: data[o : o + n] for i, (o, n) in zip(wanted, ranges, strict=True)}, check, trial)
    tail = file.read()
    digest.update(tail)
    if tail != END or digest.hexdigest() != sha256:  # then a walk finds more
        return None
    found.problems += trial.problems
    found.sources, found.overlaps, found.is_complete = trial.sources, trial.overlaps, trial.is_complete
    found.keys = _digests(keys)
    return digest.hexdigest()


def _groups(index: Index) -> Iterator[tuple[int, int]]:
    """First sample and the one after the last of runs of samples of about CHUNK bytes."""
    starts = index.spans[:, 0, 0] - BLOCK
    first = 0
    while first < len(starts):
        end = max(first + 1, int(np.searchsorted(starts, starts[first] + CHUNK)))
        yield first, end
        first = end


def _read_by_walking(path: Path, stored: Index | None, check: Check, found: Findings) -> str:
    """Read a tar whose index does not tell; returns its sha256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            index, keys = index_tar(path, check.manifest.members)
        except ValueError as error:
            found.is_complete = False
            found.add("structure", str(error).removeprefix(f"{path}: "))
            return digest
        if stored is not None and not np.array_equal(stored.spans, index.spans):
            found.add("index", f"does not describe {found.name}", name=index_name(found.name))
        for number, key in enumerate(keys):
            parts = {}
            for member, (offset, length) in zip(check.manifest.members, index.ranges(number), strict=True):
                if check.depth == "deep" or member == "json":
                    file.seek(offset)
                    parts[member] = file.read(length)
            _look(key, parts, check, found)
    found.keys = _digests(keys)
    return digest


def _digests(keys: list[str]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(map(key_digest, keys)), "<u8").astype(np.uint64, copy=False)


def key_digest(key: str) -> bytes:
    """8 bytes that stand for a key: equal ones are looked at again, so that no two are taken for one."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _look(key: str, parts: dict[str, bytes], check: Check, found: Findings) -> None:
    """Count one sample, and with "deep" check all that it says."""
    manifest = check.manifest
    if not is_key(key, manifest.kind):
        found.add("key", "is not formed like a key", key)
    try:
        if check.depth == "deep":
            sample = decode(key, parts) if manifest.kind == "pairs" else decode_image(key, parts)
            source, overlap = sample.source, sample.overlap if isinstance(sample, PairSample) else -1.0
        else:
            facts = _FACTS.decode(parts["json"])
            source, overlap = facts.source, facts.overlap
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        found.is_complete = False
        found.add("sample", str(error), key)
        return
    found.sources[source] += 1
    if manifest.kind == "pairs":
        found.overlaps.append(overlap)
    if check.depth == "deep":
        wrong = (
            check_sample(sample, manifest, check.recompute)
            if isinstance(sample, PairSample)
            else check_image(sample, manifest)
        )
        for kind, message in wrong:
            found.add(kind, message, key)


_FACTS = msgspec.json.Decoder(_Facts)
