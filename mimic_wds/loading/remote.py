"""Shards of a data set in a bucket, read as if they lay here: fetched ahead into a cache, or sample by sample.

With a cache a shard is fetched whole, verified, and read from the local disk; `Ahead` does so in the order in which a
loader will come to the shards. Without a cache, and where that has no room for a shard among those in use, samples come
by ranged reads, which a loader may have asked for before it needs them.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Event, Lock, Thread

from mimic_wds.loading.cache import ShardCache, default_folder
from mimic_wds.loading.remote_shard import RemoteShard
from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.places import Place
from mimic_wds.storage.reader import allow_open_files

#: Shards that are fetched at once; more share the same line.
FETCHES = 4

#: Shards that are fetched, or on their way, before they are needed, beside those of one whole window.
AHEAD = 8

#: Shards that stay open, each with two files and an index of some 300 kB, as long as others are done with.
KNOWN = 256

#: A shard that was not read among so many reads gives way when the cache is full: twice what the windows hold.
IDLE_READS = 2048

#: Ranged reads on their way at once; each waits for a server far away, so they are more than there are cores.
REQUESTS = 16

#: Samples of a shard that one thread asks for, neighbours together.
SAMPLES_PER_TASK = 8

#: Seconds between two looks whether the cache has room again.
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """How to read a data set that does not lie here."""

    endpoint: str = ""  #: address of an S3-compatible service; "" = AWS_ENDPOINT_URL, or the provider's own
    anonymous: bool = False  #: send no credentials
    cache: str = ""  #: folder of the cache; "" = $MIMIC_WDS_CACHE or the user's, "none" = no cache but ranged reads
    cache_bytes: int = 0  #: what the cache may take; 0 = half of what is free on its disk
    verify: bool = True  #: hash shards that are in the cache already when they are opened, not only what is fetched

    def __post_init__(self) -> None:
        if self.cache_bytes < 0:
            raise ValueError(
                f"the limit of the cache is 0 bytes (half of what is free) or more, got {self.cache_bytes}"
            )

    def open_cache(self) -> ShardCache | None:
        """The cache, or None. Raises ValueError for a folder that holds other things."""
        if self.cache == "none":
            return None
        folder = Path(self.cache) if self.cache else default_folder()
        return ShardCache(folder, self.cache_bytes, verify=self.verify)


class RemoteShards:
    """All shards of a remote data set, and the threads that fetch them, or samples of them, ahead."""

    def __init__(self, place: Place, manifest: Manifest, cache: ShardCache | None):
        self.cache = cache
        self.shards = [RemoteShard(place, info, manifest.members) for info in manifest.shards]
        if cache is not None:
            allow_open_files(2 * len(self.shards))
        self._known: set[int] = set()  #: shards that are open or whose index is known
        self._reads = 0
        self._begun = 0  #: reads before this epoch
        self._lock = Lock()
        self._stop = Event()
        self._ahead: Ahead | None = None
        self._asked = Asked()

    def read(self, number: int, i: int) -> tuple[str, dict[str, bytes]]:
        """Key and members of sample i of a shard, from the cache where that has room for it."""
        shard = self.shards[number]
        with self._lock:
            self._reads += 1
            if shard.last_read <= self._begun:
                shard.reads = 0
            shard.last_read = self._reads
        if self._ahead is not None:
            self._ahead.reached(number)
        sample = self._read(shard, number, i)
        with self._lock:
            shard.reads += 1
        return sample

    def will_read(self, places: Iterable[tuple[int, int]]) -> None:
        """Say which samples, (shard, sample in it), are read next: those that come by ranges are asked for together."""
        wanted: dict[int, list[int]] = {}
        for number, i in places:
            wanted.setdefault(number, []).append(i)
        for number, samples in wanted.items():
            shard = self.shards[number]
            if not shard.is_open and (self.cache is None or self._reads < shard.ranged_until):
                self._asked.ask(number, shard, samples)

    def expect(self, groups: Iterator[list[int]]) -> None:
        """Fetch these groups of shards ahead, in their order, instead of those expected before."""
        self._asked.forget()
        self._begun = self._reads
        if self.cache is not None:
            self._end_ahead()
            self._ahead = Ahead(self, groups)

    def hold(self, number: int, *, urgent: bool) -> bool:
        """Have a shard in the cache; False without room. Shards that are done with are given up for it.

        If it is `urgent`, those that were not read for IDLE_READS as well; else they must be four times as old.
        """
        assert self.cache is not None
        while not self.shards[number].open(self.cache, self._stop):
            if not self._give_up_one(urgent):
                return False
        self._note(number)
        return True

    def is_in_use(self, number: int) -> bool:
        """Whether a shard is in the cache and was read in this epoch."""
        return self.shards[number].is_open and self.shards[number].last_read > self._begun

    def is_kept(self, number: int) -> bool:
        """For a shard that is not read yet: whether it is in the cache from the epoch before, and so stays."""
        self.shards[number].reads = 0
        return self.shards[number].is_open

    def close(self) -> None:
        """End all threads, let the cache remove the shards."""
        self._stop.set()
        self._end_ahead()
        self._asked.close()
        for shard in self.shards:
            shard.close()

    def _read(self, shard: RemoteShard, number: int, i: int) -> tuple[str, dict[str, bytes]]:
        blocks = self._asked.take(number, i)
        if blocks is not None:
            return shard.split(i, blocks)
        if not shard.is_open and shard.last_read > shard.ranged_until:
            self._open(number)
        return shard.read(i)

    def _open(self, number: int) -> None:
        """For a shard that is read now: hold it, or note that it is read by ranges for a while."""
        if self.cache is None or not self.hold(number, urgent=True):
            self.shards[number].ranged_until = self._reads + IDLE_READS
            self._note(number)

    def _note(self, number: int) -> None:
        """Count a shard among the known ones; when they are many, one that is done with is forgotten."""
        with self._lock:
            self._known.add(number)
            many = len(self._known) > KNOWN
        if many:
            self._give_up_one(urgent=False)

    def _end_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.end()
            self._ahead = None

    def _give_up_one(self, urgent: bool) -> bool:
        """Close the shard that is missed least; False when all are in use, or will be and it is not urgent."""
        with self._lock:
            number = self._least_missed(urgent)
            self._known.discard(number)
        if number >= 0:
            self.shards[number].close()
        return number >= 0

    def _least_missed(self, urgent: bool) -> int:
        """A shard that was read to its end, else not for long, else will be last; -1 for none. Locked."""
        long_ago = self._reads - IDLE_READS * (1 if urgent else 4)
        read = {n: self.shards[n].last_read for n in self._known if self.shards[n].last_read}
        done = [n for n in read if self.shards[n].is_used_up] or [n for n in read if read[n] < long_ago]
        if not done and urgent and self._ahead is not None:
            return next((n for n in self._ahead.last_first() if self.shards[n].is_open), -1)
        return min(done, key=read.__getitem__, default=-1)


class Asked:
    """Ranged reads that were asked for before their samples are read."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="range")
        self._parts: dict[tuple[int, int], Future[dict[int, bytes]]] = {}

    def ask(self, number: int, shard: RemoteShard, samples: list[int]) -> None:
        """Begin to read some samples of a shard."""
        samples = sorted(set(samples))
        for start in range(0, len(samples), SAMPLES_PER_TASK):
            some = samples[start : start + SAMPLES_PER_TASK]
            part = self._pool.submit(shard.blocks, some)
            self._parts.update({(number, i): part for i in some})

    def take(self, number: int, i: int) -> bytes | None:
        """The blocks of a sample once they are there; None if it was not asked for. Raises what reading it raised."""
        part = self._parts.pop((number, i), None)
        try:
            return None if part is None else part.result()[i]
        except CancelledError:  # a new epoch has begun meanwhile
            return None

    def forget(self) -> None:
        """Nobody will take what was asked for."""
        while self._parts:
            self._parts.popitem()[1].cancel()

    def close(self) -> None:
        """End the threads after what is on its way."""
        self.forget()
        self._pool.shutdown(cancel_futures=True)


class Ahead:
    """Threads that fetch shards in the order in which they will be read: a window ahead of the reader and no more.

    A shard that the cache has no room for is waited with until others have been read, or until it is read itself.
    """

    def __init__(self, shards: RemoteShards, groups: Iterator[list[int]]):
        self._shards = shards
        self._wanted = ((number, AHEAD + len(group)) for group in groups for number in group)
        self._unread: dict[int, None] = {}  #: in the order of need
        self._most = AHEAD  #: shards that may be there unread
        self._state = Condition()
        self._ended = False
        self._threads = [Thread(target=self._run, name=f"fetch-{n}", daemon=True) for n in range(FETCHES)]
        for thread in self._threads:
            thread.start()

    def reached(self, number: int) -> None:
        """A shard is being read."""
        if number in self._unread:
            with self._state:
                self._unread.pop(number, None)
                self._state.notify_all()

    def last_first(self) -> list[int]:
        """The shards that are, or will be, there unread; first the one that will be read last."""
        with self._state:
            return list(reversed(self._unread))

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
                while not self._shards.hold(number, urgent=False) and self._is_still_wanted(number):
                    pass

    def _is_still_wanted(self, number: int) -> bool:
        """After a while without room: whether nobody reads the shard yet."""
        with self._state:
            return not self._state.wait_for(lambda: self._ended or number not in self._unread, _LOOK_S)

    def _next(self) -> int | None:
        """The next shard that is not here, once there is need for it; None at the end."""
        with self._state:
            while True:
                self._state.wait_for(lambda: self._ended or len(self._unread) < self._most)
                number, most = (-1, 0) if self._ended else next(self._wanted, (-1, 0))
                if number < 0:
                    return None
                if number not in self._unread and not self._shards.is_in_use(number):
                    self._unread[number], self._most = None, most
                    if not self._shards.is_kept(number):
                        return number
