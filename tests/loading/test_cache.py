"""The cache of shards: its limit, what it may remove, what it makes of disks, damage and killed processes."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mimic_wds.loading import cache as cache_module
from mimic_wds.loading.cache import DamagedShard, ShardCache
from mimic_wds.loading.cache_folder import MARKER
from mimic_wds.storage.files import OutputError
from mimic_wds.storage.folder_place import FolderPlace
from mimic_wds.storage.manifest import ShardInfo

INDEX = b"i" * 40
NEVER = threading.Event()


class CountingPlace(FolderPlace):
    """A folder that gives its files in small chunks and remembers what was asked of it."""

    def __init__(self, folder):
        super().__init__(folder)
        self.asked = []

    def stream(self, name, start=0):
        self.asked.append((name, start))
        data = self.read(name)[start:]
        return (data[at : at + 100] for at in range(0, len(data), 100))


def put_shard(folder, number, size=1000):
    """A file of random bytes, as a manifest lists it."""
    data, name = os.urandom(size), f"some-{number:06d}.tar"
    (folder / name).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return ShardInfo(name=name, bytes=size, sha256=digest, samples=1, sources={"a": 1})


@pytest.fixture
def place(tmp_path):
    (tmp_path / "place").mkdir()
    return CountingPlace(tmp_path / "place")


@pytest.fixture
def infos(place):
    return [put_shard(place.folder, number) for number in range(4)]


def cache_in(tmp_path, limit=10**6, **options):
    return ShardCache(tmp_path / "cache", limit, **options)


def shards_in(cache):
    return sorted(path.name[33:] for path in cache.folder.glob("*.tar"))


def bytes_in(folder):
    """What the files take; those on their way what they will."""
    parts = [int(path.name.split(".")[-2]) for path in folder.glob("*.part")]
    begun = {path.name.split(".tar.")[0] for path in folder.glob("*.part")}
    whole = [p.stat().st_size for p in folder.iterdir() if p.suffix in (".tar", ".idx") and p.stem not in begun]
    return sum(parts) + sum(whole)


def test_a_shard_is_fetched_once_and_kept_with_its_index(place, infos, tmp_path):
    cache = cache_in(tmp_path)
    assert cache.get(infos[0]) is None
    for _ in range(3):
        shard = cache.fetch(place, infos[0], INDEX, NEVER)
        assert shard.path.read_bytes() == place.read(infos[0].name)
        assert shard.path.name == f"{infos[0].sha256[:32]}-some-000000.tar"
        assert shard.index_path.read_bytes() == INDEX
        shard.close()
    assert place.asked == [("some-000000.tar", 0)]
    assert cache.used() == 1040 == bytes_in(cache.folder)


def test_what_was_used_last_stays(place, infos, tmp_path):
    cache = cache_in(tmp_path, 3 * 1040)
    for number, info in enumerate(infos[:3]):
        shard = cache.fetch(place, info, INDEX, NEVER)
        shard.close()
        os.utime(shard.path, (number, number))
    cache.get(infos[0]).close()
    cache.fetch(place, infos[3], INDEX, NEVER).close()
    assert shards_in(cache) == ["some-000000.tar", "some-000002.tar", "some-000003.tar"]


def test_no_room_while_all_are_in_use(place, infos, tmp_path):
    """Neither is a shard in use removed, nor one that is idle when that would not be enough for the new one."""
    cache = cache_in(tmp_path, 2 * 1040)
    first, second = (cache.fetch(place, info, INDEX, NEVER) for info in infos[:2])
    assert ShardCache(cache.folder, 2 * 1040).fetch(place, infos[2], INDEX, NEVER) is None
    second.close()
    cache.fetch(place, infos[2], INDEX, NEVER).close()
    assert shards_in(cache) == ["some-000000.tar", "some-000002.tar"]
    large = put_shard(place.folder, 9, 5000)
    assert cache.fetch(place, large, INDEX, NEVER) is None
    assert shards_in(cache) == ["some-000000.tar", "some-000002.tar"]
    first.close()


def test_it_removes_nothing_that_it_did_not_fetch(place, infos, tmp_path):
    cache = cache_in(tmp_path, 1040)
    others = {"notes.txt": b"n", "some-000000.tar": b"mine", "0123-other.tar": b"x", ".hidden": b"h"}
    for name, data in others.items():
        (cache.folder / name).write_bytes(data)
    for info in infos:
        cache.fetch(place, info, INDEX, NEVER).close()
    assert {name: (cache.folder / name).read_bytes() for name in others} == others
    assert len(list(cache.folder.glob("*-some-*.tar"))) == 1
    assert cache.used() == 1040


def test_folders_that_are_no_cache_of_ours(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "a.jpg").write_bytes(b"1")
    with pytest.raises(ValueError, match=r"is no cache of shards \('a\.jpg' is there\); give an empty or new folder"):
        cache_in(tmp_path)
    assert os.listdir(tmp_path / "cache") == ["a.jpg"]
    (tmp_path / "cache" / MARKER).write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55\n# another program's\n")
    with pytest.raises(ValueError, match="is a cache of something else"):
        cache_in(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"file: the cache cannot be written: .*; give another folder"):
        ShardCache(tmp_path / "file")


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damage_on_the_local_disk(place, infos, tmp_path, damage):
    """A shard of another size is fetched again at once, other bytes are found where they are looked for."""
    cache = cache_in(tmp_path, verify=damage == "flip")
    shard = cache.fetch(place, infos[0], INDEX, NEVER)
    shard.close()
    whole = shard.path.read_bytes()
    shard.path.write_bytes(whole[:-1] if damage == "cut" else whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    assert cache.get(infos[0]) is None
    cache.fetch(place, infos[0], INDEX, NEVER).close()
    assert shard.path.read_bytes() == whole
    assert len(place.asked) == 2


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"x" + data[1:]])
def test_other_content_is_asked_for_twice_and_never_shown(place, infos, tmp_path, change):
    cache = cache_in(tmp_path)
    file = place.folder / infos[0].name
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(DamagedShard, match=rf"{file}: is damaged there: its sha256 is not {infos[0].sha256[:16]}"):
        cache.fetch(place, infos[0], INDEX, NEVER)
    assert place.asked == [(infos[0].name, 0)] * 2
    assert os.listdir(cache.folder) == [MARKER]


def test_a_part_of_other_bytes_is_begun_anew(place, infos, tmp_path):
    """What a killed process left is gone on with; were it wrong, the hash tells, and all is fetched."""
    cache = cache_in(tmp_path)
    right = place.read(infos[0].name)
    for begun, asked in ((right[:300], [300]), (b"x" * 300, [300, 0]), (b"x" * 2000, [0])):
        place.asked.clear()
        name = f"{infos[0].sha256[:32]}-{infos[0].name}.1040.part"
        (cache.folder / name).write_bytes(begun)
        shard = cache.fetch(place, infos[0], INDEX, NEVER)
        assert shard.path.read_bytes() == right
        assert [start for _, start in place.asked] == asked
        shard.close()
        shard.path.unlink()


def test_threads_fetch_a_shard_once(place, infos, tmp_path):
    found = []
    caches = [cache_in(tmp_path) for _ in range(4)]
    threads = [
        threading.Thread(target=lambda c=c: found.extend(c.fetch(place, info, INDEX, NEVER) for info in infos))
        for c in caches
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(place.asked) == [(info.name, 0) for info in infos]
    assert len(found) == 16
    for shard in found:
        shard.close()


def test_stopped_between_two_chunks(place, infos, tmp_path):
    """The part stays to be gone on with, and gives way when room is needed."""
    cache, stop = cache_in(tmp_path, 1040), threading.Event()
    stream = place.stream

    def stopping(name, start=0):
        for number, chunk in enumerate(stream(name, start)):
            if number == 3:
                stop.set()
            yield chunk

    place.stream = stopping
    with pytest.raises(InterruptedError):
        cache.fetch(place, infos[0], INDEX, stop)
    (part,) = cache.folder.glob("*.part")
    assert part.stat().st_size == 300
    cache.fetch(place, infos[1], INDEX, NEVER).close()
    assert shards_in(cache) == ["some-000001.tar"]
    assert not list(cache.folder.glob("*.part"))


def test_a_full_disk(place, infos, tmp_path, monkeypatch):
    """Shards that nobody uses give way; then the run ends with what to do, and no part is left."""
    cache = cache_in(tmp_path)
    cache.fetch(place, infos[0], INDEX, NEVER).close()
    write, disk = os.write, [1500]

    def limited(descriptor, data):
        taken = sum(path.stat().st_size for path in cache.folder.glob("*-some-*"))
        if taken + len(data) > disk[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(cache_module.os, "write", limited)
    cache.fetch(place, infos[1], INDEX, NEVER).close()
    assert shards_in(cache) == ["some-000001.tar"]
    disk[0] = 0
    with pytest.raises(OutputError, match=r"cache: the cache cannot be written: No space left on device; free some"):
        cache.fetch(place, put_shard(place.folder, 5, 3000), INDEX, NEVER)
    assert not list(cache.folder.glob("*.part"))


_HOLD = """
import sys, threading
from pathlib import Path
from mimic_wds.loading.cache import ShardCache
from mimic_wds.storage.manifest import ShardInfo
info = ShardInfo(name=sys.argv[2], bytes=1000, sha256=sys.argv[3], samples=1, sources={})
shard = ShardCache(Path(sys.argv[1]), 1040).get(info)
print(shard is not None, flush=True)
sys.stdin.read()
"""


def test_a_shard_is_kept_for_another_process_until_that_is_killed(place, infos, tmp_path):
    cache = cache_in(tmp_path, 1040)
    cache.fetch(place, infos[0], INDEX, NEVER).close()
    command = [sys.executable, "-c", _HOLD, str(cache.folder), infos[0].name, infos[0].sha256]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        assert cache.fetch(place, infos[1], INDEX, NEVER) is None
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        cache.fetch(place, infos[1], INDEX, NEVER).close()
    assert shards_in(cache) == ["some-000001.tar"]


@contextmanager
def place_of(sizes):
    """A place with shards of these sizes."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "place").mkdir()
        place = CountingPlace(Path(folder) / "place")
        yield place, [put_shard(place.folder, number, size) for number, size in enumerate(sizes)]


class Caches(RuleBasedStateMachine):
    """Two users of one cache, with limits of their own: what is in use is there, the limits hold, bytes are right."""

    def __init__(self):
        super().__init__()
        self.context = place_of([300, 500, 700, 1000, 1500])
        self.place, self.infos = self.context.__enter__()
        folder = self.place.folder.parent / "cache"
        self.caches = [ShardCache(folder, limit) for limit in (2600, 3400)]
        self.held = []
        self.limit = 0

    @rule(user=st.integers(0, 1), number=st.integers(0, 4))
    def open(self, user, number):
        info, cache = self.infos[number], self.caches[user]
        others = {shard.path.name: shard.path.stat().st_size + len(INDEX) for _, shard in self.held}
        was_there = bool(list(cache.folder.glob(f"*{info.name}*")))
        shard = cache.fetch(self.place, info, INDEX, NEVER)
        if shard is None:  # only what is in use may be the reason
            assert not was_there
            assert sum(others.values()) + info.bytes + len(INDEX) > cache.limit
        else:
            self.held.append((info, shard))
            if not was_there:
                assert bytes_in(cache.folder) <= cache.limit

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def close(self, data):
        self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))[1].close()

    @rule(number=st.integers(0, 4), begun=st.integers(0, 1), user=st.integers(0, 1))
    def be_killed(self, number, begun, user):
        """A process ends in the middle of a shard: its part stays, its locks do not."""
        info, cache = self.infos[number], self.caches[user]
        room = info.bytes + len(INDEX)
        if bytes_in(cache.folder) + room <= cache.limit and not list(cache.folder.glob(f"*{info.name}")):
            part = cache.folder / f"{info.sha256[:32]}-{info.name}.{room}.part"
            part.write_bytes(self.place.read(info.name)[: begun * info.bytes // 2])

    @invariant()
    def what_is_in_use_is_there(self):
        for info, shard in self.held:
            assert shard.path.read_bytes() == self.place.read(info.name)
            assert shard.index_path.read_bytes() == INDEX

    @invariant()
    def the_limits_hold(self):
        assert bytes_in(self.caches[0].folder) <= 3400
        assert self.caches[0].used() == bytes_in(self.caches[0].folder)

    def teardown(self):
        for _, shard in self.held:
            shard.close()
        self.context.__exit__(None, None, None)


Caches.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
test_whatever_its_users_do = Caches.TestCase
