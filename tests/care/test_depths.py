"""What each depth of `verify` sees: of one fault the cheapest look that can see it, and all the deeper ones."""

import json
import shutil
from pathlib import Path

import pytest
from samples import make_data_set, make_image, make_image_set, make_sample, stage
from servers_for_transfer import ACCESS, BUCKET, SECRET, s3_client, s3_server

from mimic_wds.cli.main import run
from mimic_wds.storage.index import Index, index_path, read_index, write_index
from mimic_wds.storage.layout import STAGING_NAME
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.packing import pack
from mimic_wds.storage.places import open_place, open_target
from mimic_wds.storage.pushing import push
from mimic_wds.storage.transfer import How
from mimic_wds.storage.verify import unfinished, verify

DEPTHS = ("fast", "default", "deep")


@pytest.fixture
def tiny(tmp_path) -> Path:
    make_data_set(tmp_path / "tiny")
    return tmp_path / "tiny"


def kinds(where, depth, **options) -> set[str]:
    return {problem.kind for problem in verify(where, depth=depth, **options)}


def first_shard(folder: Path) -> Path:
    return folder / read_manifest(folder).shards[0].name


def edit_manifest(folder: Path, change) -> None:
    plain = json.loads((folder / "manifest.json").read_text())
    change(plain)
    (folder / "manifest.json").write_text(json.dumps(plain))


def cut(folder):
    path = first_shard(folder)
    path.write_bytes(path.read_bytes()[:-512])


def flip_in_picture(folder):
    path = first_shard(folder)
    data = bytearray(path.read_bytes())
    data[read_index(index_path(path)).ranges(0)[0][0] + 200] ^= 1
    path.write_bytes(data)


def flip_in_header(folder):
    path = first_shard(folder)
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


def swap_indexes(folder):
    shards = [folder / info.name for info in read_manifest(folder).shards]
    first, last = index_path(shards[0]).read_bytes(), index_path(shards[-1]).read_bytes()
    index_path(shards[0]).write_bytes(last)
    index_path(shards[-1]).write_bytes(first)


def shift_index(folder):
    """An index of the right size that tells two members apart wrongly."""
    path = first_shard(folder)
    spans = read_index(index_path(path)).spans.copy()
    spans[0, 0, 1] -= 1
    write_index(index_path(path), Index(spans))


def lose_lines(folder):
    (folder / "scenes.jsonl").unlink()


def edit_lines(folder):
    path = folder / "scenes.jsonl"
    path.write_text(path.read_text().replace('"kept":3', '"kept":2'))


def edit_histogram(folder):
    edit_manifest(folder, lambda plain: plain["overlap_histogram"]["counts"].reverse())


def edit_id(folder):
    edit_manifest(folder, lambda plain: plain.update(id="0" * 16))


@pytest.mark.parametrize(
    ("damage", "kind", "seen_by"),
    [
        (cut, "bytes", DEPTHS),
        (swap_indexes, "index", DEPTHS),
        (edit_id, "manifest", DEPTHS),
        (flip_in_picture, "sha256", DEPTHS[1:]),
        (flip_in_header, "structure", DEPTHS[1:]),
        (shift_index, "index", DEPTHS[1:]),
        (lose_lines, "missing", DEPTHS[1:]),
        (edit_lines, "scenes", DEPTHS[1:]),
        (edit_histogram, "manifest", DEPTHS[1:]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("depth", DEPTHS)
def test_each_fault_is_seen_from_its_depth_on(tiny, depth, damage, kind, seen_by):
    assert kinds(tiny, depth) == set()
    damage(tiny)
    found = kinds(tiny, depth)
    assert (kind in found) == (depth in seen_by)
    assert depth in seen_by or not found


def test_the_number_of_workers_changes_nothing(tiny):
    for damage in (flip_in_picture, swap_indexes, edit_lines):
        damage(tiny)
    assert list(verify(tiny, workers=1)) == list(verify(tiny, workers=3)) != []


def test_images_and_their_counts(tmp_path):
    make_image_set(tmp_path / "images", [make_image(n) for n in range(5)])
    for depth in DEPTHS:
        assert kinds(tmp_path / "images", depth) == set()
    flip_in_header(tmp_path / "images")
    assert "structure" in kinds(tmp_path / "images", "default")


def test_a_key_in_two_shards_is_named_with_both(tmp_path):
    """Two data sets with one sample in common, joined by hand."""
    for number, name in enumerate(("a", "b")):
        stage(tmp_path / name, 0, [make_sample(5 * number), make_sample(2)])
    out = tmp_path / "twice"
    out.mkdir()
    description = {"criteria": {}, "versions": {}, "licences": {}}
    first = pack(tmp_path / "a", 1, out, "twice", 10**6, description)
    pack(tmp_path / "b", 1, tmp_path / "b", "twice", 10**6, description)
    shutil.move(tmp_path / "b" / "twice-000000.tar", out / "twice-000001.tar")
    shutil.move(tmp_path / "b" / "twice-000000.idx", out / "twice-000001.idx")
    other = {**json.loads((tmp_path / "b" / "manifest.json").read_text())["shards"][0], "name": "twice-000001.tar"}
    edit_manifest(out, lambda plain: plain["shards"].append(other))
    (problem,) = [p for p in verify(out, depth="default") if p.kind == "key"]
    assert (problem.shard, problem.key) == ("twice-000001.tar", make_sample(2).key)
    assert "also in twice-000000.tar" in problem.message
    assert first.num_samples == 2


def test_what_an_unfinished_run_has_left_is_said_and_no_problem(tiny):
    (tiny / STAGING_NAME).mkdir()
    (tiny / "tiny-000007.tar").write_bytes(b"of the next generation")
    assert list(verify(tiny)) == []
    assert str(tiny / STAGING_NAME) in unfinished(tiny)
    shutil.rmtree(tiny / STAGING_NAME)
    assert unfinished(tiny) == ""
    assert kinds(tiny, "fast") == {"extra"}


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_bucket_is_verified_like_a_folder(tiny, monkeypatch, depth):
    with s3_server() as endpoint:
        for name, value in (("ACCESS_KEY_ID", ACCESS), ("SECRET_ACCESS_KEY", SECRET), ("ENDPOINT_URL", endpoint)):
            monkeypatch.setenv(f"AWS_{name}", value)
        s3_client(endpoint).create_bucket(Bucket=BUCKET)
        url = f"s3://{BUCKET}/tiny"
        push(tiny, open_target(url), How())
        assert list(verify(open_place(url), depth=depth, workers=2)) == []
        flip_in_picture(tiny)
        name = first_shard(tiny).name
        s3_client(endpoint).put_object(Bucket=BUCKET, Key=f"tiny/{name}", Body=(tiny / name).read_bytes())
        assert ("sha256" in kinds(open_place(url), depth)) == (depth != "fast")
        s3_client(endpoint).delete_object(Bucket=BUCKET, Key=f"tiny/{name}")
        assert kinds(open_place(url), depth) >= {"missing"}


def test_the_answer_as_json(tiny, capsys):
    assert run(["verify", str(tiny), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "where": str(tiny),
        "depth": "default",
        "shards": 3,
        "samples": 7,
        "problems": [],
        "unfinished": "",
    }
    flip_in_picture(tiny)
    assert run(["verify", str(tiny), "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["shard"], problem["kind"]) == ("tiny-000000.tar", "sha256")
