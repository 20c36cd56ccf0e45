"""Damage of every kind, tried at random: it is told as a ValueError or as a problem, and never read as truth."""

import io
import json
import math
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import make_data_set, make_sample

from mimic_wds.storage.index import index_tar
from mimic_wds.storage.layout import MEMBERS
from mimic_wds.storage.manifest import manifest_hash, read_manifest, write_manifest
from mimic_wds.storage.reader import Shard
from mimic_wds.storage.sample import FIELDS, decode, decode_array, encode, encode_array
from mimic_wds.storage.verify import check_sample, verify

MANIFEST = "manifest.json"


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage") / "tiny"
    make_data_set(folder)
    return folder


@pytest.fixture(scope="module")
def opened(data_set, tmp_path_factory):
    """A copy of the first shard, and its samples."""
    whole = data_set / read_manifest(data_set).shards[0].name
    copy = tmp_path_factory.mktemp("copy") / whole.name
    copy.write_bytes(whole.read_bytes())
    return copy, read_all(whole)


@pytest.fixture
def fresh(tmp_path):
    make_data_set(tmp_path / "tiny")
    return tmp_path / "tiny"


def read_all(path):
    with Shard(path) as shard:
        return [shard.read(i) for i in range(len(shard))]


def attempt(function, *arguments):
    """(result, "") or (None, the ValueError's message); any other exception fails the test."""
    try:
        return function(*arguments), ""
    except ValueError as error:
        return None, str(error)


def flipped(data, place, bit):
    changed = bytearray(data)
    changed[place % len(data)] ^= 1 << bit
    return bytes(changed)


def problems_with(folder, name, data):
    """What `verify` finds while file `name` holds `data`."""
    whole = (folder / name).read_bytes()
    try:
        (folder / name).write_bytes(data)
        return list(verify(folder))
    finally:
        (folder / name).write_bytes(whole)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_shard_is_found(data_set, place, bit):
    name = read_manifest(data_set).shards[1].name
    found = problems_with(data_set, name, flipped((data_set / name).read_bytes(), place, bit))
    assert ("sha256", name) in {(problem.kind, problem.shard) for problem in found}


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_of_an_index_is_an_error_or_changes_nothing(data_set, opened, place, bit):
    copy, samples = opened
    path = (data_set / read_manifest(data_set).shards[0].name).with_suffix(".idx")
    copy.with_suffix(".idx").write_bytes(flipped(path.read_bytes(), place, bit))
    read, message = attempt(read_all, copy)
    if message:
        assert str(copy.with_suffix("")) in message
    else:  # it was in the padding of the array's header
        assert read == samples


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7), length=st.integers(0, 10**6))
def test_verify_survives_any_manifest(data_set, place, bit, length):
    whole = (data_set / MANIFEST).read_bytes()
    for changed in (flipped(whole, place, bit), whole[: length % len(whole)]):
        found = problems_with(data_set, MANIFEST, changed)
        assert found or manifest_hash(read_manifest(data_set))
    assert [p.kind for p in problems_with(data_set, MANIFEST, whole[: length % (len(whole) - 2)])] == ["manifest"]


plain_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FIELDS)), plain_json)
def test_any_value_in_the_json_is_refused_or_checked(data_set, name, value):
    members = {member: data for member, (_, data) in zip(MEMBERS["pairs"], encode(make_sample()), strict=True)}
    facts = json.loads(members["json"])
    sample, message = attempt(decode, "k", {**members, "json": json.dumps({**facts, name: value}).encode()})
    if message:
        assert f"k.json: {name} should be" in message
    else:
        assert type(value) is type(facts[name])
        assert {kind for kind, _ in check_sample(sample, read_manifest(data_set))} >= {"key"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("time0_s", 1, "float"),
        ("num_inliers", True, "int"),
        ("homography", [1.0] * 8, "9 of float"),
        ("homography", [1] * 9, "9 of float"),
        ("size", [64.0, 64.0], "2 of int"),
        ("source", None, "str"),
    ],
)
def test_json_types_are_exact(name, value, expected):
    members = {member: data for member, (_, data) in zip(MEMBERS["pairs"], encode(make_sample()), strict=True)}
    facts = {**json.loads(members["json"]), name: value}
    with pytest.raises(ValueError, match=f"{name} should be {expected}, is"):
        decode("k", {**members, "json": json.dumps(facts).encode()})


@settings(max_examples=500, deadline=None)
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255), length=st.integers(0, 200))
def test_a_damaged_array_is_an_array_or_a_value_error(place, byte, length):
    whole = encode_array(np.arange(40, dtype="<i2"))
    changed = bytearray(whole)
    changed[place % len(whole)] = byte
    for data in (bytes(changed), whole[: length % len(whole)]):
        array, message = attempt(decode_array, data, "x.npy")
        assert message.startswith("x.npy: ") or array.nbytes == 80


@pytest.mark.parametrize("dtype", ["<i2", "<i8", "|u1", "<f4", "<f8"])
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 4, 2)])
def test_arrays_are_read_as_numpy_reads_them(dtype, shape):
    array = np.arange(math.prod(shape)).astype(dtype).reshape(shape)
    read = decode_array(encode_array(array), "x.npy")
    file = io.BytesIO()
    np.save(file, array)
    assert file.getvalue() == encode_array(array)
    assert (read.dtype, read.shape, read.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert read.flags.writeable


def test_an_array_header_that_asks_for_all_memory_is_refused():
    whole = encode_array(np.arange(40, dtype="<i2"))
    data = whole.replace(b"(40,), }" + b" " * 12, b"(40000000000000,), }")
    assert len(data) == len(whole)
    with pytest.raises(ValueError, match=r"x\.npy: its header says \(40000000000000,\) of int16, 80 bytes follow"):
        decode_array(data, "x.npy")


def test_a_tar_padded_by_another_tool_is_found(fresh):
    shard = fresh / read_manifest(fresh).shards[0].name
    shard.write_bytes(shard.read_bytes() + bytes(10240))
    with pytest.raises(ValueError, match="goes on after its end at byte"):
        index_tar(shard)
    assert {"bytes", "sha256", "structure"} == {problem.kind for problem in verify(fresh)}


def test_a_member_of_negative_size_is_refused(tmp_path):
    info = tarfile.TarInfo("a.0.jpg")
    info.size = -1024  # only GNU's binary numbers can say so; read literally it would be walked for ever
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match=r"'a\.0\.jpg' at byte 0 has a negative size"):
        index_tar(tmp_path / "x.tar")


@pytest.mark.parametrize(("form", "kind"), [(tarfile.PAX_FORMAT, "x"), (tarfile.GNU_FORMAT, "L")])
def test_extended_headers_are_refused(tmp_path, form, kind):
    with tarfile.open(tmp_path / "x.tar", "w", format=form) as tar:
        tar.addfile(tarfile.TarInfo("a" * 120 + ".0.jpg"))
    with pytest.raises(ValueError, match=f"at byte 0 is no plain file .tar type b'{kind}'"):
        index_tar(tmp_path / "x.tar")


@pytest.mark.parametrize("name", ["../tiny-000000.tar", "/etc/passwd", "other-000000.tar", "tiny-1.tar", ""])
def test_a_manifest_names_no_other_files(fresh, name):
    manifest = read_manifest(fresh)
    write_manifest(fresh, replace(manifest, shards=[replace(manifest.shards[0], name=name)]))
    with pytest.raises(ValueError, match=r"is no shard of 'tiny': expected tiny-000000\.tar"):
        read_manifest(fresh)


def test_a_shard_listed_twice_is_found(fresh):
    manifest = read_manifest(fresh)
    write_manifest(fresh, replace(manifest, shards=[*manifest.shards, manifest.shards[0]]))
    assert [(p.kind, "lists tiny-000000.tar twice" in p.message) for p in verify(fresh)] == [("manifest", True)]


def test_a_histogram_of_other_samples_is_found(fresh):
    manifest = read_manifest(fresh)
    manifest.overlap_histogram.counts[0] += 1
    write_manifest(fresh, manifest)
    assert ["overlap_histogram" in problem.message for problem in verify(fresh)] == [True]


def test_samples_of_another_size_are_found(fresh):
    manifest = read_manifest(fresh)
    manifest.criteria.update(size=128, patch_size=32)
    kinds = [kind for kind, _ in check_sample(make_sample(), manifest)]
    assert kinds == ["size", "size"]


def test_a_problem_names_file_and_sample(fresh):
    shard = fresh / read_manifest(fresh).shards[0].name
    with Shard(shard) as opened:
        key, jpeg = opened.key(1), opened.index.ranges(1)[0][0]
    data = bytearray(shard.read_bytes())
    data[jpeg : jpeg + 2] = b"no"
    shard.write_bytes(data)
    picture = next(problem for problem in verify(fresh) if problem.kind == "jpeg")
    assert (picture.shard, picture.key) == (shard.name, key)
    assert str(picture) == f"{shard.name} {key}: 0.jpg is not a whole JPEG file [jpeg]"


def test_the_manifest_file_may_be_named_instead_of_its_folder(fresh):
    assert list(verify(fresh / MANIFEST)) == []
