"""To the Hub and back: the real client against a fake of the Hub's HTTP API (conftest.py says how far it goes)."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from samples import make_data_set, make_sample, stage

from mimic_wds.cli.cat import cat
from mimic_wds.cli.ls import ls
from mimic_wds.storage import hub as transfers
from mimic_wds.storage.browse import open_browser
from mimic_wds.storage.hub import commits, pull_hub, push_hub
from mimic_wds.storage.hub_place import HubAddress, open_hub, parse_address
from mimic_wds.storage.manifest import read_manifest, write_manifest
from mimic_wds.storage.packing import pack
from mimic_wds.storage.places import Changed
from mimic_wds.storage.transfer import File

#: What the client itself says of the way in which it sends files without Xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


def published(folder):
    """File name -> bytes of what a push takes."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "recipe.toml"}


def add_generation(folder, seed=100):
    """Another scene for a data set, as its next generation."""
    base, staging = read_manifest(folder), folder.parent / f"staging-{seed}"
    scene = f"more{seed}.mp4"
    stage(staging, 0, [make_sample(seed + i, scene=scene) for i in range(4)], scene)
    description = {"criteria": base.criteria, "versions": base.versions, "licences": base.licences}
    return pack(staging, 1, folder, base.name, 30_000, description, base=base)


def test_there_and_back_is_the_same_to_the_byte_in_one_commit(hub, data_set, tmp_path):
    report = push_hub(data_set, f"{hub.url}/train")
    sent = published(data_set)
    assert hub.files() == {f"train/{name}": data for name, data in sent.items()} | {
        ".gitattributes": hub.files()[".gitattributes"]
    }
    assert sorted(report.files) == sorted(sent)
    assert report.files[-1] == "manifest.json"
    assert [message for _, message in hub.history] == ["initial commit", "pairs, generation 0"]
    back = pull_hub(f"{hub.url}/train", tmp_path / "back")
    assert published(tmp_path / "back") == sent
    assert back.bytes == report.bytes - sum(len(data) for name, data in sent.items() if name.endswith(".idx"))


def test_a_second_push_sends_and_commits_nothing(hub, data_set):
    push_hub(data_set, hub.url)
    before = len(hub.log)
    report = push_hub(data_set, hub.url)
    assert (report.files, report.bytes, report.kept) == ([], 0, len(published(data_set)))
    assert len(hub.history) == 2
    assert {method for _, method, _, _, _ in hub.log[before:]} == {"GET"}


def test_a_next_generation_sends_only_what_is_new(hub, data_set, tmp_path):
    push_hub(data_set, hub.url)
    before = len(hub.uploads())
    old = published(data_set)
    assert add_generation(data_set).generation == 1
    report = push_hub(data_set, hub.url)
    assert set(report.files) == {name for name, data in published(data_set).items() if old.get(name) != data}
    assert len(hub.uploads()) - before == sum(name.endswith(".tar") for name in report.files)
    pull_hub(hub.url, tmp_path / "back")
    assert published(tmp_path / "back") == published(data_set)


def test_a_dry_run_names_the_files_and_touches_nothing(hub, data_set, tmp_path):
    report = push_hub(data_set, hub.url, dry_run=True)
    assert (sorted(report.files), report.dry_run) == (sorted(published(data_set)), True)
    assert len(hub.history) == 1
    assert not hub.uploads()
    push_hub(data_set, hub.url)
    assert pull_hub(hub.url, tmp_path / "back", dry_run=True).files
    assert not (tmp_path / "back").exists()


def test_a_commit_by_somebody_else_meanwhile_refuses_ours(hub, data_set):
    def quicker():
        hub.before_commit = lambda: None
        hub.commit(hub.repo, "main", {"other.txt": b"first"}, "quicker")

    hub.before_commit = quicker
    with pytest.raises(Changed, match="somebody else has changed the repository meanwhile"):
        push_hub(data_set, hub.url)
    assert set(hub.files()) == {".gitattributes", "other.txt"}
    sent = len(hub.uploads())
    push_hub(data_set, hub.url)
    assert len(hub.uploads()) == sent, "shards that arrived are not sent again"
    assert set(hub.files()) == {".gitattributes", "other.txt", *published(data_set)}


def test_many_files_go_in_several_commits_the_manifest_in_the_last(hub, data_set, tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "COMMIT_FILES", 4)
    monkeypatch.setattr(commits, "__defaults__", (4,))
    seen, names = [], []
    hub.before_commit = lambda: seen.append({name for name in hub.files() if name[0] != "."})
    push_hub(data_set, hub.url, progress=lambda name, done, total: names.append((name, done, total)))
    assert len(seen) > 2
    assert not any("manifest.json" in files or "README.md" in files for files in seen)
    total = len(published(data_set))
    assert [(done, of) for _, done, of in names] == [(n + 1, total) for n in range(total)]
    pull_hub(hub.url, tmp_path / "back")
    assert published(tmp_path / "back") == published(data_set)


def test_a_push_that_was_cut_between_commits_goes_on(hub, data_set, monkeypatch):
    monkeypatch.setattr(commits, "__defaults__", (4,))
    hub.answers = {("POST", "/commit/"): []}
    hub.before_commit = lambda: hub.answers["POST", "/commit/"].append(500)  # the one after this
    with pytest.raises(OSError, match="the Hub answered 500"):
        push_hub(data_set, hub.url)
    assert "manifest.json" not in hub.files()
    there = {name for name in hub.files() if name[0] != "."}
    assert there
    hub.before_commit = lambda: None
    report = push_hub(data_set, hub.url)
    assert set(report.files) == set(published(data_set)) - there


@pytest.mark.parametrize(("size", "groups"), [(0, [1]), (3, [4]), (4, [4, 1]), (9, [4, 4, 2])])
def test_groups_of_files(size, groups):
    files = [File(f"a-{n:06d}.tar", 1, "") for n in range(size)] + [File("manifest.json", 1, "")]
    made = commits(files, limit=4)
    assert [len(group) for group in made] == groups
    assert made[-1][-1].name == "manifest.json"


def test_a_gitignore_in_the_repository_does_not_leave_out_shards(hub, data_set):
    hub.commit(hub.repo, "main", {".gitignore": b"*.tar\n*.json\n"}, "ignore")
    push_hub(data_set, hub.url)
    assert set(published(data_set)) < set(hub.files())


def test_what_must_not_be_replaced(hub, data_set, tmp_path):
    push_hub(data_set, hub.url)
    make_data_set(tmp_path / "other", per_scene=(2,), name="other")
    with pytest.raises(ValueError, match="holds another data set, 'pairs'"):
        push_hub(tmp_path / "other", hub.url)
    make_data_set(tmp_path / "changed", per_scene=(4, 0, 6), name="pairs")
    with pytest.raises(ValueError, match="a published shard never changes"):
        push_hub(tmp_path / "changed", hub.url, replace=True)
    old = read_manifest(data_set)
    add_generation(data_set)
    push_hub(data_set, hub.url)
    write_manifest(data_set, old)
    with pytest.raises(ValueError, match="generation 1 of this data set, newer than generation 0"):
        push_hub(data_set, hub.url)
    assert len(hub.history) == 3
    push_hub(tmp_path / "other", f"{hub.url}/beside")  # under another folder there is room for it
    assert open_browser(f"{hub.url}/beside").manifest.name == "other"


def test_a_shard_of_another_push_that_is_not_done(hub, data_set):
    hub.commit(hub.repo, "main", {"pairs-000000.tar": b"of somebody else"}, "begun")
    with pytest.raises(ValueError, match=r"has another pairs-000000\.tar, of a push that is not done"):
        push_hub(data_set, hub.url)
    push_hub(data_set, hub.url, replace=True)
    assert hub.files()["pairs-000000.tar"] == (data_set / "pairs-000000.tar").read_bytes()


def test_a_damaged_local_shard_is_never_committed(hub, data_set):
    path = data_set / "pairs-000001.tar"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"pairs-000001\.tar: has the sha256 .* it is damaged"):
        push_hub(data_set, hub.url)
    assert len(hub.history) == 1
    path.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="the manifest says"):
        push_hub(data_set, hub.url)


def test_wrong_bytes_on_the_server_are_found_by_a_pull(hub, data_set, tmp_path):
    push_hub(data_set, hub.url)
    sha256 = read_manifest(data_set).shards[1].sha256
    data = bytearray(hub.stored[sha256])
    data[1000] ^= 1
    hub.stored[sha256] = bytes(data)
    with pytest.raises(OSError, match=r"pairs-000001\.tar: is damaged there"):
        pull_hub(hub.url, tmp_path / "back")
    assert not (tmp_path / "back" / "manifest.json").exists()
    assert not (tmp_path / "back" / "pairs-000001.tar").exists()


def test_a_pull_sees_one_commit_whatever_is_pushed_meanwhile(hub, data_set, tmp_path):
    push_hub(data_set, hub.url)
    place, before = open_hub(hub.url), published(data_set)
    add_generation(data_set)
    push_hub(data_set, hub.url)
    assert place.read("manifest.json") == before["manifest.json"]
    pull_hub(f"{hub.url}@{place.commit}", tmp_path / "old")
    assert published(tmp_path / "old") == before


def test_a_branch_of_its_own(hub, data_set, tmp_path):
    hub.create(hub.repo, "refs/pr/1")
    push_hub(data_set, f"{hub.url}@refs/pr/1/data")
    assert "data/manifest.json" in hub.files(revision="refs/pr/1")
    pull_hub(f"{hub.url}@refs%2Fpr%2F1/data", tmp_path / "back")
    assert published(tmp_path / "back") == published(data_set)


def test_looking_in_reads_no_shards(hub, data_set, tmp_path, capsys):
    push_hub(data_set, hub.url)
    hub.log.clear()
    ls(hub.url, limit=4)
    key = capsys.readouterr().out.split()[3]
    cat(hub.url, key, out=tmp_path / "out")
    assert (tmp_path / "out" / f"{key}.0.jpg").stat().st_size > 1000
    total = sum(shard.bytes for shard in read_manifest(data_set).shards)
    assert sum(size for server, _, _, _, size in hub.log if server == "storage") < total / 2


def test_the_token_goes_to_the_hub_only(hub, data_set, tmp_path):
    hub.private.add(hub.repo)
    push_hub(data_set, hub.url)
    pull_hub(hub.url, tmp_path / "back")
    assert {auth for server, _, _, auth, _ in hub.log if server == "api"} == {f"Bearer {hub.token}"}
    assert {auth for server, _, _, auth, _ in hub.log if server == "storage"} == {None}
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or hub.token.encode() not in path.read_bytes()


def test_trouble_is_told_in_one_line(hub, data_set, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such repository, or it is private: make it with `hf repos create"):
        push_hub(data_set, "hf://datasets/lab/nothing")
    with pytest.raises(FileNotFoundError, match="no such branch, tag or commit"):
        push_hub(data_set, f"{hub.url}@dev")
    with pytest.raises(ValueError, match="no data set here"):
        pull_hub(f"{hub.url}/nowhere", tmp_path / "back")
    hub.read_only = True
    with pytest.raises(PermissionError, match="You don't have the rights"):
        push_hub(data_set, hub.url)
    hub.read_only = False
    hub.answers = {("PUT", "/"): [403]}
    with pytest.raises(PermissionError) as caught:
        push_hub(data_set, hub.url, workers=1)
    assert "signed-secret" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"pip install 'mimic-wds\[hub\]'"):
        push_hub(data_set, hub.url)


def test_no_token_and_a_private_repository(hub, data_set, tmp_path, monkeypatch):
    push_hub(data_set, hub.url)
    monkeypatch.delenv("HF_TOKEN")
    pull_hub(hub.url, tmp_path / "public")
    hub.private.add(hub.repo)
    with pytest.raises(FileNotFoundError, match="private"):
        pull_hub(hub.url, tmp_path / "private")


def test_the_command_shows_no_token_and_finds_hub_and_token_in_the_environment(hub, data_set, tmp_path):
    environment = {**os.environ, "HF_ENDPOINT": hub.api.url, "HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HOME": str(tmp_path), "HF_HUB_VERBOSITY": "info"}
    command = [sys.executable, "-m", "mimic_wds.cli.main"]
    there, back = ["push", str(data_set), hub.url], ["pull", hub.url, str(tmp_path / "back")]
    for args, code in ((there, 0), (back, 0), (["push", str(data_set), f"{hub.url}@none"], 1)):
        done = subprocess.run([*command, *args], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert hub.token not in done.stdout + done.stderr
        assert "signed-secret" not in done.stdout + done.stderr
    assert published(tmp_path / "back") == published(data_set)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("hf://datasets/a/b", HubAddress("a/b", "main", "")),
        ("hf://datasets/a/b/", HubAddress("a/b", "main", "")),
        ("hf://datasets/a/b@v1/x/y", HubAddress("a/b", "v1", "x/y")),
        ("hf://datasets/a/b@refs/pr/3", HubAddress("a/b", "refs/pr/3", "")),
        ("hf://datasets/a/b@feature%2Fnew/x", HubAddress("a/b", "feature/new", "x")),
    ],
)
def test_addresses(url, address):
    assert parse_address(url) == address
    assert parse_address(address.url.replace("feature/", "feature%2F")) == address


@pytest.mark.parametrize(
    "url",
    [
        "hf://a/b",
        "hf://datasets/a",
        "hf://models/a/b",
        "hf://datasets/a/b/../c",
        "hf://datasets/a/b/x//y",
        "hf://datasets/ä/b",
    ],
)
def test_addresses_that_cannot_be_meant(url):
    with pytest.raises(ValueError, match="hf://"):
        parse_address(url)


def test_manifests_with_other_words_need_replace(hub, data_set):
    push_hub(data_set, hub.url)
    write_manifest(data_set, replace(read_manifest(data_set), licences={"video": "CC BY 4.0"}))
    with pytest.raises(ValueError, match="described otherwise"):
        push_hub(data_set, hub.url)
    assert push_hub(data_set, hub.url, replace=True).files == ["manifest.json"]
