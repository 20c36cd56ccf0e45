"""What can still be known of a data set whose files are damaged: whole samples of a torn tar, a manifest."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mimic_wds import __version__
from mimic_wds.pairs import PairSample, Sample
from mimic_wds.storage.index import Index, index_tar
from mimic_wds.storage.layout import MAPS, shard_number
from mimic_wds.storage.manifest import Manifest, ShardInfo, dataset_id, format_version, histogram
from mimic_wds.storage.reader import Shard
from mimic_wds.storage.sample import decode, decode_image
from mimic_wds.storage.scenes import scene_lines, totals_of
from mimic_wds.storage.tar import BLOCK, has_header, walk
from mimic_wds.storage.verify_sample import check_image, check_sample


def rebuilt_manifest(folder: Path) -> Manifest:
    """What shards and scene lines tell. Criteria and licences are not known any more, and it says so.

    Raises ValueError when there are no shards, shards of several data sets, or no scene lines.
    """
    shards = sorted(path for path in folder.glob("*.tar") if path.is_file())
    names = {path.name.rpartition("-")[0] for path in shards}
    if len(names) != 1:
        raise ValueError(f"{folder}: expected the shards of one data set, found those of {sorted(names) or 'none'}")
    with Shard(shards[0], index_of(shards[0])) as first:
        members, sample = first.members, first.sample(0)
    infos, overlaps = [], []
    for path in shards:
        sources, more = _counts(path, members)
        overlaps += more
        infos.append(_describe(path, sources))
    generation = max((shard_number(p.stem + ".tar") for p in folder.glob("scenes-*.jsonl")), default=0)
    totals = totals_of(scene_lines(folder, generation))
    kind, maps = sample.kind, sorted({name.split(".")[1] for name in sample.maps}, key=MAPS.index)
    truth = (sample.truth if isinstance(sample, PairSample) else sample.camera) is not None
    size = {"size": sample.size[0], "patch_size": sample.patch_size} if isinstance(sample, PairSample) else {"size": 0}
    labels = _classes(shards, members) if kind == "images" else []
    return Manifest(
        format_version=format_version(kind, maps, truth),
        name=names.pop(),
        id=dataset_id(infos),
        generation=generation,
        shards=infos,
        criteria={"preset": "import", **size},
        versions={"mimic_wds": __version__, "manifest": "made again from shards and scene lines"},
        candidates={source: c.candidates for source, c in totals.counts.items()},
        kept={source: c.kept for source, c in totals.counts.items()},
        dropped={source: dict(c.dropped) for source, c in totals.counts.items()},
        faults={source: dict(c.faults) for source, c in totals.counts.items()},
        views={source: c.views for source, c in totals.counts.items()},
        scenes=totals.scenes,
        failed_scenes=totals.failed,
        overlap_histogram=histogram(overlaps),
        licences=dict.fromkeys(totals.counts, ""),
        kind=kind,
        classes=labels,
        maps=maps,
        truth=truth,
    )


def index_of(path: Path) -> Index:
    """The index of a tar that may not have one, of samples of any members. Raises ValueError for a torn tar."""
    with path.open("rb") as file:
        names = [(member.name, member.offset, member.length) for member in walk(file, path.stat().st_size)]
    keys = [name.partition(".")[0] for name, _, _ in names]
    count = keys.count(keys[0]) if keys else 0
    if not count or len(names) % count:
        raise ValueError(f"{path}: is no shard of whole samples")
    return index_tar(path, [name.partition(".")[2] for name, _, _ in names[:count]])[0]


def _counts(path: Path, members: tuple[str, ...]) -> tuple[Counter[str], list[float]]:
    """Samples per source of a shard, and their overlaps."""
    sources, overlaps = Counter[str](), list[float]()
    for sample in samples_of(path, members):
        sources[sample.source] += 1
        if isinstance(sample, PairSample):
            overlaps.append(sample.overlap)
    return sources, overlaps


def _classes(shards: list[Path], members: tuple[str, ...]) -> list[str]:
    """The scenes of images that have a label: their classes."""
    return sorted({sample.scene for path in shards for sample in samples_of(path, members) if sample.scene})


def samples_of(path: Path, members: tuple[str, ...]) -> Iterator[Sample]:
    """The samples of a whole tar, whatever its index says."""
    with Shard(path, index_tar(path, members)[0], members) as shard:
        yield from (shard.sample(number) for number in range(len(shard)))


def _describe(path: Path, sources: Counter[str]) -> ShardInfo:
    return ShardInfo(
        name=path.name,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        samples=sources.total(),
        sources=dict(sorted(sources.items())),
    )


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def salvaged(path: Path, index: Index | None, manifest: Manifest) -> Iterator[Sample]:
    """The whole samples of a damaged tar that pass every check of `verify --deep` but the vote.

    Where the index is known, samples behind a damaged one are found too. What a flipped bit did to a picture that still
    decodes cannot be seen.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    members = manifest.members
    for spans in index.spans.tolist() if index else _walked(path, len(members)):
        key = data[spans[0][0] - BLOCK :][:100].partition(b".")[0]
        if not all(
            offset + length <= len(data) and has_header(data, offset - BLOCK, key + b"." + member.encode(), length)
            for member, (offset, length) in zip(members, spans, strict=True)
        ):
            continue
        parts = {member: data[o : o + n] for member, (o, n) in zip(members, spans, strict=True)}
        text = key.decode("ascii", "replace")
        try:
            sample = decode(text, parts) if manifest.kind == "pairs" else decode_image(text, parts)
        except ValueError:
            continue
        wrong = check_sample(sample, manifest) if isinstance(sample, PairSample) else check_image(sample, manifest)
        if next(wrong, None) is None:
            yield sample


def _walked(path: Path, count: int) -> Iterator[list[tuple[int, int]]]:
    """Offsets and lengths of each sample's members, as far as the tar can be walked."""
    spans: list[tuple[int, int]] = []
    with path.open("rb") as file:
        try:
            for member in walk(file, path.stat().st_size):
                spans.append((member.offset, member.length))
                if len(spans) == count:
                    yield spans
                    spans = []
        except ValueError:
            return
