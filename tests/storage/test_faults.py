"""Everything wrong with a data set is found by name; whatever goes wrong while writing, nothing is lost."""

import json
import os
import platform
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from samples import make_data_set, make_sample

from mimic_wds.storage.files import OutputError, atomic_write, remove_stale
from mimic_wds.storage.index import index_tar, read_index, write_index
from mimic_wds.storage.layout import MEMBERS
from mimic_wds.storage.manifest import read_manifest, write_manifest
from mimic_wds.storage.reader import Shard, open_shards
from mimic_wds.storage.tar import header, padded
from mimic_wds.storage.verify import check_sample, verify
from mimic_wds.storage.writer import ShardWriter, to_blocks


@pytest.fixture
def data_set(tmp_path):
    make_data_set(tmp_path / "tiny")
    return tmp_path / "tiny"


def kinds(folder):
    return {(problem.shard, problem.kind) for problem in verify(folder)}


def first_shard(folder):
    return folder / read_manifest(folder).shards[0].name


def test_a_whole_data_set_has_no_problem(data_set):
    assert list(verify(data_set, recompute=lambda sample: sample.corr_0to1)) == []


def test_every_cut_of_a_tar_is_found(data_set):
    shard = first_shard(data_set)
    whole, spans = shard.read_bytes(), read_index(shard.with_suffix(".idx")).spans
    sample_boundary = int(spans[1, 0, 0]) - 512
    cuts = {
        "inside a header": sample_boundary + 100,
        "at a sample boundary": sample_boundary,
        "between members": int(spans[0, 1, 0]) - 512,
        "inside a payload": int(spans[0, 1, 0]) + 10,
        "after one zero block": len(whole) - 512,
        "to nothing": 0,
    }
    for name, size in cuts.items():
        shard.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut short|holds no samples"):
            index_tar(shard)
        with pytest.raises(ValueError, match="was cut short or replaced"):
            Shard(shard)
        assert {(shard.name, "bytes"), (shard.name, "sha256"), (shard.name, "structure")} <= kinds(data_set), name


def tar_of(members):
    blocks = [header(n, len(d)) + d + bytes(padded(len(d)) - len(d)) for n, d in members]
    return b"".join(blocks) + bytes(1024)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.0.jpg", "a.1.jpg", "a.json", "a.corr.npy"], r"found member 'a\.json' where 'a\.corr\.npy' should be"),
        (["a.0.jpg", "a.1.jpg", "a.corr.npy"], r"the last sample, 'a', has 3 of 4 members"),
        (["a.0.jpg", "b.1.jpg"], r"found member 'b\.1\.jpg' where 'a\.1\.jpg'"),
        (["a.pickle"], r"found member 'a\.pickle' where 'a\.0\.jpg'"),
        ([f"{key}.{m}" for key in "aba" for m in MEMBERS["pairs"]], r"the key 'a' is there twice"),
        ([], "holds no samples"),
    ],
)
def test_tars_of_another_make_are_refused(tmp_path, names, message):
    path = tmp_path / "x.tar"
    path.write_bytes(tar_of([(name, b"data") for name in names]))
    with pytest.raises(ValueError, match=message):
        index_tar(path)


def test_data_behind_the_end_and_garbage_are_found(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(tar_of([]) + b"more")
    with pytest.raises(ValueError, match="goes on after its end at byte 0, to byte 1028"):
        index_tar(path)
    path.write_bytes(b"not a tar" * 100)
    with pytest.raises(ValueError, match="no valid tar header at byte 0"):
        index_tar(path)


def rewrite(folder, change):
    """Rewrite the first shard with `change` applied to its first sample, and a manifest and index that fit."""
    manifest = read_manifest(folder)
    info = manifest.shards[0]
    with Shard(folder / info.name) as shard:
        samples = [shard.sample(i) for i in range(len(shard))]
    with ShardWriter(folder / info.name) as writer:
        for i, sample in enumerate(samples):
            sample = replace(sample, **change(sample)) if i == 0 else sample
            writer.add_raw(sample.key, sample.source, *to_blocks(sample))  # not `add`: it would refuse a bad key
    write_index((folder / info.name).with_suffix(".idx"), writer.index)
    write_manifest(folder, replace(manifest, shards=[writer.info(), *manifest.shards[1:]]))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda s: {"image0_jpg": s.image0_jpg[: len(s.image0_jpg) // 2]}, "jpeg"),
        (lambda s: {"image1_jpg": b"\xff\xd8 nonsense \xff\xd9"}, "jpeg"),
        (lambda s: {"size": (32, 64)}, "jpeg"),
        (lambda s: {"H_0to1": np.full((3, 3), np.nan)}, "sample"),
        (lambda s: {"H_0to1": np.zeros((3, 3))}, "homography"),
        (lambda s: {"corr_0to1": np.full(16, 16, np.int16)}, "correspondences"),
        (lambda s: {"corr_0to1": np.full(16, -2, np.int16)}, "correspondences"),
        (lambda s: {"corr_0to1": np.where(s.corr_0to1 >= 0, 3, -1).astype(np.int16)}, "correspondences"),
        (lambda s: {"corr_0to1": s.corr_0to1[:15]}, "correspondences"),
        (lambda s: {"overlap": 0.7}, "overlap"),
        (lambda s: {"corr_0to1": np.arange(16, dtype=np.int16), "overlap": 1.0}, "overlap"),
        (lambda s: {"frame0": "999999"}, "key"),
        (lambda s: {"key": "Bad Key"}, "key"),
        (lambda s: {"patch_size": 0}, "size"),
        (lambda s: {"source": "images"}, "manifest"),
    ],
)
def test_each_planted_fault_of_a_sample_is_found(data_set, change, kind):
    rewrite(data_set, change)
    assert kind in {problem.kind for problem in verify(data_set)}


def test_correspondences_are_held_against_the_homography(data_set):
    problems = list(verify(data_set, recompute=lambda s: np.roll(s.corr_0to1, 1)))
    assert {p.kind for p in problems} == {"correspondences"}
    assert len(problems) == 7


def test_one_flipped_byte_is_found(data_set):
    shard = first_shard(data_set)
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    assert (shard.name, "sha256") in kinds(data_set)


def test_swapped_shards_missing_extra_and_stale_files_are_found(data_set):
    first, second = (data_set / info.name for info in read_manifest(data_set).shards[:2])
    data = first.read_bytes(), second.read_bytes()
    first.write_bytes(data[1])
    second.write_bytes(data[0])
    found = kinds(data_set)
    assert {(first.name, "sha256"), (second.name, "sha256"), (first.with_suffix(".idx").name, "index")} <= found
    first.write_bytes(data[0])
    second.unlink()
    first.with_suffix(".idx").unlink()
    (data_set / "other-000000.tar").write_bytes(b"")
    (data_set / ".tiny-000000.tar.tmp-1").write_bytes(b"")
    assert kinds(data_set) == {
        (second.name, "missing"),
        (first.with_suffix(".idx").name, "missing"),
        ("other-000000.tar", "extra"),
        (".tiny-000000.tar.tmp-1", "extra"),
    }


def test_the_same_sample_in_two_shards_is_found(data_set):
    manifest = read_manifest(data_set)
    first, second = (data_set / info.name for info in manifest.shards[:2])
    for suffix in (".tar", ".idx"):
        second.with_suffix(suffix).write_bytes(first.with_suffix(suffix).read_bytes())
    assert any("the key is also in" in p.message for p in verify(data_set))


def test_wrong_counts_and_a_broken_manifest_are_found(data_set):
    path = data_set / "manifest.json"
    plain = json.loads(path.read_text())
    plain["candidates"]["video"] += 1
    plain["shards"][0]["samples"] += 1
    path.write_text(json.dumps(plain))
    assert {(str(data_set), "manifest"), (plain["shards"][0]["name"], "samples")} <= kinds(data_set)
    with pytest.raises(ValueError, match="the manifest says"):
        open_shards(data_set, read_manifest(data_set))
    path.write_text(path.read_text()[:100])
    assert [p.kind for p in verify(data_set)] == ["manifest"]


def test_overlap_bounds_are_strict(data_set):
    manifest = read_manifest(data_set)
    sample = make_sample()
    assert list(check_sample(sample, manifest)) == []
    manifest.criteria["max_overlap"] = 0.75
    assert [kind for kind, _ in check_sample(sample, manifest)] == ["overlap"]


def test_an_error_while_writing_leaves_nothing(tmp_path):
    def write_and_fail():
        with ShardWriter(tmp_path / "x.tar") as writer:
            writer.add(make_sample())
            raise KeyError("power cut")

    with pytest.raises(KeyError):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_a_writer_without_samples_writes_no_file(tmp_path):
    with ShardWriter(tmp_path / "x.tar"):
        pass
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from samples import make_sample
from mimic_wds.storage.writer import ShardWriter
with ShardWriter(Path(sys.argv[1]) / "x.tar") as writer:
    for i in range(10**9):
        writer.add(make_sample(i))
        print(i, flush=True)
"""


def test_sigkill_while_writing_leaves_no_shard_and_the_next_run_cleans_up(tmp_path):
    (tmp_path / "old.tar").write_bytes(b"old")
    code = KILLED.format(path=[os.path.dirname(__file__), os.getcwd()])
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    for _ in range(20):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f".x.tar.tmp-{platform.node()}-{process.pid}", "old.tar"]
    remove_stale(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["old.tar"]


LIMITED = """
import resource, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
from samples import make_sample
from mimic_wds.storage.files import OutputError
from mimic_wds.storage.writer import ShardWriter
try:
    with ShardWriter(Path(sys.argv[1]) / "x.tar") as writer:
        for i in range(100):
            writer.add(make_sample(i))
except OutputError as error:
    print(error)
    sys.exit(7)
"""


def test_a_full_disk_is_one_message_and_leaves_nothing(tmp_path):
    code = LIMITED.format(path=[os.path.dirname(__file__), os.getcwd()])
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert f"cannot write x.tar in {tmp_path}" in done.stdout
    assert "free some space" in done.stdout
    assert "--resume" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone").rmdir()
    with pytest.raises(OutputError, match=r"cannot write x in .*gone"), atomic_write(tmp_path / "gone" / "x") as file:
        file.write(b"")


def test_readers_never_see_half_a_file(tmp_path):
    path = tmp_path / "x"
    with atomic_write(path) as file:
        file.write(b"first")
    with atomic_write(path) as file:
        file.write(b"sec")
        file.flush()
        node = os.fstat(file.fileno()).st_ino
        assert path.read_bytes() == b"first"
        file.write(b"ond")
    assert path.read_bytes() == b"second"
    assert path.stat().st_ino == node  # renamed, not copied
