"""The folder of the cache: names of its files, who may use it, locks that end with their process.

Beside a marker that says whose it is it holds `HASH-NAME.tar` (the first 32 hex digits of the shard's sha256 and its
name), the shard's index, and `HASH-NAME.tar.BYTES.part` of what is on its way; BYTES are what it will take.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mimic_wds.storage.files import OutputError
from mimic_wds.storage.manifest import ShardInfo

#: Marks the folder for backups, too, which leave it out (the convention of https://bford.info/cachedir/).
MARKER = "CACHEDIR.TAG"
_CONTENT = b"Signature: 8a477f597d28d172789f06886806bc55\n# shards of mimic-wds; may be deleted while nothing runs\n"

#: Hex digits of the sha256 in a name, 128 bits.
_DIGITS = 32

_NAME = re.compile(rf"(?P<stem>[0-9a-f]{{{_DIGITS}}}-.+)\.(?P<kind>tar|idx|tar\.(?P<bytes>\d+)\.part)")


@dataclass(slots=True)
class Entry:
    """The files of a shard in the folder."""

    stem: str  #: "HASH-NAME"
    bytes: int = 0  #: that it takes, or will
    used: float = 0.0  #: when it was last opened or closed, seconds since 1970
    part: str = ""  #: name of the file on its way
    is_whole: bool = False


def cached_name(info: ShardInfo) -> str:
    """The name of a shard in the cache."""
    return f"{info.sha256[:_DIGITS]}-{info.name}"


def claim(folder: Path) -> None:
    """Make the folder and mark it as ours. Raises ValueError when it holds other things, OutputError."""
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(os.listdir(folder))
        if names and MARKER not in names:
            raise ValueError(f"{folder}: is no cache of shards ({names[0]!r} is there); give an empty or new folder")
        descriptor = os.open(folder / MARKER, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # another process may write it just now
            found = os.pread(descriptor, 2 * len(_CONTENT), 0)
            if not found:
                os.write(descriptor, _CONTENT)
            elif found != _CONTENT:
                raise ValueError(f"{folder}: is a cache of something else; give an empty or new folder")
        finally:
            os.close(descriptor)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock under which names change: no other thread or process does meanwhile."""
    with output_errors(folder):
        descriptor = os.open(folder / MARKER, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def entries(folder: Path) -> list[Entry]:
    """The shards in the folder; files of other names are none of ours."""
    found: dict[str, Entry] = {}
    with os.scandir(folder) as files:
        for file in files:
            if (match := _NAME.fullmatch(file.name)) and file.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    _add(found.setdefault(match["stem"], Entry(match["stem"])), match, file.stat())
    return list(found.values())


def _add(entry: Entry, match: re.Match[str], stat: os.stat_result) -> None:
    """Count a file among those of its shard."""
    if match["bytes"]:
        entry.part, entry.bytes = match[0], int(match["bytes"])
    elif not entry.part:
        entry.bytes += stat.st_size
    if match["kind"] == "tar":
        entry.is_whole, entry.used = True, stat.st_mtime


def locked(path: Path, flags: int) -> int | None:
    """Open a file and lock it exclusively; None if somebody has a lock on it. Raises FileNotFoundError."""
    descriptor = os.open(path, flags, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not is_at(descriptor, path):
        os.close(descriptor)
        return None
    return descriptor


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def output_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the file system, but for a file that is not there, into OutputError: where, what to do."""
    try:
        yield
    except (FileNotFoundError, OutputError):
        raise
    except OSError as error:
        raise refused(folder, error) from None


def refused(folder: Path, error: OSError) -> OutputError:
    """What to say when the disk of the cache refuses."""
    advice = "free some space, or give another folder" if is_full(error) else "give another folder"
    why = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(error.errno, f"{folder}: the cache cannot be written: {why}; {advice}")


def is_full(error: OSError) -> bool:
    """Whether a disk or a quota is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
