"""Repair a data set: what can be known again is made again, what cannot is put aside and counted. Nothing is deleted.

Indexes are made from their tars, damaged shards fetched from a mirror. Without one they go to `quarantine/`; their
whole samples go into a new shard of the next generation, the others are counted as `lost`. A lost manifest comes from
the mirror, or as far as possible from shards and scene lines. The manifest is written last, so a repair that was killed
is simply run again.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mimic_wds.pairs import PairSample
from mimic_wds.storage.files import atomic_write, remove_stale, sync_folder
from mimic_wds.storage.index import Index, index_path, index_tar, read_index, write_index
from mimic_wds.storage.layout import (
    MANIFEST_NAME,
    QUARANTINE_NAME,
    REPAIRING_NAME,
    STAGING_NAME,
    index_name,
    scenes_name,
    shard_name,
    shard_number,
)
from mimic_wds.storage.manifest import (
    Manifest,
    ShardInfo,
    histogram,
    manifest_hash,
    read_manifest,
    write_manifest,
)
from mimic_wds.storage.output import locked
from mimic_wds.storage.places import Place, read_manifest_at
from mimic_wds.storage.salvage import rebuilt_manifest, salvaged, samples_of, sha256_of
from mimic_wds.storage.scenes import SceneOutcome, scene_lines, totals_of, write_scenes
from mimic_wds.storage.writer import ShardWriter

LOST = "lost"  #: drop reason of samples that a damaged shard held and nobody has any more


@dataclass(slots=True)
class Repair:
    """What was, or with a dry run would be, done."""

    done: list[str] = field(default_factory=list)  #: one line per action
    salvaged: int = 0  #: samples taken from damaged shards
    lost: int = 0  #: samples that are gone


def repair(folder: Path, mirror: Place | None = None, *, dry_run: bool = False) -> Repair:
    """Make the data set in `folder` whole again.

    Raises ValueError when another run is at work or unfinished here, when nothing tells what the data set was, and when
    the mirror holds another data set; OutputError when the folder cannot be written.
    """
    if (folder / STAGING_NAME).exists():
        raise ValueError(f"{folder / STAGING_NAME}: an unfinished run; run that again, or delete it, then repair")
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    if dry_run:
        return _repair(folder, mirror, dry_run=True)
    lock = folder / REPAIRING_NAME
    lock.mkdir(exist_ok=True)
    with locked(lock):
        report = _repair(folder, mirror, dry_run=False)
        remove_stale(folder)
        shutil.rmtree(lock)
    return report


def _repair(folder: Path, mirror: Place | None, dry_run: bool) -> Repair:
    report = Repair()
    manifest = known_manifest(folder, mirror, report)
    is_new = not _is_written(folder, manifest)
    bad = [info for info in manifest.shards if not _is_sound(folder / info.name, info)]
    lost = [info for info in bad if not (mirror and _fetch(folder, mirror, info, report, dry_run))]
    _make_indexes(folder, manifest, {info.name for info in lost}, report, dry_run)
    _fetch_lines(folder, mirror, manifest, report, dry_run)
    if lost:
        manifest = _without(folder, manifest, lost, report, dry_run)
    if (lost or is_new) and not dry_run:
        write_manifest(folder, manifest)
    return report


def known_manifest(folder: Path, mirror: Place | None, report: Repair) -> Manifest:
    """The manifest that is there, that of the mirror, or one that is made of shards and scene lines."""
    theirs = read_manifest_at(mirror) if mirror else None
    try:
        ours = read_manifest(folder)
    except ValueError as error:
        report.done.append(f"{MANIFEST_NAME}: {'taken from the mirror' if theirs else 'made again'}: {error}")
        return theirs or rebuilt_manifest(folder)
    if theirs and theirs.id != ours.id:
        raise ValueError(f"{mirror.url if mirror else ''}: is no mirror: its id is {theirs.id}, here it is {ours.id}")
    return ours


def _is_written(folder: Path, manifest: Manifest) -> bool:
    try:
        return manifest_hash(read_manifest(folder)) == manifest_hash(manifest)
    except ValueError:
        return False


def _is_sound(path: Path, info: ShardInfo) -> bool:
    return path.is_file() and path.stat().st_size == info.bytes and sha256_of(path) == info.sha256


def _fetch(folder: Path, mirror: Place, info: ShardInfo, report: Repair, dry_run: bool) -> bool:
    """Bring a shard from the mirror, if that has the right bytes; the damaged one is put aside."""
    if mirror.size(info.name) != info.bytes:
        return False
    if dry_run:
        report.done.append(f"{info.name}: would be fetched from the mirror")
        return True
    path, digest = folder / info.name, hashlib.sha256()
    fetched = folder / REPAIRING_NAME / info.name
    with atomic_write(fetched) as file:
        for chunk in mirror.stream(info.name):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != info.sha256:
        report.done.append(f"{info.name}: the mirror's is damaged too")
        return False
    _put_aside(path)
    fetched.replace(path)
    sync_folder(folder)
    report.done.append(f"{info.name}: fetched from the mirror")
    return True


def _fetch_lines(folder: Path, mirror: Place | None, manifest: Manifest, report: Repair, dry_run: bool) -> None:
    """Bring the files of scene lines that are missing; no shard tells what was tried and dropped."""
    for name in map(scenes_name, range(manifest.generation + 1)):
        if (folder / name).exists():
            continue
        if mirror is None or mirror.size(name) is None:
            report.done.append(f"{name}: is missing, and only a mirror could have it")
            continue
        report.done.append(f"{name}: {'would be ' if dry_run else ''}fetched from the mirror")
        if not dry_run:
            with atomic_write(folder / name) as file:
                file.write(mirror.read(name))


def _put_aside(path: Path) -> None:
    """Move a damaged file to the quarantine, beside others of its name."""
    if not path.exists():
        return
    folder = path.parent / QUARANTINE_NAME
    folder.mkdir(exist_ok=True)
    places = (folder / f"{path.name}{f'.{number}' if number else ''}" for number in range(10**6))
    path.replace(next(place for place in places if not place.exists()))
    sync_folder(folder)
    sync_folder(path.parent)


def _make_indexes(folder: Path, manifest: Manifest, lost: set[str], report: Repair, dry_run: bool) -> None:
    """Make the indexes that are missing or not those of their tars."""
    for info in manifest.shards:
        path = folder / info.name
        if info.name in lost or not path.is_file():
            continue
        index, _ = index_tar(path, manifest.members)
        if not _has_index(path, index):
            report.done.append(f"{index_name(info.name)}: {'would be ' if dry_run else ''}made again")
            if not dry_run:
                write_index(index_path(path), index)


def _has_index(path: Path, index: Index) -> bool:
    try:
        return np.array_equal(read_index(index_path(path)).spans, index.spans)
    except ValueError:
        return False


def _without(folder: Path, manifest: Manifest, lost: list[ShardInfo], report: Repair, dry_run: bool) -> Manifest:
    """The next generation: without the shards that are lost, with a new one of what could be saved of them."""
    names = {info.name for info in lost}
    for info in lost:
        report.done.append(
            f"{info.name}: {'would be ' if dry_run else ''}put into {QUARANTINE_NAME}/, what is whole saved"
        )
    if dry_run:
        return manifest
    generation = manifest.generation + 1
    number = 1 + max(shard_number(info.name) for info in manifest.shards)
    path = folder / shard_name(manifest.name, number)
    with ShardWriter(path) as writer:
        for info in lost:
            for sample in salvaged(_source(folder, info.name), _stored(folder, info.name), manifest):
                if sample.key not in writer.keys:
                    writer.add(sample)
    kept = [info for info in manifest.shards if info.name not in names]
    if writer.keys:
        write_index(index_path(path), writer.index)
        kept.append(writer.info(generation))
    report.salvaged = len(writer.keys)
    report.lost = sum(info.samples for info in lost) - len(writer.keys)
    overlaps, there = [], Counter[tuple[str, str]]()
    for info in kept:
        for sample in samples_of(folder / info.name, manifest.members):
            there[sample.source, sample.scene] += 1
            if isinstance(sample, PairSample):
                overlaps.append(sample.overlap)
    gone = Counter(manifest.kept)
    for source_scene, count in there.items():
        gone[source_scene[0]] -= count
    write_scenes(folder / scenes_name(generation), _changed(scene_lines(folder, manifest.generation), there, gone))
    totals = totals_of(scene_lines(folder, generation))
    for info in lost:
        _put_aside(folder / info.name)
        _put_aside(folder / index_name(info.name))
    return replace(
        manifest,
        generation=generation,
        shards=kept,
        kept={source: c.kept for source, c in totals.counts.items()},
        dropped={source: dict(c.dropped) for source, c in totals.counts.items()},
        overlap_histogram=histogram(overlaps),
    )


def _source(folder: Path, name: str) -> Path:
    """Where a damaged shard lies: a repair that was killed may have put it aside already."""
    return folder / name if (folder / name).exists() else folder / QUARANTINE_NAME / name


def _stored(folder: Path, name: str) -> Index | None:
    """The index of a damaged shard, if that is whole."""
    for path in (folder / index_name(name), folder / QUARANTINE_NAME / index_name(name)):
        try:
            return read_index(path)
        except ValueError:
            continue
    return None


def _changed(
    lines: Iterator[SceneOutcome], there: Counter[tuple[str, str]], gone: Counter[str]
) -> Iterator[SceneOutcome]:
    """The lines of scenes that have lost samples; `gone` samples of each source are shared out, no more."""
    for line in lines:
        fewer = min(max(0, line.kept - there[line.source, line.scene]), gone[line.source])
        if fewer > 0:
            gone[line.source] -= fewer
            dropped = {**line.dropped, LOST: line.dropped.get(LOST, 0) + fewer}
            yield replace(line, kept=line.kept - fewer, dropped=dict(sorted(dropped.items())))
