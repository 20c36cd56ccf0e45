"""A data set, here or in a bucket, as a list of samples: any of them is one read."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import ClassVar, Self

from mimic_wds.loading.remote import Remote, RemoteShards
from mimic_wds.loading.remote_shard import RemoteShard
from mimic_wds.pairs import Kind
from mimic_wds.storage.manifest import manifest_hash, read_manifest
from mimic_wds.storage.places import open_place, read_manifest_at
from mimic_wds.storage.reader import Shard, open_shards

#: How remote data sets are read unless told otherwise: with the user's cache.
LOCAL_CACHE = Remote()


class Dataset:
    """All samples of a data set, numbered through its shards in manifest order. Safe to share between threads."""

    kind: ClassVar[Kind]

    def __init__(self, where: Path | str, remote: Remote = LOCAL_CACHE):
        """Open the data set in a folder or at a URL (those of `open_place`); `remote` says how to read the latter.

        Raises ValueError for a missing folder or manifest, a shard that is missing or of another size than the
        manifest says, a data set without samples, and one whose samples are of another kind; OSError when a remote
        place fails.
        """
        self.shards: Sequence[Shard | RemoteShard]
        self._remote: RemoteShards | None = None
        self.folder = str(where) if is_url(where) else Path(where)
        place = open_place(where, endpoint=remote.endpoint, anonymous=remote.anonymous) if is_url(where) else None
        self.manifest = read_manifest_at(place) if place else read_manifest(Path(where))
        self.hash = manifest_hash(self.manifest)
        if self.manifest.kind != self.kind:
            raise ValueError(f"{self.folder}: the data set holds {self.manifest.kind}, {self.kind} are needed here")
        if self.manifest.num_samples == 0:
            raise ValueError(f"{self.folder}: the data set holds no {self.kind}; nothing can be trained on it")
        self._check()
        if place is None:
            self.shards = open_shards(Path(where), self.manifest)
        else:
            self._remote = RemoteShards(place, self.manifest, remote.open_cache())
            self.shards = self._remote.shards
        self._ends = list(accumulate(len(shard) for shard in self.shards))

    def __len__(self) -> int:
        return self._ends[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all shards."""
        if self._remote is not None:
            self._remote.close()
            return
        for shard in self.shards:
            shard.close()

    def locate(self, index: int) -> tuple[Shard | RemoteShard, int]:
        """Shard and place in it of sample `index`."""
        number, place = self._place(index)
        return self.shards[number], place

    def read(self, index: int) -> tuple[str, Mapping[str, bytes]]:
        """Key and members of sample `index`, as they lie in the shard.

        Raises ValueError when they are not where the index says, OSError when a remote place fails for long.
        """
        number, place = self._place(index)
        if self._remote is not None:
            return self._remote.read(number, place)
        shard = self.shards[number]
        assert isinstance(shard, Shard)
        return shard.read_with_key(place)

    def expect(self, groups: Iterator[list[int]]) -> None:
        """Say which shards will be read, in which order: those of a remote data set are fetched ahead."""
        if self._remote is not None:
            self._remote.expect(groups)

    def will_read(self, indices: Iterable[int]) -> None:
        """Say which samples will be read next, in any order: those that come by ranged reads are asked for together."""
        if self._remote is not None:
            self._remote.will_read(map(self._place, indices))

    def _place(self, index: int) -> tuple[int, int]:
        """Number of the shard that holds sample `index`, and its place there."""
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def _check(self) -> None:
        """Raise ValueError when the manifest does not say what must be known of these samples."""


class PairDataset(Dataset):
    """The pairs of a data set. Raises ValueError, too, when it does not say how large its views and patches are."""

    kind = "pairs"

    def _check(self) -> None:
        self.size = self._pixels("size")  #: pixels, height and width of every view
        self.patch_size = self._pixels("patch_size")
        if self.size % self.patch_size:
            raise ValueError(f"{self.folder}: views of {self.size} pixels have no whole patches of {self.patch_size}")

    @property
    def num_patches(self) -> int:
        """L, patches of a view."""
        return (self.size // self.patch_size) ** 2

    def _pixels(self, name: str) -> int:
        """A length that the manifest must give."""
        value = self.manifest.criteria.get(name)
        if type(value) is not int or value <= 0:
            raise ValueError(
                f"{self.folder}: criteria.{name} in its manifest should be a number of pixels, is {value!r}"
            )
        return value


class ImageDataset(Dataset):
    """The single images of a data set, of any sizes."""

    kind = "images"

    @property
    def classes(self) -> list[str]:
        """The names that labels number."""
        return self.manifest.classes


def open_dataset(where: Path | str, remote: Remote = LOCAL_CACHE) -> PairDataset | ImageDataset:
    """The data set in a folder or at a URL, whichever kind it is of. Raises ValueError and OSError as they do."""
    if is_url(where):
        manifest = read_manifest_at(open_place(where, endpoint=remote.endpoint, anonymous=remote.anonymous))
    else:
        manifest = read_manifest(Path(where))
    return ImageDataset(where, remote) if manifest.kind == "images" else PairDataset(where, remote)


def is_url(where: Path | str) -> bool:
    """True for an address that is no local path."""
    return isinstance(where, str) and "://" in where and not where.startswith("file://")
