"""Looking into a data set where it lies, a folder or a bucket: through its indexes, without reading whole shards.

A sample is one ranged read. There is no index of keys: where a key lies follows from `scenes.jsonl`, whose lines have
the order of the samples in whatever a build makes and most of what is made from it. That is a guess, held against the
headers of the samples (512 bytes each); where it is wrong, after a shuffle say, the headers are searched.
"""

import difflib
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import Sample
from mimic_wds.storage.folder_place import FolderPlace
from mimic_wds.storage.index import Index, decode_index
from mimic_wds.storage.layout import index_name, is_key, prefix_of, scene_prefix
from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.places import Place, open_place, read_manifest_at
from mimic_wds.storage.reader import REPAIR
from mimic_wds.storage.runs import Runs, read_runs
from mimic_wds.storage.sample import decode, decode_image
from mimic_wds.storage.tar import BLOCK, has_header
from mimic_wds.storage.threads import in_threads

#: Small reads of a remote place on their way at once.
REQUESTS = 32

#: Indexes that are kept; one of a shard of 256 MB has some 300 kB.
INDEXES = 64

#: Keys that the message about an unknown one names.
NEAR = 3

#: A sample's number and key, and its KEY.json.
Listed: TypeAlias = tuple[int, str, bytes]


def open_browser(where: str | Path, *, endpoint: str = "", anonymous: bool = False) -> "Browser":
    """Look into the data set at a path or URL (those of `open_place`, and hf://datasets/owner/name).

    Raises ValueError when there is none, OSError when its place fails.
    """
    return Browser(open_place(where, endpoint=endpoint, anonymous=anonymous))


class Browser:
    """A data set at a place. Samples are numbered through its shards, from 0; all methods may be used by any thread.

    Methods raise ValueError for a data set that is damaged, OSError when the place fails.
    """

    def __init__(self, place: Place):
        self.place = place
        self.manifest: Manifest = read_manifest_at(place)
        self.first: NDArray[np.int64] = np.cumsum([0, *(s.samples for s in self.manifest.shards)], dtype=np.int64)
        self.index = lru_cache(INDEXES)(self._index)  #: shard number -> Index

    def __len__(self) -> int:
        return int(self.first[-1])

    def locate(self, number: int) -> tuple[int, int]:
        """The shard of a sample, and its place there. Raises ValueError for a number that no sample has."""
        if not 0 <= number < len(self):
            raise ValueError(f"{self.place.url}: has no {self.noun} {number}; they are numbered 0 to {len(self) - 1}")
        shard = int(np.searchsorted(self.first, number, side="right")) - 1
        return shard, number - int(self.first[shard])

    @property
    def noun(self) -> str:
        """What a sample is called: "pair" or "image"."""
        return self.manifest.kind.removesuffix("s")

    def read(self, number: int) -> tuple[str, dict[str, bytes]]:
        """Key and members of a sample, name -> data, in one read."""
        shard, i = self.locate(number)
        index, name = self.index(shard), self.manifest.shards[shard].name
        start, end = index.sample_range(i)
        blocks = self.place.read_range(name, start, end - start)
        key, members = self._key(blocks, name, i), dict[str, bytes]()
        for member, (offset, length) in zip(self.manifest.members, index.ranges(i), strict=True):
            at = offset - start
            if not has_header(blocks, at - BLOCK, f"{key}.{member}".encode(), length):
                raise self._moved(name, i)
            members[member] = blocks[at : at + length]
        return key, members

    def sample(self, number: int) -> Sample:
        """A sample, decoded (the JPEGs stay bytes)."""
        key, members = self.read(number)
        return decode(key, members) if self.manifest.kind == "pairs" else decode_image(key, members)

    def key(self, number: int) -> str:
        """The key of a sample, from its first header."""
        shard, i = self.locate(number)
        return next(self._keys(shard, [i]))

    def keys(self, shard: int) -> Iterator[str]:
        """The keys of a shard in their order; only headers are read."""
        return self._keys(shard, range(self.manifest.shards[shard].samples))

    def facts(self, shard: int) -> Iterator[Listed]:
        """Number, key and KEY.json of the samples of a shard in their order; nothing else is read."""
        index, name = self.index(shard), self.manifest.shards[shard].name
        spans = index.spans[:, self.manifest.members.index("json")].tolist()
        parts = self._parts(name, [(offset - BLOCK, BLOCK + length) for offset, length in spans])
        for i, (data, (_, length)) in enumerate(zip(parts, spans, strict=True)):
            key = self._key(data, name, i)
            if not has_header(data, 0, f"{key}.json".encode(), length):
                raise self._moved(name, i)
            yield int(self.first[shard]) + i, key, data[BLOCK:]

    def find(self, key: str) -> int:
        """The number of the sample with this key. Raises ValueError, naming keys that are near, when there is none."""
        if not is_key(key, self.manifest.kind):
            raise ValueError(
                f"{self.place.url}: no {self.noun} has the key {key!r}: it is not formed like one; "
                "`mimic-shard ls` lists the keys"
            )
        runs = self._runs_of(prefix_of(key))
        met: list[str] = []
        for start, count in runs or ():
            number = self._bisected(key, start, count)
            if number is not None:
                return number
            keys = self._keys_from(start, count)
            if key in keys:
                return start + keys.index(key)
            met += keys
        is_proven = runs is not None and all(prefix_of(k) == prefix_of(key) for k in met)
        if is_proven and (runs or self.manifest.criteria.get("preset") != "import"):  # those have lines of other names
            raise self._unknown(key, met)
        return self._searched(key, near=runs[0][0] if runs else 0)

    def _bisected(self, key: str, start: int, count: int) -> int | None:
        """The number of a key among `count` samples from `start` on if they are sorted; None says nothing."""
        low, high = start, start + count
        while low < high:
            middle = (low + high) // 2
            found = self.key(middle)
            if found == key:
                return middle
            if prefix_of(found) != prefix_of(key):
                return None
            low, high = (middle + 1, high) if found < key else (low, middle)
        return None

    def _keys_from(self, start: int, count: int) -> list[str]:
        """The keys of `count` samples from `start` on, which may lie in several shards."""
        keys: list[str] = []
        while len(keys) < count:
            shard, i = self.locate(start + len(keys))
            stop = min(self.manifest.shards[shard].samples, i + count - len(keys))
            keys += self._keys(shard, range(i, stop))
        return keys

    def _searched(self, key: str, near: int) -> int:
        """The number of a key by reading the headers of all shards with its source, those around a number first."""
        source, met = key.partition("_")[0], list[str]()
        shards = [n for n, info in enumerate(self.manifest.shards) if source in map(source_part, info.sources)]
        middle = self.locate(near)[0] if len(self) else 0
        for shard in sorted(shards, key=lambda number: abs(number - middle)):
            for i, found in enumerate(self.keys(shard)):
                if found == key:
                    return int(self.first[shard]) + i
                if prefix_of(found) == prefix_of(key):
                    met.append(found)
        raise self._unknown(key, met)

    def _unknown(self, key: str, near: Sequence[str]) -> ValueError:
        """The error about a key that no sample has; `near` are those of its scene."""
        close = difflib.get_close_matches(key, near, NEAR, cutoff=0.0)
        if not close and self._runs is not None:
            close = [self.key(number) for number in self._runs.like(prefix_of(key), NEAR)]
        advice = f"; near are {', '.join(close)}" if close else "; `mimic-shard ls` lists the keys"
        return ValueError(f"{self.place.url}: no {self.noun} has the key {key!r}{advice}")

    def _runs_of(self, prefix: str) -> list[tuple[int, int]] | None:
        """Where samples whose keys begin so should lie: (first number, how many); None if nothing tells."""
        return None if self._runs is None else self._runs.of(prefix)

    @cached_property
    def _runs(self) -> Runs | None:
        return read_runs(self.place, self.manifest)

    def _keys(self, shard: int, places: Sequence[int]) -> Iterator[str]:
        """The keys of some samples of a shard."""
        index, name = self.index(shard), self.manifest.shards[shard].name
        headers = self._parts(name, [(index.sample_range(i)[0], BLOCK) for i in places])
        return (self._key(header, name, i) for i, header in zip(places, headers, strict=True))

    def _parts(self, name: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Small parts of a shard that lie far apart, in their order. Remotely each is a request, as late as possible.

        Not `read_ranges` there: for speed that also fetches what lies between, which here is nearly all of the shard.
        """
        if isinstance(self.place, FolderPlace):
            return iter(self.place.read_ranges(name, ranges))
        return in_threads(lambda part: self.place.read_range(name, *part), ranges, REQUESTS)

    def _key(self, header: bytes, name: str, i: int) -> str:
        """The key in a header. Raises ValueError for one that is not well-formed: it may become the name of a file."""
        key = header[:100].partition(b".")[0].decode("ascii", "replace")
        if not is_key(key, self.manifest.kind):
            raise self._moved(name, i)
        return key

    def _moved(self, name: str, i: int) -> ValueError:
        return ValueError(f"{self.place.url}/{name}: sample {i} is not where its index says: {REPAIR}")

    def _index(self, shard: int) -> Index:
        """The index of a shard, read from its place, in agreement with the manifest."""
        info = self.manifest.shards[shard]
        name = index_name(info.name)
        try:
            data = self.place.read(name)
        except FileNotFoundError as error:
            raise ValueError(f"{error}: the shard's index is missing; {REPAIR}") from None
        index = decode_index(data, f"{self.place.url}/{name}")
        found, listed = (
            (*index.spans.shape[:2], index.tar_bytes),
            (info.samples, len(self.manifest.members), info.bytes),
        )
        if found != listed:
            raise ValueError(
                f"{self.place.url}/{name}: is not the index of {info.name}: it has {found[0]} samples of {found[1]} "
                f"members in {found[2]} bytes, the manifest {listed[0]} of {listed[1]} in {listed[2]}: {REPAIR}"
            )
        return index


def source_part(source: str) -> str:
    """What the keys of a source begin with, before the first "_"."""
    return scene_prefix(source, "").partition("_")[0]
