"""Push: a local data set to a place, so that whoever reads there finds the old data set or the new one, whole.

Shards go first, each with its index, then the files beside them, the manifest last and on condition that it is still
the one that was there at the start. A local shard is hashed while it is read: bytes that the manifest does not describe
never become visible. Run again, a push that was killed copies what is missing.
"""

import hashlib
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from mimic_wds.storage.claim import Claim, check_claim, lay_claim, still_claimed
from mimic_wds.storage.index import read_index
from mimic_wds.storage.layout import CLAIM_NAME, MANIFEST_NAME, index_name
from mimic_wds.storage.manifest import Manifest, ShardInfo, manifest_hash, read_manifest
from mimic_wds.storage.places import Changed, WritablePlace
from mimic_wds.storage.transfer import (
    Current,
    File,
    How,
    Report,
    check_successor,
    each,
    missing,
    read_current,
    report_of,
    side_names,
    vouched,
)


def push(folder: Path, place: WritablePlace, how: How) -> Report:
    """Copy the data set in `folder` to `place`: only what is missing, the manifest last.

    Raises ValueError when the data set is damaged or must not go there (`check_successor`, `check_claim`), Changed when
    somebody else was quicker, OSError when the place fails for long.
    """
    manifest, data = read_manifest(folder), (folder / MANIFEST_NAME).read_bytes()
    there = place.names()
    current = read_current(place, how.replace)
    check_successor(manifest, current.manifest, place.url, how.replace)
    before = manifest_hash(current.manifest) if current.manifest else ""
    claim = check_claim(place, manifest_hash(manifest), before, how.replace)
    known: Set[str] = frozenset() if how.check else vouched(manifest, current.manifest)
    files = list(_files(folder, manifest, known))
    trusted = known | {index_name(name) for name in known}
    wanted = missing(files, place, there, trusted, how.check, how.workers)
    report = report_of(place.url, files, wanted, File(MANIFEST_NAME, len(data), ""), current.data == data, how)
    if how.dry_run:
        return report
    if report.files:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        place.clean()
        lay_claim(place, Claim(manifest=manifest_hash(manifest), since=now), claim)
        _send(folder, place, wanted, how)
    if current.data != data:
        _publish(place, manifest, data, current)
    if report.files or claim:
        with suppress(OSError):  # a claim of what is there is in nobody's way
            place.delete(CLAIM_NAME)
    return report


def _files(folder: Path, manifest: Manifest, known: Set[str]) -> Iterator[File]:
    """All files of a local data set but the manifest, shards before their indexes. Raises ValueError for a bad one.

    Of the shards that are `known` at the destination the indexes are not read.
    """
    for shard in manifest.shards:
        path, index = folder / shard.name, folder / index_name(shard.name)
        size = path.stat().st_size if path.is_file() else None
        if size != shard.bytes:
            found = "is missing" if size is None else f"has {size} bytes, the manifest says {shard.bytes}"
            raise ValueError(f"{path}: {found}; `mimic-shard verify` tells more")
        yield File(shard.name, shard.bytes, shard.sha256)
        if shard.name in known and index.is_file():
            yield File(index.name, index.stat().st_size, "")
        else:
            _check_index(index, shard)
            yield _hashed(index)
    for name in side_names(manifest):
        if (folder / name).is_file():
            yield _hashed(folder / name)


def _check_index(path: Path, shard: ShardInfo) -> None:
    """Raise ValueError unless the index can be that of this shard."""
    index = read_index(path)
    if (len(index), index.tar_bytes) != (shard.samples, shard.bytes):
        raise ValueError(f"{path}: is the index of another tar; `mimic-shard repair` makes it again")


def _hashed(path: Path) -> File:
    """A small file with the hash that it has."""
    data = path.read_bytes()
    return File(path.name, len(data), hashlib.sha256(data).hexdigest())


def _send(folder: Path, place: WritablePlace, files: Sequence[File], how: How) -> None:
    """Put the files, shards and indexes before all others."""

    def put(file: File, stop: Event) -> str:
        place.put_file(file.name, folder / file.name, file.sha256 or _hashed(folder / file.name).sha256, stop)
        return file.name

    first, rest = partition(files)
    done = 0
    for group in (first, rest):
        for name in each(put, group, how.workers):
            done += 1
            how.progress(name, done, len(files))


def partition(files: Sequence[File]) -> tuple[list[File], list[File]]:
    """Shards and indexes, and the other files."""
    first = [file for file in files if file.name.endswith((".tar", ".idx"))]
    return first, [file for file in files if not file.name.endswith((".tar", ".idx"))]


def _publish(place: WritablePlace, manifest: Manifest, data: bytes, current: Current) -> None:
    """Swap the manifest. Raises Changed when it, or the claim on the place, is no longer what it was."""
    lost = Changed(
        f"{place.url}: somebody else changed the data set there meanwhile; its manifest was left as it is: look at it, "
        "then run the same command again"
    )
    if not still_claimed(place, manifest_hash(manifest)) and read_current(place, True).data != data:
        raise lost
    try:
        place.put_bytes(MANIFEST_NAME, data, if_match=current.etag, create=current.etag is None)
    except Changed:
        raise lost from None
