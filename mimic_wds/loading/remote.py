"""Shards of a data set in a bucket, read as if they lay here: fetched ahead into a cache, or sample by sample.

With a cache a shard is fetched whole, verified, and read from the local disk; `Ahead` does so in the order in which a
loader will come to the shards. Without a cache, and where that has no room for a shard among those in use, every sample
is one ranged read.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Event, Lock, Thread

from mimic_wds.loading.cache import CachedShard, DamagedShard, ShardCache, default_folder
from mimic_wds.loading.decoding import BadSample
from mimic_wds.storage.index import Index, decode_index, read_index
from mimic_wds.storage.layout import index_name
from mimic_wds.storage.manifest import Manifest, ShardInfo
from mimic_wds.storage.places import Place
from mimic_wds.storage.reader import REPAIR, Shard, split_blocks

#: Shards that are fetched at once; more share the same line.
FETCHES = 4

#: Shards that are fetched, or on their way, before they are needed.
AHEAD = 8

#: Shards that stay open, each with a file and an index of some 300 kB, as long as others were read longer ago.
KNOWN = 256

#: A shard that was not read among so many reads gives way when the cache is full: twice what the windows hold.
IDLE_READS = 2048

#: Reason of samples whose shard is not what the manifest says.
DAMAGED = "shard_is_damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """How to read a data set that does not lie here."""

    endpoint: str = ""  #: address of an S3-compatible service; "" = AWS_ENDPOINT_URL, or the provider's own
    anonymous: bool = False  #: send no credentials
    cache: str = ""  #: folder of the cache; "" = $MIMIC_WDS_CACHE or the user's, "none" = no cache but ranged reads
    cache_bytes: int = 0  #: what the cache may take; 0 = half of what is free on its disk

    def open_cache(self) -> ShardCache | None:
        """The cache, or None. Raises ValueError for a folder that holds other things."""
        if self.cache == "none":
            return None
        return ShardCache(Path(self.cache) if self.cache else default_folder(), self.cache_bytes)


class RemoteShard:
    """One shard of a remote data set, for any thread. Reads raise OSError when its place fails for long."""

    def __init__(self, place: Place, info: ShardInfo, members: Sequence[str]):
        self.place, self.info, self.members = place, info, tuple(members)
        self.path = f"{place.url}/{info.name}"  #: for people
        self.last_read = 0  #: number of the read, among all of the data set's, that touched it last
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

    def open(self, cache: ShardCache, stop: Event) -> bool:
        """Have it in the cache, fetched if it is not there, and keep it there until `close`; False if there is no room.

        Raises BadSample when what the place gives is damaged, OSError when it fails, InterruptedError on `stop`.
        """
        with self._lock:
            if self._local is None:
                cached = self._cached(cache, stop)
                if cached is None:
                    return False
                self._local = cached, Shard(cached.path, self._index, self.members)
            return True

    def _cached(self, cache: ShardCache, stop: Event) -> CachedShard | None:
        """The file in the cache, and its index known; None without room."""
        if cached := cache.get(self.info):
            self._index = self._index or self._own_index(cached.index_path)
        if self._index is None or cached is None:
            data = self._read_index()
            cached = cached or self._fetched(cache, data, stop)
        return cached

    def _fetched(self, cache: ShardCache, index: bytes, stop: Event) -> CachedShard | None:
        self._raise_damage()
        try:
            return cache.fetch(self.place, self.info, index, stop)
        except DamagedShard as damage:
            self._damage = str(damage)
            raise BadSample(DAMAGED) from None

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
            self._raise_damage()
            if self._index is None:
                self._read_index()
            index = self._index
        assert index is not None
        start, end = index.sample_range(i)
        blocks = self.place.read_range(self.info.name, start, end - start)
        return split_blocks(blocks, index.ranges(i), self.members, i, self.path)

    def _read_index(self) -> bytes:
        """Fetch the index and hold it against the manifest; the tar's headers are held against it with every read."""
        name = index_name(self.info.name)
        data = self.place.read(name)
        self._index = self._checked(decode_index(data, f"{self.place.url}/{name}"))
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


class RemoteShards:
    """All shards of a remote data set, and the threads that fetch them ahead."""

    def __init__(self, place: Place, manifest: Manifest, cache: ShardCache | None):
        self.cache = cache
        self.shards = [RemoteShard(place, info, manifest.members) for info in manifest.shards]
        self._known: set[int] = set()  #: shards that are open or whose index is known
        self._reads = 0
        self._lock = Lock()
        self._stop = Event()
        self._ahead: Ahead | None = None

    def read(self, number: int, i: int) -> tuple[str, dict[str, bytes]]:
        """Key and members of sample i of a shard, from the cache where that has room for it."""
        shard = self.shards[number]
        with self._lock:
            self._reads += 1
            shard.last_read = self._reads
        if self._ahead is not None:
            self._ahead.reached(number)
        if not shard.is_open and shard.last_read > shard.ranged_until:
            self.hold(number)
        return shard.read(i)

    def hold(self, number: int) -> None:
        """Have a shard in the cache; shards that were not read for long are given up for it, or for its index."""
        shard = self.shards[number]
        while self.cache is None or not shard.open(self.cache, self._stop):
            if self.cache is None or not self._give_up_one():
                shard.ranged_until = self._reads + IDLE_READS
                break
        with self._lock:
            self._known.add(number)
            many = len(self._known) > KNOWN
        if many:
            self._give_up_one()

    def expect(self, groups: Iterator[list[int]]) -> None:
        """Fetch these groups of shards ahead, in their order, instead of those expected before."""
        if self.cache is not None:
            self._end_ahead()
            self._ahead = Ahead(self, groups)

    def close(self) -> None:
        """End all threads, let the cache remove the shards."""
        self._stop.set()
        self._end_ahead()
        for shard in self.shards:
            shard.close()

    def _end_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.end()
            self._ahead = None

    def _give_up_one(self) -> bool:
        """Close the shard that was not read for longest, if it was not read for long; True if there was one."""
        with self._lock:
            idle = [n for n in self._known if 0 < self.shards[n].last_read < self._reads - IDLE_READS]
            if not idle:
                return False
            oldest = min(idle, key=lambda n: self.shards[n].last_read)
            self._known.remove(oldest)
        self.shards[oldest].close()
        return True


class Ahead:
    """Threads that fetch shards in the order in which they will be read, AHEAD of the reader and no more."""

    def __init__(self, shards: RemoteShards, groups: Iterator[list[int]]):
        self._shards = shards
        self._wanted = (number for group in groups for number in group)
        self._unread: set[int] = set()
        self._state = Condition()
        self._ended = False
        self._threads = [Thread(target=self._run, name=f"fetch-{n}", daemon=True) for n in range(FETCHES)]
        for thread in self._threads:
            thread.start()

    def reached(self, number: int) -> None:
        """A shard is being read."""
        if number in self._unread:
            with self._state:
                self._unread.discard(number)
                self._state.notify_all()

    def end(self) -> None:
        """Stop after what is on its way."""
        with self._state:
            self._ended = True
            self._state.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (number := self._next()) is not None:
            with suppress(OSError, ValueError):  # the reader meets it too, and knows what to do about it
                self._shards.hold(number)

    def _next(self) -> int | None:
        """The next shard, once there is need for it; None at the end."""
        with self._state:
            self._state.wait_for(lambda: self._ended or len(self._unread) < AHEAD)
            if self._ended:
                return None
            shards = self._shards.shards
            number = next((n for n in self._wanted if not shards[n].is_open and n not in self._unread), None)
            if number is not None:
                self._unread.add(number)
            return number
