"""A local folder as a place."""

import fcntl
import hashlib
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mimic_wds.storage.files import atomic_write, is_temporary
from mimic_wds.storage.places import CHUNK, Changed, Stop, check_name


class FolderPlace:
    """The files of a local folder; its errors name the path."""

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def url(self) -> str:
        """The path of the folder."""
        return str(self.folder)

    def names(self) -> dict[str, int]:
        """File name -> bytes; none if the folder is not there."""
        with suppress(FileNotFoundError):
            return {p.name: p.stat().st_size for p in self.folder.iterdir() if p.is_file() and p.name[0] != "."}
        return {}

    def read(self, name: str) -> bytes:
        """A whole file."""
        return self._path(name).read_bytes()

    def read_with_etag(self, name: str) -> tuple[bytes, str]:
        """A whole file and its sha256."""
        data = self.read(name)
        return data, hashlib.sha256(data).hexdigest()

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes from byte `start` on."""
        return self.read_ranges(name, [(start, length)])[0]

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ranges, each (start, length). Raises OSError where the file ends before."""
        parts = []
        with self._path(name).open("rb") as file:
            for start, length in ranges:
                parts.append(os.pread(file.fileno(), length, start))
                if len(parts[-1]) != length:
                    raise OSError(f"{self._path(name)}: ends before byte {start + length}")
        return parts

    def stream(self, name: str, start: int = 0) -> Iterator[bytes]:
        """A file from byte `start` on."""
        return read_chunks(self._path(name), start)

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""
        path = self._path(name)
        return path.stat().st_size if path.is_file() else None

    def sha256(self, name: str) -> str:
        """Hash of a file, by reading it: that is quicker than to copy it again."""
        with suppress(FileNotFoundError), self._path(name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return ""

    def put_file(self, name: str, path: Path, sha256: str, stop: Stop | None = None) -> None:
        """Copy a file here through a temporary one. Raises ValueError when its bytes have another sha256."""
        with atomic_write(self._path(name)) as file:
            for chunk in hashed_chunks(path, sha256, stop):
                file.write(chunk)

    def put_bytes(self, name: str, data: bytes, *, if_match: str | None = None, create: bool = False) -> str:
        """Write a whole file atomically, and with a condition while no other process does. Raises Changed."""
        target = self._path(name)
        with self._alone():
            there, new = self.sha256(name), hashlib.sha256(data).hexdigest()
            if there != new and ((create and there) or (if_match is not None and there != if_match)):
                raise Changed(f"{target}: was changed by somebody else")
            with atomic_write(target) as file:
                file.write(data)
        return new

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        self._path(name).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove the temporary files of processes of this machine that are no more."""
        for path in self.folder.iterdir():
            node, _, pid = path.name.rpartition("-")
            if is_temporary(path.name) and node.endswith(f"-{platform.node()}") and not _is_alive(pid):
                path.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold a lock on the folder itself, which leaves no file behind."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _path(self, name: str) -> Path:
        return self.folder / check_name(name)


def _is_alive(pid: str) -> bool:
    """True if a process has this number, or might have."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        pass
    return True


def read_chunks(path: Path, start: int = 0) -> Iterator[bytes]:
    """A file from byte `start` on, in chunks."""
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(CHUNK):
            yield chunk


def hashed_chunks(path: Path, sha256: str, stop: Stop | None = None) -> Iterator[bytes]:
    """A file in chunks, the last of which comes only if all of them have this sha256 (hex).

    So whoever shows a copy after the last chunk never shows wrong bytes. Raises ValueError naming the file, and
    InterruptedError when `stop` is set.
    """
    digest, last = hashlib.sha256(), b""
    for chunk in read_chunks(path):
        if stop is not None and stop.is_set():
            raise InterruptedError(f"{path}: stopped")
        digest.update(chunk)
        if last:
            yield last
        last = chunk
    if digest.hexdigest() != sha256:
        raise ValueError(
            f"{path}: has the sha256 {digest.hexdigest()[:16]}..., expected {sha256[:16]}...: it is damaged or was "
            "changed; `mimic-shard verify` tells more"
        )
    yield last
