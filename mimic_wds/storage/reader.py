"""Reading shards through their index: any sample is one read, in any order, from any thread."""

import os
from functools import cached_property
from pathlib import Path
from typing import Self

from mimic_wds.pairs import PairSample
from mimic_wds.storage.index import Index, index_path, read_index
from mimic_wds.storage.layout import MEMBERS
from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.sample import decode
from mimic_wds.storage.tar import BLOCK


class Shard:
    """One open shard. Reads with `pread`, so threads and forked processes may share it."""

    def __init__(self, path: Path, index: Index | None = None):
        """Open a tar with its index (default: the file beside it). Raises ValueError when they do not fit."""
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
                "run `mimic-shard verify` on the folder"
            )

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
        """The members of sample i: {"0.jpg": ..., "1.jpg": ..., "corr.npy": ..., "json": ...}."""
        return self._split(i, self.blocks(i))

    def key(self, i: int) -> str:
        """The key of sample i."""
        start, _ = self.index.sample_range(i)
        return _key(os.pread(self._descriptor, BLOCK, start))

    def sample(self, i: int) -> PairSample:
        """Sample i, decoded (the JPEGs stay bytes). Raises ValueError naming the key when it is malformed."""
        blocks = self.blocks(i)
        return decode(_key(blocks), self._split(i, blocks))

    def lengths(self, i: int) -> list[int]:
        """Bytes of each member of sample i, in MEMBERS order."""
        return [int(length) for length in self.index.spans[i, :, 1]]

    def _split(self, i: int, blocks: bytes) -> dict[str, bytes]:
        start, _ = self.index.sample_range(i)
        return {
            member: blocks[offset - start : offset - start + length]
            for member, (offset, length) in zip(MEMBERS, self._spans[i], strict=True)
        }

    @cached_property
    def _spans(self) -> list[list[list[int]]]:
        """The spans as Python integers: slicing by numpy's is several times slower."""
        spans: list[list[list[int]]] = self.index.spans.tolist()
        return spans


def _key(blocks: bytes) -> str:
    """The key in the first header of a sample: its name up to the first dot."""
    return blocks[:100].split(b"\0", 1)[0].decode().partition(".")[0]


def open_shards(folder: Path, manifest: Manifest) -> list[Shard]:
    """All shards of a data set, each with the samples and bytes that the manifest says. Raises ValueError otherwise."""
    shards: list[Shard] = []
    try:
        for info in manifest.shards:
            shard = Shard(folder / info.name)
            shards.append(shard)
            if (len(shard), shard.index.tar_bytes) != (info.samples, info.bytes):
                raise ValueError(
                    f"{shard.path}: holds {len(shard)} samples in {shard.index.tar_bytes} bytes, the manifest says "
                    f"{info.samples} in {info.bytes}: run `mimic-shard verify` on the folder"
                )
    except ValueError:
        for shard in shards:
            shard.close()
        raise
    return shards
