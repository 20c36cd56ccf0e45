"""What a case of the fault matrix is: one fault, what ours does about it, what plain webdataset does."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from samples import make_data_set, make_sample

from mimic_wds.pairs import PairSample
from mimic_wds.storage.manifest import Manifest, dataset_id, read_manifest, write_manifest
from mimic_wds.storage.reader import Shard

#: Samples of each shard, as in the sheet of faults.
PER_SHARD = 10


class Outcome(NamedTuple):
    """What was observed, and whether that is right."""

    right: bool
    what: str


@dataclass(frozen=True, slots=True)
class Case:
    """One fault. Both functions get an empty folder; `theirs` is None where webdataset has no such thing."""

    number: str
    fault: str
    ours: Callable[[Path], Outcome]
    theirs: Callable[[Path], Outcome] | None = None


def whole_set(folder: Path, shards: int = 1) -> Manifest:
    """A data set of PER_SHARD pairs in each of its shards."""
    one = make_data_set(folder.with_name(f"{folder.name}-one"), per_scene=(PER_SHARD,), max_shard_bytes=10**9)
    if shards == 1:
        folder.with_name(f"{folder.name}-one").rename(folder)
        return one
    return make_data_set(folder, per_scene=(PER_SHARD,) * shards, max_shard_bytes=one.shards[0].bytes + 2000)


def first_shard(folder: Path) -> Path:
    """The file of a data set's first shard."""
    return folder / read_manifest(folder).shards[0].name


def cut(path: Path, sample: int, member: int, inside: int = 0) -> int:
    """Cut a tar before a member of a sample, or so many bytes behind its header; returns what is left."""
    with Shard(path) as shard:
        offset = shard.index.ranges(sample)[member][0]
    end = offset + inside if inside else offset - 512
    with path.open("r+b") as file:
        file.truncate(end)
    return end


def sealed(folder: Path) -> None:
    """Let the manifest describe the first shard as it is now, as if it had been made so."""
    manifest, path = read_manifest(folder), first_shard(folder)
    data = path.read_bytes()
    info = replace(manifest.shards[0], bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    shards = [info, *manifest.shards[1:]]
    write_manifest(folder, replace(manifest, shards=shards, id=dataset_id(shards)))


def message_of(function: Callable[..., object], *args: object) -> str:
    """The message of the ValueError, OSError or RuntimeError that a call raises; "" if it raises none."""
    try:
        function(*args)
    except (ValueError, OSError, RuntimeError) as error:
        return str(error)
    return ""


def short(text: str, folder: Path) -> str:
    """A message without the temporary folder, on one line."""
    return " ".join(text.replace(f"{folder}/", "").replace(str(folder), ".").split())


def loose_members(number: int = 0) -> dict[str, object]:
    """A sample as webdataset's writers want it."""
    sample: PairSample = make_sample(number)
    return {"__key__": sample.key, "0.jpg": sample.image0_jpg, "1.jpg": sample.image1_jpg, "json": b"{}"}
