"""What push and pull refuse: damaged data, other data sets, older generations, races that were lost."""

import shutil
import threading
from dataclasses import replace

import msgspec
import pytest
from samples import make_data_set
from servers_for_transfer import BUCKET, files, objects

from mimic_wds.cli.pull import pull
from mimic_wds.cli.push import push
from mimic_wds.storage.claim import Claim, lay_claim
from mimic_wds.storage.layout import CLAIM_NAME
from mimic_wds.storage.manifest import read_manifest, write_manifest
from mimic_wds.storage.places import Changed, open_target
from mimic_wds.storage.pulling import pull as pull_data_set
from mimic_wds.storage.pushing import push as push_data_set
from mimic_wds.storage.transfer import How


@pytest.fixture
def url(s3, prefix):
    return f"s3://{BUCKET}/{prefix}"


def flip(path, at=5000):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_damaged_local_shard_is_named_and_never_visible(data_set, url, s3, prefix):
    flip(data_set / "tiny-000001.tar")
    with pytest.raises(ValueError, match=r"tiny-000001.tar: has the sha256 .* damaged"):
        push(data_set, url)
    there = objects(s3, prefix)
    assert "manifest.json" not in there
    assert "tiny-000001.tar" not in there


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tiny-000001.tar").unlink(), "tiny-000001.tar: is missing"),
        (lambda folder: (folder / "tiny-000001.tar").write_bytes(b"cut"), "has 3 bytes, the manifest says 25600"),
        (lambda folder: (folder / "tiny-000001.idx").unlink(), "tiny-000001.idx: the shard's index is missing"),
        (lambda folder: shutil.copy(folder / "other.idx", folder / "tiny-000001.idx"), "the index of another tar"),
    ],
)
def test_a_data_set_that_is_not_whole_is_not_sent(data_set, data_sets, tmp_path, damage, message):
    shutil.copy(data_sets[1] / "tiny-000003.idx", data_set / "other.idx")
    damage(data_set)
    with pytest.raises(ValueError, match=message):
        push(data_set, str(tmp_path / "to"))
    assert files(tmp_path / "to") == {}


def test_another_data_set_is_replaced_only_if_asked_to(data_set, url, s3, prefix, tmp_path):
    make_data_set(tmp_path / "other", per_scene=(2,), name="other")
    push(data_set, url)
    pull(url, tmp_path / "back")
    for command in (lambda **options: push(tmp_path / "other", url, **options),
                    lambda **options: pull(str(tmp_path / "other"), tmp_path / "back", **options)):  # fmt: skip
        with pytest.raises(ValueError, match=r"holds another data set, 'tiny' with the id .*--replace"):
            command()
        assert command(replace=True) == 0
    assert objects(s3, prefix)["manifest.json"] == (tmp_path / "other" / "manifest.json").read_bytes()
    assert read_manifest(tmp_path / "back").name == "other"


def test_a_published_shard_never_changes_whatever_the_options(data_set, url, s3, prefix, tmp_path):
    make_data_set(tmp_path / "other", per_scene=(2,), name="tiny")
    push(data_set, url)
    before = objects(s3, prefix)
    with pytest.raises(ValueError, match=r"has another tiny-000000.tar .*a published shard never changes"):
        push(tmp_path / "other", url, replace=True)
    assert objects(s3, prefix) == before
    before = files(data_set)
    with pytest.raises(ValueError, match="a published shard never changes"):
        pull(str(tmp_path / "other"), data_set, replace=True)
    assert files(data_set) == before
    assert not (data_set / ".pull").exists()


def test_an_older_generation_is_refused_both_ways(data_set, second, url, tmp_path):
    push(second, url)
    with pytest.raises(ValueError, match="holds generation 1 of this data set, newer than generation 0"):
        push(data_set, url, replace=True)
    with pytest.raises(ValueError, match="holds generation 1 of this data set, newer than generation 0"):
        pull(str(data_set), second)


def test_the_same_generation_described_otherwise(data_set, url, s3, prefix):
    push(data_set, url)
    write_manifest(data_set, replace(read_manifest(data_set), licences={"video": "CC BY"}))
    with pytest.raises(ValueError, match=r"described otherwise.*--replace"):
        push(data_set, url)
    assert push(data_set, url, replace=True) == 0
    assert objects(s3, prefix)["manifest.json"] == (data_set / "manifest.json").read_bytes()


def test_an_unreadable_manifest_at_the_destination(data_set, url, s3, prefix):
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/manifest.json", Body=b"{not json")
    with pytest.raises(ValueError, match=rf"{url}/manifest.json: not valid JSON.*--replace"):
        push(data_set, url)
    assert push(data_set, url, replace=True) == 0


def test_two_pushes_of_different_generations_one_wins_the_other_says_so(data_set, second, url, s3, prefix, tmp_path):
    """Two continuations of the same data set, pushed at once: the remote is whole afterwards, and one of the two."""
    other = shutil.copytree(second, tmp_path / "other")
    made = read_manifest(other)
    for suffix in ("tar", "idx"):
        shutil.copy(other / f"tiny-000003.{suffix}", other / f"tiny-000002.{suffix}")
    last = replace(made.shards[3], name="tiny-000002.tar")
    write_manifest(other, replace(made, shards=[*made.shards[:2], last]))
    for name in ("tiny-000003.tar", "tiny-000003.idx"):
        (other / name).unlink()
    for turn in range(6):
        where = f"{url}/{turn}"
        push(data_set, where)
        outcomes = at_once([lambda w=where: push(second, w), lambda w=where: push(other, w)])
        assert [isinstance(o, Changed | ValueError) for o in outcomes].count(True) == 1
        won = second if outcomes[0] == 0 else other
        there = objects(s3, f"{prefix}/{turn}")
        for name in (path.name for path in won.iterdir() if path.name != "recipe.toml"):
            assert there[name] == (won / name).read_bytes(), name


def test_two_pushes_of_the_same_data_set_both_succeed(data_set, url, s3, prefix):
    assert at_once([lambda: push(data_set, url), lambda: push(data_set, url)]) == [0, 0]
    there = {name: data for name, data in files(data_set).items() if name != "recipe.toml"}
    assert objects(s3, prefix) == there


def at_once(works):
    """Run works in threads; their results or exceptions."""
    outcomes = [None] * len(works)

    def run(number):
        try:
            outcomes[number] = works[number]()
        except (ValueError, OSError) as error:
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


@pytest.mark.parametrize("kind", ["bucket", "folder"])
def test_a_manifest_that_changed_meanwhile_is_left_alone(data_set, second, s3, prefix, tmp_path, kind):
    """Somebody who asks nobody swaps the manifest while the shards are on their way."""
    where = f"s3://{BUCKET}/{prefix}" if kind == "bucket" else str(tmp_path / "to")
    push(data_set, where)
    place = open_target(where)
    theirs = (data_set / "manifest.json").read_bytes() + b" "

    def swap(name, done, total):
        if done == total:
            place.put_bytes("manifest.json", theirs)

    with pytest.raises(Changed, match="somebody else changed the data set there meanwhile"):
        push_data_set(second, place, How(progress=swap))
    assert place.read("manifest.json") == theirs


def test_an_unfinished_push_of_other_data_is_in_the_way(data_set, second, url):
    place = open_target(url)
    lay_claim(place, Claim(manifest="ab" * 32, since="2026-01-02T03:04:05Z"), None)
    with pytest.raises(ValueError, match="a push of other data began here at 2026-01-02T03:04:05Z"):
        push(data_set, url)
    with pytest.raises(Changed, match="another push has begun here meanwhile"):
        lay_claim(place, Claim(manifest="cd" * 32, since=""), None)
    assert push(data_set, url, replace=True) == 0
    assert CLAIM_NAME not in place.names()
    assert place.size(CLAIM_NAME) is None


def test_a_push_whose_place_was_taken_over_gives_up(data_set, url):
    place = open_target(url)
    claim = msgspec.json.encode(Claim(manifest="ab" * 32, since="now"))
    with pytest.raises(Changed, match="somebody else changed"):
        push_data_set(data_set, place, How(progress=lambda *_: place.put_bytes(CLAIM_NAME, claim) and None))
    assert place.size("manifest.json") is None


def test_what_a_pull_does_not_write_into(data_set, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"not empty \('thesis.tex' is there\)"):
        pull(str(data_set), tmp_path / "home")
    (tmp_path / "build" / ".build").mkdir(parents=True)
    with pytest.raises(ValueError, match="unfinished build"):
        pull(str(data_set), tmp_path / "build")
    with pytest.raises(ValueError, match="is a file"):
        pull(str(data_set), tmp_path / "home" / "thesis.tex")
    with pytest.raises(ValueError, match="no such folder"):
        pull(str(tmp_path / "nowhere"), tmp_path / "back")
    with pytest.raises(ValueError, match="no data set here"):
        pull(str(tmp_path / "home"), tmp_path / "back")


def test_two_pulls_into_one_folder(data_set, tmp_path):
    place, outcomes = open_target(data_set), []

    def second_pull(*_):
        try:
            pull(str(data_set), tmp_path / "back")
        except ValueError as error:
            outcomes.append(str(error))

    pull_data_set(place, tmp_path / "back", How(progress=second_pull))
    assert len(outcomes) == 2  # one of each shard
    assert all("another run is working here" in message for message in outcomes)
    assert (tmp_path / "back" / "manifest.json").exists()


def test_temporary_files_do_not_travel(data_set, tmp_path):
    (data_set / ".tiny-000000.tar.tmp-here-1").write_bytes(b"half")
    push(data_set, str(tmp_path / "to"))
    assert not [name for name in files(tmp_path / "to") if "tmp" in name]
