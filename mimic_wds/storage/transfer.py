"""What push and pull share: what must be copied, what must not be touched, files copied side by side."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from threading import Event
from typing import TypeVar

from mimic_wds.storage.layout import (
    CARD_NAME,
    CROISSANT_NAME,
    FIGURE_NAME,
    MANIFEST_NAME,
    REPORT_NAME,
    SIZES_NAME,
    scenes_name,
)
from mimic_wds.storage.manifest import Manifest, decode_manifest, manifest_hash
from mimic_wds.storage.places import Place
from mimic_wds.storage.threads import in_threads

#: Files on their way at once, by default: enough to fill a fast line, few enough for a web server.
WORKERS = 8

Progress = Callable[[str, int, int], None]  #: told (name of a file that is done, files done, files to copy)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How to copy."""

    workers: int = WORKERS  #: files at once
    replace: bool = False  #: another data set may be replaced (see `check_successor`)
    check: bool = False  #: read and hash what is there, instead of believing sizes and hashes noted beside it
    dry_run: bool = False  #: only say what would be copied
    progress: Progress = lambda name, done, total: None


@dataclass(frozen=True, slots=True)
class Current:
    """The manifest that a place has, with its etag; both None if it has none."""

    manifest: Manifest | None
    data: bytes = b""
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A file as it should be at the destination."""

    name: str
    bytes: int
    sha256: str  #: hex; "" = not known before it is read


@dataclass(slots=True, kw_only=True)
class Report:
    """What a push or a pull did, or with `dry_run` would have done."""

    url: str  #: the remote side, without credentials
    files: list[str] = field(default_factory=list)  #: that were copied, in their order
    bytes: int = 0  #: of these
    kept: int = 0  #: files that were there already
    dry_run: bool = False


def side_names(manifest: Manifest) -> list[str]:
    """Files that a data set may have beside shards, their indexes and the manifest."""
    scenes = [scenes_name(generation) for generation in range(manifest.generation + 1)]
    return [*scenes, CARD_NAME, FIGURE_NAME, CROISSANT_NAME, SIZES_NAME, REPORT_NAME]


def check_successor(new: Manifest, old: Manifest | None, where: str, replace: bool) -> None:
    """Raise ValueError unless `new` may take the place of `old`, the manifest that is at `where`.

    Another data set, or another version of the same generation, only with `replace`; an older generation, and other
    bytes under the name of a shard that `old` describes, never: who reads `old` must find it whole.
    """
    if old is None or manifest_hash(new) == manifest_hash(old):
        return
    if old.id == new.id and old.generation > new.generation:
        raise ValueError(
            f"{where}: holds generation {old.generation} of this data set, newer than generation {new.generation} "
            "that would replace it"
        )
    known = {shard.name: shard for shard in old.shards}
    for shard in new.shards:
        there = known.get(shard.name, shard)
        if (there.bytes, there.sha256) != (shard.bytes, shard.sha256):
            raise ValueError(
                f"{where}: the data set there has another {shard.name} (sha256 {there.sha256[:16]}..., here "
                f"{shard.sha256[:16]}...); a published shard never changes: choose another place"
            )
    if old.id != new.id and not replace:
        raise ValueError(
            f"{where}: holds another data set, {old.name!r} with the id {old.id}, not {new.name!r} with {new.id}; "
            "choose another place, or take its place with --replace"
        )
    if old.id == new.id and old.generation == new.generation and not replace:
        raise ValueError(
            f"{where}: holds generation {old.generation} of this data set too, but described otherwise; take its place "
            "with --replace"
        )


def vouched(new: Manifest, old: Manifest | None) -> Set[str]:
    """Names of the shards that the manifest at the destination already describes, with the same bytes."""
    known = {(shard.name, shard.bytes, shard.sha256) for shard in (old.shards if old else [])}
    return {shard.name for shard in new.shards if (shard.name, shard.bytes, shard.sha256) in known}


def missing(
    files: Iterable[File], place: Place, there: Mapping[str, int], trusted: Set[str], check: bool, workers: int
) -> list[File]:
    """The files that `place`, where `there` gives the sizes, does not have, or not with these bytes.

    One of the right size is believed to be right if it is `trusted` or a hash known at the place says so. With `check`
    nothing is believed: it is read and hashed.
    """

    def lacks(file: File) -> bool:
        if there.get(file.name) != file.bytes:
            return True
        if check:
            return hash_at(place, file.name) != file.sha256
        return file.name not in trusted and place.sha256(file.name) != file.sha256

    files = list(files)
    return [file for file, gone in zip(files, in_threads(lacks, files, workers), strict=True) if gone]


def hash_at(place: Place, name: str) -> str:
    """sha256 (hex) of a file's bytes, read from the place."""
    digest = hashlib.sha256()
    for chunk in place.stream(name):
        digest.update(chunk)
    return digest.hexdigest()


def read_current(place: Place, replace: bool) -> Current:
    """The manifest at a destination. Raises ValueError for one that cannot be read, unless it is to be replaced."""
    try:
        data, etag = place.read_with_etag(MANIFEST_NAME)
    except FileNotFoundError:
        return Current(None)
    try:
        return Current(decode_manifest(data, f"{place.url}/{MANIFEST_NAME}"), data, etag)
    except ValueError as error:
        if replace:
            return Current(None, data, etag)
        raise ValueError(f"{error}; take its place with --replace") from None


def report_of(url: str, files: Sequence[File], wanted: Sequence[File], manifest: File, same: bool, how: How) -> Report:
    """What will be copied: the files wanted, then the manifest unless it is the same."""
    copied = [*wanted, *([] if same else [manifest])]
    return Report(
        url=url,
        files=[file.name for file in copied],
        bytes=sum(file.bytes for file in copied),
        kept=len(files) + 1 - len(copied),
        dry_run=how.dry_run,
    )


def each(work: Callable[[T, Event], str], items: Sequence[T], workers: int) -> Iterator[str]:
    """Results of `work(item, stop)` in threads as they come. `stop` is set on an error or Ctrl-C: work then ends."""
    stop = Event()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        futures = [pool.submit(work, item, stop) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
