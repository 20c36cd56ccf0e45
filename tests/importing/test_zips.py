"""Zips are read as `zipfile` reads them; damage of any kind is told."""

import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import write_zip

from mimic_wds.importing.zips import MAX_FILE, Zip

files = st.dictionaries(st.text("abc/é", min_size=1, max_size=9), st.binary(max_size=300), max_size=6)


def read_all(path):
    with Zip(path) as archive:
        return {entry.name: archive.read(entry.position) for entry in list(archive.entries())}


@settings(max_examples=60, deadline=None)
@given(
    files, st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]), st.binary(max_size=50), st.binary(max_size=9)
)
def test_files_are_read_as_zipfile_reads_them(tmp_path_factory, content, method, before, comment):
    path = tmp_path_factory.mktemp("zip") / "x.zip"
    path.write_bytes(before.replace(b"P", b"p"))
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.comment = comment
        for name, data in content.items():
            archive.writestr(name, data)
    assert read_all(path) == content


def test_a_file_written_as_a_stream_is_read(tmp_path):
    with (tmp_path / "x.zip").open("wb") as raw:
        raw.seekable = lambda: False
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:  # sizes follow the data
            archive.writestr("a", b"abc" * 99)
            with archive.open("b", "w", force_zip64=True) as file:
                file.write(b"def" * 99)
    assert read_all(tmp_path / "x.zip") == {"a": b"abc" * 99, "b": b"def" * 99}


def test_more_entries_than_16_bits_count(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for number in range(66_000):
            archive.writestr(zipfile.ZipInfo(f"folder-{number // 1000}/{number}"), b"")
    with Zip(tmp_path / "x.zip") as archive:
        entries = list(archive.entries())
        assert [entry.name for entry in entries] == [f"folder-{n // 1000}/{n}" for n in range(66_000)]
        assert archive.read(entries[65_999].position) == b""


def test_a_file_beyond_4_gigabytes_is_read(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a": b"first", "b": b"second"}, zipfile.ZIP_STORED)
    data = path.read_bytes()
    second, directory = data.index(b"PK\3\4", 4), data.index(b"PK\1\2")
    far = 5 * 2**30
    entry = data.index(b"PK\1\2", directory + 4)
    end = data.index(b"PK\5\6")
    extra = struct.pack("<2HQ", 1, 8, far)
    wide = bytearray(data[entry:end] + extra)
    struct.pack_into("<H", wide, 30, len(extra))
    struct.pack_into("<I", wide, 42, 0xFFFFFFFF)
    records = data[directory:entry] + wide
    start = far + directory - second
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, len(records), start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + len(records), 1)
    last = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, len(records), 0xFFFFFFFF, 0)
    with path.open("wb") as file:  # a sparse file: the hole takes no space
        file.write(data[:second])
        file.seek(far)
        file.write(data[second:directory] + records + end64 + locator + last)
    with zipfile.ZipFile(path) as oracle:
        assert oracle.read("b") == b"second"
    assert read_all(path) == {"a": b"first", "b": b"second"}


@pytest.mark.parametrize("keep", [0, 10, 100, -1, -30])
def test_a_zip_that_was_cut_short_is_told(tmp_path, keep):
    path = write_zip(tmp_path / "x.zip", {"a": b"x" * 500, "b": b"y" * 500})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"x\.zip: no whole zip archive.*download it again"):
        Zip(path)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_any_damage_is_told_or_changes_no_file(tmp_path_factory, place, byte):
    content = {"a/0000.jpg": b"x" * 50 + bytes(range(200)), "b": b"\0\1" * 40}
    path = write_zip(tmp_path_factory.getbasetemp() / "damaged.zip", content)
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(data)
    try:
        read, message = read_all(path), ""
    except ValueError as error:
        read, message = {}, str(error)
    assert "damaged.zip" in message if message else set(read.values()) <= set(content.values())


def test_an_encrypted_file_and_a_bomb_are_refused(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a": bytes(MAX_FILE + 1), "b": b"secret"})
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with Zip(path) as archive:
        large, secret = archive.entries()
        with pytest.raises(ValueError, match="a is too large"):
            archive.read(large.position)
        with pytest.raises(ValueError, match="b is encrypted"):
            archive.read(secret.position)


def test_a_size_that_is_not_true_is_told(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a": bytes(10**6)})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\1\2") + 24, 100)
    path.write_bytes(data)
    with Zip(path) as archive, pytest.raises(ValueError, match="a is damaged"):
        archive.read(next(archive.entries()).position)
