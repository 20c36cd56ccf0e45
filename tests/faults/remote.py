"""F13-F19: servers that fail, and copies of what they serve."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from base import PER_SHARD, Case, Outcome, first_shard, message_of, short, whole_set
from samples import make_data_set
from servers_for_transfer import WebServer

from mimic_wds.loading.cache import ShardCache
from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.remote import Remote, RemoteShards
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.places import Patience, open_place
from mimic_wds.storage.pulling import pull
from mimic_wds.storage.transfer import How

#: Shorter waits than the usual ones.
PATIENCE = Patience(stall_s=0.5, retries=4, give_up_s=20)

#: Seconds after which a silent webdataset is asked for what it did.
SILENCE_S = 40


def trouble(*faults: str) -> Callable[[Path], Outcome]:
    """Ours: a shard is pulled from a server that does this to the first requests for it."""

    def ours(folder: Path) -> Outcome:
        name = whole_set(folder / "set").shards[0].name
        with WebServer(folder / "set") as server:
            server.faults = {name: list(faults)}
            pull(open_place(server.url, patience=PATIENCE), folder / "copy", How())
            ranges = server.bodies(name)
        same = (folder / "copy" / name).read_bytes() == (folder / "set" / name).read_bytes()
        starts = [int((span or "bytes=0-").removeprefix("bytes=").split("-")[0]) for span in ranges]
        goes_on = "503" in faults or starts == sorted(set(starts))
        keys = through_cache(folder, name, faults)
        resumed = "" if "503" in faults else ", going on at the byte where it stopped"
        what = f"`pull` asks again {len(faults)} time(s){resumed}; whole. The loader's cache: {len(keys)} samples"
        return Outcome(same and goes_on and len(ranges) == len(faults) + 1 and len(keys) == PER_SHARD, what)

    return ours


def through_cache(folder: Path, name: str, faults: tuple[str, ...]) -> set[str]:
    """Keys that the loader's data set reads from a server that does the same to it."""
    with WebServer(folder / "set") as server:
        server.faults = {name: list(faults)}
        place = open_place(server.url, patience=PATIENCE)
        cache = ShardCache(folder / "cache", 0)
        shards = RemoteShards(place, read_manifest(folder / "set"), cache)
        try:
            return {shards.read(0, i)[0] for i in range(PER_SHARD)}
        finally:
            shards.close()


def trouble_theirs(*faults: str) -> Callable[[Path], Outcome]:
    """Webdataset reads the shard from the same server; in a process that can be ended."""

    def theirs(folder: Path) -> Outcome:
        name = whole_set(folder / "set").shards[0].name
        with WebServer(folder / "set") as server:
            server.faults = {name: list(faults)}
            what = read_remote(f"{server.url}/{name}")
        return Outcome(what == f"{PER_SHARD} samples", what)

    return theirs


_READ = """
import sys, warnings
warnings.simplefilter("ignore")
import webdataset as wds
given = []
try:
    for item in wds.WebDataset(sys.argv[1], shardshuffle=False):
        given.append(sum(not name.startswith("__") for name in item))
    print(f"{len(given)} samples")
except Exception as error:
    text = " ".join(str(error).split())
    found = [f"{word} is in the message" for word in ("404", "exit 18", "exit 22") if word in text]
    text = text if len(text) < 120 else f"{text[:50]} ... {text[-60:]}"
    print(f"{len(given)} samples, then {type(error).__name__}: {text}; {', '.join(found) or 'no status in it'}")
"""


def read_remote(url: str) -> str:
    """What webdataset gives of one shard."""
    try:
        done = subprocess.run([sys.executable, "-c", _READ, url], capture_output=True, text=True, timeout=SILENCE_S)
    except subprocess.TimeoutExpired:
        return f"still blocked after {SILENCE_S} s"
    return done.stdout.strip().splitlines()[-1]


def missing_ours(folder: Path) -> Outcome:
    name = whole_set(folder / "set").shards[0].name
    first_shard(folder / "set").unlink()
    with WebServer(folder / "set") as server:
        told = message_of(pull, open_place(server.url, patience=PATIENCE), folder / "copy", How())
        url = f"{server.url}/{name}"
    return Outcome(url in told and "404" in told, f"“{short(told.replace(url, 'http://.../' + name), folder)}”")


def missing_theirs(folder: Path) -> Outcome:
    name = whole_set(folder / "set").shards[0].name
    with WebServer(folder) as server:
        what = read_remote(f"{server.url}/{name}")
    return Outcome("404 is in the message" in what, what)


def keys_at(url: str, cache: Path) -> set[str]:
    """All keys of a data set that is read through a cache."""
    with PairDataset(url, Remote(cache=str(cache))) as data_set:
        return {data_set.read(i)[0] for i in range(len(data_set))}


def cached_theirs(urls: list[str], cache: Path) -> list[str]:
    """All keys that webdataset gives of some shards through its cache."""
    import webdataset as wds

    cache.mkdir(exist_ok=True)
    return [item["__key__"] for item in wds.WebDataset(urls, shardshuffle=False, cache_dir=str(cache))]


def two_sets(folder: Path) -> list[set[str]]:
    """Two data sets with shards of the same name in folders "a" and "b"; their keys."""
    keys = []
    for name, count in (("a", PER_SHARD), ("b", PER_SHARD + 1)):
        make_data_set(folder / name, per_scene=(0,) * (count - PER_SHARD) + (count,), max_shard_bytes=10**9)
        with PairDataset(folder / name) as data_set:
            keys.append({data_set.read(i)[0] for i in range(count)})
    return keys


def same_names_ours(folder: Path) -> Outcome:
    expected = two_sets(folder)
    with WebServer(folder / "a") as one, WebServer(folder / "b") as two:
        found = [keys_at(server.url, folder / "cache") for server in (one, two)]
    return Outcome(found == expected, f"{len(found[0])} samples of A, {len(found[1])} of B")


def same_names_theirs(folder: Path) -> Outcome:
    first, second = two_sets(folder)
    with WebServer(folder / "a") as one, WebServer(folder / "b") as two:
        found = cached_theirs([f"{server.url}/tiny-000000.tar" for server in (one, two)], folder / "cache")
    counts = [sum(key in keys for key in found) for keys in (first, second)]
    return Outcome(counts == [len(first), len(second)], f"{counts[0]} samples of A, {counts[1]} of B, no message")


def republished_ours(folder: Path) -> Outcome:
    expected = two_sets(folder)
    with WebServer(folder / "a") as server:
        first = keys_at(server.url, folder / "cache")
        server.folder = folder / "b"
        second = keys_at(server.url, folder / "cache")
    return Outcome([first, second] == expected, "the new data: shards are kept under their hashes")


def republished_theirs(folder: Path) -> Outcome:
    _, new = two_sets(folder)
    with WebServer(folder / "a") as server:
        cached_theirs([f"{server.url}/tiny-000000.tar"], folder / "cache")
        server.folder = folder / "b"
        found = cached_theirs([f"{server.url}/tiny-000000.tar"], folder / "cache")
    return Outcome(set(found) == new, "the new data" if set(found) == new else "the old data, no message")


def left_over_ours(folder: Path) -> Outcome:
    """The server forbids the rest of a shard after half of it; later it gives it again."""
    name = whole_set(folder / "set").shards[0].name
    with WebServer(folder / "set") as server:
        server.faults = {name: ["drop", *["403"] * 20]}
        told = message_of(keys_at, server.url, folder / "cache")
        left = [path.stat().st_size for path in (folder / "cache").rglob("*.part")]
        server.faults = {}
        keys = keys_at(server.url, folder / "cache")
    what = "no part of it stays" if not left else f"a part of {left[0]:,} bytes stays"
    right = bool(told) and not left and len(keys) == PER_SHARD and not list((folder / "cache").rglob("*.part"))
    return Outcome(right, f"{what}; the next run fetches the shard")


def left_over_theirs(folder: Path) -> Outcome:
    name = whole_set(folder / "set").shards[0].name
    with WebServer(folder / "set") as server:
        server.faults = {name: ["drop"]}
        message_of(cached_theirs, [f"{server.url}/{name}"], folder / "cache")
    left = [path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file() and path.name != name]
    return Outcome(not left, f"a temporary file of {left[0]:,} bytes stays for ever" if left else "nothing stays")


CASES = [
    Case("F13", "the server answers 503 once", trouble("503"), trouble_theirs("503")),
    Case(
        "F14",
        "the connection is dropped in the body, three times",
        trouble(*["drop"] * 3),
        trouble_theirs(*["drop"] * 3),
    ),
    Case("F15", "the server falls silent in the body", trouble("stall"), trouble_theirs("stall")),
    Case("F16", "a shard is not there (404)", missing_ours, missing_theirs),
    Case("F17", "two data sets whose shards have the same names, one cache", same_names_ours, same_names_theirs),
    Case("F18", "published anew, the cache is kept", republished_ours, republished_theirs),
    Case("F19", "a download into the cache that is given up", left_over_ours, left_over_theirs),
]
