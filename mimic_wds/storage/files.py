"""Atomic files: whole under their final name, or not there at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_MARK = ".tmp-"


class OutputError(OSError):
    """The output cannot be written (disk full, no permission): stops a build, unlike a fault of the input."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write `path` through a temporary file beside it: fsync, then rename. On an error nothing is left behind.

    Raises OutputError when the file system refuses.
    """
    temporary = path.with_name(f".{path.name}{_MARK}{os.getpid()}")
    try:
        with _output_errors(path), temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with _output_errors(path):
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    """Turn OSError into OutputError that says where and what to do."""
    try:
        yield
    except OutputError:
        raise
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
