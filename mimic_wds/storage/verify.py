"""Is a data set whole, and does every sample say the truth? Every problem is named; none ends the search."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from mimic_wds.storage.files import is_temporary
from mimic_wds.storage.folder_place import FolderPlace
from mimic_wds.storage.index import index_tar
from mimic_wds.storage.layout import MANIFEST_NAME, PULLING_NAME, REPAIRING_NAME, STAGING_NAME, index_name, scenes_name
from mimic_wds.storage.manifest import Histogram, Manifest, ShardInfo, dataset_id, histogram, read_manifest
from mimic_wds.storage.places import Place, read_manifest_at
from mimic_wds.storage.scenes import Totals, scene_lines, totals_of
from mimic_wds.storage.threads import in_processes
from mimic_wds.storage.verify_sample import Recompute, check_sample
from mimic_wds.storage.verify_shard import Check, Depth, Findings, Problem, check_shard, key_digest, local

__all__ = ["Depth", "Problem", "Recompute", "check_sample", "unfinished", "verify"]

Progress = Callable[[int, int], None]  #: told (shards done, shards in all)


def verify(
    where: Path | Place,
    recompute: Recompute | None = None,
    *,
    depth: Depth = "deep",
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> Iterator[Problem]:
    """Hold a data set against its manifest; yield every problem, in the order of the shards.

    "fast" looks at names, sizes and indexes, "default" reads every byte, "deep" decodes every picture too and checks
    all that samples say. `recompute` gives the correspondences of a stored homography to compare with; without it they
    are only checked to fit the grid. `workers` processes look at shards at once. Never raises for a damaged data set.
    """
    place: Place = FolderPlace(where if where.is_dir() else where.parent) if isinstance(where, Path) else where
    try:
        manifest = read_manifest(where) if isinstance(where, Path) else read_manifest_at(place)
    except (ValueError, OSError) as error:
        yield Problem(str(where) if isinstance(where, Path) else place.url, "", "manifest", str(error))
        return
    sizes = place.names()
    yield from _files(place, manifest, sizes)
    yield from _manifest(place, manifest)
    check = Check(manifest, depth, recompute)

    def one(number: int) -> Findings:
        info = manifest.shards[number]
        try:
            return check_shard(place, info, sizes.get(info.name), check)
        except OSError as error:
            why = error.strerror or str(error)
            return Findings(
                info.name, [Problem(info.name, "", "unreadable", f"cannot be read: {why}")], is_complete=False
            )

    seen = _Seen()
    for found in in_processes(partial(_look, place, check, sizes), manifest.shards, workers):
        yield from found.problems
        seen.add(found)
        progress(len(seen.names), len(manifest.shards))
    if depth == "fast":
        return
    yield from _same_keys(place, manifest, seen)
    if seen.is_complete and seen.histogram != manifest.overlap_histogram:
        yield Problem(place.url, "", "manifest", "its overlap_histogram is not that of the samples")
    yield from _scenes(place, manifest)


def _look(place: Place, check: Check, sizes: Mapping[str, int], info: ShardInfo) -> Findings:
    """What is found in a shard, also when it cannot be read."""
    try:
        return check_shard(place, info, sizes.get(info.name), check)
    except OSError as error:
        found = Findings(info.name, is_complete=False)
        found.add("unreadable", f"cannot be read: {error.strerror or error}")
        return found


def unfinished(folder: Path) -> str:
    """What lies in a local folder beside the data set because a run is not finished, or was killed; "" if nothing."""
    found = [name for name in (STAGING_NAME, PULLING_NAME, REPAIRING_NAME) if (folder / name).exists()]
    if not found:
        return ""
    return f"{folder / found[0]}: an unfinished run; run the same command again, or delete it to give the run up"


class _Seen:
    """What all shards hold together."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.keys: list[np.ndarray] = []
        self.histogram: Histogram = histogram([])
        self.is_complete = True

    def add(self, found: Findings) -> None:
        """Take note of the next shard."""
        self.names.append(found.name)
        self.keys.append(found.keys)
        more = histogram(found.overlaps)
        counts = [a + b for a, b in zip(self.histogram.counts, more.counts, strict=True)]
        self.histogram = Histogram(edges=more.edges, counts=counts)
        self.is_complete &= found.is_complete


def _files(place: Place, manifest: Manifest, sizes: dict[str, int]) -> Iterator[Problem]:
    """Shards that are missing, and files that the manifest does not know."""
    listed = {info.name for info in manifest.shards}
    for name in sorted(listed - sizes.keys()):
        yield Problem(name, "", "missing", "is missing")
    if isinstance(place, FolderPlace):
        if unfinished(place.folder):  # the rest belongs to that run
            return
        extra = [path.name for path in place.folder.iterdir() if is_temporary(path.name)]
    else:
        extra = []
    known = listed | {index_name(name) for name in listed}
    extra += [name for name in sizes if name.endswith((".tar", ".idx")) and name not in known]
    for name in sorted(extra):
        yield Problem(name, "", "extra", "does not belong to the data set: the manifest does not list it")


def _manifest(place: Place, manifest: Manifest) -> Iterator[Problem]:
    """Do the manifest's own counts add up?"""

    def wrong(message: str) -> Problem:
        return Problem(place.url, "", "manifest", message)

    in_shards: Counter[str] = Counter()
    for info in manifest.shards:
        in_shards.update(info.sources)
    kept = {source: count for source, count in manifest.kept.items() if count}
    if kept != dict(in_shards):
        yield wrong(f"says {kept} kept per source, its shards hold {dict(in_shards)}")
    for source, candidates in manifest.candidates.items():
        accounted = manifest.kept.get(source, 0) + sum(manifest.dropped.get(source, {}).values())
        if accounted != candidates:
            yield wrong(f"{source}: {candidates} candidates, but kept and dropped are {accounted}")
    if manifest.classes != sorted(set(manifest.classes)):
        yield wrong("its classes are not sorted, or one comes twice")
    if manifest.generation == 0 and manifest.id != dataset_id(manifest.shards):
        yield wrong(f"its id is {manifest.id}, the hashes of its shards give {dataset_id(manifest.shards)}")


def _same_keys(place: Place, manifest: Manifest, seen: _Seen) -> Iterator[Problem]:
    """Keys that several samples have: 64 bits of each are compared, then the keys themselves where those are equal."""
    digests = np.concatenate([*seen.keys, np.empty(0, np.uint64)])
    values, times = np.unique(digests, return_counts=True)
    suspects = values[times > 1]
    owners: dict[str, str] = {}
    for name, keys in zip(seen.names, seen.keys, strict=True) if len(suspects) else ():
        if not np.isin(keys, suspects).any():
            continue
        with local(place, [name]) as folder:
            for key in _keys(folder / name, manifest):
                if key in owners:
                    yield Problem(name, key, "key", f"the key is also in {owners[key]}")
                if int.from_bytes(key_digest(key), "little") in suspects:
                    owners[key] = name


def _keys(path: Path, manifest: Manifest) -> list[str]:
    """The keys of a shard, as far as it can be read; a shard that holds one twice says so itself."""
    try:
        return index_tar(path, manifest.members)[1]
    except ValueError:
        return []


def _scenes(place: Place, manifest: Manifest) -> Iterator[Problem]:
    """The lines of the scenes against the manifest's counts."""
    names = [scenes_name(generation) for generation in range(manifest.generation + 1)]
    try:
        for name in names:
            if place.size(name) is None:
                yield Problem(name, "", "missing", "is missing")
                return
        with local(place, names) as folder:
            totals = totals_of(scene_lines(folder, manifest.generation))
    except (ValueError, OSError) as error:
        yield Problem(names[0], "", "scenes", str(error))
        return
    for field, told, counted in _sums(manifest, totals):
        if told != counted:
            message = f"its lines add up to {field} {counted}, the {MANIFEST_NAME} says {told}"
            yield Problem(names[-1], "", "scenes", message)


def _sums(manifest: Manifest, totals: Totals) -> Iterator[tuple[str, object, object]]:
    """Name of a count, what the manifest says and what the lines give."""
    counts = totals.counts
    yield "scenes", manifest.scenes, totals.scenes
    yield "failed_scenes", manifest.failed_scenes, totals.failed
    yield "candidates", manifest.candidates, {source: c.candidates for source, c in counts.items()}
    yield "kept", manifest.kept, {source: c.kept for source, c in counts.items()}
    yield "dropped", manifest.dropped, {source: dict(c.dropped) for source, c in counts.items()}
    yield "faults", manifest.faults, {source: dict(c.faults) for source, c in counts.items()}
    yield "views", manifest.views, {source: c.views for source, c in counts.items()}
