"""Atomic files: whole under their final name, or not there at all."""

import errno
import io
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

_MARK = ".tmp-"


class OutputError(OSError):
    """The output cannot be written (disk full, no permission): stops a build, unlike a fault of the input."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write `path` through a temporary file beside it: fsync, then rename. On an error nothing is left behind.

    Raises OutputError when the file system refuses; errors of the caller (of reading its input, say) pass unchanged.
    """
    temporary = path.with_name(f".{path.name}{_MARK}{platform.node()}-{os.getpid()}")  # several machines may share it
    try:
        with io.BufferedWriter(_open(temporary, path)) as file:
            yield file
            file.flush()
            with _output_errors(path):
                os.fsync(file.fileno())
        with _output_errors(path):
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):  # the error under way says more than that there is nothing to remove
            temporary.unlink()


class _OutputFile(io.FileIO):
    """A file whose refused writes are OutputErrors about the file that it will become."""

    def __init__(self, temporary: Path, path: Path):
        super().__init__(temporary, "wb")
        self._path = path

    def write(self, data: Any) -> int:
        """Write `data`. Raises OutputError."""
        with _output_errors(self._path):
            return super().write(data)


def _open(temporary: Path, path: Path) -> _OutputFile:
    with _output_errors(path):
        return _OutputFile(temporary, path)


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    """Turn OSError into OutputError that says where and what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "; free some space and run the same command again with --resume: what is finished is kept"
        raise OutputError(
            error.errno, f"cannot write {path.name} in {path.parent}: {error.strerror}{advice if full else ''}"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(name: str) -> bool:
    """True for the name of a file that `atomic_write` has not finished."""
    return name.startswith(".") and _MARK in name


def remove_stale(folder: Path) -> None:
    """Remove the unfinished files that a killed run left in `folder` (the caller holds its lock)."""
    for path in folder.iterdir():
        if is_temporary(path.name):
            path.unlink(missing_ok=True)
