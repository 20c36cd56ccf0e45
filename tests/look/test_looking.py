"""Looking into data sets at a distance: what comes back is right, and little is read for it."""

import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace

import cv2
import msgspec
import numpy as np
import pytest
from samples import CRITERIA, make_data_set, make_image, make_image_set, make_sample, stage
from servers_for_transfer import ACCESS, BUCKET, SECRET, WebServer, s3_client, s3_server

from mimic_wds.cli.cat import cat
from mimic_wds.cli.info import info
from mimic_wds.cli.ls import ls
from mimic_wds.cli.merge import merge
from mimic_wds.cli.reshard import reshard
from mimic_wds.cli.show import show
from mimic_wds.storage import maps
from mimic_wds.storage.browse import open_browser
from mimic_wds.storage.layout import index_name
from mimic_wds.storage.manifest import encode_manifest, read_manifest, write_manifest
from mimic_wds.storage.packing import pack
from mimic_wds.storage.reader import open_shards
from mimic_wds.storage.tar import BLOCK, header


def contents(folder):
    """Key -> members by the reader of local shards, in the order of the samples."""
    found = {}
    for shard in open_shards(folder, read_manifest(folder)):
        with shard:
            found.update((shard.key(i), shard.read(i)) for i in range(len(shard)))
    return found


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """20 scenes of 5 pairs in more than 20 shards."""
    folder = tmp_path_factory.mktemp("wide") / "wide"
    assert len(make_data_set(folder, per_scene=(5,) * 20, name="wide").shards) >= 20
    return folder


def spans(server, suffix):
    """Bytes of each answer about files with this ending; whole files count in full."""
    sizes = []
    for method, name, span, _ in server.log:
        if method == "GET" and name.endswith(suffix):
            start, end = map(int, re.findall(r"\d+", span)) if span else (0, (server.folder / name).stat().st_size - 1)
            sizes.append(end - start + 1)
    return sizes


def test_a_sample_by_key_is_one_index_a_few_headers_and_the_sample(wide, tmp_path, capsys):
    truth = contents(wide)
    key = list(truth)[63]
    with WebServer(wide) as server:
        assert cat(server.url, key, out=tmp_path) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        f"{key}.{member}": data for member, data in truth[key].items()
    }
    browser = open_browser(wide)
    shard, i = browser.locate(63)
    start, end = browser.index(shard).sample_range(i)
    *headers, sample = spans(server, ".tar")
    assert sample == end - start
    assert set(headers) == {BLOCK}
    assert len(headers) <= 3, "a scene of five is halved at most three times"
    assert len(spans(server, ".idx")) <= 2, "those of the scene's shards, each once"
    assert f"wide-{shard:06d}.tar[{i}], number 63" in capsys.readouterr().out


def test_what_cat_wrote_is_told_to_machines(wide, tmp_path, capsys):
    assert cat(str(wide), "63", out=tmp_path, json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(told["files"]) == sorted(str(path) for path in tmp_path.iterdir())
    assert (told["key"], told["number"]) == (list(contents(wide))[63], 63)


def test_a_sample_by_number_needs_no_header_at_all(wide, tmp_path):
    with WebServer(wide) as server:
        cat(server.url, "63", out=tmp_path)
    assert len(spans(server, ".tar")) == len(spans(server, ".idx")) == 1
    assert not spans(server, ".jsonl")


def test_listing_keys_reads_headers_only_and_no_more_than_are_asked_for(wide, capsys):
    with WebServer(wide) as server:
        ls(server.url)
    assert capsys.readouterr().out.split() == list(contents(wide))
    assert spans(server, ".tar") == [BLOCK] * 100
    with WebServer(wide) as server:
        ls(server.url, limit=2)
    assert capsys.readouterr().out.split() == list(contents(wide))[:2]
    assert len(spans(server, ".idx")) == 1


def test_conditions_read_the_json_only(wide, capsys):
    with WebServer(wide) as server:
        ls(server.url, where="num_inliers >= 60 and num_inliers < 70", scene="clip[34].*", json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    truth = {key: json.loads(members["json"]) for key, members in contents(wide).items()}
    expected = [key for key, facts in truth.items() if facts["scene"] == "clip4.mp4"]
    assert [line["key"] for line in lines] == expected
    assert len(expected) == 5
    assert [line["number"] for line in lines] == [list(truth).index(key) for key in expected]
    assert lines[0] == {
        "key": expected[0],
        "shard": lines[0]["shard"],
        "number": 20,
        "source": "video",
        "scene": "clip4.mp4",
        "overlap": 0.75,
    }
    assert sum(spans(server, ".tar")) == sum(BLOCK + len(members["json"]) for members in contents(wide).values())


def test_one_shard_and_one_source(wide, tmp_path, capsys):
    shard = read_manifest(wide).shards[3]
    ls(str(wide), shard=shard.name)
    assert len(capsys.readouterr().out.split()) == shard.samples
    ls(str(wide), source="video", limit=7)
    assert len(capsys.readouterr().out.split()) == 7
    with pytest.raises(ValueError, match="nothing is of 'movie'; there are video"):
        ls(str(wide), source="movie")
    with pytest.raises(ValueError, match=r"has no 'x\.tar'"):
        ls(str(wide), shard="x.tar")
    with pytest.raises(ValueError, match="unknown field 'overlp'"):
        ls(str(wide), where="overlp > 1")


@pytest.mark.parametrize("made", ["as built", "shuffled", "by key", "merged", "later generation", "no scenes.jsonl"])
def test_every_key_is_found_in_data_sets_however_they_were_made(made, tmp_path):
    folder = tmp_path / "one"
    make_data_set(folder, per_scene=(3, 0, 4, 2), name="one")
    if made == "merged":  # scenes that both have stand once in scenes.jsonl, at the place of the second
        other = tmp_path / "other"
        for number, scene in enumerate(("clip2.mp4", "clip9.mp4")):
            stage(tmp_path / "stage", number, [make_sample(50 + number, scene=scene)], scene)
        description = {"criteria": CRITERIA, "versions": {"opencv": cv2.__version__}, "licences": {"video": "CC0"}}
        other.mkdir()
        pack(tmp_path / "stage", 2, other, "other", 10**6, description)
        merge(folder, (other,), out=tmp_path / "new")
        folder = tmp_path / "new"
    elif made == "later generation":
        for number, scene in enumerate(("clip7.mp4", "clip8.mp4")):
            stage(tmp_path / "stage", number, [make_sample(60 + 10 * number + i, scene=scene) for i in (0, 1)], scene)
        description = {"criteria": CRITERIA, "versions": {"opencv": cv2.__version__}, "licences": {"video": "CC0"}}
        base = read_manifest(folder)
        assert pack(tmp_path / "stage", 2, folder, "one", 30_000, description, base=base).generation == 1
    elif made == "no scenes.jsonl":
        (folder / "scenes.jsonl").unlink()
    elif made != "as built":
        reshard(folder, out=tmp_path / "new", order="shuffle" if made == "shuffled" else "key")
        folder = tmp_path / "new"
    browser = open_browser(folder)
    for number, (key, members) in enumerate(contents(folder).items()):
        assert browser.find(key) == number
        assert browser.read(number) == (key, members)
        assert browser.sample(number).key == key
    missing = key[:-1] + "x"
    with pytest.raises(ValueError, match=f"no pair has the key '{missing}'; near are .*{key}"):
        browser.find(missing)


def test_an_unknown_key_gets_one_message_with_keys_that_are_near(wide, tmp_path):
    keys = list(contents(wide))
    with pytest.raises(ValueError, match="no pair has the key") as caught:
        cat(str(wide), keys[7].replace("000012", "000099"), out=tmp_path)
    message = str(caught.value)
    assert keys[7] in message
    assert len(message.splitlines()) == 1
    with WebServer(wide) as server, pytest.raises(ValueError, match="near are video_clip"):
        cat(server.url, keys[7].replace("clip1-", "clip1x-"), out=tmp_path)
    assert sum(spans(server, ".tar")) <= 3 * BLOCK, "that no scene is called so needs no search"
    for bad in ("../x", "none", "", "a_b_c_../../x", "A_B_C_D"):
        with pytest.raises(ValueError, match="not formed like one"):
            cat(str(wide), bad, out=tmp_path)
    for number in ("100", "99999999999999999999"):
        with pytest.raises(ValueError, match="numbered 0 to 99"):
            cat(str(wide), number, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("evil", ["../../evil", "/tmp/evil", "a_b_c_..", "video_x_1_2\n"])
def test_names_in_a_hostile_tar_lead_nowhere(evil, tmp_path, capsys):
    folder, out = tmp_path / "data" / "set", tmp_path / "in" / "out"
    make_data_set(folder, per_scene=(1,))
    tar = folder / "tiny-000000.tar"
    data = bytearray(tar.read_bytes())
    for offset, length in open_browser(folder).index(0).ranges(0):
        member = bytes(data[offset - BLOCK : offset - BLOCK + 100]).rstrip(b"\0").decode().partition(".")[2]
        data[offset - BLOCK : offset] = header(f"{evil}.{member}", length)
    tar.write_bytes(data)
    before = sorted(tmp_path.rglob("*"))
    for call in (lambda: cat(str(folder), "0", out=out), lambda: ls(str(folder)), lambda: ls(str(folder), json=True)):
        with pytest.raises(ValueError, match="sample 0 is not where its index says"):
            call()
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] in ([], [tmp_path / "in", out])


def test_an_index_that_lies_is_refused_before_anything_is_read(tmp_path):
    make_data_set(tmp_path / "set")
    path = tmp_path / "set" / "tiny-000000.idx"
    good = np.load(path)
    for place, value in (((0, 0, 0), 0), ((0, 0, 1), 2**40), ((1, 2, 1), -5), ((0, 1, 0), -(2**60))):
        bad = good.copy()
        bad[place] = value
        with path.open("wb") as file:
            np.save(file, bad)
        with pytest.raises(ValueError, match=r"tiny-000000\.idx: (damaged|is not the index)"):
            open_browser(tmp_path / "set").read(0)
    with path.open("wb") as file:
        np.save(file, good[:-1])
    with pytest.raises(ValueError, match=r"is not the index of tiny-000000\.tar: it has"):
        open_browser(tmp_path / "set").key(0)
    path.unlink()
    with pytest.raises(ValueError, match="index is missing"):
        open_browser(tmp_path / "set").key(0)


def test_other_bytes_than_the_index_describes_are_noticed(tmp_path):
    make_data_set(tmp_path / "set")
    tar = tmp_path / "set" / "tiny-000000.tar"
    data = bytearray(tar.read_bytes())
    second = open_browser(tmp_path / "set").index(0).ranges(0)[1][0] - BLOCK
    data[second : second + 5] = b"other"
    tar.write_bytes(data)
    with pytest.raises(ValueError, match="sample 0 is not where its index says"):
        open_browser(tmp_path / "set").read(0)


def test_single_images(tmp_path, capsys):
    folder = tmp_path / "set"
    make_image_set(folder, [make_image(number) for number in range(12)])
    truth = contents(folder)
    with WebServer(
        folder
    ) as server:  # as imported: scenes.jsonl has a line of the unit of work, not of "cat" and "dog"
        ls(server.url, scene="dog", json=True)
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["number"] for line in lines] == list(range(1, 12, 2))
        assert "overlap" not in lines[0]
        for key in truth:
            cat(server.url, key, out=tmp_path / "out")
        assert show(server.url, out=tmp_path / "p.png", key=key) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{k}.{m}" for k in truth for m in ("0.jpg", "json")
    }
    with pytest.raises(ValueError, match=r"an image has no '1\.jpg'; it has 0\.jpg, json"):
        cat(str(folder), "0", member="1.jpg")


def test_maps_come_with_the_sample_and_a_member_goes_to_stdout_alone(tmp_path, capfdbinary):
    depth = {f"{v}.depth.png": maps.encode_depth(np.full((64, 64), v + 1, np.float32)) for v in (0, 1)}
    stage(tmp_path / "stage", 0, [replace(make_sample(n), maps=depth) for n in range(3)])
    (tmp_path / "set").mkdir()
    description = {"criteria": CRITERIA, "versions": {}, "licences": {"video": "CC0"}, "maps": ["depth"]}
    pack(tmp_path / "stage", 1, tmp_path / "set", "tiny", 10**6, description)
    cat(str(tmp_path / "set"), "1", out=tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 6
    capfdbinary.readouterr()
    for member in ("1.depth.png", "json", "0.jpg"):
        cat(str(tmp_path / "set"), make_sample(1).key, member=member)
        assert capfdbinary.readouterr().out == (tmp_path / "out" / f"{make_sample(1).key}.{member}").read_bytes()


def test_info_and_show_at_a_distance(wide, tmp_path, capsys):
    with WebServer(wide) as server:
        info(server.url, json=True)
        assert capsys.readouterr().out.encode() == encode_manifest(read_manifest(wide)) + b"\n"
        assert [name for _, name, _, _ in server.log] == ["manifest.json"]
        show(server.url, out=tmp_path / "far.png", num=3, seed=5)
    show(str(wide), out=tmp_path / "near.png", num=3, seed=5)
    assert (tmp_path / "far.png").read_bytes() == (tmp_path / "near.png").read_bytes()
    assert sum(spans(server, ".tar")) < 0.05 * sum(shard.bytes for shard in read_manifest(wide).shards)


def test_in_a_bucket(wide, tmp_path, monkeypatch, capsys):
    with s3_server() as endpoint:
        client = s3_client(endpoint)
        client.create_bucket(Bucket=BUCKET)
        for path in itertools.chain(*map(wide.glob, ("manifest.json", "scenes.jsonl", "*.idx", "*.tar"))):
            client.put_object(Bucket=BUCKET, Key=f"wide/{path.name}", Body=path.read_bytes())
        for name, value in {"ACCESS_KEY_ID": ACCESS, "SECRET_ACCESS_KEY": SECRET, "REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        where = f"s3://{BUCKET}/wide"
        ls(where, endpoint=endpoint, where="key < 'video_clip1-mp4-zzz'", limit=3)
        keys = capsys.readouterr().out.split()
        cat(where, keys[2], out=tmp_path, endpoint=endpoint)
    assert sorted(path.name.partition(".")[2] for path in tmp_path.iterdir()) == ["0.jpg", "1.jpg", "corr.npy", "json"]
    truth = contents(wide)
    assert keys == [key for key in truth if key < "video_clip1-mp4-zzz"][:3]
    assert (tmp_path / f"{keys[2]}.0.jpg").read_bytes() == truth[keys[2]]["0.jpg"]


def test_a_reader_that_has_seen_enough_ends_the_list_quietly(tmp_path):
    make_data_set(tmp_path / "set", per_scene=(3,))
    code = f"from mimic_wds.cli.ls import ls\nfor _ in range(3000): ls({str(tmp_path / 'set')!r}, json=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        first = process.stdout.readline()
        process.stdout.close()
        message = process.stderr.read()
    assert json.loads(first)["number"] == 0
    assert (process.returncode, message) == (0, b"")


def test_a_sample_with_json_that_is_none_is_named(tmp_path):
    make_data_set(tmp_path / "set")
    tar, browser = tmp_path / "set" / "tiny-000000.tar", open_browser(tmp_path / "set")
    offset, length = browser.index(0).ranges(1)[3]
    data = bytearray(tar.read_bytes())
    data[offset : offset + length] = b"[" * length
    tar.write_bytes(data)
    with pytest.raises(ValueError, match=f"tiny-000000.tar: {browser.key(1)}.json: "):
        ls(str(tmp_path / "set"), json=True)


def test_manifests_and_indexes_disagree(tmp_path):
    manifest = make_data_set(tmp_path / "set")
    shards = [replace(manifest.shards[0], bytes=manifest.shards[0].bytes + 512), *manifest.shards[1:]]
    write_manifest(tmp_path / "set", replace(manifest, shards=shards))
    with pytest.raises(ValueError, match=f"{index_name(shards[0].name)}: is not the index of"):
        open_browser(tmp_path / "set").read(0)
    assert msgspec.json.decode((tmp_path / "set" / "manifest.json").read_bytes())["name"] == "tiny"
