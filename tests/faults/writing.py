"""F7-F12: writers that are killed, fail, run twice, or are given keys that mean two things."""

import hashlib
import os
import signal
import subprocess
import sys
import tarfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from base import Case, Outcome, first_shard, loose_members, message_of, short, whole_set
from samples import make_sample

from mimic_wds.cli.main import run
from mimic_wds.storage.files import remove_stale
from mimic_wds.storage.index import index_tar
from mimic_wds.storage.manifest import dataset_id, read_manifest, write_manifest
from mimic_wds.storage.tar import END
from mimic_wds.storage.verify import verify
from mimic_wds.storage.writer import ShardWriter

_OURS = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from samples import make_sample
from mimic_wds.storage.writer import ShardWriter
with ShardWriter(Path({target!r})) as writer:
    for number in range(5):
        writer.add(make_sample(number))
    print("written", flush=True)
    sys.stdin.read()
"""

_THEIRS = """
import sys
sys.path[:0] = {path!r}
from base import loose_members
import webdataset
writer = webdataset.TarWriter({target!r})
for number in range(5):
    writer.write(loose_members(number))
print("written", flush=True)
sys.stdin.read()
"""


def killed(program: str, target: Path) -> None:
    """Run a program and kill it with SIGKILL once it has written five samples."""
    code = program.format(path=sys.path, target=str(target))
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        os.kill(process.pid, signal.SIGKILL)


def killed_ours(folder: Path) -> Outcome:
    target = folder / "x-000000.tar"
    killed(_OURS, target)
    left = [path.name for path in folder.iterdir()]
    visible = target.exists()
    remove_stale(folder)
    with ShardWriter(target) as writer:
        for number in range(5):
            writer.add(make_sample(number))
    whole = len(index_tar(target)[0]) == 5 and list(folder.iterdir()) == [target]
    what = f"no shard is seen, {len(left)} hidden temporary file; the next run removes it and writes the whole shard"
    return Outcome(not visible and whole, what)


def killed_theirs(folder: Path) -> Outcome:
    target = folder / "x-000000.tar"
    killed(_THEIRS, target)
    size = target.stat().st_size if target.exists() else 0
    return Outcome(size == 0, f"a torn tar of {size:,} bytes under the final name")


def failing_ours(folder: Path) -> Outcome:
    with suppress(ZeroDivisionError), ShardWriter(folder / "x-000000.tar") as writer:
        for number in range(3):
            writer.add(make_sample(number))
        raise ZeroDivisionError
    return Outcome(list(folder.iterdir()) == [], "nothing is left of the open shard")


def failing_theirs(folder: Path) -> Outcome:
    import webdataset

    posted: list[str] = []
    pattern = str(folder / "x-%06d.tar")
    with suppress(ZeroDivisionError), webdataset.ShardWriter(pattern, post=posted.append, verbose=0) as writer:
        for number in range(3):
            writer.write(loose_members(number))
        raise ZeroDivisionError
    return Outcome(not posted, f"a valid-looking shard of 3 samples is kept, `post` called {len(posted)} time(s)")


def again_ours(folder: Path) -> Outcome:
    whole_set(folder / "set")
    assert run(["sample", str(folder / "set"), "8", "--out", str(folder / "out")]) == 0
    before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    code = run(["sample", str(folder / "set"), "2", "--out", str(folder / "out")])
    after = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    return Outcome(code == 2 and before == after, "refused with exit code 2, nothing changed")


def again_theirs(folder: Path) -> Outcome:
    import webdataset

    sizes = []
    for count in (8, 2):
        with webdataset.ShardWriter(str(folder / "x-%06d.tar"), verbose=0) as writer:
            for number in range(count):
                writer.write(loose_members(number))
        sizes.append((folder / "x-000000.tar").stat().st_size)
    return Outcome(sizes[0] == sizes[1], f"shard 0 overwritten, {sizes[0]:,} → {sizes[1]:,} bytes, no warning")


def nothing_ours(folder: Path) -> Outcome:
    with ShardWriter(folder / "x-000000.tar"):
        pass
    return Outcome(list(folder.iterdir()) == [], "no file")


def nothing_theirs(folder: Path) -> Outcome:
    import webdataset

    with webdataset.ShardWriter(str(folder / "x-%06d.tar"), verbose=0):
        pass
    sizes = [path.stat().st_size for path in folder.iterdir()]
    return Outcome(not sizes, f"an empty tar of {sizes[0]:,} bytes" if sizes else "no file")


def twice_ours(folder: Path) -> Outcome:
    """Refused by the writer, by the index, and across shards by `verify --deep`."""
    with suppress(ValueError), ShardWriter(folder / "x-000000.tar") as writer:
        for number in (0, 1, 0):
            writer.add(make_sample(number))
    written = (folder / "x-000000.tar").exists()
    manifest = whole_set(folder / "set", shards=2)
    first = first_shard(folder / "set")
    apart = folder / "apart.tar"
    apart.write_bytes(first.read_bytes()[: -len(END)] + first.read_bytes())
    told = message_of(index_tar, apart)
    second = folder / "set" / manifest.shards[1].name
    second.write_bytes(first.read_bytes())
    second.with_suffix(".idx").write_bytes(first.with_suffix(".idx").read_bytes())
    data = second.read_bytes()
    info = replace(manifest.shards[1], bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    shards = [manifest.shards[0], info]
    write_manifest(folder / "set", replace(read_manifest(folder / "set"), shards=shards, id=dataset_id(shards)))
    across = [str(problem) for problem in verify(folder / "set") if problem.kind == "key"]
    right = not written and "is there twice" in told and bool(across)
    return Outcome(right, f"the writer refuses it; indexing: “{short(told, folder)}”; across shards `verify` names it")


def twice_theirs(folder: Path) -> Outcome:
    import webdataset as wds

    counts, right = [], True
    for numbers in ((0, 0, 1), (0, 1, 0)):
        path = folder / f"{'-'.join(map(str, numbers))}.tar"
        with wds.TarWriter(str(path)) as writer:
            for number in numbers:
                writer.write(loose_members(number))
        try:
            counts.append(f"{sum(1 for _ in wds.WebDataset(str(path), shardshuffle=False))} of 3 samples, no error")
            right = False
        except Exception as error:
            counts.append(type(error).__name__)
    return Outcome(right, f"next to each other: {counts[0]}; apart: {counts[1]}")


def dotted_ours(folder: Path) -> Outcome:
    with ShardWriter(folder / "x.tar") as writer:
        told = message_of(writer.add, make_sample(key="video_v1.0_a_b"))
    return Outcome("is no key" in told, f"refused: “{short(told, folder)}”")


def dotted_theirs(folder: Path) -> Outcome:
    import webdataset as wds

    with wds.TarWriter(str(folder / "x.tar")) as writer:
        for number in range(3):
            writer.write({**loose_members(number), "__key__": f"clip.{number}"})
    given = [
        sum(not name.startswith("__") for name in item)
        for item in wds.WebDataset(str(folder / "x.tar"), shardshuffle=False)
    ]
    with tarfile.open(folder / "x.tar") as tar:
        written = len(tar.getnames())
    return Outcome(given == [3, 3, 3], f"3 samples ({written} members) come back as {len(given)} with {given} members")


CASES = [
    Case("F7", "SIGKILL while a shard is written", killed_ours, killed_theirs),
    Case("F8", "an exception while a shard is written", failing_ours, failing_theirs),
    Case("F9", "written again into the same folder", again_ours, again_theirs),
    Case("F10", "nothing to write", nothing_ours, nothing_theirs),
    Case("F11", "a key that comes twice", twice_ours, twice_theirs),
    Case("F12", "a key with a dot", dotted_ours, dotted_theirs),
]
