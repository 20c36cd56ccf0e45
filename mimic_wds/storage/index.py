"""The index of a shard: where every member lies, so that any sample is one read.

On disk it is a plain .npy array of int64, shape (samples, M, 2): for each of a sample's M members (4 of a pair, 2 of a
single image, more with maps; `layout.members_of`) the byte offset of its data in the tar and their length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimic_wds.storage.files import atomic_write
from mimic_wds.storage.layout import MAPS, MEMBERS, index_name, members_of
from mimic_wds.storage.sample import decode_array, encode_array
from mimic_wds.storage.tar import BLOCK, END, padded, walk

#: A USTAR size has 11 octal digits.
MAX_MEMBER = 8**11 - 1

#: Members that a sample has at least and at most.
_FEWEST, _MOST = len(members_of("images")), len(members_of("pairs", MAPS))


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """Byte ranges of all members of a shard."""

    spans: NDArray[np.int64]  #: (N, M, 2) offset and length of each member's data

    def __len__(self) -> int:
        return len(self.spans)

    def sample_range(self, i: int) -> tuple[int, int]:
        """First byte of sample i (its first header) and the byte after its last block."""
        ranges = self.ranges(i)
        last, length = ranges[-1]
        return ranges[0][0] - BLOCK, last + padded(length)

    def ranges(self, i: int) -> list[list[int]]:
        """[offset, length] of each member's data of sample i (Python integers: numpy's slice bytes slowly)."""
        spans: list[list[int]] = self.spans[i].tolist()
        return spans

    @property
    def tar_bytes(self) -> int:
        """Size of the tar that this index describes."""
        return self.sample_range(len(self) - 1)[1] + len(END)


def write_index(path: Path, index: Index) -> None:
    """Write an index atomically."""
    with atomic_write(path) as file:
        file.write(encode_array(index.spans.astype("<i8")))


def read_index(path: Path) -> Index:
    """Read an index. Raises ValueError naming the file when it is missing, no index, or not one of gapless members."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: the shard's index is missing") from None
    return decode_index(data, str(path))


def decode_index(data: bytes, path: str) -> Index:
    """The index in `data`, which came from `path`. Raises ValueError naming it."""
    spans = decode_array(data, path)
    if spans.dtype != np.int64 or spans.ndim != 3 or not _FEWEST <= spans.shape[1] <= _MOST or spans.shape[2] != 2:
        raise ValueError(f"{path}: expected int64 of shape (N, members, 2), got {spans.dtype} {spans.shape}")
    if len(spans) == 0:
        raise ValueError(f"{path}: expected int64 of shape (N, members, 2) with N above 0, got {spans.shape}")
    if not _is_gapless(spans):
        raise ValueError(f"{path}: damaged: its members do not follow each other; `mimic-shard verify` tells more")
    return Index(spans)


def _is_gapless(spans: NDArray[np.int64]) -> bool:
    """True if every member's header follows the blocks of the member before it, from the first byte on."""
    offsets, lengths = spans.reshape(-1, 2).T
    if lengths.min() < 0 or lengths.max() > MAX_MEMBER:
        return False
    ends = np.cumsum(BLOCK - (-lengths // BLOCK) * BLOCK)  # a header and the data, in whole blocks
    return bool(offsets[0] == BLOCK and (offsets[1:] == ends[:-1] + BLOCK).all())


def index_path(shard: Path) -> Path:
    """Where the index of a shard lies."""
    return shard.with_name(index_name(shard.name))


def index_tar(path: Path, members: Sequence[str] = MEMBERS["pairs"]) -> tuple[Index, list[str]]:
    """Walk a shard of samples with these members and return its index and keys.

    Raises ValueError, naming file and byte or member, for a torn tar, members missing, foreign or out of order, a key
    used twice, and a shard without samples.
    """
    spans: list[tuple[int, int]] = []
    keys: list[str] = []
    try:
        with path.open("rb") as file:
            for number, member in enumerate(walk(file, path.stat().st_size)):
                key, _, field = member.name.partition(".")
                position = number % len(members)
                if position == 0:
                    keys.append(key)
                expected = f"{keys[-1]}.{members[position]}"
                if member.name != expected:
                    raise ValueError(f"found member {member.name!r} where {expected!r} should be")
                assert field == members[position]
                spans.append((member.offset, member.length))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if len(spans) != len(members) * len(keys):
        raise ValueError(
            f"{path}: the last sample, {keys[-1]!r}, has {len(spans) % len(members)} of {len(members)} members"
        )
    if not keys:
        raise ValueError(f"{path}: holds no samples")
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{path}: the key {twice!r} is there twice")
    return Index(np.array(spans, np.int64).reshape(-1, len(members), 2)), keys
