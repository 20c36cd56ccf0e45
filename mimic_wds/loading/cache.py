"""Whole shards of remote data sets on the local disk: bounded, verified, shared by all processes of a machine.

The folder holds, beside a marker that says whose it is, `HASH-NAME.tar` (the first 32 hex digits of the shard's sha256
and its name) and the shard's index; so a data set that was published anew never meets its old shards. What is on its
way is `HASH-NAME.tar.BYTES.part`: BYTES are what it will take, and whoever holds the lock on it fetches it. A lock ends
with its process, so nothing that a killed one leaves is in the way of the next, which goes on inside the shard.

Locks are flock's, on the files themselves: shared while a shard is open, exclusive to fetch or remove it. Names change
only under the lock on the marker: whoever holds that sees all sizes, and so keeps the limit.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from mimic_wds.storage.files import OutputError, sync_folder
from mimic_wds.storage.layout import index_name
from mimic_wds.storage.manifest import ShardInfo
from mimic_wds.storage.places import CHUNK, Place

#: Share of the disk space that is free, or taken by the cache already, that the cache may take unless told otherwise.
DISK_SHARE = 0.5

#: Marks the folder for backups, too, which leave it out (the convention of https://bford.info/cachedir/).
MARKER = "CACHEDIR.TAG"
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55\n# shards of mimic-wds; may be deleted while nothing runs\n"

#: Hex digits of the sha256 in a name, 128 bits.
_DIGITS = 32

_NAME = re.compile(rf"(?P<stem>[0-9a-f]{{{_DIGITS}}}-.+)\.(?P<kind>tar|idx|tar\.(?P<bytes>\d+)\.part)")

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
        self.descriptor = descriptor  #: for `os.pread`, from any thread
        self.path = path

    @property
    def index_path(self) -> Path:
        """Where its index lies, if nothing happened to it."""
        return self.path.with_name(index_name(self.path.name))

    def close(self) -> None:
        """Close it, as the one used last."""
        if self.descriptor >= 0:
            with suppress(OSError):
                os.utime(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = -1


@dataclass(slots=True)
class _Entry:
    """The files of a shard in the folder."""

    stem: str
    bytes: int = 0  #: that it takes, or will
    used: float = 0.0  #: when it was last opened or closed
    part: str = ""  #: name of the file on its way
    is_whole: bool = False


class ShardCache:
    """The cache in a folder; all methods may be called from any thread and process.

    `limit` is in bytes, 0 = DISK_SHARE. Raises ValueError for a folder that holds other things, OutputError for one
    that cannot be written.
    """

    def __init__(self, folder: Path, limit: int = 0):
        self.folder = folder
        _claim(folder)
        self.limit = limit or self._default_limit()

    def get(self, info: ShardInfo, *, verify: bool = False) -> CachedShard | None:
        """A shard that is here whole, opened; with `verify` it is read and hashed first. None if it must be fetched."""
        path = self._path(info)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        shard = CachedShard(descriptor, path)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not _is_at(descriptor, path):  # removed before the lock was ours
            shard.close()
            return None
        is_whole = os.fstat(descriptor).st_size == info.bytes
        if not is_whole or (verify and _sha256(descriptor)[0].hexdigest() != info.sha256):
            with self._alone():
                self._unlink(path.name.removesuffix(".tar"))
            shard.close()
            return None
        os.utime(descriptor)
        return shard

    def fetch(self, place: Place, info: ShardInfo, index: bytes, stop: Event) -> CachedShard | None:
        """A shard, fetched unless another process does so, opened; None while there is no room for it.

        `index` is kept beside it. Raises DamagedShard, what the place raises, OutputError when the disk refuses, and
        InterruptedError when `stop` is set.
        """
        room = info.bytes + len(index)
        part = self.folder / f"{self._path(info).name}.{room}.part"
        while not stop.is_set():
            if found := self.get(info):
                return found
            with self._alone():
                descriptor = self._begin(part)
                if descriptor is None and not part.exists():
                    if not self._make_room(room):
                        return None
                    descriptor = self._begin(part, create=True)
            if descriptor is not None:
                return self._fetch(descriptor, part, place, info, index, stop)
            stop.wait(_LOOK_S)  # another process fetches it
        raise InterruptedError(f"{info.name}: stopped")

    def used(self) -> int:
        """Bytes of all shards here and on their way."""
        return sum(entry.bytes for entry in self._entries())

    def verify(self) -> list[str]:
        """Read and hash every shard; those whose content is not what their name says are removed and named."""
        damaged = []
        for entry in self._entries():
            path = self.folder / f"{entry.stem}.tar"
            with suppress(FileNotFoundError), path.open("rb") as file:
                if not hashlib.file_digest(file, "sha256").hexdigest().startswith(entry.stem[:_DIGITS]):
                    with self._alone():
                        self._unlink(entry.stem)
                    damaged.append(path.name)
        return damaged

    def _path(self, info: ShardInfo) -> Path:
        return self.folder / f"{info.sha256[:_DIGITS]}-{info.name}"

    def _default_limit(self) -> int:
        return int(DISK_SHARE * (shutil.disk_usage(self.folder).free + self.used()))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock under which names change."""
        descriptor = os.open(self.folder / MARKER, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _begin(self, part: Path, create: bool = False) -> int | None:
        """A file on its way, locked, to go on with; None if it is not there or another process has it."""
        try:
            with _disk(self.folder):
                return _locked(part, os.O_RDWR | (os.O_CREAT if create else 0))
        except FileNotFoundError:
            return None

    def _fetch(
        self, descriptor: int, part: Path, place: Place, info: ShardInfo, index: bytes, stop: Event
    ) -> CachedShard:
        """Fill a part that is ours, and give it its name; it stays open."""
        path = self._path(info)
        try:
            self._fill(descriptor, place, info, stop)
            with _disk(self.folder):
                path.with_name(index_name(path.name)).write_bytes(index)  # nobody looks at it before the shard is there
            with self._alone(), _disk(self.folder):
                part.rename(path)
                sync_folder(self.folder)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
        except InterruptedError:
            os.close(descriptor)
            raise
        except BaseException:
            part.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return CachedShard(descriptor, path)

    def _fill(self, descriptor: int, place: Place, info: ShardInfo, stop: Event) -> None:
        """Bring a file to its whole content, synced; wrong content is fetched once more."""
        for _ in range(2):
            digest, at = _sha256(descriptor)
            if at < info.bytes:
                for chunk in place.stream(info.name, at):
                    if stop.is_set():
                        raise InterruptedError(f"{info.name}: stopped")
                    at += len(chunk)
                    if at > info.bytes:
                        break
                    digest.update(chunk)
                    self._write(descriptor, chunk, info.bytes - at)
            if at == info.bytes and digest.hexdigest() == info.sha256:
                with _disk(self.folder):
                    os.fsync(descriptor)
                return
            os.ftruncate(descriptor, 0)
        raise DamagedShard(
            f"{place.url}/{info.name}: is damaged there: its sha256 is not {info.sha256[:16]}... as the manifest says, "
            "nor is it when fetched again; `mimic-shard verify` tells more"
        )

    def _write(self, descriptor: int, data: bytes, to_come: int) -> None:
        """Append bytes; when the disk is full, shards are removed that nobody uses, even below the limit."""
        view = memoryview(data)
        os.lseek(descriptor, 0, os.SEEK_END)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                with self._alone():
                    if not full or not self._remove(len(view) + to_come):
                        raise _refused(self.folder, error) from None

    def _make_room(self, room: int) -> bool:
        """Whether so much more fits below the limit, after removing what was not used for longest. Locked."""
        over = self.used() + room - self.limit
        return over <= 0 or self._remove(over) >= over

    def _remove(self, wanted: int) -> int:
        """Remove shards that nobody uses, what killed processes left first, up to so many bytes. Locked."""
        removed = 0
        for entry in sorted(self._entries(), key=lambda entry: (entry.is_whole, entry.used)):
            if removed >= wanted:
                break
            path = self.folder / (entry.part or f"{entry.stem}.tar")
            try:
                descriptor = _locked(path, os.O_RDWR)
            except FileNotFoundError:  # an index alone
                self._unlink(entry.stem)
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

    def _entries(self) -> list[_Entry]:
        """The shards in the folder; files of other names are none of ours."""
        entries: dict[str, _Entry] = {}
        with os.scandir(self.folder) as found:
            for file in found:
                if (match := _NAME.fullmatch(file.name)) and file.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        _add(entries.setdefault(match["stem"], _Entry(match["stem"])), match, file.stat())
        return list(entries.values())


def _add(entry: _Entry, match: re.Match[str], stat: os.stat_result) -> None:
    """Count a file among those of its shard."""
    if match["bytes"]:
        entry.part, entry.bytes = match[0], int(match["bytes"])
    elif not entry.part:
        entry.bytes += stat.st_size
    if match["kind"] == "tar":
        entry.is_whole, entry.used = True, stat.st_mtime


def _claim(folder: Path) -> None:
    """Make the folder and mark it as ours. Raises ValueError when it holds other things."""
    with _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MARKER).exists():
            names = sorted(os.listdir(folder))
            if names and names != [MARKER]:
                raise ValueError(f"{folder}: is no cache of shards ({names[0]!r} is there); give an empty folder")
            (folder / MARKER).write_bytes(_SIGNATURE)
        if not (folder / MARKER).read_bytes().startswith(_SIGNATURE[:43]):
            raise ValueError(f"{folder}: is a cache of something else; give an empty or new folder")


def _locked(path: Path, flags: int) -> int | None:
    """Open a file and lock it exclusively; None if somebody has a lock on it. Raises FileNotFoundError."""
    descriptor = os.open(path, flags, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not _is_at(descriptor, path):
        os.close(descriptor)
        return None
    return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sha256(descriptor: int) -> "tuple[hashlib._Hash, int]":
    """Hash of what is in an open file, to be gone on with, and how much that is."""
    digest, at = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, CHUNK, at):
        digest.update(chunk)
        at += len(chunk)
    return digest, at


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Turn errors of the file system into OutputError that says where and what to do."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _refused(folder, error) from None


def _refused(folder: Path, error: OSError) -> OutputError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "free some space, or give another folder" if full else "give another folder"
    why = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(error.errno, f"{folder}: the cache cannot be written: {why}; {advice}")
