"""Data sets in a bucket or on a web server are read like those in a folder: same samples, same order, same state."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from samples import make_data_set
from servers_for_transfer import ACCESS, BUCKET, SECRET, WebServer, s3_client, s3_server

from mimic_wds.loading import dataset as dataset_module
from mimic_wds.loading.cache_folder import alone, entries
from mimic_wds.loading.dataset import PairDataset, open_dataset
from mimic_wds.loading.faults import FaultPolicy
from mimic_wds.loading.pairs import PairLoader
from mimic_wds.loading.remote import Remote
from mimic_wds.storage.places import Patience, open_place

#: Short waits, so that stalls are quickly over.
PATIENCE = Patience(stall_s=0.5, retries=4, give_up_s=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 pairs in 8 shards of 25 kB."""
    folder = tmp_path_factory.mktemp("remote") / "tiny"
    make_data_set(folder, per_scene=(8, 8, 8), max_shard_bytes=30_000)
    return folder


@pytest.fixture
def web(folder, monkeypatch):
    monkeypatch.setattr(
        dataset_module, "open_place", lambda where, **options: open_place(where, patience=PATIENCE, **options)
    )
    with WebServer(folder) as server:
        yield server


def epochs(data_set, *numbers, **options):
    loader = PairLoader(data_set, global_batch=6, **options)
    return [(batch.keys, batch.image0.clone(), batch.corr_0to1) for n in numbers for batch in loader.epoch(n)]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one[0] == other[0]
        assert (one[1] == other[1]).all()
        assert (one[2] == other[2]).all()


def remote(tmp_path, **changes):
    return Remote(**{"cache": str(tmp_path / "cache"), **changes})


@pytest.mark.parametrize("cache", ["cache", "none"])
def test_the_same_as_from_a_folder(folder, web, tmp_path, cache):
    options = remote(tmp_path) if cache == "cache" else Remote(cache="none")
    with PairDataset(folder) as local, PairDataset(web.url, options) as far:
        assert far.hash == local.hash
        assert_same(epochs(far, 0, 1), epochs(local, 0, 1))
        loaders = [PairLoader(data_set, global_batch=6, world_size=2) for data_set in (local, far)]
        batches = loaders[0].epoch(0)
        next(batches), next(batches)
        state = json.loads(json.dumps(loaders[0].state()))
        epoch, step = loaders[1].load_state(state)
        assert [batch.keys for batch in loaders[1].epoch(epoch, step)] == [batch.keys for batch in batches]


def test_from_a_bucket(folder, tmp_path, monkeypatch):
    with s3_server() as endpoint:
        client = s3_client(endpoint)
        client.create_bucket(Bucket=BUCKET)
        for path in folder.iterdir():
            client.upload_file(str(path), BUCKET, f"pairs/{path.name}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        with PairDataset(folder) as local:
            expected = epochs(local, 0, 1)
        for options in (remote(tmp_path, endpoint=endpoint), Remote(cache="none", endpoint=endpoint)):
            with open_dataset(f"s3://{BUCKET}/pairs", options) as far:
                assert_same(epochs(far, 0, 1), expected)


def test_a_warm_cache_asks_for_nothing_but_the_manifest(folder, web, tmp_path):
    with PairDataset(web.url, remote(tmp_path)) as far:
        cold = epochs(far, 0)
    assert len(web.bodies("tiny-000000.tar")) == 1
    web.log.clear()
    with PairDataset(web.url, remote(tmp_path)) as far:
        assert_same(epochs(far, 0), cold)
    assert {name for _, name, _, _ in web.log} == {"manifest.json"}


@pytest.mark.parametrize("faults", [["503", "503"], ["drop", "drop"], ["stall"], ["flip"]])
@pytest.mark.parametrize("cache", ["cache", "none"])
def test_passing_trouble_is_not_seen(folder, web, tmp_path, faults, cache):
    """(A single range cannot be verified: without a cache only the index is seen to be wrong, and asked for again.)"""
    web.faults = {"tiny-000003.idx": list(faults)}
    if cache == "cache" or faults != ["flip"]:
        web.faults["tiny-000003.tar"] = list(faults)
    options = remote(tmp_path) if cache == "cache" else Remote(cache="none")
    with PairDataset(folder) as local, PairDataset(web.url, options) as far:
        assert_same(epochs(far, 0), epochs(local, 0))
    assert not any(web.faults.values())


def test_a_shard_that_stays_damaged_is_counted_or_raised(folder, web, tmp_path):
    web.faults = {"tiny-000003.tar": ["flip"] * 99}
    with PairDataset(web.url, remote(tmp_path)) as far:
        loader = PairLoader(far, global_batch=6, policy=FaultPolicy(count=3))
        keys = [key for batch in loader.epoch(0) for key in batch.keys]
        assert dict(loader.faults) == {"shard_is_damaged": 3}
        assert len(web.bodies("tiny-000003.tar")) == 2  # fetched once more, then no more
        assert len(keys) == 24
        assert len(set(keys)) == 21
        strict = PairLoader(far, global_batch=6, policy=FaultPolicy(action="raise"))
        with pytest.raises(RuntimeError, match=r"cannot be used \(\{'shard_is_damaged': \d\}\)"):
            list(strict.epoch(0))
    assert not list((tmp_path / "cache").glob("*000003*"))


def test_a_server_that_is_gone_ends_the_run_with_its_address(folder, web, tmp_path):
    with PairDataset(web.url, remote(tmp_path)) as far:
        web.faults = {"tiny-000003.tar": ["403"] * 99}
        with pytest.raises(PermissionError, match=rf"{web.url}/tiny-000003\.tar"):
            epochs(far, 0)


@pytest.mark.parametrize("room", [1, 2.5])
def test_a_small_cache_is_never_passed(folder, web, tmp_path, room, monkeypatch):
    """With room for few shards: some are read by ranges, the samples are the same, and the limit holds throughout."""
    monkeypatch.setattr("mimic_wds.loading.remote.IDLE_READS", 6)
    limit = int(room * 26_500)
    with PairDataset(folder) as local, PairDataset(web.url, remote(tmp_path, cache_bytes=limit)) as far:
        found = []
        loader = PairLoader(far, global_batch=6)
        for epoch in (0, 1):
            for batch in loader.epoch(epoch):
                found.append((batch.keys, batch.image0.clone(), batch.corr_0to1))
                with alone(tmp_path / "cache"):
                    assert sum(entry.bytes for entry in entries(tmp_path / "cache")) <= limit
        assert_same(found, epochs(local, 0, 1))


@pytest.mark.parametrize("cache_shards", [5, 99])
def test_a_window_and_the_next_are_cache_enough(folder, web, tmp_path, cache_shards):
    """No sample comes by a ranged read, hardly a shard twice in an epoch; with room for all of them each comes once."""
    options = {"lanes": 1, "window": 2, "tail": "pad"}
    with (
        PairDataset(folder) as local,
        PairDataset(web.url, remote(tmp_path, cache_bytes=int(cache_shards * 26_500))) as far,
    ):
        for epoch in (0, 1):
            web.log.clear()
            assert_same(epochs(far, epoch, **options), epochs(local, epoch, **options))
            asked = [web.bodies(f"tiny-{number:06d}.tar") for number in range(8)]
            assert all(span is None for spans in asked for span in spans), asked  # None: the whole file
            if cache_shards == 99:
                assert asked == [[None] if epoch == 0 else []] * 8
            else:  # one that came too early may have given way to one that was needed at once
                assert (8 if epoch == 0 else 3) <= sum(map(len, asked)) <= 10


def test_shards_come_before_they_are_read(folder, web, tmp_path, monkeypatch):
    """In the order of need, one window and AHEAD more, and no more until one of them is read."""
    monkeypatch.setattr("mimic_wds.loading.remote.AHEAD", 1)
    with PairDataset(web.url, remote(tmp_path)) as far:
        far.expect(iter([[5, 2], [7, 0], [1, 3], [4, 6]]))

        def fetched():
            return sorted(int(path.stem[-6:]) for path in (tmp_path / "cache").glob("*.tar"))

        wait_until(lambda: len(fetched()) == 3)
        time.sleep(0.2)
        assert fetched() == [2, 5, 7]
        asked = len(web.log)
        far.read(5 * 3)
        wait_until(lambda: len(fetched()) == 4)
        assert fetched() == [0, 2, 5, 7]
        assert len(web.log) == asked + 2  # the next one and its index


def test_ranged_reads_are_put_together(folder, web, tmp_path):
    """Samples that lie near each other come in one request; what nobody takes any more is forgotten."""
    with PairDataset(folder) as local, PairDataset(web.url, Remote(cache="none")) as far:
        indices = [4, 20, 3, 11, 5, 4]
        far.will_read(indices)
        assert [far.read(i) for i in indices] == [local.read(i) for i in indices]
        asked = {name: len(web.bodies(name)) for _, name, _, _ in web.log if name.endswith(".tar")}
        assert asked == {"tiny-000001.tar": 2, "tiny-000003.tar": 1, "tiny-000006.tar": 1}  # 4 was there twice
        far.will_read([0, 1])
        far.expect(iter([]))  # another epoch begins
        assert far.read(1) == local.read(1)


def test_samples_that_are_far_apart_are_not_read_with_what_lies_between(folder, web, monkeypatch):
    monkeypatch.setattr("mimic_wds.loading.remote_shard.GAP", 100)
    with PairDataset(web.url, Remote(cache="none")) as far:
        far.will_read([0, 2])
        sizes = [sum(map(len, far.read(i)[1].values())) for i in (0, 2)]
        spans = [list(map(int, span.removeprefix("bytes=").split("-"))) for span in web.bodies("tiny-000000.tar")]
        assert len(spans) == 2
        for (start, end), size in zip(sorted(spans), sizes, strict=True):
            assert size < end - start < size + 4 * 1024


def test_more_shards_than_files_may_be_open(folder, tmp_path):
    """Where the system has no more open files some samples come by ranges; a run goes on."""
    code = """
import resource, sys
from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.remote import Remote
import os
with PairDataset(sys.argv[1], Remote(cache=sys.argv[2])) as far:
    far.read(0)
    spare = [os.dup(0) for _ in range(2000)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (2500, 2500))
    opened = []
    try:
        while True:
            opened.append(os.dup(0))
    except OSError:
        os.close(opened.pop()), os.close(opened.pop()), os.close(opened.pop())
    print(len({far.read(i)[0] for i in range(len(far))}))
"""
    with WebServer(folder) as web:
        done = subprocess.run(
            [sys.executable, "-c", code, web.url, str(tmp_path / "cache")], capture_output=True, text=True, timeout=60
        )
    assert done.stdout == "24\n", done.stderr


def wait_until(is_so):
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


_FETCH = """
import sys
from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.remote import Remote
with PairDataset(sys.argv[1], Remote(cache=sys.argv[2])) as far:
    print("ready", flush=True)
    sys.stdin.read()
    for i in range(len(far)):
        far.read(i)
"""


def test_two_processes_fetch_each_shard_once(folder, tmp_path):
    with WebServer(folder) as web:
        command = [sys.executable, "-c", _FETCH, web.url, str(tmp_path / "cache")]
        both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
        for process in both:
            assert process.stdout.readline() == b"ready\n"
        for process in both:
            process.stdin.close()
        assert [process.wait(60) for process in both] == [0, 0]
        for process in both:
            process.stdout.close()
        shards = [f"tiny-{number:06d}.tar" for number in range(8)]
        assert [len(web.bodies(name)) for name in shards] == [1] * 8


def test_what_a_killed_process_leaves_is_gone_on_with(folder, tmp_path):
    """SIGKILL in the middle of a body: the next process continues that shard at its byte, and leaves nothing behind."""
    cache = tmp_path / "cache"
    with WebServer(folder) as web:
        web.faults = {"tiny-000002.tar": ["stall"]}
        command = [sys.executable, "-c", _FETCH, web.url, str(cache)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            process.stdin.close()
            deadline = time.monotonic() + 30
            while not any(path.stat().st_size > 5000 for path in cache.glob("*000002*.part")):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
        with PairDataset(web.url, Remote(cache=str(cache))) as far:
            keys = {far.read(i)[0] for i in range(len(far))}
        assert len(keys) == 24
        assert web.bodies("tiny-000002.tar")[-1].startswith("bytes=")
    assert not list(cache.glob("*.part"))


def test_the_same_name_in_two_data_sets(tmp_path):
    """Equal shard names, one cache: each data set gets its own shards."""
    expected = {}
    for number, name in enumerate(("a", "b")):
        make_data_set(tmp_path / name, per_scene=(3 + number,))
        with PairDataset(tmp_path / name) as local:
            expected[name] = [local.read(i) for i in range(len(local))]
    for name in ("a", "b", "a"):
        with WebServer(tmp_path / name) as web, PairDataset(web.url, remote(tmp_path)) as far:
            assert [far.read(i) for i in range(len(far))] == expected[name]


def test_a_folder_of_other_things_is_no_cache(folder, web, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"is no cache of shards \('mine\.txt' is there\)"):
        PairDataset(web.url, Remote(cache=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert not Path("mimic-wds").exists()
