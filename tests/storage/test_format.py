"""The bytes of samples, keys and shards: exact, plain, and the same every time."""

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from samples import make_data_set, make_sample, stage

from mimic_wds.pairs import PairSample
from mimic_wds.storage import packing
from mimic_wds.storage.index import index_tar, read_index, write_index
from mimic_wds.storage.layout import MEMBERS, check_dataset_name, is_key, sample_key, slug
from mimic_wds.storage.manifest import Manifest, ShardInfo, manifest_hash, read_manifest
from mimic_wds.storage.packing import pack
from mimic_wds.storage.reader import Shard, open_shards
from mimic_wds.storage.sample import FIELDS, IMAGE_FIELDS, TRUTH_FIELDS, decode, encode
from mimic_wds.storage.scenes import read_scenes
from mimic_wds.storage.staging import read_staged, scene_tar, staged_numbers
from mimic_wds.storage.tar import header
from mimic_wds.storage.writer import ShardWriter

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=0, max_size=60)


@given(
    arrays(np.float64, (3, 3), elements=st.floats(allow_nan=False, allow_infinity=False)),
    arrays(np.int16, st.integers(0, 300), elements=st.integers(-1, 299)),
    st.floats(0, 1),
    names,
    st.integers(0, 10**6),
)
def test_a_sample_survives_its_bytes_exactly(H, corr, overlap, scene, inliers):
    sample = make_sample(H_0to1=H, corr_0to1=corr, overlap=overlap, scene=scene, num_inliers=inliers)
    members = {name.partition(".")[2]: data for name, data in encode(sample)}
    back = decode(sample.key, members)
    for field in PairSample.__dataclass_fields__:
        assert np.array_equal(getattr(back, field), getattr(sample, field)), field
    assert back.H_0to1.tobytes() == H.tobytes()


@given(names, names, names, names)
def test_keys_are_short_plain_and_tell_inputs_apart(scene, frame, other_scene, other_frame):
    key = sample_key("video", scene, frame, "1")
    assert is_key(key)
    assert len(f"{key}.corr.npy") <= 100
    same = (scene, frame) == (other_scene, other_frame)
    assert (sample_key("video", other_scene, other_frame, "1") == key) is same


@pytest.mark.parametrize(("one", "other"), [("a b", "a-b"), ("A", "a"), ("x" * 50, "x" * 51), ("é", "e"), ("", "-")])
def test_lossy_slugs_differ(one, other):
    assert slug(one, 20) != slug(other, 20)


def test_a_name_that_looks_like_a_hashed_slug_is_no_collision():
    assert slug(slug("A b", 20), 20) != slug("A b", 20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kitchen-3", "kitchen-3"),
        ("clips/Küche 1.mp4", "clips-kuche-1-mp4-c3fef09057"),
        ("厨房", "4ae988a29c"),
        ("00000136", "00000136"),
        ("2026112300", "2026112300-3045961ed6"),
    ],
)
def test_keys_never_change(text, expected):
    assert slug(text, 38) == expected


def test_bytes_never_change(tmp_path):
    """Data sets built yesterday and today are compared by hash: a change here is a new format version."""
    jpegs = {"image0_jpg": bytes(range(256)) * 4, "image1_jpg": bytes(700)}
    with ShardWriter(tmp_path / "x.tar") as writer:
        for number in range(2):
            writer.add(make_sample(number, scene="clips/Küche 1.mp4", **jpegs))
    write_index(tmp_path / "x.idx", writer.index)
    assert sha256(tmp_path / "x.tar") == "fbdb9f72c413249fa9a28bd793ab8ebfbb697860fbf463e8ca7f723f146e3ed5"
    assert sha256(tmp_path / "x.idx") == "f5aee05677f8d4c783acf48aa0fbd216f6fc18bf57249f376fbe27f74daf0c0f"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["", "A", "a.b", "-a", "a/b", "a" * 65])
def test_data_set_names_are_checked(name):
    with pytest.raises(ValueError, match="cannot name a data set"):
        check_dataset_name(name)


def test_shards_are_plain_ustar(tmp_path):
    samples = [make_sample(i) for i in range(3)]
    with ShardWriter(tmp_path / "x.tar") as writer:
        for sample in samples:
            writer.add(sample)
    expected = [f"{s.key}.{member}" for s in samples for member in MEMBERS["pairs"]]
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert tar.getnames() == expected
        for member in tar.getmembers():
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert (member.mode, member.pax_headers, member.type) == (0o644, {}, tarfile.REGTYPE)
    data = (tmp_path / "x.tar").read_bytes()
    assert data[257:265] == b"ustar\x0000"
    assert len(data) % 512 == 0
    assert data.endswith(bytes(1024))
    listed = subprocess.run(["tar", "tf", tmp_path / "x.tar"], capture_output=True, text=True, check=True)
    assert (listed.stdout.split(), listed.stderr) == (expected, "")
    assert writer.info().sha256 == hashlib.sha256(data).hexdigest()
    assert writer.info().bytes == len(data)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_opens_the_shards(tmp_path):
    manifest = make_data_set(tmp_path / "tiny")
    assert len(manifest.shards) > 1
    found = []
    for info in manifest.shards:
        found += list(webdataset.WebDataset(str(tmp_path / "tiny" / info.name), shardshuffle=False))
    shards = open_shards(tmp_path / "tiny", manifest)
    ours = [(shard.key(i), shard.read(i)) for shard in shards for i in range(len(shard))]
    assert [s["__key__"] for s in found] == [key for key, _ in ours]
    assert [{m: s[m] for m in MEMBERS["pairs"]} for s in found] == [members for _, members in ours]


def test_the_index_is_a_plain_array_that_points_at_the_data(tmp_path):
    manifest = make_data_set(tmp_path / "tiny")
    shard = tmp_path / "tiny" / manifest.shards[0].name
    spans = np.load(shard.with_suffix(".idx"), allow_pickle=False)
    data = shard.read_bytes()
    with tarfile.open(shard) as tar:
        for i in range(len(spans)):
            for offset, length in spans[i]:
                assert data[offset : offset + length] == tar.extractfile(tar.next()).read()
    walked, keys = index_tar(shard)
    assert np.array_equal(walked.spans, read_index(shard.with_suffix(".idx")).spans)
    assert len(keys) == manifest.shards[0].samples


def test_shards_stay_below_their_bound_and_none_is_empty(tmp_path):
    for bound in (1, 20_000, 40_000, 10**9):
        manifest = make_data_set(tmp_path / f"set{bound}", max_shard_bytes=bound)
        assert manifest.num_samples == 7
        assert all(info.samples > 0 for info in manifest.shards)
        assert all(info.bytes <= bound or info.samples == 1 for info in manifest.shards)
    assert len(manifest.shards) == 1


def test_the_bound_of_a_shard_counts_every_byte(tmp_path):
    (both,) = make_data_set(tmp_path / "whole", per_scene=(2,), max_shard_bytes=10**9).shards
    for slack, expected in ((0, [2]), (-1, [1, 1])):
        manifest = make_data_set(tmp_path / f"by{slack}", per_scene=(2,), max_shard_bytes=both.bytes + slack)
        assert [info.samples for info in manifest.shards] == expected


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_packing_gives_the_same_bytes_whatever_the_order_of_staging(tmp_path):
    make_data_set(tmp_path / "a" / "tiny")
    staging = tmp_path / "staging"
    for number in (2, 0, 1):
        count = (3, 0, 4)[number]
        scene = f"clip{number}.mp4"
        stage(staging, number, [make_sample(10 * number + i, scene=scene) for i in range(count)], scene)
    manifest = read_manifest(tmp_path / "a" / "tiny")
    (tmp_path / "b").mkdir()
    description = {"criteria": manifest.criteria, "versions": manifest.versions, "licences": manifest.licences}
    again = pack(staging, 3, tmp_path / "b", "tiny", 30_000, description)
    assert contents(tmp_path / "b") == contents(tmp_path / "a" / "tiny")
    assert manifest_hash(again) == manifest_hash(manifest)


def test_of_equal_keys_in_two_scenes_the_second_is_dropped_and_counted(tmp_path):
    stage(tmp_path / "staging", 0, [make_sample(0), make_sample(1)], scene="copy0.mp4")
    stage(tmp_path / "staging", 1, [make_sample(5, scene="other.mp4")], scene="other.mp4")
    stage(tmp_path / "staging", 2, [make_sample(1), make_sample(2)], scene="copy2.mp4")
    manifest = pack(tmp_path / "staging", 3, tmp_path, "tiny", 10**6, {"criteria": {}, "versions": {}, "licences": {}})
    assert manifest.num_samples == manifest.kept["video"] == sum(manifest.overlap_histogram.counts) == 4
    assert manifest.dropped["video"] == {"duplicate_key": 1, "too_few_matches": 6}
    assert manifest.candidates["video"] == 11
    lines = list(read_scenes(tmp_path / "scenes.jsonl"))
    assert [(line.scene, line.kept, line.dropped.get("duplicate_key", 0)) for line in lines] == [
        ("copy0.mp4", 2, 0),
        ("other.mp4", 1, 0),
        ("copy2.mp4", 1, 1),
    ]


def test_a_next_generation_adds_shards_and_replaces_the_outcomes_of_scenes_run_again(tmp_path):
    out, description = tmp_path / "tiny", {"criteria": {}, "versions": {}, "licences": {}}
    out.mkdir()
    stage(tmp_path / "s0", 0, [make_sample(0, scene="a.mp4")], scene="a.mp4")
    stage(tmp_path / "s0", 1, [make_sample(10, scene="b.mp4")], scene="b.mp4", error="/in/b.mp4: cut short")
    first = pack(tmp_path / "s0", 2, out, "tiny", 10**6, description)
    before = contents(out)
    samples = [make_sample(n, scene="b.mp4") for n in (10, 11, 12)]
    stage(tmp_path / "s1", 0, samples, scene="b.mp4")
    second = pack(tmp_path / "s1", 1, out, "tiny", 10**6, description, base=first, known={samples[0].key})
    assert second.shards[0] == first.shards[0]
    assert (second.id, second.generation) == (first.id, 1)
    assert [(s.name, s.samples, s.generation) for s in second.shards] == [
        ("tiny-000000.tar", 2, 0),
        ("tiny-000001.tar", 2, 1),
    ]
    assert {name: data for name, data in contents(out).items() if name in before} | {
        name: before[name] for name in ("manifest.json", "scenes.jsonl")
    } == before
    assert second.kept["video"] == second.num_samples == sum(second.overlap_histogram.counts) == 4
    assert second.scenes == {"video": 2}
    assert first.failed_scenes == {"video/b.mp4": "b.mp4: cut short"}
    assert second.failed_scenes == {}


def test_packing_removes_the_staged_samples_that_are_in_shards(tmp_path):
    staging, out = tmp_path / "staging", tmp_path / "tiny"
    for number in range(6):
        stage(staging, number, [make_sample(10 * number, scene=f"{number}.mp4")], scene=f"{number}.mp4")
    one = scene_tar(staging, 0).stat().st_size
    left = []
    real = packing.write_index

    def write_index(path, index):
        left.append(sum(scene_tar(staging, number).exists() for number in range(6)))
        real(path, index)

    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "write_index", write_index)
        pack(staging, 6, out, "tiny", 3 * one, {"criteria": {}, "versions": {}, "licences": {}})
    assert left == sorted(left, reverse=True)
    assert len(left) >= 2
    assert left[-1] < 6
    assert sorted(staged_numbers(staging)) == [0, 1, 2, 3, 4, 5]


def test_manifest_counts_come_from_the_scenes(tmp_path):
    manifest = make_data_set(tmp_path / "tiny")
    assert manifest.kept == {"video": 7}
    assert manifest.dropped == {"video": {"too_few_matches": 6}}
    assert manifest.candidates == {"video": 13}
    assert manifest.views == {"video": 16}
    assert manifest.overlap_histogram.counts[15] == 7  # 0.75 lies in the bin from 0.75 to 0.80
    assert read_manifest(tmp_path / "tiny") == manifest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("{}", "format version None; this program reads versions 1 and 2"),
        ('{"format_version": 3}', "format version 3"),
        ('{"format_version": 1, "shads": []}', "unknown key 'shads'; did you mean 'shards'"),
        ('{"format_version": 1}', "missing required field"),
    ],
)
def test_a_broken_manifest_says_how(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path)


def test_no_manifest_no_data_set(tmp_path):
    with pytest.raises(ValueError, match=r"no manifest\.json here"):
        read_manifest(tmp_path)
    with pytest.raises(ValueError, match="no such data set"):
        read_manifest(tmp_path / "nowhere")


def test_pickles_are_never_read(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, {1: 2}, allow_pickle=True)
    members = {name.partition(".")[2]: data for name, data in encode(make_sample())}
    with pytest.raises(ValueError, match=r"corr\.npy: not a plain \.npy array"):
        decode("k", {**members, "corr.npy": buffer.getvalue()})


def test_reading_is_the_same_from_many_threads(tmp_path):
    manifest = make_data_set(tmp_path / "tiny", per_scene=(20,), max_shard_bytes=10**9)
    with Shard(tmp_path / "tiny" / manifest.shards[0].name) as shard:
        one = [shard.read(i) for i in range(20)]
        with ThreadPoolExecutor(8) as pool:
            many = list(pool.map(shard.read, list(range(20)) * 10))
    assert many == one * 10


@pytest.mark.parametrize("key", ["a.b_c_d_e", "A_b_c_d", "a_b_c", "a_b_c_d" * 30, "a_b_c_d/e", ""])
def test_the_writer_refuses_malformed_keys(tmp_path, key):
    with pytest.raises(ValueError, match="is no key"), ShardWriter(tmp_path / "x.tar") as writer:
        writer.add(make_sample(key=key))
    assert list(tmp_path.iterdir()) == []


def test_two_views_of_the_same_name_are_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"comes twice; two views of scene 'clip\.mp4'"):
        stage(tmp_path, 0, [make_sample(0), make_sample(0)])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_scene_is_done_when_its_outcome_is_there(tmp_path):
    assert read_staged(tmp_path, 0) is None
    stage(tmp_path, 0, [make_sample(i) for i in range(2)])
    stage(tmp_path, 1, [], "empty.mp4", error="empty.mp4: no frames")
    first, second = read_staged(tmp_path, 0), read_staged(tmp_path, 1)
    assert first.keys == tuple(make_sample(i).key for i in range(2))
    assert first.overlaps == (0.75, 0.75)
    assert (first.error, first.counts.candidates) == ("", 4)
    assert (second.error, second.keys) == ("empty.mp4: no frames", ())
    assert set(contents(tmp_path / "000000")) == {"000.tar", "000.idx", "000.json", "001.json"}
    stage(tmp_path, 1_234_567, [])
    assert (tmp_path / "001234" / "567.json").exists()
    assert sorted(staged_numbers(tmp_path)) == [0, 1, 1_234_567]


OPENED = """
import resource, sys
from pathlib import Path
sys.path[:0] = {path!r}
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.reader import open_shards
resource.setrlimit(resource.RLIMIT_NOFILE, (16, int(sys.argv[2])))
folder = Path(sys.argv[1])
print(len(open_shards(folder, read_manifest(folder))))
"""


def test_more_shards_than_the_usual_limit_of_open_files(tmp_path):
    make_data_set(tmp_path / "tiny", per_scene=(20,), max_shard_bytes=1)
    command = [sys.executable, "-c", OPENED.format(path=[os.getcwd()]), tmp_path / "tiny"]
    assert subprocess.run([*command, "4096"], capture_output=True, text=True, check=True).stdout == "20\n"
    refused = subprocess.run([*command, "16"], capture_output=True, text=True, check=False).stderr
    assert "has 20 shards, more than the files that this process may open; raise the limit (`ulimit -n`)" in refused


def test_the_document_names_every_field():
    text = (Path(__file__).parents[2] / "docs" / "shard-format.md").read_text()
    named = set(re.findall(r"`(\w+)`", text))
    assert {
        *FIELDS,
        *IMAGE_FIELDS,
        *TRUTH_FIELDS,
        *(field.name for cls in (Manifest, ShardInfo) for field in fields(cls)),
    } <= named


@given(
    name=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=100),
    length=st.integers(0, 8**11 - 1),
)
def test_headers_are_those_of_tarfile(name, length):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = length, 0o644, 0
    assert header(name, length) == info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


@pytest.mark.parametrize(("name", "length"), [("x" * 101, 1), ("x", 8**11), ("ü", 1)])
def test_what_no_header_can_say_is_refused(name, length):
    with pytest.raises(ValueError, match=r"USTAR|ascii"):
        header(name, length)
