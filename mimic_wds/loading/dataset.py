"""A data set on disk as a list of samples: any of them is one read."""

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Self

import numpy as np

from mimic_wds.storage.manifest import manifest_hash, read_manifest
from mimic_wds.storage.reader import Shard, open_shards


class PairDataset:
    """All samples of a data set, numbered through its shards in manifest order. Safe to share between threads."""

    def __init__(self, folder: Path | str):
        """Open the data set in `folder`.

        Raises ValueError for a missing folder or manifest, a shard that is missing or of another size than the
        manifest says, a data set without samples, and one that does not say how large its views and patches are.
        """
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self.hash = manifest_hash(self.manifest)
        if self.manifest.num_samples == 0:
            raise ValueError(f"{self.folder}: the data set holds no pairs; nothing can be trained on it")
        self.size = self._pixels("size")  #: pixels, height and width of every view
        self.patch_size = self._pixels("patch_size")
        if self.size % self.patch_size:
            raise ValueError(f"{self.folder}: views of {self.size} pixels have no whole patches of {self.patch_size}")
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

    @property
    def num_patches(self) -> int:
        """L, patches of a view."""
        return (self.size // self.patch_size) ** 2

    def locate(self, index: int) -> tuple[Shard, int]:
        """Shard and place in it of sample `index`."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        return self.shards[number], index - start

    def read(self, index: int) -> tuple[str, Mapping[str, bytes]]:
        """Key and members of sample `index`, as they lie in the shard."""
        shard, place = self.locate(index)
        return shard.key(place), shard.read(place)

    def _pixels(self, name: str) -> int:
        """A length that the manifest must give."""
        value = self.manifest.criteria.get(name)
        if type(value) is not int or value <= 0:
            raise ValueError(
                f"{self.folder}: criteria.{name} in its manifest should be a number of pixels, is {value!r}"
            )
        return value
