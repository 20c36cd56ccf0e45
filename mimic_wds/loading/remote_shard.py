"""One shard of a remote data set: from the cache while it is open there, else by ranged reads."""

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, Lock

from mimic_wds.loading.cache import CachedShard, DamagedShard, ShardCache
from mimic_wds.loading.decoding import BadSample
from mimic_wds.storage.index import Index, decode_index, read_index
from mimic_wds.storage.layout import index_name
from mimic_wds.storage.manifest import ShardInfo
from mimic_wds.storage.places import Place
from mimic_wds.storage.reader import REPAIR, Shard, split_blocks

#: Samples whose distance in a shard is no more come in one request: about the size of a pair. (At list prices of S3 a
#: GET costs what 4 kB of traffic do.)
GAP = 64 * 2**10

#: Reason of samples whose shard is not what the manifest says.
DAMAGED = "shard_is_damaged"


class RemoteShard:
    """A shard, for any thread. Reads raise OSError when its place fails for long."""

    def __init__(self, place: Place, info: ShardInfo, members: Sequence[str]):
        self.place, self.info, self.members = place, info, tuple(members)
        self.path = f"{place.url}/{info.name}"  #: for people
        self.last_read = 0  #: number of the read, among all of the data set's, that touched it last
        self.reads = 0  #: in this epoch, of all its samples
        self.ranged_until = 0  #: number of the read up to which the cache is not asked for room again
        self._damage = ""
        self._index: Index | None = None
        self._local: tuple[CachedShard, Shard] | None = None
        self._lock = Lock()

    def __len__(self) -> int:
        return self.info.samples

    @property
    def is_open(self) -> bool:
        """Whether it is held in the cache."""
        return self._local is not None

    @property
    def is_used_up(self) -> bool:
        """Whether as many samples as it has were read in this epoch."""
        return self.reads >= len(self)

    def open(self, cache: ShardCache, stop: Event) -> bool:
        """Have it in the cache, fetched if it is not there, and keep it there until `close`; False if there is no room.

        Raises BadSample when what the place gives is damaged, OSError when it fails, InterruptedError on `stop`.
        """
        with self._lock:
            if self._local is None:
                try:
                    cached = self._cached(cache, stop)
                    if cached is None:
                        return False
                    self._local = cached, Shard(cached.path, self._index, self.members)
                except OSError as error:
                    if error.errno in (errno.EMFILE, errno.ENFILE):  # as many files are open as may be
                        return False
                    raise
            return True

    def close(self) -> None:
        """Let the cache remove it, forget its index."""
        with self._lock:
            if self._local is not None:
                cached, shard = self._local
                shard.close()
                cached.close()
            self._local = self._index = None

    def key(self, i: int) -> str:
        """The key of sample i."""
        return self.read(i)[0]

    def read(self, i: int) -> tuple[str, dict[str, bytes]]:
        """Key and members of sample i, in one read. Raises ValueError when they are not where the index says."""
        with self._lock:
            if self._local is not None:
                return self._local[1].read_with_key(i)
        return self.split(i, self.blocks([i])[i])

    def blocks(self, places: Sequence[int]) -> dict[int, bytes]:
        """The blocks of some samples, for `split`, by ranged reads; those near each other come in one request."""
        index, found = self._known_index(), dict[int, bytes]()
        for run in _runs(index, sorted(places)):
            first = index.sample_range(run[0])[0]
            data = self.place.read_range(self.info.name, first, index.sample_range(run[-1])[1] - first)
            for i in run:
                start, end = index.sample_range(i)
                found[i] = data[start - first : end - first]
        return found

    def split(self, i: int, blocks: bytes) -> tuple[str, dict[str, bytes]]:
        """Key and members of sample i from its blocks. Raises ValueError when they are not where the index says."""
        return split_blocks(blocks, self._known_index().ranges(i), self.members, i, self.path)

    def _cached(self, cache: ShardCache, stop: Event) -> CachedShard | None:
        """The file in the cache, and its index known; None without room."""
        cached = cache.get(self.info)
        if cached is not None:
            self._index = self._index or self._own_index(cached.index_path)
            if self._index is None:
                self._read_index()
            return cached
        self._raise_damage()
        try:
            return cache.fetch(self.place, self.info, self._read_index(), stop)
        except DamagedShard as damage:
            self._damage = str(damage)
            raise BadSample(DAMAGED) from None

    def _known_index(self) -> Index:
        """The index, fetched if need be. Raises BadSample for a shard that is known to be damaged."""
        with self._lock:
            self._raise_damage()
            if self._index is None:
                self._read_index()
            assert self._index is not None
            return self._index

    def _read_index(self) -> bytes:
        """Fetch the index and hold it against the manifest, a wrong one once more.

        Each read holds it against the headers in the tar. Raises ValueError when it is another shard's, or none.
        """
        name = index_name(self.info.name)
        for is_last in (False, True):
            data = self.place.read(name)
            try:
                self._index = self._checked(decode_index(data, f"{self.place.url}/{name}"))
                break
            except ValueError:
                if is_last:
                    raise
        return data

    def _own_index(self, path: Path) -> Index | None:
        """The index that lies in the cache; None if it is not there or not this shard's."""
        try:
            return self._checked(read_index(path))
        except ValueError:
            return None

    def _checked(self, index: Index) -> Index:
        found = len(index), index.tar_bytes, index.spans.shape[1]
        if found != (self.info.samples, self.info.bytes, len(self.members)):
            raise ValueError(f"{self.path}: its index is not that of the shard that the manifest lists: {REPAIR}")
        return index

    def _raise_damage(self) -> None:
        if self._damage:
            raise BadSample(DAMAGED)


def _runs(index: Index, places: Sequence[int]) -> Iterator[list[int]]:
    """Sorted samples in groups that are no more than GAP apart."""
    run: list[int] = []
    for place in places:
        if run and index.sample_range(place)[0] - index.sample_range(run[-1])[1] > GAP:
            yield run
            run = []
        run.append(place)
    if run:
        yield run
