"""A data set on disk as a list of samples: any of them is one read."""

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from mimic_wds.pairs import Kind
from mimic_wds.storage.manifest import manifest_hash, read_manifest
from mimic_wds.storage.reader import Shard, open_shards


class Dataset:
    """All samples of a data set, numbered through its shards in manifest order. Safe to share between threads."""

    kind: ClassVar[Kind]

    def __init__(self, folder: Path | str):
        """Open the data set in `folder`.

        Raises ValueError for a missing folder or manifest, a shard that is missing or of another size than the
        manifest says, a data set without samples, and one whose samples are of another kind.
        """
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self.hash = manifest_hash(self.manifest)
        if self.manifest.kind != self.kind:
            raise ValueError(f"{self.folder}: the data set holds {self.manifest.kind}, {self.kind} are needed here")
        if self.manifest.num_samples == 0:
            raise ValueError(f"{self.folder}: the data set holds no {self.kind}; nothing can be trained on it")
        self._check()
        self.shards = open_shards(self.folder, self.manifest)
        self._ends = np.array(list(accumulate(len(shard) for shard in self.shards)))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all shards."""
        for shard in self.shards:
            shard.close()

    def locate(self, index: int) -> tuple[Shard, int]:
        """Shard and place in it of sample `index`."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        return self.shards[number], index - start

    def read(self, index: int) -> tuple[str, Mapping[str, bytes]]:
        """Key and members of sample `index`, as they lie in the shard."""
        shard, place = self.locate(index)
        return shard.key(place), shard.read(place)

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


def open_dataset(folder: Path | str) -> PairDataset | ImageDataset:
    """The data set in `folder`, whichever kind it is of. Raises ValueError as they do."""
    return ImageDataset(folder) if read_manifest(Path(folder)).kind == "images" else PairDataset(folder)
