"""Whole shards of remote data sets on the local disk: bounded, verified, shared by all processes of a machine.

Files are named by the sha256 of their content (`cache_folder.py`), so a data set that was published anew never meets
its old shards. Whoever holds the lock on a part fetches it. A lock ends with its process, so nothing that a killed one
leaves is in the way of the next, which goes on inside the shard.

Locks are flock's, on the files themselves: shared while a shard is open, exclusive to fetch or remove it. Names change
only under the lock on the folder's marker: whoever holds that sees all sizes, and so keeps the limit.
"""

import fcntl
import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path
from threading import Event

from mimic_wds.loading.cache_folder import (
    alone,
    cached_name,
    claim,
    entries,
    is_at,
    is_full,
    locked,
    output_errors,
    refused,
)
from mimic_wds.storage.files import sync_folder
from mimic_wds.storage.layout import index_name
from mimic_wds.storage.manifest import ShardInfo
from mimic_wds.storage.places import CHUNK, Place

#: Share of the disk space that is free, or taken by the cache already, that the cache may take unless told otherwise.
DISK_SHARE = 0.5

#: Seconds between two looks at a shard that another process fetches.
_LOOK_S = 0.05


class DamagedShard(OSError):
    """What a place gives for a shard has another sha256 than the manifest says, also when it is fetched again."""


def default_folder() -> Path:
    """$MIMIC_WDS_CACHE, or mimic-wds in the user's folder of caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MIMIC_WDS_CACHE") or Path(caches) / "mimic-wds")


class CachedShard:
    """An open shard of the cache, which is not removed before it is closed."""

    def __init__(self, descriptor: int, path: Path):
        self._descriptor = descriptor  # holds the lock
        self.path = path

    @property
    def index_path(self) -> Path:
        """Where its index lies, if nothing happened to it."""
        return self.path.with_name(index_name(self.path.name))

    def close(self) -> None:
        """Close it, as the one used last."""
        if self._descriptor >= 0:
            self.touch()
            os.close(self._descriptor)
            self._descriptor = -1

    def touch(self) -> None:
        """Note that it is used now, if this user may."""
        with suppress(OSError):
            os.utime(self._descriptor)


class ShardCache:
    """The cache in a folder; all methods may be called from any thread and process."""

    def __init__(self, folder: Path, limit: int = 0, *, verify: bool = False):
        """`limit` is in bytes, 0 = DISK_SHARE; with `verify` shards that are here are hashed whenever they are opened.

        Raises ValueError for a folder that holds other things, OutputError for one that cannot be written.
        """
        self.folder, self.verify = folder, verify
        claim(folder)
        self.limit = limit or int(DISK_SHARE * (shutil.disk_usage(folder).free + self.used()))

    def used(self) -> int:
        """Bytes of all shards here and on their way."""
        return sum(entry.bytes for entry in entries(self.folder))

    def get(self, info: ShardInfo) -> CachedShard | None:
        """A shard that is here whole, opened; None if it must be fetched."""
        path = self._path(info)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        shard = CachedShard(descriptor, path)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not is_at(descriptor, path):  # removed before the lock was ours
            shard.close()
            return None
        if not self._is_right(descriptor, info):
            with alone(self.folder):
                if is_at(descriptor, path):
                    self._unlink(path.name.removesuffix(".tar"))
            shard.close()
            return None
        shard.touch()
        return shard

    def fetch(self, place: Place, info: ShardInfo, index: bytes, stop: Event) -> CachedShard | None:
        """A shard, fetched unless it is here or another process fetches it, opened; None while there is no room for it.

        `index` is kept beside it. Raises DamagedShard, what the place raises, OutputError when the disk refuses, and
        InterruptedError when `stop` is set.
        """
        room = info.bytes + len(index)
        part = self.folder / f"{cached_name(info)}.{room}.part"
        while not stop.is_set():
            if found := self.get(info):
                return found
            with alone(self.folder):
                is_new = not part.exists() and not self._path(info).exists()
                if is_new and not self._make_room(room):
                    return None
                descriptor = self._begin(part, is_new)
            if descriptor is not None:
                return self._fetch(descriptor, part, place, info, index, stop)
            stop.wait(_LOOK_S)  # another process fetches it
        raise InterruptedError(f"{info.name}: stopped")

    def _path(self, info: ShardInfo) -> Path:
        return self.folder / cached_name(info)

    def _is_right(self, descriptor: int, info: ShardInfo) -> bool:
        """Whether a file is the shard, by its size or, if it is to be verified, its content."""
        if os.fstat(descriptor).st_size != info.bytes:
            return False
        return not self.verify or _sha256(descriptor)[0].hexdigest() == info.sha256

    def _begin(self, part: Path, create: bool) -> int | None:
        """A file on its way, locked, to go on with; None if it is not there or another process has it."""
        try:
            with output_errors(self.folder):
                return locked(part, os.O_RDWR | (os.O_CREAT if create else 0))
        except FileNotFoundError:
            return None

    def _fetch(
        self, descriptor: int, part: Path, place: Place, info: ShardInfo, index: bytes, stop: Event
    ) -> CachedShard:
        """Fill a part that is ours, and give it its name; it stays open."""
        path = self._path(info)
        try:
            self._fill(descriptor, place, info, stop)
            with output_errors(self.folder):
                path.with_name(index_name(path.name)).write_bytes(index)  # nobody looks at it before the shard is there
            with alone(self.folder), output_errors(self.folder):
                part.rename(path)
                sync_folder(self.folder)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
        except InterruptedError:
            os.close(descriptor)
            raise
        except BaseException:
            with alone(self.folder):
                part.unlink(missing_ok=True)
                path.with_name(index_name(path.name)).unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return CachedShard(descriptor, path)

    def _fill(self, descriptor: int, place: Place, info: ShardInfo, stop: Event) -> None:
        """Bring a file to its whole content, synced; wrong content is fetched once more."""
        for _ in range(2):
            if self._fill_once(descriptor, place, info, stop):
                with output_errors(self.folder):
                    os.fsync(descriptor)
                return
            os.ftruncate(descriptor, 0)
        raise DamagedShard(
            f"{place.url}/{info.name}: is damaged there: its sha256 is not {info.sha256[:16]}... as the manifest says, "
            "nor is it when fetched again; `mimic-shard verify` tells more"
        )

    def _fill_once(self, descriptor: int, place: Place, info: ShardInfo, stop: Event) -> bool:
        """Append what is missing to a file; whether it is the shard then."""
        digest, at = _sha256(descriptor)
        for chunk in place.stream(info.name, at) if at < info.bytes else ():
            if stop.is_set():
                raise InterruptedError(f"{info.name}: stopped")
            at += len(chunk)
            if at > info.bytes:
                break
            digest.update(chunk)
            self._append(descriptor, chunk, info.bytes - at)
        return at == info.bytes and digest.hexdigest() == info.sha256

    def _append(self, descriptor: int, data: bytes, to_come: int) -> None:
        """Append bytes; when the disk is full, shards are removed that nobody uses, even below the limit."""
        view = memoryview(data)
        os.lseek(descriptor, 0, os.SEEK_END)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except OSError as error:
                with alone(self.folder):
                    if not is_full(error) or not self._remove(len(view) + to_come):
                        raise refused(self.folder, error) from None

    def _make_room(self, room: int) -> bool:
        """Whether so much more fits below the limit, after removing what was not used for longest. Locked."""
        over = self.used() + room - self.limit
        return over <= 0 or (room <= self.limit and self._remove(over) >= over)

    def _remove(self, wanted: int) -> int:
        """Remove shards that nobody uses, what killed processes left first, up to so many bytes. Locked."""
        removed = 0
        for entry in sorted(entries(self.folder), key=lambda entry: (entry.is_whole, entry.used)):
            if removed >= wanted:
                break
            path = self.folder / (entry.part or f"{entry.stem}.tar")
            try:
                descriptor = locked(path, os.O_RDWR)
            except FileNotFoundError:  # an index alone
                self._unlink(entry.stem)
                removed += entry.bytes
                continue
            if descriptor is not None:
                path.unlink()
                self._unlink(entry.stem)
                os.close(descriptor)
                removed += entry.bytes
        return removed

    def _unlink(self, stem: str) -> None:
        """Remove a shard and its index. Locked."""
        for suffix in (".idx", ".tar"):
            (self.folder / f"{stem}{suffix}").unlink(missing_ok=True)


def _sha256(descriptor: int) -> "tuple[hashlib._Hash, int]":
    """Hash of what is in an open file, to be gone on with, and how much that is."""
    digest, at = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, CHUNK, at):
        digest.update(chunk)
        at += len(chunk)
    return digest, at
