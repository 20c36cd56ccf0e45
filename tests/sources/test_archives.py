"""Zips and tars read in place, against zipfile and tarfile; and what hostile or damaged ones do."""

import io
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import pack_tar, pack_zip, write

from mimic_wds.pairs import Scene
from mimic_wds.sources import archives
from mimic_wds.sources.archives import (
    ArchiveError,
    Member,
    MemberError,
    folders,
    join_path,
    members,
    read_member,
    split_path,
)

JPG = frozenset({".jpg"})
FILES = {"a/1.jpg": b"one" * 300, "a/b/2.jpg": bytes(range(256)) * 9, "3.jpg": b"", "a/notes.txt": b"x" * 513}


def contents(path: Path) -> dict[str, bytes]:
    with path.open("rb") as file:
        return {member.name: read_member(file, member) for member in members(path)}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_gives_what_zipfile_gives(tmp_path, method):
    path = pack_zip(tmp_path / "x.zip", FILES, method)
    assert contents(path) == FILES
    path.write_bytes(b"#!/bin/sh\n" * 100 + path.read_bytes())  # a self-extracting zip: positions count from the zip
    assert contents(path) == FILES


def test_a_zip_with_zip64_records_and_descriptors_is_read(tmp_path):
    path = tmp_path / "x.zip"

    class Pipe(io.RawIOBase):  # cannot seek back, so sizes follow the data in descriptors
        def __init__(self, file):
            self.file = file

        def writable(self):
            return True

        def write(self, data):
            return self.file.write(data)

    with path.open("wb") as file, zipfile.ZipFile(Pipe(file), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in FILES.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    assert contents(path) == FILES


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_gives_what_tarfile_gives(tmp_path, form):
    files = {**FILES, f"{'long/' * 30}name.jpg": b"deep"} if form != tarfile.USTAR_FORMAT else FILES
    path = pack_tar(tmp_path / "x.tar", write(tmp_path / "in", files), form)
    assert contents(path) == files
    data = path.read_bytes().rstrip(b"\0")
    path.write_bytes(data + bytes(-len(data) % 512))  # some writers leave out the blocks of zeros at the end
    assert contents(path) == files


def test_hidden_files_and_macos_forks_are_passed_over(tmp_path):
    path = pack_zip(tmp_path / "x.zip", {"a.jpg": b"1", ".b.jpg": b"2", "__MACOSX/._a.jpg": b"3", ".git/c.jpg": b"4"})
    assert list(contents(path)) == ["a.jpg"]


def test_folders_hold_files_of_the_wanted_kind_and_the_last_of_one_name(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in [("a/1.jpg", b"old"), ("2.JPG", b"22"), ("a/1.txt", b""), ("a/1.jpg", b"newer")]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert {folder: {name: m.size for name, m in held.items()} for folder, held in folders(path, JPG).items()} == {
        "a": {"1.jpg": 5},
        "": {"2.JPG": 2},
    }


def test_folders_are_listed_again_when_the_file_changes(tmp_path):
    path = pack_zip(tmp_path / "x.zip", {"1.jpg": b"1"})
    assert list(folders(path, JPG)[""]) == ["1.jpg"]
    assert folders(path, JPG) is folders(path, JPG)
    pack_zip(path, {"1.jpg": b"1", "2.jpg": b"2"})
    assert list(folders(path, JPG)[""]) == ["1.jpg", "2.jpg"]


def test_paths_of_scenes_say_archive_and_folder_and_travel(tmp_path):
    odd = tmp_path / "a::b"
    path = pack_zip(odd / "x.zip", FILES)
    scene = Scene(source="images", name="x", path=join_path(path, "a::c/d"))
    assert split_path(pickle.loads(pickle.dumps(scene)).path) == (path, "a::c/d")
    assert split_path(join_path(path, "")) == (path, "")
    assert split_path(str(odd / "plain")) == (odd / "plain", "") or split_path(str(odd)) == (odd, "")
    assert split_path("/no/where.zip::in") == (Path("/no/where.zip::in"), "")


@pytest.mark.parametrize("name", ["/etc/passwd.jpg", "../out.jpg", "a/../../out.jpg"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out_are_refused_and_nothing_is_written(tmp_path, name, kind):
    path = tmp_path / "in" / f"x.{kind}"
    path.parent.mkdir()
    if kind == "zip":
        pack_zip(path, {name: b"1"})
    else:
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(ArchiveError, match="leads out of it"):
        list(members(path))
    assert [p.name for p in tmp_path.rglob("*")] == ["in", path.name]


def test_links_of_a_tar_are_never_followed(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.jpg")
            info.type, info.linkname = kind, "../secret.jpg"
            archive.addfile(info)
    assert contents(path) == {"2.jpg": b"", "1.jpg": b""}


def reason(path: Path, member: Member) -> str:
    with path.open("rb") as file, pytest.raises(MemberError) as error:
        read_member(file, member)
    return str(error.value)


def test_encrypted_and_unknown_members_have_their_own_reasons(tmp_path):
    path = pack_zip(tmp_path / "x.zip", {"1.jpg": b"1" * 99}, zipfile.ZIP_LZMA)
    assert reason(path, *members(path)) == "unknown_compression"
    data = bytearray(pack_zip(path, {"1.jpg": b"1" * 99}).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    path.write_bytes(data)
    assert reason(path, *members(path)) == "encrypted_image"


def test_a_bomb_is_not_unpacked(tmp_path):
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(bomb.compress(bytes(2**20)) for _ in range(300)) + bomb.flush()
    path = pack_zip(tmp_path / "x.zip", {"1.jpg": packed}, zipfile.ZIP_STORED)
    (member,) = members(path)
    honest = Member("1.jpg", 300 * 2**20, member.offset, member.stored, "deflated", 0)
    assert reason(path, honest) == "image_too_large"
    liar = Member("1.jpg", 1000, member.offset, member.stored, "deflated", 0)
    tracemalloc.start()
    assert reason(path, liar) == "unreadable_image"
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


def test_a_tar_that_claims_huge_sizes_is_refused(tmp_path):
    info = tarfile.TarInfo("1.jpg")
    info.size = 2**60
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ArchiveError, match="no whole tar file"):
        list(members(tmp_path / "x.tar"))


def test_damaged_bytes_of_a_zip_are_found_by_their_checksum(tmp_path):
    path = pack_zip(tmp_path / "x.zip", {"1.jpg": b"1" * 999, "2.jpg": b"2" * 999}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(b"1" * 50) + 20] ^= 4
    path.write_bytes(data)
    first, second = members(path)
    assert reason(path, first) == "unreadable_image"
    with path.open("rb") as file:
        assert read_member(file, second) == b"2" * 999


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_cut_archive_is_an_error_that_says_what_to_do(tmp_path, kind, share):
    files = {f"{k}.jpg": bytes([k]) * 5000 for k in range(20)}
    path = pack_zip(tmp_path / "x.zip", files, zipfile.ZIP_STORED)
    if kind == "tar":
        path = pack_tar(tmp_path / "x.tar", write(tmp_path / "in", files))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data)) // 512 * 512 + 100])
    with pytest.raises(ArchiveError, match=f"x.{kind}: is no whole {kind} file .*download it again"):
        list(members(path))


def test_a_tar_with_rubbish_in_its_middle_is_not_taken_for_its_end(tmp_path):
    path = pack_tar(tmp_path / "x.tar", write(tmp_path / "in", {"1.jpg": b"1" * 512, "2.jpg": b"2" * 512}))
    data = bytearray(path.read_bytes())
    at = data.index(b"./2.jpg")
    data[at : at + 512] = b"?" * 512
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=f"no header at byte {at}"):
        list(members(path))


def test_a_compressed_tar_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ArchiveError, match="compressed tar, which cannot be read in place; unpack it"):
        list(members(tmp_path / "x.tar.gz"))


def test_text_and_missing_files_are_errors(tmp_path):
    for name in ("x.zip", "x.tar"):
        with pytest.raises(ArchiveError, match="cannot be read"):
            folders(tmp_path / name, JPG)
        (tmp_path / name).write_text("not an archive")
        with pytest.raises(ArchiveError, match="no whole"):
            folders(tmp_path / name, JPG)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["zip", "tar", "pax"]))
def test_no_damage_does_more_than_errors_of_ours(tmp_path, data, kind):
    path = tmp_path / ("x.zip" if kind == "zip" else "x.tar")
    if kind == "zip":
        pack_zip(path, FILES)
    else:
        form = tarfile.PAX_FORMAT if kind == "pax" else tarfile.GNU_FORMAT
        files = {**FILES, "ü" * 120 + ".jpg": b"long"}
        with tarfile.open(path, "w", format=form) as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(content), 0.5 if kind == "pax" else 0
                archive.addfile(info, io.BytesIO(content))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(raw))))
    path.write_bytes(raw[:cut])
    try:
        listed = list(members(path))
    except ArchiveError:
        return
    with path.open("rb") as file:
        for member in listed:
            try:
                assert len(read_member(file, member)) == member.size
            except MemberError:
                continue


def test_a_tar_whose_sizes_are_negative_ends(tmp_path):
    info = tarfile.TarInfo("1.jpg")
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\xff" * 8 + struct.pack(">i", -1024)  # base 256, as GNU tar writes large numbers
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    (tmp_path / "x.tar").write_bytes(bytes(head) * 3 + bytes(1024))
    with pytest.raises(ArchiveError, match="no whole tar"):
        list(members(tmp_path / "x.tar"))


def test_listing_a_tar_holds_no_list(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for k in range(3000):
            archive.addfile(tarfile.TarInfo(f"{k}.jpg"))
    tracemalloc.start()
    assert sum(1 for _ in members(path)) == 3000
    assert tracemalloc.get_traced_memory()[1] < 300_000  # tarfile's own list takes 3 MB
    tracemalloc.stop()
    assert archives.LISTS_HELD > 1
