"""Reading files out of a zip in place, by the position of their entries in its directory.

Not `zipfile`: it holds an object for every entry, in every process, and the published zips have millions of entries.
Here the directory is walked once, and a file is named by one number from then on: where its entry lies. The layout is
that of APPNOTE.TXT 6.3 (PKWARE), sections 4.3 and 4.5.3; 64-bit archives are read, split and encrypted ones are not.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

_ENTRY = struct.Struct("<4s6H3I5H2I")  #: central directory entry, 46 bytes
_LOCAL = struct.Struct("<4s5H3I2H")  #: local file header, 30 bytes
_END = struct.Struct("<4s4H2IH")  #: end of the central directory, 22 bytes
_END64 = struct.Struct("<4sQ2H2I4Q")  #: the same with 64 bits, 56 bytes
_LOCATOR = struct.Struct("<4sIQI")  #: where the latter lies, 20 bytes

_MAX_COMMENT = 1 << 16
_FULL32 = 0xFFFFFFFF
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 1
_UTF8 = 1 << 11
_DIRECTORY_CHUNK = 1 << 22

#: No picture of a pair and no map of patches is larger; a file that says so is not read.
MAX_FILE = 1 << 26


class Entry(NamedTuple):
    """An entry of the directory."""

    name: str
    position: int  #: of this entry in the archive
    local: int  #: where the archive says that the file's own header lies
    packed: int  #: bytes
    length: int  #: bytes when unpacked
    crc: int
    method: int
    is_encrypted: bool


class Zip:
    """One open archive. Reads with `pread`, so it may be shared by threads."""

    def __init__(self, path: Path):
        """Open an archive. Raises ValueError when it is none, or was cut short."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        try:
            self._start, self._end, self._shift = self._find_directory(os.fstat(self._descriptor).st_size)
        except ValueError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def entries(self) -> Iterator[Entry]:
        """All entries of the directory in its order. Raises ValueError when it is damaged."""
        position, buffer, base = self._start, b"", self._start
        while position < self._end:
            at = position - base
            if len(buffer) - at < _ENTRY.size + 3 * _MAX_COMMENT and base + len(buffer) < self._end:
                buffer, base, at = os.pread(self._descriptor, _DIRECTORY_CHUNK, position), position, 0
            entry, size = self._entry(buffer, at, position)
            yield entry
            position += size

    def read(self, position: int) -> bytes:
        """The unpacked file whose directory entry lies at `position`.

        Raises ValueError when it is damaged, encrypted, larger than MAX_FILE, or packed by another method than deflate.
        """
        entry, _ = self._entry(os.pread(self._descriptor, _ENTRY.size + 1024, position), 0, position)
        if entry.is_encrypted or entry.method not in (_STORED, _DEFLATED):
            raise ValueError(f"{self.path}: {entry.name} is encrypted, or packed by method {entry.method}")
        if max(entry.packed, entry.length) > MAX_FILE:
            raise ValueError(f"{self.path}: {entry.name} is too large: {entry.length} bytes")
        data = self._unpack(entry, self._packed(entry))
        if len(data) != entry.length or zlib.crc32(data) != entry.crc:
            raise ValueError(f"{self.path}: {entry.name} is damaged: its checksum is another one")
        return data

    def _packed(self, entry: Entry) -> bytes:
        """The file as it lies in the archive."""
        start = entry.local + self._shift
        guess = os.pread(self._descriptor, _LOCAL.size + 512 + entry.packed, start)
        if len(guess) < _LOCAL.size or not guess.startswith(b"PK\3\4"):
            raise ValueError(f"{self.path}: {entry.name} is not where the directory says")
        *_, name_length, extra_length = _LOCAL.unpack_from(guess)
        skip = _LOCAL.size + name_length + extra_length
        if skip + entry.packed > len(guess):
            return os.pread(self._descriptor, entry.packed, start + skip)
        return guess[skip : skip + entry.packed]

    def _unpack(self, entry: Entry, packed: bytes) -> bytes:
        if entry.method == _STORED:
            return packed
        try:
            return zlib.decompressobj(-15).decompress(packed, entry.length + 1)
        except zlib.error as error:
            raise ValueError(f"{self.path}: {entry.name} is damaged: {error}") from None

    def _entry(self, buffer: bytes, at: int, position: int) -> tuple[Entry, int]:
        """The entry at byte `at` of `buffer`, which is byte `position` of the archive; and the entry's size."""
        if len(buffer) - at < _ENTRY.size or buffer[at : at + 4] != b"PK\1\2":
            raise ValueError(f"{self.path}: its directory is damaged at byte {position}")
        fields = _ENTRY.unpack_from(buffer, at)
        flags, method, crc, packed, length, name_length, extra_length, comment_length = (
            fields[3],
            fields[4],
            *fields[7:13],
        )
        local = fields[16]
        name_end = at + _ENTRY.size + name_length
        if _FULL32 in (packed, length, local):
            extra = buffer[name_end : name_end + extra_length]
            length, packed, local = _wide(extra, length, packed, local)
        raw = buffer[at + _ENTRY.size : name_end]
        name = raw.decode("utf-8" if flags & _UTF8 else "cp437", "replace").replace("\\", "/")
        size = _ENTRY.size + name_length + extra_length + comment_length
        return Entry(name, position, local, packed, length, crc, method, bool(flags & _ENCRYPTED)), size

    def _find_directory(self, size: int) -> tuple[int, int, int]:
        """Where the directory starts and ends, and by how much all positions are shifted (bytes before the archive)."""
        tail_start = max(0, size - _END.size - _MAX_COMMENT)
        tail = os.pread(self._descriptor, size - tail_start, tail_start)
        at = tail.rfind(b"PK\5\6")
        while at >= 0 and not _ends_archive(tail, at):  # a comment may hold the same bytes
            at = tail.rfind(b"PK\5\6", 0, at)
        if at < 0:
            raise ValueError(
                f"{self.path}: no whole zip archive: its directory at the end is missing; download it again"
            )
        *_, length, offset, _ = _END.unpack_from(tail, at)
        end = tail_start + at
        if end >= _LOCATOR.size:
            signature, *_ = _LOCATOR.unpack(os.pread(self._descriptor, _LOCATOR.size, end - _LOCATOR.size))
            if signature == b"PK\6\7":
                length, offset, end = self._wide_directory(end - _LOCATOR.size)
        start = end - length
        if start < 0 or start < offset:
            raise ValueError(f"{self.path}: no whole zip archive: it was cut short; download it again")
        return start, end, start - offset

    def _wide_directory(self, before: int) -> tuple[int, int, int]:
        """Length, stated offset and end of the directory, from the 64-bit record that ends at `before`."""
        position = before - _END64.size
        record = os.pread(self._descriptor, _END64.size, position) if position >= 0 else b""
        if len(record) < _END64.size or not record.startswith(b"PK\6\6"):
            raise ValueError(f"{self.path}: its 64-bit directory is damaged; download it again")
        *_, length, offset = _END64.unpack(record)
        return length, offset, position


def _wide(extra: bytes, length: int, packed: int, local: int) -> tuple[int, int, int]:
    """The three numbers of an entry, those that do not fit into 32 bits from its extra field."""
    values = [length, packed, local]
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            field, place = extra[at + 4 : at + 4 + size], 0
            for i, value in enumerate(values):
                if value == _FULL32 and place + 8 <= len(field):
                    (values[i],) = struct.unpack_from("<Q", field, place)
                    place += 8
            break
        at += 4 + size
    return values[0], values[1], values[2]


def is_zip(path: Path) -> bool:
    """True for a file that is called a zip."""
    return path.suffix.lower() == ".zip" and path.is_file()


def _ends_archive(tail: bytes, at: int) -> bool:
    """True if the end record at `at` and its comment reach just to the end of the file."""
    return len(tail) - at >= _END.size and at + _END.size + int(_END.unpack_from(tail, at)[-1]) == len(tail)
