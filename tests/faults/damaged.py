"""F1-F6, F28: shards that are torn, flipped, swapped or made to do harm."""

import pickle
import tarfile
from pathlib import Path

from base import PER_SHARD, Case, Outcome, cut, first_shard, loose_members, message_of, short, whole_set
from servers_for_transfer import WebServer

from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.faults import FaultPolicy
from mimic_wds.loading.pairs import PairLoader
from mimic_wds.loading.remote import Remote
from mimic_wds.storage.index import index_tar
from mimic_wds.storage.places import open_place
from mimic_wds.storage.pulling import pull
from mimic_wds.storage.reader import Shard
from mimic_wds.storage.repair import repair
from mimic_wds.storage.transfer import How
from mimic_wds.storage.verify import verify


def torn(sample: int, member: int, inside: int = 0):
    """Ours: `verify` and the loader name shard and bytes; `repair` saves what is whole and counts the rest."""

    def ours(folder: Path) -> Outcome:
        whole = whole_set(folder / "set").shards[0]
        left = cut(first_shard(folder / "set"), sample, member, inside)
        told = message_of(PairDataset, folder / "set")
        found = [str(problem) for problem in verify(folder / "set")]
        named = all(str(number) in told and whole.name in told for number in (left, whole.bytes))
        report = repair(folder / "set")
        with PairDataset(folder / "set") as data_set:
            saved = len(data_set)
        kept = saved == report.salvaged == sample and report.lost == PER_SHARD - sample
        clean = not list(verify(folder / "set"))
        what = f"not opened: “{short(told, folder)}”; `repair` saves {saved} of {PER_SHARD}, counts {report.lost} lost"
        return Outcome(named and bool(found) and kept and clean, what)

    return ours


def torn_theirs(sample: int, member: int, inside: int = 0):
    """Webdataset: what it gives, strict and with the handler that most recipes use."""

    def theirs(folder: Path) -> Outcome:
        import webdataset as wds

        whole_set(folder / "set")
        path = first_shard(folder / "set")
        cut(path, sample, member, inside)
        seen, right = [], True
        for handler in (wds.handlers.reraise_exception, wds.handlers.warn_and_continue):
            given, error = [], ""
            try:
                for item in wds.WebDataset(str(path), shardshuffle=False, handler=handler):
                    given.append(sum(not name.startswith("__") for name in item))
            except Exception as raised:
                error = type(raised).__name__
            halves = sum(members < 4 for members in given)
            seen.append(f"{len(given)} samples, {halves} of them half, {error or 'no error'}")
            strict = handler is wds.handlers.reraise_exception
            right = right and not halves and bool(error or not strict)
        return Outcome(right, f"strict: {seen[0]}; tolerant: {seen[1]}")

    return theirs


def flip(path: Path) -> None:
    """Flip a bit inside the scan of the first JPEG."""
    with Shard(path) as shard:
        offset, length = shard.index.ranges(0)[0]
    data = bytearray(path.read_bytes())
    data[offset + length - 40] ^= 1
    path.write_bytes(data)


def flipped_ours(folder: Path) -> Outcome:
    whole_set(folder / "set")
    flip(first_shard(folder / "set"))
    found = [str(problem) for problem in verify(folder / "set")]
    fetched = message_of(pull, open_place(folder / "set"), folder / "copy", How())
    with WebServer(folder / "set") as server, PairDataset(server.url, Remote(cache=str(folder / "cache"))) as data_set:
        loader = PairLoader(data_set, global_batch=PER_SHARD, policy=FaultPolicy(action="raise"))
        loaded = message_of(list, loader.epoch(0))
    right = any("sha256" in text for text in found) and "is damaged there" in fetched and "shard_is_damaged" in loaded
    kept = [path.name for where in ("copy", "cache") for path in (folder / where).rglob("*")]
    nothing = not any(name.endswith((".tar", ".part")) for name in kept)
    what = f"`verify`: “{short(found[0], folder)}”; `pull` and the loader refuse what they fetch, nothing of it is kept"
    return Outcome(right and nothing, what)


def flipped_theirs(folder: Path) -> Outcome:
    import webdataset as wds

    whole_set(folder / "set")
    path = first_shard(folder / "set")
    flip(path)
    data = wds.WebDataset(str(path), shardshuffle=False).decode("rgb8")
    told = message_of(list, data)
    return Outcome(bool(told), told or f"{PER_SHARD} samples decoded, no error")


def fetched_again(folder: Path) -> Outcome:
    """A copy that went bad on our own disk is found, fetched again, and whole then."""
    whole_set(folder / "set", shards=2)
    place = open_place(folder / "set")
    pull(place, folder / "copy", How())
    flip(first_shard(folder / "copy"))
    report = pull(place, folder / "copy", How(check=True))
    same = first_shard(folder / "copy").read_bytes() == first_shard(folder / "set").read_bytes()
    pulled = same and bool(report.files) and not list(verify(folder / "copy"))
    what = f"`pull --check` fetches {len(report.files)} file(s) again; afterwards `verify` finds nothing"
    return Outcome(pulled and cached_again(folder), f"{what}; the loader's cache fetches it again by itself")


def cached_again(folder: Path) -> bool:
    """Whether a loader fetches a shard anew that was changed in its cache."""
    options = Remote(cache=str(folder / "cache"))
    with WebServer(folder / "set") as server:
        rounds = []
        for number in range(2):
            if number:
                kept = next(path for path in (folder / "cache").rglob("*") if path.suffix == ".tar")
                flip(kept)
            server.log.clear()
            with PairDataset(server.url, options) as data_set:
                samples = [(key, members) for key, members in map(data_set.read, range(len(data_set)))]
            rounds.append((samples, [name for method, name, _, _ in server.log if name.endswith(".tar")]))
    (first, _), (second, fetched) = rounds
    return first == second and len(fetched) >= 1


def cut_chunk(folder: Path) -> Outcome:
    whole = whole_set(folder / "set").shards[0]
    cut(first_shard(folder / "set"), 4, 0, 100)
    told = message_of(PairDataset, folder / "set")
    return Outcome(whole.name in told and "cut short" in told, f"at once: “{short(told, folder)}”")


class Mark:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def pickled(folder: Path) -> Path:
    """A tar with a pickle beside the members of a sample."""
    path = folder / "x-000000.tar"
    members = {**loose_members(), "pyd": pickle.dumps(Mark(folder / "mark"))}
    key = members.pop("__key__")
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            file = folder / "member"
            file.write_bytes(data)
            tar.add(file, f"{key}.{name}")
    return path


def pickle_ours(folder: Path) -> Outcome:
    told = message_of(index_tar, pickled(folder))
    return Outcome("found member" in told and not (folder / "mark").exists(), f"refused: “{short(told, folder)}”")


def pickle_theirs(folder: Path) -> Outcome:
    import webdataset as wds

    for _ in wds.WebDataset(str(pickled(folder)), shardshuffle=False).decode():
        pass
    ran = (folder / "mark").exists()
    return Outcome(not ran, "code in the shard ran on `.decode()`" if ran else "the pickle was not decoded")


CASES = [
    Case("F1", "a tar cut between two members", torn(6, 2), torn_theirs(6, 2)),
    Case("F2", "a tar cut between two samples", torn(6, 0), torn_theirs(6, 0)),
    Case("F3", "a tar cut inside a member", torn(6, 1, 200), torn_theirs(6, 1, 200)),
    Case("F4", "one flipped bit in a JPEG", flipped_ours, flipped_theirs),
    Case("F5", "a fetched shard goes bad on the local disk", fetched_again),
    Case("F6", "a cut shard while reading: is it told at once?", cut_chunk),
    Case("F28", "a pickle in a shard", pickle_ours, pickle_theirs),
]
