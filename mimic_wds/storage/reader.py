"""Reading shards through their index: any sample is one read, in any order, from any thread."""

import errno
import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from mimic_wds.pairs import Sample
from mimic_wds.storage.index import Index, index_path, read_index
from mimic_wds.storage.layout import kind_of
from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.sample import decode, decode_image
from mimic_wds.storage.tar import BLOCK, has_header, padded

REPAIR = "run `mimic-shard verify` on the folder"

#: Files that a process has open beside its shards: libraries, sockets, logs, a second data set.
SPARE_FILES = 512


class Shard:
    """One open shard. Reads with `pread`, so threads and forked processes may share it."""

    def __init__(self, path: Path, index: Index | None = None, members: Sequence[str] = ()):
        """Open a tar with its index (default: the file beside it). Raises ValueError when they do not fit.

        `members` are those of each sample; default: those of its first one.
        """
        self.path = path
        self.index = index or read_index(index_path(path))
        try:
            size = path.stat().st_size
            self._descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise ValueError(f"{path}: the shard is missing") from None
        if size != self.index.tar_bytes:
            self.close()
            raise ValueError(
                f"{path}: has {size} bytes, its index describes {self.index.tar_bytes}; it was cut short or replaced: "
                f"{REPAIR}"
            )
        self.members = tuple(members) or self._first_members()
        if len(self) and len(self.members) != self.index.spans.shape[1]:
            self.close()
            raise ValueError(f"{path}: its index has {self.index.spans.shape[1]} members a sample: {REPAIR}")
        self.kind = kind_of(self.members)
        if len(self) and self.kind is None:
            self.close()
            raise ValueError(f"{path}: {', '.join(self.members)!r} are the members of no sample: {REPAIR}")

    def __len__(self) -> int:
        return len(self.index)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def blocks(self, i: int) -> bytes:
        """Sample i as it lies in the tar: headers, data and padding."""
        start, end = self.index.sample_range(i)
        data = os.pread(self._descriptor, end - start, start)
        if len(data) != end - start:
            raise ValueError(f"{self.path}: ends inside sample {i}")
        return data

    def read(self, i: int) -> dict[str, bytes]:
        """The members of sample i, of a pair {"0.jpg": ..., "1.jpg": ..., "corr.npy": ..., "json": ...}.

        Raises ValueError when they are not where the index says.
        """
        return self.read_with_key(i)[1]

    def read_with_key(self, i: int) -> tuple[str, dict[str, bytes]]:
        """Key and members of sample i, in one read. Raises ValueError as `read` does."""
        ranges = self.index.ranges(i)
        start, last = ranges[0][0] - BLOCK, ranges[-1]
        length = last[0] + padded(last[1]) - start
        blocks = os.pread(self._descriptor, length, start)
        if len(blocks) != length:
            raise ValueError(f"{self.path}: ends inside sample {i}")
        return split_blocks(blocks, ranges, self.members, i, self.path)

    def key(self, i: int) -> str:
        """The key of sample i."""
        start, _ = self.index.sample_range(i)
        return _key(os.pread(self._descriptor, BLOCK, start))

    def sample(self, i: int) -> Sample:
        """Sample i, decoded (the JPEGs stay bytes). Raises ValueError naming the key when it is malformed."""
        key, members = self.read_with_key(i)
        return decode(key, members) if self.kind == "pairs" else decode_image(key, members)

    def lengths(self, i: int) -> list[int]:
        """Bytes of each member of sample i, in their order."""
        return [length for _, length in self.index.ranges(i)]

    def _first_members(self) -> tuple[str, ...]:
        """What the headers of the first sample call its members."""
        if not len(self):
            return ()
        heads = (os.pread(self._descriptor, BLOCK, offset - BLOCK) for offset, _ in self.index.ranges(0))
        return tuple(_name(head).partition(".")[2] for head in heads)


def split_blocks(
    blocks: bytes, ranges: Sequence[Sequence[int]], names: Sequence[str], i: int, where: object
) -> tuple[str, dict[str, bytes]]:
    """Key and members of sample i of the shard `where` from its blocks; `ranges` is [offset, length] of each member.

    Each member is held against its header, so that an index of other bytes is found here, not in a decoder: ValueError.
    """
    members: dict[str, bytes] = {}
    key, start = blocks[:100].partition(b".")[0], ranges[0][0] - BLOCK
    for member, (offset, length) in zip(names, ranges, strict=True):
        at = offset - start
        if not has_header(blocks, at - BLOCK, key + b"." + member.encode(), length):
            raise ValueError(f"{where}: sample {i} is not where its index says: {REPAIR}")
        members[member] = blocks[at : at + length]
    return key.decode("ascii", "replace"), members


def _key(blocks: bytes) -> str:
    """The key in the first header of a sample: its name up to the first dot."""
    return _name(blocks).partition(".")[0]


def _name(header: bytes) -> str:
    """The name in a header."""
    return header[:100].rstrip(b"\0").decode("ascii", "replace")


def open_shards(folder: Path, manifest: Manifest) -> list[Shard]:
    """All shards of a data set, each with the samples and bytes that the manifest says. Raises ValueError otherwise."""
    allow_open_files(len(manifest.shards))
    shards: list[Shard] = []
    try:
        for info in manifest.shards:
            shard = Shard(folder / info.name)
            shards.append(shard)
            if (len(shard), shard.index.tar_bytes) != (info.samples, info.bytes):
                raise ValueError(
                    f"{shard.path}: holds {len(shard)} samples in {shard.index.tar_bytes} bytes, the manifest says "
                    f"{info.samples} in {info.bytes}: {REPAIR}"
                )
            if shard.members != manifest.members:
                raise ValueError(
                    f"{shard.path}: its samples have the members {', '.join(shard.members)}, the manifest says "
                    f"{', '.join(manifest.members)}: {REPAIR}"
                )
    except (ValueError, OSError) as error:
        for shard in shards:
            shard.close()
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            raise ValueError(
                f"{folder}: has {len(manifest.shards)} shards, more than the files that this process may open; "
                "raise the limit (`ulimit -n`), or build with larger shards (--max-shard-bytes)"
            ) from None
        raise
    return shards


def allow_open_files(number: int) -> None:
    """Make room for so many more open files, as far as this process may (the soft limit is often 1024)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + SPARE_FILES if hard == resource.RLIM_INFINITY else min(number + SPARE_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
