"""Packing: the samples of the staged scenes, in the order of the plan, into shards; the manifest last.

What goes into which shard is a function of the staged outcomes alone, so packing can be killed at any moment and go on:
a shard that is there is whole and right. The staged samples are removed as soon as a shard holds them, so that a build
needs the space of its shards and of one more.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mimic_wds.pairs import DropReason
from mimic_wds.storage.index import index_path, write_index
from mimic_wds.storage.layout import prefix_of, scene_prefix, scenes_name, shard_name, shard_number
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
from mimic_wds.storage.reader import Shard
from mimic_wds.storage.scenes import SceneOutcome, Totals, scene_lines, totals_of, write_scenes
from mimic_wds.storage.staging import StagedScene, read_staged, remove_samples, scene_tar
from mimic_wds.storage.tar import END
from mimic_wds.storage.writer import ShardWriter


@dataclass(frozen=True, slots=True)
class _Sample:
    """One staged sample that goes into a shard."""

    number: int  #: of its scene
    place: int  #: in its scene's tar
    key: str
    source: str
    num_bytes: int


def pack(
    staging: Path,
    num_scenes: int,
    out: Path,
    name: str,
    max_shard_bytes: int,
    description: Mapping[str, Any],
    *,
    base: Manifest | None = None,
    known: Set[str] = frozenset(),
) -> Manifest:
    """Pack scenes 0..num_scenes-1 into shards of the data set `name` in `out`, write its manifest and return it.

    A shard is closed before a sample that would take it past `max_shard_bytes` (one sample always fits).
    `description` gives the manifest's criteria, versions and licences, of images also kind and classes. With `base`,
    the manifest that is there, new shards are added as its next generation (none, and nothing is written, if that would
    say nothing new). `known` are the keys in its shards: a sample with one of them is there already if its scene is one
    of those that had failed, which take their new outcomes; otherwise, as of two new samples with the same key, the
    second is dropped.
    The result depends on nothing but the staged scenes and these arguments.
    Raises OutputError when `out` is full, ValueError when a staged file is missing or the manifest is no longer `base`.
    """
    settled = _Settled(staging, num_scenes, known, frozenset(base.failed_scenes if base else ()))
    first, generation = (_next_number(base), base.generation + 1) if base else (0, 0)
    shards: list[ShardInfo] = []
    for number, samples in enumerate(_cut(iter(settled), max_shard_bytes), start=first):
        path = out / shard_name(name, number)
        shards.append(_packed_already(path, samples, generation) or _write_shard(path, staging, samples, generation))
        for scene in {sample.number for sample in samples} - {samples[-1].number}:
            remove_samples(staging, scene)
    totals = write_scenes(out / scenes_name(generation), settled.outcomes())
    if base is not None:
        totals = totals_of(scene_lines(out, generation))
    manifest = _describe(name, shards, totals, histogram(settled.overlaps), description, base)
    if base is not None and replace(manifest, generation=base.generation) == base:
        (out / scenes_name(generation)).unlink()
        return base
    if base is not None and manifest_hash(read_manifest(out)) != manifest_hash(base):
        raise ValueError(f"{out}: another run has changed the data set meanwhile; run the same command again")
    write_manifest(out, manifest)
    return manifest


def _next_number(base: Manifest) -> int:
    """Of the first new shard."""
    return 1 + max((shard_number(shard.name) for shard in base.shards), default=-1)


class _Settled:
    """The staged scenes one by one, with equal keys resolved; only a number per scene is held in memory."""

    def __init__(self, staging: Path, num_scenes: int, known: Set[str], again: Set[str]):
        """`again` are the scenes, as "source/scene", that `known` samples may be of."""
        self._staging = staging
        self._known = known
        self._again = again
        self._there = Counter(map(prefix_of, known))  # samples in shards, per scene
        self._suspects = _same_prefix(staging, num_scenes)
        self._num_scenes = num_scenes
        self._duplicates: dict[int, int] = {}  # scene -> samples that are dropped
        self.overlaps = array("d")  #: of the samples that were handed out

    def __iter__(self) -> Iterator[_Sample]:
        """All samples that go into shards, in order."""
        seen: set[str] = set()
        for number in range(self._num_scenes):
            staged = _read(self._staging, number)
            is_again = _name(staged) in self._again
            new = []
            for place, key in enumerate(staged.keys):
                if key in seen or (key in self._known and not is_again):
                    self._duplicates[number] = self._duplicates.get(number, 0) + 1
                elif key not in self._known:
                    new.append(place)
            if number in self._suspects:
                seen.update(staged.keys)
            if staged.overlaps:
                self.overlaps.extend(staged.overlaps[place] for place in new)
            for place in new:
                yield _Sample(number, place, staged.keys[place], staged.scene.source, staged.sizes[place])

    def outcomes(self) -> Iterator[SceneOutcome]:
        """The outcome of every scene (after all samples)."""
        for number in range(self._num_scenes):
            staged = _read(self._staging, number)
            outcome = _outcome(staged, self._duplicates.get(number, 0))
            if _name(staged) in self._again:  # what its first run gave is kept, whether or not it comes out again
                there = self._there[scene_prefix(outcome.source, outcome.scene)]
                found = sum(key in self._known for key in staged.keys)
                outcome = replace(outcome, kept=outcome.kept + max(0, there - found))
            yield outcome


def _read(staging: Path, number: int) -> StagedScene:
    staged = read_staged(staging, number)
    assert staged is not None, f"scene {number} is not staged"
    return staged


def _name(staged: StagedScene) -> str:
    return f"{staged.scene.source}/{staged.scene.name}"


def _same_prefix(staging: Path, num_scenes: int) -> Set[int]:
    """The scenes whose keys begin like those of another one: only they can hold the same key."""
    digests, numbers = array("Q"), array("q")
    for number in range(num_scenes):
        for prefix in {prefix_of(key) for key in _read(staging, number).keys}:
            digests.append(int.from_bytes(hashlib.blake2b(prefix.encode(), digest_size=8).digest(), "little"))
            numbers.append(number)
    _, which, times = np.unique(np.array(digests, np.uint64), return_inverse=True, return_counts=True)
    return frozenset(np.array(numbers, np.int64)[times[which] > 1].tolist())


def _cut(samples: Iterator[_Sample], max_shard_bytes: int) -> Iterator[list[_Sample]]:
    """The samples of each shard."""
    shard: list[_Sample] = []
    num_bytes = len(END)
    for sample in samples:
        if shard and num_bytes + sample.num_bytes > max_shard_bytes:
            yield shard
            shard, num_bytes = [], len(END)
        shard.append(sample)
        num_bytes += sample.num_bytes
    if shard:
        yield shard


def _packed_already(path: Path, samples: list[_Sample], generation: int) -> ShardInfo | None:
    """The shard if a packing that was interrupted has written it: its index is written after it."""
    if not (path.exists() and index_path(path).exists()):
        return None
    sources: dict[str, int] = {}
    for sample in samples:
        sources[sample.source] = sources.get(sample.source, 0) + 1
    with Shard(path) as shard, path.open("rb") as file:
        if [shard.key(i) for i in range(len(shard))] != [sample.key for sample in samples]:
            raise ValueError(f"{path}: is no shard of this build; move it away and run the same command again")
        return ShardInfo(
            name=path.name,
            bytes=shard.index.tar_bytes,
            sha256=hashlib.file_digest(file, "sha256").hexdigest(),
            samples=len(samples),
            sources=dict(sorted(sources.items())),
            generation=generation,
        )


def _write_shard(path: Path, staging: Path, samples: list[_Sample], generation: int) -> ShardInfo:
    """Copy the samples of a shard from their scenes' tars."""
    with ShardWriter(path) as writer:
        tar: Shard | None = None
        try:
            for sample in samples:
                place = scene_tar(staging, sample.number)
                if tar is None or tar.path != place:
                    if tar is not None:
                        tar.close()
                    tar = Shard(place)
                writer.add_raw(sample.key, sample.source, tar.blocks(sample.place), tar.lengths(sample.place))
        finally:
            if tar is not None:
                tar.close()
    write_index(index_path(path), writer.index)
    return writer.info(generation)


def _outcome(staged: StagedScene, duplicates: int) -> SceneOutcome:
    """The line of a scene in `scenes.jsonl`, `duplicates` of whose kept samples are dropped."""
    dropped = dict(staged.counts.dropped)
    if duplicates:
        name = DropReason.DUPLICATE_KEY.value
        dropped[name] = dropped.get(name, 0) + duplicates
    return SceneOutcome(
        source=staged.scene.source,
        scene=staged.scene.name,
        kept=staged.counts.kept - duplicates,
        dropped=dropped,
        faults=dict(staged.counts.faults),
        views=staged.counts.views,
        error=staged.error.replace(staged.scene.path, staged.scene.name),  # no paths of this machine
    )


def _describe(
    name: str,
    shards: list[ShardInfo],
    totals: Totals,
    overlaps: Histogram,
    description: Mapping[str, Any],
    base: Manifest | None,
) -> Manifest:
    """The manifest of a data set, or of its next generation."""
    counts = totals.counts
    if base is not None:
        shards = [*base.shards, *shards]
        overlaps = replace(
            overlaps, counts=[a + b for a, b in zip(base.overlap_histogram.counts, overlaps.counts, strict=True)]
        )
    return Manifest(
        format_version=format_version(
            *(description.get(k, d) for k, d in (("kind", "pairs"), ("maps", ()), ("truth", False)))
        ),
        name=name,
        id=base.id if base else dataset_id(shards),
        generation=base.generation + 1 if base else 0,
        shards=shards,
        candidates={source: c.candidates for source, c in counts.items()},
        kept={source: c.kept for source, c in counts.items()},
        dropped={source: dict(c.dropped) for source, c in counts.items()},
        faults={source: dict(c.faults) for source, c in counts.items()},
        views={source: c.views for source, c in counts.items()},
        scenes=totals.scenes,
        failed_scenes=totals.failed,
        overlap_histogram=overlaps,
        **description,
    )
