"""The viewer's server: by HTTP over a real socket, a bucket, a process that is interrupted, and what it reads."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import quote, urlencode

import msgspec
import pytest
from samples import make_data_set, make_image, make_image_set, make_sample, stage
from servers_for_transfer import ACCESS, BUCKET, SECRET, s3_client, s3_server

from mimic_wds.looking.viewer import ViewerServer, is_here
from mimic_wds.looking.viewer_data import Viewed
from mimic_wds.storage.browse import Browser, open_browser
from mimic_wds.storage.folder_place import FolderPlace
from mimic_wds.storage.manifest import read_manifest, write_manifest
from mimic_wds.storage.packing import pack


@contextmanager
def serving(viewed):
    """A viewer's server in a thread; yields it."""
    with ViewerServer(viewed) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            viewed.scans.stop_all()
            server.shutdown()
            thread.join()


def ask(server, path, method="GET", headers=None):
    """Status, headers and body of one request, sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.putrequest(method, path, skip_host="Host" in (headers or {}))
    for name, value in (headers or {}).items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def question(server, path, **fields):
    """The JSON that answers."""
    status, _, body = ask(server, f"{path}?{urlencode(fields)}")
    return status, json.loads(body)


def searched(server, **fields):
    """A page once its search has ended."""
    while True:
        status, page = question(server, "/api/page", **fields)
        if status != 200 or page["state"] != "running":
            return status, page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "tiny"
    make_data_set(folder, per_scene=(6, 0, 5))
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with serving(Viewed(open_browser(folder))) as server:
        yield server


def test_pages_list_samples_in_their_order(server, folder):
    browser = open_browser(folder)
    keys = [browser.key(number) for number in range(len(browser))]
    _, first = question(server, "/api/page", limit=4)
    _, last = question(server, "/api/page", offset=8, limit=4)
    assert (first["count"], last["count"], first["state"]) == (11, 11, "done")
    assert [row["key"] for row in first["rows"] + last["rows"]] == keys[:4] + keys[8:]
    row = {"number": 0, "key": keys[0], "shard": "tiny-000000.tar", "source": "video", "scene": "clip0.mp4"}
    assert first["rows"][0] == {**row, "overlap": 0.75}
    assert question(server, "/api/page", offset=500)[1]["rows"] == []


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ({"scene": "clip2*"}, range(6, 11)),
        ({"source": "video"}, range(11)),
        ({"shard": "tiny-000001.tar", "scene": "clip0.mp4"}, None),
        ({"where": "num_inliers >= 40"}, range(6, 11)),
        ({"where": "num_inliers < 43", "scene": "clip2.mp4"}, range(6, 9)),
        ({"least": "0.7", "most": "0.8"}, range(11)),
        ({"least": "0.76"}, []),
        ({"scene": "nowhere"}, []),
    ],
)
def test_filters_give_the_samples_that_pass(server, folder, filters, numbers):
    if numbers is None:
        sizes = [shard.samples for shard in read_manifest(folder).shards]
        numbers = range(sizes[0], min(6, sizes[0] + sizes[1]))
    status, page = searched(server, **filters)
    assert status == 200
    assert ([row["number"] for row in page["rows"]], page["count"]) == (list(numbers), len(numbers))


def test_a_sample_is_told_whole_and_its_members_are_the_bytes_that_are_stored(server, folder):
    browser = open_browser(folder)
    key, members = browser.read(7)
    _, sample = question(server, "/api/sample", key=key)
    assert (sample["number"], sample["members"]) == (7, {name: len(data) for name, data in members.items()})
    assert sample["facts"] == json.loads(members["json"])
    assert sample["corr"] == browser.sample(7).corr_0to1.tolist()
    assert sample["outline1"] == [[15.5, -0.5], [79.5, -0.5], [79.5, 63.5], [15.5, 63.5]]
    assert sample["outline0"][0] == [-16.5, -0.5]
    for name, data in members.items():
        status, headers, body = ask(server, f"/member/7/{name}?download")
        assert (status, body) == (200, data)
        assert headers["Content-Disposition"] == f'attachment; filename="{key}.{name}"'
    assert ask(server, "/member/7/0.jpg")[1]["Content-Type"] == "image/jpeg"
    assert question(server, "/api/sample", key=key, number=3)[1]["number"] == 7, "a wrong hint does no harm"


def test_members_are_not_sent_again_to_who_has_them(folder):
    with serving(Viewed(open_browser(folder))) as server:
        etag = ask(server, "/member/2/1.jpg")[1]["ETag"]
        server.viewed.browser.place = None  # nothing can be read any more
        server.viewed._samples.clear()
        assert ask(server, "/member/2/1.jpg", headers={"If-None-Match": etag})[::2] == (304, b"")


def test_an_unknown_key_is_404_with_keys_that_are_near(server, folder):
    known = open_browser(folder).key(6)
    status, answer = question(server, "/api/sample", key=f"{known[:-1]}9")
    assert (status, answer["near"][0]) == (404, known)
    assert question(server, "/api/sample", key="../../etc/passwd")[0] == 404
    assert question(server, "/api/sample", number=11)[0] == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/assets/view.js", 200),
        ("/assets/view.css", 200),
        ("/sample/anything", 200),  # the page, which asks
        ("/api/data-set", 200),
        ("/assets/../viewer.py", 404),
        ("/assets/%2e%2e/viewer.py", 404),
        ("/../../../../etc/passwd", 404),
        ("//etc/passwd", 404),
        ("/manifest.json", 404),
        ("/tiny-000000.tar", 404),
        ("/member/0/%2e%2e%2fmanifest.json", 404),
        ("/member/0/tiny-000000.tar", 404),
        ("/member/99/0.jpg", 404),
        ("/member/-1/0.jpg", 400),
        ("/member/0x1/0.jpg", 400),
        ("/sample/a/b", 404),
        ("/api/sample", 400),
        ("/api/page?limit=1000", 400),
        ("/api/page?offset=-1", 400),
        ("/api/page?least=2", 400),
        ("/api/page?source=nothing", 400),
        ("/api/page?where=" + quote("__import__('os')"), 400),
        ("/api/page?" + "a=1&" * 40, 400),
        ("/" + "a" * 70_000, 414),
    ],
)
def test_addresses_lead_to_the_data_set_only(server, path, status):
    got, headers, body = ask(server, path)
    assert got == status
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert b"root:" not in body


@pytest.mark.parametrize("path", ["/", "/api/data-set", "/member/0/0.jpg", "/nowhere"])
def test_head_is_get_without_the_body(server, path):
    status, _, body = ask(server, path)
    head = ask(server, path, "HEAD")
    assert (head[0], head[1]["Content-Length"], head[2]) == (status, str(len(body)), b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"])
def test_nothing_but_get_and_head_is_allowed(server, method):
    status, headers, _ = ask(server, "/api/data-set", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "localhost.", "", None])
def test_other_names_of_this_machine_are_refused(server, host):
    assert ask(server, "/api/data-set", headers={"Host": host})[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:9000", "[::1]:80", "127.0.0.1:1"])
def test_this_machine_is_known_by_any_port(host):
    assert is_here(host)


def test_other_sites_cannot_ask_but_links_from_them_work(server):
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert ask(server, "/api/data-set", headers={**cross, "Sec-Fetch-Mode": "no-cors"})[0] == 403
    assert ask(server, "/", headers={**cross, "Sec-Fetch-Mode": "navigate"})[0] == 200


def test_only_this_machine_is_listened_to(server):
    assert server.server_address[0] == "127.0.0.1"


def test_a_browser_that_goes_away_is_no_error(server, capfd):
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, not closed
            connection.sendall(b"GET /member/0/0.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
    with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
        connection.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
        connection.recv(100)
    assert ask(server, "/")[0] == 200
    assert capfd.readouterr().err == ""


def test_images_are_shown_without_what_only_pairs_have(tmp_path):
    make_image_set(tmp_path / "single", [make_image(number) for number in range(5)])
    with serving(Viewed(open_browser(tmp_path / "single"))) as server:
        assert "overlap" not in question(server, "/api/page")[1]["rows"][0]
        assert [row["number"] for row in searched(server, scene="dog")[1]["rows"]] == [1, 3]
        assert question(server, "/api/sample", number=4)[1]["members"].keys() == {"0.jpg", "json"}


def test_an_empty_data_set_has_an_empty_page(tmp_path):
    make_data_set(tmp_path / "none", per_scene=(0,))
    with serving(Viewed(open_browser(tmp_path / "none"))) as server:
        assert question(server, "/api/page") == (200, {**searched(server)[1], "rows": [], "count": 0})
        assert searched(server, scene="a")[1]["rows"] == []
        assert question(server, "/api/sample", number=0)[0] == 404


def test_after_a_shuffle_filters_by_scene_are_searched_not_guessed(tmp_path):
    samples = [make_sample(number, scene=f"clip{number % 2}.mp4") for number in range(8)]
    stage(tmp_path / "staging", 0, samples, "both")
    (tmp_path / "out").mkdir()
    pack(tmp_path / "staging", 1, tmp_path / "out", "mixed", 10**6, {"criteria": {}, "versions": {}, "licences": {}})
    line = {"source": "video", "kept": 4, "dropped": {}, "faults": {}, "views": 5, "error": ""}
    lines = [msgspec.json.encode({**line, "scene": f"clip{n}.mp4"}) for n in range(2)]
    (tmp_path / "out" / "scenes.jsonl").write_bytes(b"\n".join(lines))
    with serving(Viewed(open_browser(tmp_path / "out"))) as server:
        assert [row["number"] for row in searched(server, scene="clip1.mp4")[1]["rows"]] == [1, 3, 5, 7]


def test_damage_is_said_and_the_server_goes_on(tmp_path):
    make_data_set(tmp_path / "tiny")
    shard = tmp_path / "tiny" / "tiny-000000.tar"
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with serving(Viewed(open_browser(tmp_path / "tiny"))) as server:
        status, answer = question(server, "/api/sample", number=0)
        assert (status, "damaged" in answer["error"]) == (500, True)
        assert searched(server, where="overlap > 0")[1]["state"] == "failed"
        shard.unlink()
        assert question(server, "/api/sample", number=0)[0] == 502
        assert question(server, "/api/data-set")[0] == 200


class CountingPlace:
    """A folder whose reads are counted."""

    def __init__(self, folder, gate=None):
        self.place, self.reads, self.gate = FolderPlace(folder), [], gate

    @property
    def url(self):
        return self.place.url

    def read(self, name):
        self.reads.append((name, 0))
        return self.place.read(name)

    def read_with_etag(self, name):
        self.reads.append((name, 0))
        return self.place.read_with_etag(name)

    def read_range(self, name, start, length):
        if self.gate is not None:
            self.gate.acquire()
        self.reads.append((name, length))
        return self.place.read_range(name, start, length)


@pytest.fixture(scope="module")
def million(tmp_path_factory):
    """A data set of 1,000,000 samples: 2,000 shards that are links to one of 500, and as many scenes."""
    folder = tmp_path_factory.mktemp("large") / "big"
    manifest = make_data_set(folder, per_scene=(500,), name="big", max_shard_bytes=10**8)
    (info,) = manifest.shards
    names = [f"big-{number:06d}" for number in range(2000)]
    for name in names[1:]:
        for ending in ("tar", "idx"):
            os.link(folder / f"big-000000.{ending}", folder / f"{name}.{ending}")
    write_manifest(folder, replace(manifest, shards=[replace(info, name=f"{name}.tar") for name in names]))
    line = {"source": "video", "kept": 500, "dropped": {}, "faults": {}, "views": 9, "error": ""}
    scenes = ["clip0.mp4" if number in (700, 1500) else f"other{number}.mp4" for number in range(2000)]
    (folder / "scenes.jsonl").write_bytes(b"\n".join(msgspec.json.encode({**line, "scene": s}) for s in scenes))
    return folder


def test_of_a_million_samples_only_the_page_is_read(million):
    place = CountingPlace(million)
    with serving(Viewed(Browser(place))) as server:
        assert [name for name, _ in place.reads] == ["manifest.json"]
        place.reads.clear()
        assert question(server, "/api/data-set")[1]["samples"] == 1_000_000
        assert place.reads == []
        _, page = question(server, "/api/page", offset=765_432, limit=24)
        assert [row["number"] for row in page["rows"]] == list(range(765_432, 765_456))
        assert len(place.reads) == 25, "an index and 24 samples"
        place.reads.clear()
        assert ask(server, "/member/765440/0.jpg")[0] == 200
        assert place.reads == [], "pictures come with the samples"
        _, page = question(server, "/api/page", scene="clip0.mp4", offset=490, limit=20)
        assert page["count"] == 1000
        assert [row["number"] for row in page["rows"]] == [*range(350_490, 350_500), *range(750_000, 750_010)]
        assert len(place.reads) == 23, "scenes.jsonl, two indexes, 20 samples"
        _, page = question(server, "/api/page", shard="big-001999.tar", offset=499)
        assert [row["number"] for row in page["rows"]] == [999_999]


def test_a_search_shows_how_far_it_is_and_can_be_stopped(million):
    gate = threading.Semaphore(0)
    place = CountingPlace(million, gate)
    with serving(Viewed(Browser(place))) as server:
        filters = {"where": "num_inliers >= 20", "limit": 0}
        _, page = question(server, "/api/page", **filters)
        assert (page["state"], page["total"], page["seen"]) == ("running", 1_000_000, 0)
        gate.release(1200)
        while not page["seen"] >= 1000:
            page = question(server, "/api/page", **filters)[1]
            assert page["count"] <= page["seen"] + 1 <= 1_201
        assert question(server, "/api/stop", where=filters["where"])[1] == {"stopped": True}
        gate.release(500)
        page = question(server, "/api/page", **filters)[1]
        assert page["state"] == "stopped"
        assert len(place.reads) < 2000, "not the other 998,800"
        assert question(server, "/api/page", again=1, **filters)[1]["state"] == "running"
        gate.release(10_000)


def test_a_bucket_is_viewed_without_a_copy(folder, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with s3_server() as endpoint:
        client = s3_client(endpoint)
        client.create_bucket(Bucket=BUCKET)
        for path in folder.iterdir():
            client.upload_file(str(path), BUCKET, f"tiny/{path.name}")
        with serving(Viewed(open_browser(f"s3://{BUCKET}/tiny", endpoint=endpoint))) as server:
            assert question(server, "/api/page", scene="clip2.mp4")[1]["count"] == 5
            assert ask(server, "/member/7/0.jpg")[2] == open_browser(folder).read(7)[1]["0.jpg"]
            assert SECRET.encode() not in ask(server, "/api/data-set")[2]
        client.close()


_RUN = "import sys; from mimic_wds.cli.view import view; sys.exit(view(sys.argv[1], json=sys.argv[2] == 'json'))"


@pytest.mark.parametrize("form", ["json", "line"])
def test_the_program_prints_its_address_and_ends_with_ctrl_c(folder, form):
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    with subprocess.Popen(
        [sys.executable, "-c", _RUN, str(folder), form],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        line = process.stdout.readline()
        url = json.loads(line)["url"] if form == "json" else line.split(" at ")[1].split()[0]
        port = int(url.rpartition(":")[2].strip("/"))
        waiting = socket.create_connection(("127.0.0.1", port))  # a browser keeps its connections
        waiting.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert waiting.recv(12) == b"HTTP/1.1 200"
        process.send_signal(signal.SIGINT)
        try:
            rest, errors = process.communicate(timeout=20)
        finally:
            process.kill()
            waiting.close()
    assert (process.returncode, rest, errors) == (0, "", "")
