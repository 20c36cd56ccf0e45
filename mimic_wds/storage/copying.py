"""Copying samples from shards to a new one, as they lie in the tar: no byte of them is changed or decoded."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mimic_wds.storage.catalog import Catalog
from mimic_wds.storage.files import atomic_write
from mimic_wds.storage.index import Index, index_path, read_index, write_index
from mimic_wds.storage.manifest import ShardInfo
from mimic_wds.storage.reader import REPAIR
from mimic_wds.storage.selection import Numbers
from mimic_wds.storage.tar import BLOCK, END, padded

#: Bytes that are read at once, unless a single sample is larger.
CHUNK_BYTES = 4 * 2**20

#: Shards that are open at once for writing one.
OPEN_SHARDS = 64


def cut(catalog: Catalog, taken: Numbers, max_bytes: int, max_samples: int = 0) -> list[Numbers]:
    """The samples of each new shard: one is closed before the sample that would take it past a limit (0 = none).

    A larger single sample has a shard of its own.
    """
    ends = np.cumsum(catalog.blocks[taken], dtype=np.int64) * BLOCK
    shards, first = [], 0
    while first < len(taken):
        before = int(ends[first - 1]) if first else 0
        last = int(np.searchsorted(ends, before + max_bytes - len(END), side="right")) if max_bytes else len(taken)
        last = max(first + 1, min(last, first + max_samples if max_samples else last))
        shards.append(taken[first:last])
        first = last
    return shards


def copy_shard(path: Path, catalog: Catalog, numbers: Numbers) -> ShardInfo:
    """Write a shard of these samples, in this order, and its index; or take the one that an earlier run has written.

    Raises ValueError when a sample is not what the index of its shard says, OutputError when the disk is full.
    """
    if path.exists() and index_path(path).exists():
        return _there(path, catalog, numbers)
    spans: list[list[tuple[int, int]]] = []
    digest, position = hashlib.sha256(), 0
    with atomic_write(path) as file, _Tars(catalog) as tars:
        for shard, first, last in _runs(catalog, numbers):
            data = tars.read(shard, first, last)
            file.write(data)
            digest.update(data)
            at = 0
            for blocks in catalog.blocks[first : last + 1].tolist():
                spans.append(_spans(data, at, blocks * BLOCK, position, catalog, shard))
                at += blocks * BLOCK
            position += at
        file.write(END)
        digest.update(END)
    write_index(index_path(path), Index(np.array(spans, np.int64)))
    return _info(path, catalog, numbers, digest.hexdigest())


def _runs(catalog: Catalog, numbers: Numbers) -> Iterator[tuple[int, int, int]]:
    """(shard, first, last): samples that follow each other in a shard as in `numbers`, up to CHUNK_BYTES of them."""
    shards = catalog.shard_of(numbers)
    ends = np.cumsum(catalog.blocks[numbers], dtype=np.int64) * BLOCK
    breaks = np.flatnonzero((np.diff(numbers) != 1) | (np.diff(shards) != 0)) + 1
    starts, stops = np.append(0, breaks).tolist(), np.append(breaks, len(numbers)).tolist()
    for start, stop in zip(starts, stops, strict=True):
        while start < stop:
            before = int(ends[start - 1]) if start else 0
            end = max(start + 1, min(stop, int(np.searchsorted(ends, before + CHUNK_BYTES, side="right"))))
            yield int(shards[start]), int(numbers[start]), int(numbers[end - 1])
            start = end


class _Tars:
    """The shards that samples are read from; the last few stay open."""

    def __init__(self, catalog: Catalog):
        self._catalog = catalog
        self._open: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, shard: int, first: int, last: int) -> bytes:
        """The bytes of samples first..last, which follow each other in this shard."""
        descriptor = self._open.pop(shard, -1)
        if descriptor < 0:
            if len(self._open) >= OPEN_SHARDS:
                os.close(self._open.pop(next(iter(self._open))))
            descriptor = os.open(self._catalog.path(shard), os.O_RDONLY)
        self._open[shard] = descriptor
        start = int(self._catalog.start[first])
        length = (int(self._catalog.start[last]) + int(self._catalog.blocks[last]) - start) * BLOCK
        data = os.pread(descriptor, length, start * BLOCK)
        if len(data) != length:
            raise ValueError(f"{self._catalog.path(shard)}: was cut short while it was read; {REPAIR}")
        return data


def _spans(data: bytes, at: int, size: int, position: int, catalog: Catalog, shard: int) -> list[tuple[int, int]]:
    """Where the members of the sample at `at` come to lie, `data` being written at `position`; headers are checked."""
    spans, here, key = [], at, data[at : at + 100].partition(b".")[0]
    number, _ = catalog.shards[shard]
    for member in catalog.data_sets[number].manifest.members:
        header = data[here : here + 136]
        if header[:100].rstrip(b"\0") != b"%b.%b" % (key, member.encode()) or not header[124:135].isdigit():
            break
        length = int(header[124:135], 8)
        spans.append((position + here + BLOCK, length))
        here += BLOCK + padded(length)
    else:
        if here == at + size:
            return spans
    raise ValueError(f"{catalog.path(shard)}: a sample is not where its index says; {REPAIR}")


def _there(path: Path, catalog: Catalog, numbers: Numbers) -> ShardInfo:
    """A shard that an interrupted run has written: its index is written after it."""
    index = read_index(index_path(path))
    sizes: NDArray[np.int64] = catalog.blocks[numbers].astype(np.int64) * BLOCK
    is_ours = len(index) == len(numbers) and np.array_equal(index.spans[:, 0, 0] - BLOCK, np.cumsum(sizes) - sizes)
    if not is_ours or path.stat().st_size != index.tar_bytes:
        raise ValueError(f"{path}: is no shard of this data set; move it away and run the same command again")
    with path.open("rb") as file:
        return _info(path, catalog, numbers, hashlib.file_digest(file, "sha256").hexdigest())


def _info(path: Path, catalog: Catalog, numbers: Numbers, sha256: str) -> ShardInfo:
    """What the manifest says about a shard of these samples."""
    return ShardInfo(
        name=path.name,
        bytes=int(catalog.blocks[numbers].sum(dtype=np.int64)) * BLOCK + len(END),
        sha256=sha256,
        samples=len(numbers),
        sources=catalog.per_source(numbers),
    )
