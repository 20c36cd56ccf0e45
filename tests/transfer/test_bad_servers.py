"""Servers that answer 503, drop and stall bodies, forbid, change files, send wrong bytes."""

import errno
import os
import re
import resource
import subprocess
import sys

import pytest
from samples import make_sample, stage
from servers_for_transfer import WebServer, files

from mimic_wds.cli.pull import pull
from mimic_wds.storage.files import OutputError
from mimic_wds.storage.packing import pack
from mimic_wds.storage.places import Changed, Patience, open_place, read_manifest_at
from mimic_wds.storage.pulling import pull as pull_data_set
from mimic_wds.storage.transfer import How

SHARD = "tiny-000001.tar"
PATIENCE = Patience(stall_s=0.5, retries=2, give_up_s=20)


def published(folder):
    return {name: data for name, data in files(folder).items() if name != "recipe.toml"}


@pytest.fixture
def place(web):
    return open_place(web.url, patience=PATIENCE)


@pytest.mark.parametrize("faults", [["503", "503"], ["drop", "503", "drop"], ["stall"], ["stall", "drop"]])
def test_passing_trouble_is_not_seen(place, web, tmp_path, faults):
    web.faults = {SHARD: list(faults)}
    pull_data_set(place, tmp_path / "back", How())
    assert files(tmp_path / "back") == published(web.folder)
    assert web.faults[SHARD] == []
    assert len(web.bodies(SHARD)) == len(faults) + 1


def test_a_body_is_resumed_as_long_as_it_gets_on(place, web):
    """Seven drops are more than one request is tried again, but each brings some bytes."""
    web.faults = {SHARD: ["drop"] * 7}
    assert b"".join(place.stream(SHARD)) == (web.folder / SHARD).read_bytes()
    starts = [int(re.findall(r"\d+", span)[0]) for span in web.bodies(SHARD)[1:]]
    assert starts == sorted(set(starts))
    assert starts[0] == 25600 // 3


def test_a_server_that_stays_down(place, web):
    web.faults = {SHARD: ["503"] * 9}
    with pytest.raises(OSError, match=rf"^{web.url}/{SHARD}: the server answered 503, also when asked again$"):
        place.read(SHARD)
    assert len(web.bodies(SHARD)) == 3


def test_every_answer_has_its_error(place, web, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"^{web.url}/nothing.tar: not found \(404\)$"):
        place.read("nothing.tar")
    for status in ("401", "403"):
        web.faults = {SHARD: [status]}
        with pytest.raises(PermissionError, match=rf"{SHARD}: no permission \({status}\)"):
            place.read_range(SHARD, 0, 10)
    (web.folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"no manifest\.json here"):
        read_manifest_at(place)
    with pytest.raises(ValueError, match="no data set here"):
        pull(web.url, tmp_path / "back")


def test_nobody_listens(tmp_path):
    place = open_place("http://127.0.0.1:9/data", patience=Patience(retries=1, give_up_s=2))
    with pytest.raises(OSError, match=r"^http://127.0.0.1:9/data/manifest.json: connection refused$"):
        place.read("manifest.json")


@pytest.mark.parametrize("ranges", [True, False])
def test_ranges_with_and_without_the_server_knowing_them(data_set, ranges):
    data = (data_set / SHARD).read_bytes()
    with WebServer(data_set, ranges) as server:
        place = open_place(server.url, patience=PATIENCE)
        assert place.read_ranges(SHARD, [(512, 100), (25_000, 600)]) == [data[512:612], data[25_000:]]
        assert b"".join(place.stream(SHARD, 20_000)) == data[20_000:]
        with pytest.raises(OSError, match=f"{SHARD}: ends before byte 25601"):
            place.read_range(SHARD, 25_000, 601)


def test_a_file_replaced_while_it_is_read(place, web):
    web.faults = {SHARD: ["drop", "drop", "drop", "other"]}
    with pytest.raises(Changed, match=f"{SHARD}: was replaced while it was read"):
        place.read(SHARD)


def test_names_of_a_web_server_come_from_the_manifest(place, web):
    (web.folder / "tiny-000000.idx").unlink()
    sizes = {name: len(data) for name, data in published(web.folder).items()}
    assert place.names() == sizes


def test_no_name_leads_elsewhere(place, data_set):
    for name in ("../set/manifest.json", "/etc/passwd", "..", "a\\b", ""):
        for where in (place, open_place(data_set)):
            with pytest.raises(ValueError, match="is not the name of a file"):
                where.read(name)


def test_wrong_bytes_are_fetched_again_once(place, web, tmp_path):
    web.faults = {SHARD: ["flip"]}
    pull_data_set(place, tmp_path / "back", How())
    assert files(tmp_path / "back") == published(web.folder)
    assert web.bodies(SHARD) == [None, None]


def test_wrong_bytes_twice_are_named_and_not_kept(place, web, tmp_path):
    web.faults = {SHARD: ["flip"] * 2}
    with pytest.raises(OSError, match=f"{web.url}/{SHARD}: is damaged there: its sha256 is not"):
        pull_data_set(place, tmp_path / "back", How())
    assert not {SHARD, "manifest.json"} & set(files(tmp_path / "back"))
    pull_data_set(place, tmp_path / "back", How())  # the server is well again
    assert files(tmp_path / "back") == published(web.folder)


@pytest.mark.parametrize("change", [lambda data: data + b"more", lambda data: data[:-1]])
def test_a_shard_of_another_length(place, web, tmp_path, change):
    (web.folder / SHARD).write_bytes(change((web.folder / SHARD).read_bytes()))
    with pytest.raises(OSError, match="is damaged there"):
        pull_data_set(place, tmp_path / "back", How())


def test_a_killed_pull_goes_on_inside_the_shard(tmp_path):
    """The partial file of 6 MB is continued by a range; a partial file of other bytes is found by the hash."""
    folder, back = tmp_path / "large", tmp_path / "back"
    stage(tmp_path / "staging", 0, [make_sample(0, image0_jpg=os.urandom(9_000_000))])
    folder.mkdir()
    pack(tmp_path / "staging", 1, folder, "large", 0, {"criteria": {}, "versions": {}, "licences": {"video": ""}})
    data = (folder / "large-000000.tar").read_bytes()
    for start, requests in ((data[:6_000_000], ["bytes=6000000-"]), (bytes(6_000_000), ["bytes=6000000-", None])):
        (back / ".pull").mkdir(parents=True)
        (back / ".pull" / "large-000000.tar.part").write_bytes(start)
        with WebServer(folder) as server:
            pull_data_set(open_place(server.url), back, How())
            assert server.bodies("large-000000.tar") == requests
        assert (back / "large-000000.tar").read_bytes() == data
        for path in back.iterdir():
            path.unlink()
        back.rmdir()


def test_a_disk_without_room_is_seen_before_anything_is_fetched(data_set, tmp_path, monkeypatch):
    usage = os.statvfs(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 1000, "total": usage.f_blocks}))
    with pytest.raises(OutputError, match=r"0\.\d MB are to come, but the disk has 0\.\d MB left") as refused:
        pull(str(data_set), tmp_path / "back")
    assert refused.value.errno == errno.ENOSPC
    assert files(tmp_path / "back") == {}


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_disk_that_fills_up_is_one_clear_error(data_set, tmp_path, verb):
    """The limit on a file's size makes writes fail like a full disk does."""
    code = f"from mimic_wds.cli.{verb} import {verb}; from pathlib import Path; {verb}({{}})"
    arguments = {"push": f"Path({str(data_set)!r}), {str(tmp_path / 'to')!r}",
                 "pull": f"{str(data_set)!r}, Path({str(tmp_path / 'to')!r})"}[verb]  # fmt: skip
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))  # noqa: E731
    run = subprocess.run(
        [sys.executable, "-c", code.format(arguments)], preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert re.search(r"OutputError: .*cannot write tiny-00000\d.tar\S* in .*; free some space", run.stderr), run.stderr
    assert "manifest.json" not in files(tmp_path / "to")
    again = [sys.executable, "-c", code.format(arguments)]
    assert subprocess.run(again, capture_output=True, check=False).returncode == 0
    assert files(tmp_path / "to") == published(data_set)
