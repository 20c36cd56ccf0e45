"""Data sets made to do harm: nothing leaves the folder, no code runs, memory stays bounded, each is a told error."""

import hashlib
import io
import json
import pickle
import resource
import struct
import tarfile
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import make_data_set, make_sample

from mimic_wds.cli.main import run
from mimic_wds.storage.index import Index, decode_index, index_tar, write_index
from mimic_wds.storage.jpeg import jpeg_head
from mimic_wds.storage.layout import MEMBERS
from mimic_wds.storage.manifest import ShardInfo, dataset_id, decode_manifest, read_manifest, write_manifest
from mimic_wds.storage.maps import decode_map
from mimic_wds.storage.pictures import decode_jpeg, decode_png
from mimic_wds.storage.reader import Shard
from mimic_wds.storage.repair import repair
from mimic_wds.storage.sample import decode, decode_array, decode_image, encode
from mimic_wds.storage.scenes import read_scenes
from mimic_wds.storage.tar import END, header, padded, walk
from mimic_wds.storage.verify import verify

#: Kilobytes that reading a hostile file may add to the process: pictures of 50,000 x 50,000 would add 7,500,000.
MEMORY_KB = 150_000


def whole_members():
    return {name.partition(".")[2]: data for name, data in encode(make_sample())}


def tar_of(*members):
    """A tar of (name, data), the names written as they are."""
    parts = []
    for name, data in members:
        parts += [header(name, len(data)), data, bytes(padded(len(data)) - len(data))]
    return b"".join(parts) + END


def read_all(folder):
    """Every way of reading a shard, one after the other."""
    path = folder / "x-000000.tar"
    index_tar(path)
    with Shard(path) as shard:
        for i in range(len(shard)):
            shard.sample(i)


class TestAnyBytes:
    """Readers give a value or a ValueError for any bytes; any other exception fails these tests."""

    READERS = (
        lambda data: decode_index(data, "x"),
        lambda data: decode_manifest(data, "x"),
        lambda data: decode_array(data, "x"),
        lambda data: decode("k", {**whole_members(), "json": data}),
        lambda data: decode("k", {**whole_members(), "corr.npy": data}),
        lambda data: decode_image("k", {"0.jpg": b"", "json": data}),
        lambda data: decode_map("depth", data),
        decode_jpeg,
        decode_png,
        jpeg_head,
    )
    STARTS = st.sampled_from(
        (b"", b"{", b"[", b"\x93NUMPY\1\0\x76\0{'descr': '", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
    )

    @settings(max_examples=400, deadline=None)
    @given(st.sampled_from(READERS), STARTS, st.binary(max_size=300))
    def test_of_a_file(self, reader, start, data):
        with suppress(ValueError):
            reader(start + data)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=2048), st.booleans(), st.integers(0, 2))
    def test_of_a_shard(self, tmp_path_factory, data, with_header, count):
        folder = tmp_path_factory.mktemp("any")
        start = header("a_b_c_d.0.jpg", len(data)) if with_header else b""
        tar = start + data + bytes(-(len(data)) % 512) + END
        (folder / "x-000000.tar").write_bytes(tar)
        write_index(folder / "x-000000.idx", spans_for(len(tar), count))
        with pytest.raises(ValueError, match=r"x-000000\.(tar|idx)"):
            read_all(folder)


def spans_for(tar_bytes, count):
    """An index that fits a tar of so many bytes, or claims more."""
    last = max(0, tar_bytes - 4 * 512 - len(END)) if count else 8**11 - 1
    lengths = np.array([0, 0, 0, last])
    offsets = 512 + np.concatenate([[0], np.cumsum(512 - (-lengths // 512) * 512)[:-1]])
    return Index(np.stack([offsets, lengths], axis=1).reshape(1, 4, 2))


class TestTars:
    """What tar can hold beside plain files; readers that extract would write, link or hang there."""

    @pytest.mark.parametrize(
        "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
    )
    def test_special_files(self, tmp_path, kind):
        info = tarfile.TarInfo("a_b_c_d.0.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + END)
        with pytest.raises(ValueError, match="at byte 0 is no plain file"):
            index_tar(tmp_path / "x.tar")

    @pytest.mark.parametrize("size", [8**11 - 1, 2**40, 2**62])
    def test_declared_sizes(self, tmp_path, size):
        info = tarfile.TarInfo("a_b_c_d.0.jpg")
        info.size = size
        (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + END)
        with pytest.raises(ValueError, match="it was cut short"):
            index_tar(tmp_path / "x.tar")

    @pytest.mark.parametrize(
        "members", [("0.jpg", "json"), ("0.jpg", "1.jpg"), ("x", "y"), ("1.jpg", "json"), ("", "")]
    )
    def test_members_of_other_samples(self, tmp_path, members):
        (tmp_path / "x-000000.tar").write_bytes(tar_of(*((f"a_b_c.{member}", b"{}") for member in members)))
        spans = np.array([[512, 2], [1536, 2]]).reshape(1, 2, 2)
        write_index(tmp_path / "x-000000.idx", Index(spans))
        with pytest.raises(ValueError, match=r"members of no sample|a_b_c"):
            Shard(tmp_path / "x-000000.tar").sample(0)


@pytest.mark.parametrize("prefix", ["../", "/tmp/", "../../", "a/b/"])
def test_keys_lead_nowhere(tmp_path, prefix, capfd):
    """A data set that is whole but for its keys, which are paths: no verb writes outside of its folder."""
    folder = tmp_path / "deep" / "down" / "bad"
    folder.mkdir(parents=True)
    make_data_set(folder, per_scene=(2,))
    manifest = read_manifest(folder)
    name = manifest.shards[0].name
    samples = [whole_members() for _ in range(2)]
    key = [f"{prefix}escaped{number}_x_y_z" for number in range(2)]
    tar = tar_of(*((f"{key[i]}.{member}", data) for i in range(2) for member, data in samples[i].items()))
    (folder / name).write_bytes(tar)
    with (folder / name).open("rb") as file:
        spans = [(member.offset, member.length) for member in walk(file, len(tar))]
    write_index(folder / name.replace(".tar", ".idx"), Index(np.array(spans).reshape(2, 4, 2)))
    info = replace(manifest.shards[0], bytes=len(tar), sha256=hashlib.sha256(tar).hexdigest())
    write_manifest(folder, replace(manifest, shards=[info], id=dataset_id([info])))

    before = set(tmp_path.rglob("*"))
    assert {problem.kind for problem in verify(folder, depth="deep")} & {"key", "structure"}
    for verb, *args in (
        ("cat", key[0], "--out", "out/inner"),
        ("cat", "0", "--out", "out/inner"),
        ("ls",),
        ("show", "--out", "out/inner/show.png"),
        ("filter", "--out", "out/inner/filtered", "--min-overlap", "0"),
        ("reshard", "--out", "out/inner/resharded"),
        ("split", "--out-train", "out/inner/train", "--out-val", "out/inner/val"),
    ):
        paths = [str(tmp_path / arg) if arg.startswith("out/") else arg for arg in args]
        run([verb, str(folder), *paths])
    with suppress(ValueError):
        repair(folder)
    capfd.readouterr()
    written = set(tmp_path.rglob("*")) - before
    assert all((tmp_path / "out") in (path, *path.parents) or folder in path.parents for path in written)
    assert not list(Path("/tmp").glob("escaped*"))


def jpeg_head_of(height, width):
    """A JPEG that is whole by its markers, and whose header asks for so many pixels."""
    data = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def png_head_of(height, width):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    facts = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", facts) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 30_000, 65_500])
def test_pictures_that_would_fill_the_memory(side):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert decode_jpeg(jpeg_head_of(side, side)) is None
    assert decode_jpeg(jpeg_head_of(16, 16)) is not None
    with pytest.raises(ValueError, match="does not decode"):
        decode_map("depth", png_head_of(side, side))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_KB


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_pickle_runs(tmp_path):
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(Evil(mark))).close()
    mark.unlink()
    plain = io.BytesIO()
    np.save(plain, np.array([Evil(mark)], object), allow_pickle=True)
    for data in (plain.getvalue(), pickle.dumps(Evil(mark))):
        for read in (lambda data: decode_array(data, "x"), lambda data: decode_index(data, "x")):
            with pytest.raises(ValueError, match="not a plain"):
                read(data)
    assert not mark.exists()


@pytest.mark.parametrize("depth", [1_000, 100_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_json(tmp_path, opening, depth):
    text = opening * depth
    for data in (text.encode(), b'{"format_version": 1, "name": ' + text.encode()):
        with pytest.raises(ValueError, match="x: not valid JSON"):
            decode_manifest(data, "x")
    with pytest.raises(ValueError, match=r"k\.json: not valid JSON"):
        decode("k", {**whole_members(), "json": text.encode()})
    (tmp_path / "scenes.jsonl").write_text(f'{{"source": {text}\n')
    with pytest.raises(ValueError, match="line 1"):
        list(read_scenes(tmp_path / "scenes.jsonl"))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 400, "1" * 5000])
@pytest.mark.parametrize("field", ["overlap", "num_inliers", "homography", "size"])
def test_numbers_that_are_none(field, number):
    facts = json.loads(whole_members()["json"])
    facts[field] = ["@"] * len(facts[field]) if isinstance(facts[field], list) else "@"
    data = json.dumps(facts).replace('"@"', number).encode()
    with pytest.raises(ValueError, match=rf"k\.json: ({field} should be|not valid JSON)"):
        decode("k", {**whole_members(), "json": data})


@settings(max_examples=300, deadline=None)
@given(
    field=st.sampled_from(["samples", "bytes", "generation"]),
    value=st.integers(-(10**30), 10**30) | st.floats() | st.none() | st.text(max_size=3),
)
def test_a_manifest_counts_in_sane_numbers(tmp_path_factory, field, value):
    plain = TestManifest.plain(tmp_path_factory)
    plain["shards"][0][field] = value
    try:
        info = decode_manifest(json.dumps(plain).encode(), "x").shards[0]
    except ValueError:
        return
    assert isinstance(info, ShardInfo)
    assert 0 < info.samples < 2**62
    assert 0 < info.bytes < 2**62
    assert 0 <= info.generation < 2**62


class TestManifest:
    _text = ""

    @classmethod
    def plain(cls, factory):
        """A manifest as plain values, made once."""
        if not cls._text:
            folder = factory.mktemp("sane") / "tiny"
            make_data_set(folder)
            cls._text = (folder / "manifest.json").read_text()
        return json.loads(cls._text)


def test_members_are_those_of_the_format():
    assert set(whole_members()) == set(MEMBERS["pairs"])
