"""Push and pull: the same bytes on the other side, and only what was missing there."""

import hashlib
import json
import shutil

import pytest
from servers_for_transfer import BUCKET, WebServer, files, objects

from mimic_wds.cli.pull import pull
from mimic_wds.cli.push import push
from mimic_wds.storage.manifest import read_manifest

STAYS = {"recipe.toml"}


def published(folder):
    """The files of a data set that travel."""
    return {name: data for name, data in files(folder).items() if name not in STAYS}


def copied(capsys):
    """What the last command with --json says it copied."""
    return json.loads(capsys.readouterr().out)["files"]


def test_a_bucket_and_back_is_the_same_to_the_byte(data_set, s3, prefix, tmp_path):
    assert push(data_set, f"s3://{BUCKET}/{prefix}") == 0
    assert objects(s3, prefix) == published(data_set)
    assert pull(f"s3://{BUCKET}/{prefix}", tmp_path / "back") == 0
    assert files(tmp_path / "back") == published(data_set)
    assert not (tmp_path / "back" / ".pull").exists()


def test_each_file_keeps_its_hash_in_the_bucket(data_set, s3, prefix):
    push(data_set, f"s3://{BUCKET}/{prefix}")
    for shard in read_manifest(data_set).shards:
        head = s3.head_object(Bucket=BUCKET, Key=f"{prefix}/{shard.name}")
        assert head["Metadata"]["sha256"] == shard.sha256


def test_folders_are_places_too(data_set, tmp_path):
    push(data_set, str(tmp_path / "a"))
    pull(str(tmp_path / "a"), tmp_path / "b")
    pull(f"file://{tmp_path / 'b'}", tmp_path / "c")
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c") == published(data_set)


@pytest.mark.parametrize("ranges", [True, False])
def test_pull_from_a_web_server(data_set, tmp_path, ranges):
    with WebServer(data_set, ranges) as server:
        pull(server.url + "/", tmp_path / "back")
    assert files(tmp_path / "back") == published(data_set)


def test_a_web_server_is_not_pushed_to(data_set, web):
    with pytest.raises(ValueError, match="can only be read"):
        push(data_set, web.url)


def test_the_second_generation_copies_only_what_is_new(data_set, second, s3, prefix, tmp_path, capsys):
    url, back = f"s3://{BUCKET}/{prefix}", tmp_path / "back"
    push(data_set, url)
    pull(url, back)
    capsys.readouterr()
    before = {item["Key"]: item["LastModified"] for item in _listed(s3, prefix)}
    push(second, url, json=True)
    new = ["tiny-000002.tar", "tiny-000002.idx", "tiny-000003.tar", "tiny-000003.idx"]
    assert copied(capsys) == [*new, "scenes-000001.jsonl", "README.md", "manifest.json"]
    assert objects(s3, prefix) == published(second)
    after = {item["Key"]: item["LastModified"] for item in _listed(s3, prefix)}
    assert after[f"{prefix}/tiny-000000.tar"] == before[f"{prefix}/tiny-000000.tar"]
    pull(url, back, json=True)
    assert copied(capsys) == ["tiny-000002.tar", "tiny-000003.tar", "scenes-000001.jsonl", "README.md", "manifest.json"]
    assert files(back) == published(second)


def _listed(s3, prefix):
    return s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]


def test_a_second_pull_asks_for_no_shard(data_set, web, tmp_path):
    pull(web.url, tmp_path / "back")
    web.log.clear()
    pull(web.url, tmp_path / "back")
    assert not [path for _, path, _, _ in web.log if path.endswith((".tar", ".idx"))]


def test_nothing_is_copied_twice(data_set, s3, prefix, tmp_path, capsys):
    url = f"s3://{BUCKET}/{prefix}"
    push(data_set, url)
    pull(url, tmp_path / "back")
    capsys.readouterr()
    push(data_set, url, json=True)
    assert copied(capsys) == []
    pull(url, tmp_path / "back", json=True)
    assert copied(capsys) == []


def test_shards_copied_by_other_tools_are_known_by_their_hash_only(data_set, s3, prefix, tmp_path, capsys):
    """Without a manifest or a noted hash, a remote file is sent again; a local one is hashed."""
    shard = "tiny-000000.tar"
    s3.upload_file(str(data_set / shard), BUCKET, f"{prefix}/{shard}")
    push(data_set, f"s3://{BUCKET}/{prefix}", json=True)
    assert shard in copied(capsys)
    (tmp_path / "to").mkdir()
    shutil.copy(data_set / shard, tmp_path / "to")
    push(data_set, str(tmp_path / "to"), json=True)
    assert shard not in copied(capsys)


def test_lost_files_are_sent_again_and_lost_indexes_made_again(data_set, s3, prefix, tmp_path, capsys):
    url, back = f"s3://{BUCKET}/{prefix}", tmp_path / "back"
    push(data_set, url)
    pull(url, back)
    s3.delete_object(Bucket=BUCKET, Key=f"{prefix}/tiny-000001.tar")
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/tiny-000000.idx", Body=b"short")
    (back / "tiny-000000.idx").unlink()
    (back / "tiny-000001.idx").write_bytes(b"short")
    (back / "tiny-000001.tar").write_bytes(b"short")
    capsys.readouterr()
    push(data_set, url, json=True)
    assert copied(capsys) == ["tiny-000000.idx", "tiny-000001.tar"]
    pull(url, back, json=True)
    assert copied(capsys) == ["tiny-000001.tar"]
    assert objects(s3, prefix) == files(back) == published(data_set)


def test_check_finds_changed_bytes_of_the_same_size(data_set, s3, prefix, tmp_path, capsys):
    url, back, shard = f"s3://{BUCKET}/{prefix}", tmp_path / "back", "tiny-000001.tar"
    push(data_set, url)
    pull(url, back)
    wrong = bytearray((data_set / shard).read_bytes())
    wrong[5000] ^= 1
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{shard}", Body=bytes(wrong))
    (back / shard).write_bytes(wrong)
    capsys.readouterr()
    push(data_set, url, check=True, json=True)
    assert copied(capsys) == [shard]
    pull(url, back, check=True, json=True)
    assert copied(capsys) == [shard]
    assert objects(s3, prefix) == files(back) == published(data_set)


def test_a_dry_run_writes_nothing(data_set, s3, prefix, tmp_path, capsys):
    url = f"s3://{BUCKET}/{prefix}"
    push(data_set, url, dry_run=True)
    said = capsys.readouterr().out
    size = sum(map(len, published(data_set).values()))
    assert f"would copy 7 file(s), {size / 1e6:.1f} MB" in said
    assert "tiny-000001.idx" in said
    assert objects(s3, prefix) == {}
    push(data_set, str(tmp_path / "to"), dry_run=True)
    push(data_set, url)
    pull(url, tmp_path / "back", dry_run=True)
    assert not (tmp_path / "to").exists()
    assert not (tmp_path / "back").exists()


def test_large_files_go_in_parts(s3, prefix, tmp_path):
    from mimic_wds.storage.places import open_target

    data = bytes(range(256)) * 80_000  # 20 MB: three parts
    (tmp_path / "large").write_bytes(data)
    place = open_target(f"s3://{BUCKET}/{prefix}")
    place.put_file("large", tmp_path / "large", hashlib.sha256(data).hexdigest())
    head = s3.head_object(Bucket=BUCKET, Key=f"{prefix}/large")
    assert head["ETag"].strip('"').endswith("-3")
    assert b"".join(place.stream("large")) == place.read("large") == data
    assert b"".join(place.stream("large", 12_345_678)) == data[12_345_678:]
    assert place.read_ranges("large", [(5, 3), (19_999_999, 2), (7, 0)]) == [
        data[5:8],
        data[19_999_999:20_000_001],
        b"",
    ]
    with pytest.raises(ValueError, match="has the sha256"):
        place.put_file("wrong", tmp_path / "large", "0" * 64)
    assert place.size("wrong") is None
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET)
