"""Writing one shard: samples in, a whole tar under its final name or nothing."""

import hashlib
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from mimic_wds.pairs import Sample
from mimic_wds.storage.files import atomic_write
from mimic_wds.storage.index import Index
from mimic_wds.storage.layout import MEMBERS, is_key
from mimic_wds.storage.manifest import ShardInfo
from mimic_wds.storage.sample import encode
from mimic_wds.storage.tar import BLOCK, END, header, padded


class ShardWriter:
    """Writes one tar. Use it as a context manager: leaving it without an error puts the file in place.

    Without any sample no file is written. After leaving, `index` and `info()` describe the shard.
    """

    def __init__(self, path: Path, *, hashed: bool = True):
        """`hashed`: whether `info` will be asked for; hashing takes as long as copying."""
        self.path = path
        self.keys: list[str] = []
        self.num_bytes = 0
        self._known: set[str] = set()
        self._spans: list[list[tuple[int, int]]] = []
        self._sources: Counter[str] = Counter()
        self._hash = hashlib.sha256() if hashed else None
        self._stack = ExitStack()
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, traceback)
            return
        with self._stack:
            if self._file is not None:
                self._write(END)

    def add(self, sample: Sample) -> None:
        """Append a sample.

        Raises ValueError for a key that is malformed or already there, OutputError when the file system refuses.
        """
        if not is_key(sample.key, sample.kind):
            raise ValueError(f"{sample.key!r} is no key; make it with `sample_key` or `image_key`")
        if sample.key in self._known:
            raise ValueError(
                f"{self.path.name}: the key {sample.key!r} comes twice; "
                f"two views of scene {sample.scene!r} have the same name"
            )
        self.add_raw(sample.key, sample.source, *to_blocks(sample))

    def add_raw(self, key: str, source: str, blocks: bytes, lengths: list[int]) -> None:
        """Append a sample as it lies in another shard: its tar blocks, and the lengths of its members' data."""
        assert len(lengths) == len(self._spans[0] if self._spans else lengths), "samples of one kind"
        spans, position = [], self.num_bytes
        for length in lengths:
            position += BLOCK
            spans.append((position, length))
            position += padded(length)
        assert position == self.num_bytes + len(blocks)
        self._write(blocks)
        self._spans.append(spans)
        self.keys.append(key)
        self._known.add(key)
        self._sources[source] += 1

    @property
    def index(self) -> Index:
        """Where the members lie."""
        empty = np.empty((0, len(MEMBERS["pairs"]), 2), np.int64)
        return Index(np.array(self._spans, np.int64) if self._spans else empty)

    def info(self, generation: int = 0) -> ShardInfo:
        """What the manifest says about this shard (after it is closed)."""
        assert self._hash is not None
        return ShardInfo(
            name=self.path.name,
            bytes=self.num_bytes,
            sha256=self._hash.hexdigest(),
            samples=len(self.keys),
            sources=dict(sorted(self._sources.items())),
            generation=generation,
        )

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._stack.enter_context(atomic_write(self.path))
        self._file.write(data)
        if self._hash is not None:
            self._hash.update(data)
        self.num_bytes += len(data)


def to_blocks(sample: Sample) -> tuple[bytes, list[int]]:
    """A sample as it lies in a tar: headers, data and padding; and the length of each member's data."""
    blocks, lengths = [], []
    for name, data in encode(sample):
        blocks += [header(name, len(data)), data, bytes(padded(len(data)) - len(data))]
        lengths.append(len(data))
    return b"".join(blocks), lengths
