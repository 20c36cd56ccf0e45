"""Packing: the samples of the staged scenes, in the order of the plan, into shards; the manifest last."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mimic_wds.pairs import Counts
from mimic_wds.storage.index import index_path, write_index
from mimic_wds.storage.layout import shard_name
from mimic_wds.storage.manifest import (
    FORMAT_VERSION,
    Manifest,
    ShardInfo,
    dataset_id,
    histogram,
    write_manifest,
)
from mimic_wds.storage.reader import Shard
from mimic_wds.storage.staging import StagedScene, read_staged, scene_tar
from mimic_wds.storage.tar import END
from mimic_wds.storage.writer import ShardWriter


def pack(
    staging: Path, num_scenes: int, out: Path, name: str, max_shard_bytes: int, description: Mapping[str, Any]
) -> Manifest:
    """Pack scenes 0..num_scenes-1 into shards of the data set `name` in `out`, write its manifest and return it.

    A shard is closed before a sample that would take it past `max_shard_bytes` (one sample always fits).
    `description` gives the manifest's criteria, versions and licences. The result depends on nothing but the staged
    scenes and these arguments. Raises ValueError when two scenes hold the same key, OutputError when `out` is full.
    """
    scenes = list(_staged(staging, num_scenes))
    check_keys(scenes)
    shards: list[ShardInfo] = []
    samples = _samples(staging, scenes)
    pending = next(samples, None)
    while pending is not None:
        with ShardWriter(out / shard_name(name, len(shards))) as writer:
            while pending is not None:
                key, source, blocks, lengths = pending
                if writer.keys and writer.num_bytes + len(blocks) + len(END) > max_shard_bytes:
                    break
                writer.add_raw(key, source, blocks, lengths)
                pending = next(samples, None)
        write_index(index_path(writer.path), writer.index)
        shards.append(writer.info())
    manifest = describe(name, shards, scenes, description)
    write_manifest(out, manifest)
    return manifest


def _staged(staging: Path, num_scenes: int) -> Iterator[StagedScene]:
    for number in range(num_scenes):
        staged = read_staged(staging, number)
        assert staged is not None, f"scene {number} is not staged"
        yield staged


def check_keys(scenes: list[StagedScene]) -> None:
    """Raise ValueError naming both scenes when a key is there twice."""
    owner: dict[str, StagedScene] = {}
    for staged in scenes:
        for key in staged.keys:
            if key in owner:
                raise ValueError(f"the key {key!r} comes from both {owner[key].scene.path} and {staged.scene.path}")
            owner[key] = staged


def _samples(staging: Path, scenes: list[StagedScene]) -> Iterator[tuple[str, str, bytes, list[int]]]:
    """(key, source, tar blocks, member lengths) of every staged sample in order."""
    for number, staged in enumerate(scenes):
        if staged.keys:
            with Shard(scene_tar(staging, number)) as shard:
                for i, key in enumerate(staged.keys):
                    yield key, staged.scene.source, shard.blocks(i), shard.lengths(i)


def describe(name: str, shards: list[ShardInfo], scenes: list[StagedScene], description: Mapping[str, Any]) -> Manifest:
    """The manifest of a new data set."""
    counts: dict[str, Counts] = {}
    num_scenes: dict[str, int] = {}
    for staged in scenes:
        source = staged.scene.source
        counts[source] = counts.get(source, Counts()) + staged.counts
        num_scenes[source] = num_scenes.get(source, 0) + 1
    overlaps = [overlap for staged in scenes for overlap in staged.overlaps]
    return Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        id=dataset_id(shards),
        generation=0,
        shards=shards,
        candidates={source: c.candidates for source, c in counts.items()},
        kept={source: c.kept for source, c in counts.items()},
        dropped={source: dict(c.dropped) for source, c in counts.items()},
        faults={source: dict(c.faults) for source, c in counts.items()},
        views={source: c.views for source, c in counts.items()},
        scenes=num_scenes,
        failed_scenes={f"{s.scene.source}/{s.scene.name}": _public(s) for s in scenes if s.error},
        overlap_histogram=histogram(overlaps),
        **description,
    )


def _public(staged: StagedScene) -> str:
    """The error of a scene without the path on this machine."""
    return staged.error.replace(staged.scene.path, staged.scene.name)
