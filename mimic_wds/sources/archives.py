"""Zip and tar files read in place: members are listed in one pass and read by their position; nothing is unpacked.

A scene that lies in an archive has the path ``ARCHIVE::INNER``: the archive's path, "::", and the folder within it
(empty for the archive's root). No open file is kept between two calls, so nothing stale travels to a worker process.

Archives come from the network, so nothing in them is trusted: nothing is ever written, a name that leaves the archive
or a cut file is an `ArchiveError`, and a member that is encrypted, damaged or beyond `MAX_MEMBER_BYTES` is a
`MemberError`, which the sources turn into a fault in the member's place.
"""

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

#: Endings (lower case) of archives that can be read at any place.
ARCHIVE_SUFFIXES = frozenset({".zip", ".tar"})

#: Endings of tars that are compressed as a whole: a member of them cannot be reached without reading all before it.
COMPRESSED_TAR = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")

SEPARATOR = "::"

#: No picture is larger. One that claims to be is not read, whatever the archive says that it unpacks to.
MAX_MEMBER_BYTES = 256 * 2**20

#: How many archives' lists a process holds; 20,000 pictures of an archive take 7 MB.
LISTS_HELD = 64

_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_LOCAL_HEADER_BYTES = 30  #: before the name; its length and that of the extra field are at 26 (APPNOTE.TXT 4.3.7)
_ENCRYPTED = 0x1  #: bit of a zip member's flags (APPNOTE.TXT 4.4.4)


class ArchiveError(ValueError):
    """An archive that cannot be listed: `path` is the archive, `reason` what is wrong with it and what to do."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


class MemberError(ValueError):
    """A member that cannot be read; the message is the reason under which the fault is counted."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive and where its bytes are."""

    name: str  #: path within the archive, "/" between folders, without a leading "./"
    size: int  #: bytes when read
    offset: int  #: bytes; where its data begin (tar), where its local header begins (zip)
    stored: int  #: bytes that it takes in the archive
    method: Literal["plain", "stored", "deflated", "encrypted", "unknown"]  #: "plain" is a tar's, the others a zip's
    crc: int = 0  #: CRC-32 of a zip's member; a tar has none


def is_archive(path: Path) -> bool:
    """True for the name of a zip or a plain tar."""
    return path.suffix.lower() in ARCHIVE_SUFFIXES


def is_compressed_tar(path: Path) -> bool:
    """True for the name of a tar that cannot be read in place."""
    return path.name.lower().endswith(COMPRESSED_TAR)


def join_path(container: Path | str, inner: str) -> str:
    """The path of a scene: the archive (or another file that holds scenes) and where in it the scene lies."""
    return f"{container}{SEPARATOR}{inner}"


def split_path(path: str) -> tuple[Path, str]:
    """(container, inner) of a scene's path; inner is "" for a path without "::".

    A folder's own name may hold "::", so the container is the shortest head that exists.
    """
    at = path.find(SEPARATOR)
    while at >= 0:
        if (container := Path(path[:at])).exists():
            return container, path[at + len(SEPARATOR) :]
        at = path.find(SEPARATOR, at + 1)
    return Path(path), ""


def members(path: Path) -> Iterator[Member]:
    """The files in a zip or tar, in its order, without hidden ones; of a tar without holding a list of them.

    Raises ArchiveError when it is no such archive, is cut or damaged, or holds names that lead out of it.
    """
    if is_compressed_tar(path):
        raise ArchiveError(path, "is a compressed tar, which cannot be read in place; unpack it")
    listed = _zip_members(path) if path.suffix.lower() == ".zip" else _tar_members(path)
    for member in listed:
        parts = member.name.split("/")
        if member.name.startswith("/") or ".." in parts:
            raise ArchiveError(path, f"holds a name that leads out of it ({member.name!r}); do not use this archive")
        if not any(part.startswith(".") or part == "__MACOSX" for part in parts):
            yield member


def folders(path: Path, suffixes: frozenset[str]) -> dict[str, dict[str, Member]]:
    """folder -> file name -> member, for all files with one of the (lower-case) suffixes. The root's name is "".

    Listed once per process and version of the file. Of members with one name the last counts, as with `tar`.
    Raises ArchiveError as `members` does.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise ArchiveError(path, f"cannot be read ({error.strerror})") from None
    return _folders(path, stat.st_size, stat.st_mtime_ns, suffixes)


@lru_cache(maxsize=LISTS_HELD)
def _folders(path: Path, num_bytes: int, mtime_ns: int, suffixes: frozenset[str]) -> dict[str, dict[str, Member]]:
    found: dict[str, dict[str, Member]] = {}
    for member in members(path):
        folder, _, name = member.name.rpartition("/")
        if PurePosixPath(name).suffix.lower() in suffixes:
            found.setdefault(folder, {})[name] = member
    return found


def read_member(file: BinaryIO, member: Member) -> bytes:
    """The bytes of a member of the opened archive.

    Raises MemberError: "encrypted_image", "unknown_compression", "image_too_large", or "unreadable_image" when the
    archive is damaged there. OSError passes through.
    """
    if member.method == "encrypted":
        raise MemberError("encrypted_image")
    if member.method == "unknown":
        raise MemberError("unknown_compression")
    if max(member.size, member.stored) > MAX_MEMBER_BYTES:
        raise MemberError("image_too_large")
    data = _raw(file, member)
    if member.method == "deflated":
        data = _inflate(data, member.size)
    if len(data) != member.size or (member.method != "plain" and zlib.crc32(data) != member.crc):
        raise MemberError("unreadable_image")
    return data


def _raw(file: BinaryIO, member: Member) -> bytes:
    """The bytes as they are stored, fewer where the file ends early."""
    start = member.offset
    if member.method != "plain":
        file.seek(member.offset)
        header = file.read(_LOCAL_HEADER_BYTES)
        if len(header) < _LOCAL_HEADER_BYTES or not header.startswith(b"PK\x03\x04"):
            raise MemberError("unreadable_image")
        name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        start += _LOCAL_HEADER_BYTES + name + extra
    file.seek(start)
    return file.read(member.stored)


def _inflate(data: bytes, size: int) -> bytes:
    """At most one byte more than the `size` that the archive promises, however much there is."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except zlib.error:
        raise MemberError("unreadable_image") from None


def _zip_members(path: Path) -> Iterator[Member]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, LookupError, ArithmeticError) as error:
        raise ArchiveError(path, f"is no whole zip file ({error}); download it again, or leave it out") from None
    for info in infos:
        method: Literal["stored", "deflated", "encrypted", "unknown"] = "unknown"
        if info.flag_bits & _ENCRYPTED:
            method = "encrypted"
        elif info.compress_type in (_STORED, _DEFLATED):
            method = "stored" if info.compress_type == _STORED else "deflated"
        if info.header_offset < 0:
            raise ArchiveError(path, f"is damaged (position of {info.filename!r}); download it again, or leave it out")
        name = info.filename.removeprefix("./")
        yield Member(name, info.file_size, info.header_offset, info.compress_size, method, info.CRC)


def _tar_members(path: Path) -> Iterator[Member]:
    """Regular files with their bytes; links and sparse files, whose bytes are elsewhere, as files of no bytes."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="replace") as tar:
            before = -1
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps a million TarInfos
                if info.size < 0 or tar.offset <= before:
                    raise tarfile.ReadError(f"a size or position that cannot be, after byte {before}")
                before = tar.offset
                if not info.isdir():
                    size = info.size if info.isreg() and not info.issparse() else 0
                    yield Member(info.name.removeprefix("./"), size, info.offset_data, size, "plain")
            _check_end(file, tar.offset)
    except (tarfile.TarError, OSError, ValueError, LookupError, ArithmeticError) as error:
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError(path, f"is no whole tar file ({error}); download it again, or leave it out") from None


def _check_end(file: BinaryIO, offset: int) -> None:
    """Raise ReadError unless the tar ends here: with a block of zeros, or with the file."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0") or 0 < len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"no header at byte {offset}")
