"""Pull: a data set from a place to a local folder, whole and verified, or not there at all.

A shard is fetched into a hidden folder, held against the manifest's sha256, indexed, and only then takes its name; the
manifest is written last. Run again, a pull that was killed goes on inside the shard where it was.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event

from mimic_wds.storage.files import OutputError, atomic_write, sync_folder
from mimic_wds.storage.folder_place import FolderPlace
from mimic_wds.storage.index import index_path, index_tar, read_index, write_index
from mimic_wds.storage.layout import MANIFEST_NAME, PULLING_NAME, STAGING_NAME
from mimic_wds.storage.manifest import Manifest, ShardInfo, decode_manifest
from mimic_wds.storage.output import MAY_BE_THERE, locked
from mimic_wds.storage.places import CHUNK, Place, Stop
from mimic_wds.storage.transfer import (
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


def pull(place: Place, folder: Path, how: How) -> Report:
    """Copy the data set at `place` to `folder`: only what is missing, the manifest last.

    Indexes are not fetched but made from the verified shards, which gives the same bytes.
    Raises ValueError when there is no data set or the folder must not be written, OSError when the place fails for
    long, gives wrong bytes twice, or the disk is full.
    """
    try:
        data = place.read(MANIFEST_NAME)
    except FileNotFoundError as error:
        raise ValueError(f"{error}: no data set here, or not all of it is there yet") from None
    manifest = decode_manifest(data, f"{place.url}/{MANIFEST_NAME}")
    _check_folder(folder)
    with ExitStack() as stack:
        if not how.dry_run:
            stack.enter_context(_pulling(folder))
        local = FolderPlace(folder)
        current = read_current(local, how.replace)
        check_successor(manifest, current.manifest, str(folder), how.replace)
        files = [File(shard.name, shard.bytes, shard.sha256) for shard in manifest.shards]
        known = frozenset() if how.check else vouched(manifest, current.manifest)
        shards = missing(files, local, local.names(), known, how.check, how.workers)
        sides = list(_sides(place, manifest))
        beside = missing(sides, local, local.names(), frozenset(), False, how.workers)
        same = current.data == data
        report = report_of(
            place.url, [*files, *sides], [*shards, *beside], File(MANIFEST_NAME, len(data), ""), same, how
        )
        if not how.dry_run:
            local.clean()
            _check_space(folder, shards)
            _fetch_shards(place, folder, manifest, shards, how)
            _make_indexes(folder, manifest, how.check)
            _fetch_sides(place, folder, beside)
            if not same:
                _write(folder / MANIFEST_NAME, data)
            shutil.rmtree(folder / PULLING_NAME)
    return report


def _check_folder(folder: Path) -> None:
    """Raise ValueError for a folder of other things, or of an unfinished build."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; expected a folder")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if STAGING_NAME in names:
        raise ValueError(f"{folder}: holds an unfinished build; choose another folder")
    if MANIFEST_NAME in names or PULLING_NAME in names:
        return
    if other := sorted(names - MAY_BE_THERE):
        raise ValueError(
            f"{folder}: is not empty ({other[0]!r} is there) and no data set; choose an empty or new folder"
        )


@contextmanager
def _pulling(folder: Path) -> Iterator[None]:
    """Work in a folder alone. Raises ValueError when another pull does."""
    with _disk(folder / PULLING_NAME):
        (folder / PULLING_NAME).mkdir(parents=True, exist_ok=True)
    with locked(folder / PULLING_NAME):
        try:
            yield
        except ValueError:  # refused before anything was fetched: nothing stays
            if not any((folder / PULLING_NAME).glob("*.part")):
                shutil.rmtree(folder / PULLING_NAME)
            raise


def _sides(place: Place, manifest: Manifest) -> Iterator[File]:
    """The files beside the shards that the place has; their hashes where it knows them."""
    for name in side_names(manifest):
        size = place.size(name)
        if size is not None:
            yield File(name, size, place.sha256(name))


def _check_space(folder: Path, shards: Sequence[File]) -> None:
    """Raise OutputError at once when the disk cannot take what is to come."""
    begun = sum(path.stat().st_size for path in (folder / PULLING_NAME).glob("*.part"))
    needed, free = sum(file.bytes for file in shards) - begun, shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            errno.ENOSPC, f"{folder}: {needed / 1e6:,.1f} MB are to come, but the disk has {free / 1e6:,.1f} MB left"
        )


def _fetch_shards(place: Place, folder: Path, manifest: Manifest, shards: Sequence[File], how: How) -> None:
    """Fetch, verify, index and name the shards."""

    def fetch(file: File, stop: Event) -> str:
        part = folder / PULLING_NAME / f"{file.name}.part"
        _fetch(place, file, part, stop)
        index, _ = index_tar(part, manifest.members)
        path = folder / file.name
        with _disk(path):
            index_path(path).unlink(missing_ok=True)  # one of other bytes must not stand beside the new shard
            part.replace(path)
            sync_folder(folder)
            write_index(index_path(path), index)
        return file.name

    for done, name in enumerate(each(fetch, shards, how.workers), start=1):
        how.progress(name, done, len(shards))


def _fetch(place: Place, file: File, part: Path, stop: Stop) -> None:
    """Fetch one file into `part`, going on where it ends. Raises OSError when it comes with wrong bytes twice."""
    for _ in range(2):
        if _fetched(place, file, part, stop) == file.sha256:
            return
        part.unlink()
    raise OSError(
        f"{place.url}/{file.name}: is damaged there: its sha256 is not {file.sha256[:16]}... as the manifest says, "
        "nor is it when fetched again"
    )


def _fetched(place: Place, file: File, part: Path, stop: Stop) -> str:
    """Bring `part` to its whole size, synced; returns its sha256 (hex), "" if there is more than it should be."""
    digest = hashlib.sha256()
    with _disk(part):
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        at = 0
        while chunk := os.read(descriptor, CHUNK):
            digest.update(chunk)
            at += len(chunk)
        if at < file.bytes:
            for chunk in place.stream(file.name, at):
                if stop.is_set():
                    raise InterruptedError(f"{file.name}: stopped")
                at += len(chunk)
                if at > file.bytes:
                    break
                digest.update(chunk)
                _write_all(descriptor, chunk, part)
        with _disk(part):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return digest.hexdigest() if at == file.bytes else ""


def _write_all(descriptor: int, data: bytes, path: Path) -> None:
    """Append bytes. Raises OutputError."""
    view = memoryview(data)
    with _disk(path):
        while view:
            view = view[os.write(descriptor, view) :]


def _make_indexes(folder: Path, manifest: Manifest, check: bool) -> None:
    """Make the indexes of shards that were there already, where they are missing or wrong."""
    for shard in manifest.shards:
        path = folder / shard.name
        if check or not _fits(index_path(path), shard):
            index, _ = index_tar(path, manifest.members)
            with _disk(index_path(path)):
                write_index(index_path(path), index)


def _fits(path: Path, shard: ShardInfo) -> bool:
    """Whether an index can be that of a shard."""
    try:
        index = read_index(path)
    except ValueError:
        return False
    return (len(index), index.tar_bytes) == (shard.samples, shard.bytes)


def _fetch_sides(place: Place, folder: Path, files: Sequence[File]) -> None:
    """Fetch the small files."""
    for file in files:
        data = place.read(file.name)
        if file.sha256 and hashlib.sha256(data).hexdigest() != file.sha256:
            raise OSError(f"{place.url}/{file.name}: is damaged there, or was replaced just now")
        _write(folder / file.name, data)


def _write(path: Path, data: bytes) -> None:
    with _disk(path), atomic_write(path) as file:
        file.write(data)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn errors of the file system into OutputError that says where and what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "; free some space and run the same command again: what is finished is kept" if full else ""
        why = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(error.errno, f"cannot write {path.name} in {path.parent}: {why}{advice}") from None
