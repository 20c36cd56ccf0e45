"""New data sets from existing ones: the same samples in other shards, fewer of them, or those of several together.

A verb says which samples, in which order; everything else is the same for all: the samples are copied as blocks of a
tar, never decoded, and the manifest and `scenes.jsonl` say what became of the others (accounts.py). The bytes follow
from the input and the options alone, however many threads copy and however often the run was killed: it writes under
`.build`'s lock, each file whole or not at all, the manifest last, and goes on with what is there.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np

from mimic_wds.storage.accounts import check_lines, settled
from mimic_wds.storage.catalog import NO_BIN, Catalog, DataSet, Progress, Wanted, open_data_set, scan
from mimic_wds.storage.copying import copy_shard, cut
from mimic_wds.storage.files import atomic_write, remove_stale
from mimic_wds.storage.joining import joined, origin
from mimic_wds.storage.layout import REPORT_NAME, SCENES_NAME, STAGING_NAME, check_dataset_name, shard_name
from mimic_wds.storage.manifest import (
    Histogram,
    Manifest,
    ShardInfo,
    dataset_id,
    format_version,
    histogram,
    manifest_hash,
    read_manifest,
    write_manifest,
)
from mimic_wds.storage.output import check_output, locked
from mimic_wds.storage.scenes import Totals, write_scenes
from mimic_wds.storage.selection import Numbers, Scope, everything
from mimic_wds.storage.threads import in_threads

PLAN_NAME = "rewrite.json"  #: in the staging folder: what is being made
TAKEN_NAME = "taken.npy"  #: in the staging folder: the samples, once they are chosen

Select: TypeAlias = Callable[[Catalog], Numbers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A data set to be made."""

    out: Path
    select: Select  #: the samples it takes, in their order; a pure function
    name: str = ""  #: default: the folder's
    scope: Scope = everything  #: scenes that it speaks of; `select` takes samples of no others
    reason: str = "filtered"  #: why samples in scope are not taken
    max_shard_bytes: int = 256 * 2**20  #: 0 = no limit
    samples_per_shard: int = 0  #: 0 = no limit

    def __post_init__(self) -> None:
        check_dataset_name(self.dataset)
        if self.max_shard_bytes < 0 or self.samples_per_shard < 0:
            raise ValueError("--max-shard-bytes and --samples-per-shard must be 0 (no limit) or more")

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.name or self.out.resolve().name


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A run of a verb: from which data sets, and all of its options that decide what comes out."""

    verb: str
    sources: Sequence[Path]
    options: Mapping[str, Any] = field(default_factory=dict)  #: JSON
    wanted: Wanted = field(default_factory=Wanted)
    allow_different_criteria: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a run works; the data sets that it makes do not depend on it."""

    resume: bool = False  #: go on with what an interrupted run has left
    check: bool = True  #: hold the shards that are read against their sha256
    workers: int = 1  #: threads that read and copy
    progress: Progress = lambda stage, done, total: None


def rewrite(request: Request, targets: Sequence[Target], how: How | None = None) -> list[Manifest]:
    """Make the targets, one after the other, and return their manifests.

    Raises ValueError for unusable input, options or output, OutputError when an output cannot be written.
    """
    how = how or How()
    data_sets = [open_data_set(path) for path in request.sources]
    for data_set in data_sets:
        check_lines(data_set)
    common = joined(data_sets, request.allow_different_criteria)
    plans = [_plan(request, data_sets, target) for target in targets]
    states = [check_output(target.out, how.resume) for target in targets]
    if len({target.out.resolve() for target in targets}) < len(targets):
        raise ValueError(f"{targets[0].out}: both outputs are the same folder")
    for target, plan, state in zip(targets, plans, states, strict=True):
        if state == "complete":
            _check_finished(target.out, plan)
    if all(state == "complete" for state in states):
        return [read_manifest(target.out) for target in targets]
    catalog = scan(data_sets, request.wanted, check=how.check, workers=how.workers, progress=how.progress)
    chosen = list(zip(targets, plans, states, strict=True))
    return [
        read_manifest(target.out) if state == "complete" else _make(target, plan, catalog, common, how)
        for target, plan, state in chosen
    ]


def _plan(request: Request, data_sets: list[DataSet], target: Target) -> dict[str, Any]:
    """What is made, from what: no paths of this machine, no times."""
    return {
        "verb": request.verb,
        "options": dict(request.options),
        "name": target.dataset,
        "max_shard_bytes": target.max_shard_bytes,
        "samples_per_shard": target.samples_per_shard,
        "from": [
            {**origin(data_set.manifest, manifest_hash(data_set.manifest)), "criteria": data_set.manifest.criteria}
            for data_set in data_sets
        ],
    }


def _check_finished(out: Path, plan: dict[str, Any]) -> None:
    """Raise ValueError unless the whole data set in `out` is that of this plan; remove what a killed run left."""
    try:
        report = msgspec.json.decode((out / REPORT_NAME).read_bytes())
    except (OSError, msgspec.DecodeError):
        report = None
    if report != plan:
        raise ValueError(f"{out}: holds a data set that was made otherwise; choose another --out")
    staging = out / STAGING_NAME
    if staging.exists():
        with locked(staging):
            shutil.rmtree(staging)


def _make(target: Target, plan: dict[str, Any], catalog: Catalog, common: dict[str, Any], how: How) -> Manifest:
    """Make one data set from a catalog."""
    staging = target.out / STAGING_NAME
    is_new = not target.out.exists()
    staging.mkdir(parents=True, exist_ok=True)
    with locked(staging):
        remove_stale(staging)
        remove_stale(target.out)
        _remember(staging, plan)
        try:
            taken = _taken(staging, target, catalog)
        except ValueError:  # nothing was written yet that could be of use
            shutil.rmtree(target.out if is_new else staging)
            raise
        shards = _copy(target, catalog, taken, how)
        totals = write_scenes(target.out / SCENES_NAME, settled(catalog, taken, target.reason, target.scope))
        with atomic_write(target.out / REPORT_NAME) as file:
            file.write(msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n")
        manifest = _describe(target, shards, totals, _overlaps(catalog, taken), common)
        write_manifest(target.out, manifest)
        shutil.rmtree(staging)
    return manifest


def _remember(staging: Path, plan: dict[str, Any]) -> None:
    """Write the plan, or check that the run that was interrupted had the same. Raises ValueError."""
    path, data = staging / PLAN_NAME, msgspec.json.encode(plan)
    if not path.exists():
        if any(child.name.endswith((".jsonl", ".json")) for child in staging.iterdir()):
            raise ValueError(f"{staging.parent}: holds an unfinished build; continue that, or choose another --out")
        with atomic_write(path) as file:
            file.write(data)
    elif path.read_bytes() != data:
        raise ValueError(
            f"{staging.parent}: the unfinished run had other options or other input; use the same, or another --out"
        )


def _taken(staging: Path, target: Target, catalog: Catalog) -> Numbers:
    """The samples that a target takes: chosen now, or by the run that was interrupted."""
    path = staging / TAKEN_NAME
    if not path.exists():
        taken = target.select(catalog)
        with atomic_write(path) as file:
            file.write(taken.astype("<i8").tobytes())
    return np.fromfile(path, "<i8").astype(np.int64, copy=False)


def _copy(target: Target, catalog: Catalog, taken: Numbers, how: How) -> list[ShardInfo]:
    """Write all shards that are not there."""
    parts = cut(catalog, taken, target.max_shard_bytes, target.samples_per_shard)

    def copy(number: int) -> ShardInfo:
        return copy_shard(target.out / shard_name(target.dataset, number), catalog, parts[number])

    shards = []
    for info in in_threads(copy, range(len(parts)), how.workers):
        shards.append(info)
        how.progress("writing", len(shards), len(parts))
    return shards


def _overlaps(catalog: Catalog, taken: Numbers) -> Histogram:
    """The overlaps of these samples."""
    empty = histogram([])
    counts = np.bincount(catalog.bin[taken], minlength=NO_BIN + 1)[: len(empty.counts)]
    return Histogram(edges=empty.edges, counts=counts.tolist())


def _describe(
    target: Target, shards: list[ShardInfo], totals: Totals, overlaps: Histogram, common: dict[str, Any]
) -> Manifest:
    """The manifest of a new data set: generation 0, whatever its samples came from."""
    counts = totals.counts
    return Manifest(
        format_version=format_version(common["kind"], common["maps"], common["truth"]),
        name=target.dataset,
        id=dataset_id(shards),
        generation=0,
        shards=shards,
        candidates={source: c.candidates for source, c in counts.items()},
        kept={source: c.kept for source, c in counts.items()},
        dropped={source: dict(c.dropped) for source, c in counts.items()},
        faults={source: dict(c.faults) for source, c in counts.items()},
        views={source: c.views for source, c in counts.items()},
        scenes=totals.scenes,
        failed_scenes=totals.failed,
        overlap_histogram=overlaps,
        **{**common, "licences": {source: common["licences"].get(source, "") for source in counts}},
    )


def digest_of(path: Path) -> str:
    """sha256 (hex) of a file that an option names: the plan of a run holds it instead of the path."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
