"""Extending a data set: what is there stays, what is new is added whole or not at all, whoever is killed."""

import json
import random
import shutil
import sys
from pathlib import Path

import pytest
from processes import Program, killed_after, run
from test_build import build, contents, recipe
from videos import write_pan

from mimic_wds.curation.extend import extend
from mimic_wds.curation.report import Report
from mimic_wds.executors.serial import SerialExecutor
from mimic_wds.storage.files import is_temporary
from mimic_wds.storage.layout import STAGING_NAME, shard_name
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.output import locked
from mimic_wds.storage.reader import open_shards
from mimic_wds.storage.scenes import scene_lines
from mimic_wds.storage.verify import verify

KILLS = 20


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Two folders of clips, and a third that holds the same files as the first and one more."""
    folder = tmp_path_factory.mktemp("in")
    for name, seeds in (("first", (0, 1)), ("second", (2, 3, 4)), ("grown/first", (0, 1, 5))):
        (folder / name).mkdir(parents=True)
        for seed in seeds:
            write_pan(folder / name / f"pan{seed}.avi", 6, step=64, seed=seed)
    (folder / "second" / "notes.mp4").write_text("not a video")
    return folder


@pytest.fixture(scope="module")
def base(clips, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("base") / "pans"
    build(recipe(clips / "first", out))
    return out


@pytest.fixture
def data_set(base, tmp_path) -> Path:
    return shutil.copytree(base, tmp_path / "pans")


def add(clips: Path, out: Path, on_duplicate="refuse", **changes):
    report = Report({})
    arguments = {"sources": [{"source": "video", "paths": [str(clips)], "retry": False}], **changes}
    return extend(recipe(clips, out, **arguments), SerialExecutor(), report, on_duplicate), report


def command(clips: Path, out: Path, executor: str = "local") -> list[str]:
    own = [sys.executable, "-m", "mimic_wds.cli.main", "extend", str(out), str(clips), "--source", "video"]
    return [*own, "-o", "retry=false", "--workers", "1", "--max-shard-bytes", "400000", "--executor", executor]


def keys(out: Path) -> list[str]:
    return [shard.key(i) for shard in open_shards(out, read_manifest(out)) for i in range(len(shard))]


def test_new_pairs_are_the_next_generation_and_nothing_that_was_there_changes(clips, base, data_set):
    before, first = contents(base), read_manifest(base)
    second, _ = add(clips / "second", data_set)
    after = contents(data_set)
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: data for name, data in before.items() if name != "manifest.json"
    }
    assert (second.id, second.generation) == (first.id, 1)
    assert second.shards[: len(first.shards)] == first.shards
    new = second.shards[len(first.shards) :]
    assert {shard.generation for shard in new} == {1}
    assert [shard.name for shard in second.shards] == [shard_name("pans", n) for n in range(len(second.shards))]
    assert (first.num_samples, second.num_samples) == (10, 25)
    assert second.kept["video"] + sum(second.dropped["video"].values()) == second.candidates["video"] == 25
    assert sum(second.overlap_histogram.counts) == 25
    assert list(second.failed_scenes) == ["video/second/notes.mp4"]
    assert len(set(keys(data_set))) == 25
    assert list(verify(data_set)) == []


def test_the_lines_of_a_generation_are_a_file_of_their_own(clips, data_set):
    old = read_manifest(data_set)
    add(clips / "second", data_set)
    lines = list(scene_lines(data_set, 1))
    assert [line.scene for line in lines] == [
        *(f"first/pan{n}.avi" for n in (0, 1)),
        "second/notes.mp4",
        *(f"second/pan{n}.avi" for n in (2, 3, 4)),
    ]
    assert sum(line.kept for line in lines) == 25
    assert sum(line.kept for line in scene_lines(data_set, old.generation)) == old.num_samples == 10


def test_a_source_that_is_there_goes_on_with_its_new_scenes(clips, data_set):
    manifest, report = add(clips / "grown" / "first", data_set)
    assert (report.known, report.scenes_now) == (2, 1)
    assert manifest.num_samples == 15
    assert manifest.scenes == {"video": 3}


def test_nothing_new_changes_nothing(clips, base, data_set):
    manifest, report = add(clips / "first", data_set)
    assert manifest == read_manifest(base)
    assert report.known == 2
    assert contents(data_set) == contents(base)


def test_a_scene_that_fails_again_makes_no_generation(clips, data_set):
    add(clips / "second", data_set)
    before = contents(data_set)
    manifest, report = add(clips / "second", data_set)
    assert (report.known, report.scenes_now) == (3, 1)
    assert manifest.generation == 1
    assert contents(data_set) == before


def test_a_failed_scene_that_is_mended_is_added(clips, data_set, tmp_path):
    again = shutil.copytree(clips / "second", tmp_path / "second")
    add(again, data_set)
    write_pan(tmp_path / "new.avi", 4, step=64, seed=9)
    (tmp_path / "new.avi").rename(again / "notes.mp4")
    manifest, _ = add(again, data_set)
    assert manifest.generation == 2
    assert manifest.failed_scenes == {}
    assert manifest.num_samples == 28
    assert manifest.scenes == {"video": 6}
    assert sum(line.kept for line in scene_lines(data_set, 2)) == 28
    assert list(verify(data_set)) == []


@pytest.mark.parametrize("changes", [{"criteria": {"min_overlap": 0.4}}, {"preset_name": "paper"}])
def test_other_criteria_are_refused(clips, base, data_set, changes):
    with pytest.raises(ValueError, match=r"was built with \w+ = "):
        add(clips / "second", data_set, **changes)
    assert contents(data_set) == contents(base)


def test_equal_keys_are_refused_or_skipped(clips, data_set):
    """The scene lines are lost (as by hand), so that the same scenes count as new."""
    (data_set / "scenes.jsonl").write_text("")
    before = contents(data_set)
    with pytest.raises(ValueError, match=r"5 pair\(s\) of the new scene video/first/pan0.avi are in the data set"):
        add(clips / "grown" / "first", data_set)
    seen = {name: data for name, data in contents(data_set).items() if not name.startswith(STAGING_NAME)}
    assert seen == before
    manifest, _ = add(clips / "grown" / "first", data_set, "skip")
    assert [shard.samples for shard in manifest.shards if shard.generation == 1] == [5]
    assert manifest.dropped["video"]["duplicate_key"] == 10
    assert len(set(keys(data_set))) == len(keys(data_set)) == 15


def test_an_imported_data_set_is_refused(clips, data_set):
    plain = json.loads((data_set / "manifest.json").read_text())
    plain["criteria"]["preset"] = "import"
    (data_set / "manifest.json").write_text(json.dumps(plain))
    with pytest.raises(ValueError, match="join them with `mimic-shard merge"):
        add(clips / "second", data_set)


def test_shards_that_the_manifest_does_not_list_are_never_written_over(clips, data_set):
    stranger = data_set / shard_name("pans", len(read_manifest(data_set).shards))
    stranger.write_bytes(b"mine")
    with pytest.raises(ValueError, match="does not belong to the data set"):
        add(clips / "second", data_set)
    assert stranger.read_bytes() == b"mine"


def test_of_two_at_once_one_says_that_the_other_works(clips, data_set):
    staging = data_set / STAGING_NAME
    staging.mkdir()
    with locked(staging), pytest.raises(ValueError, match="another run is working here"):
        add(clips / "second", data_set)


def test_of_two_at_once_one_wins_and_the_data_set_is_whole(clips, data_set):
    runs = [Program(command(clips / name, data_set)) for name in ("second", "grown/first")]
    said = [(run.wait(), "".join(run.output())) for run in runs]
    manifest = read_manifest(data_set)
    codes = sorted(code for code, _ in said)
    assert codes in ([0, 3], [2, 3], [0, 2]), said  # one after the other, or one refused
    if 2 in codes:
        (loser,) = [text for code, text in said if code == 2]
        assert "another run" in loser or "unfinished run" in loser
    assert manifest.num_samples in (15, 25, 30)
    assert list(verify(data_set)) == []


def test_a_manifest_that_changed_meanwhile_is_not_replaced(clips, data_set, monkeypatch):
    """As on two machines whose shared disk has no locks."""

    def other_run(task, run=SerialExecutor.run):
        add(clips / "grown" / "first", other)
        shutil.copy(other / "manifest.json", data_set / "manifest.json")
        yield from run(SerialExecutor(), *task)

    other = shutil.copytree(data_set, data_set.parent / "other")

    class Meddled(SerialExecutor):
        def run(self, *task):
            return other_run(task)

    made = recipe(clips / "second", data_set)
    with pytest.raises(ValueError, match="another run has changed the data set meanwhile"):
        extend(made, Meddled(), Report({}))
    assert (data_set / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()


def whole(folder: Path) -> dict[str, bytes]:
    """What a reader sees of a data set: the manifest and what it lists."""
    manifest = read_manifest(folder)
    return {info.name: (folder / info.name).read_bytes() for info in manifest.shards}


def test_killed_at_any_moment_readers_see_the_old_or_the_new_and_a_rerun_completes(clips, base, tmp_path):
    brief = tmp_path / "in" / "brief"
    brief.mkdir(parents=True)
    for seed in (6, 7, 8):
        write_pan(brief / f"pan{seed}.avi", 3, seed=seed)
    shutil.copy(clips / "second" / "notes.mp4", brief)
    undisturbed = shutil.copytree(base, tmp_path / "undisturbed" / "pans")
    calm = run(command(brief, undisturbed))
    assert calm.returncode == 3
    expected, old, new = contents(undisturbed), whole(base), whole(undisturbed)
    moments = random.Random(0)
    seen = set()
    for number in range(KILLS):
        out = shutil.copytree(base, tmp_path / str(number) / "pans")
        killed_after(command(brief, out), calm.seconds * moments.random())
        visible = whole(out)
        assert visible in (old, new)
        seen.add(len(visible))
        again = run(command(brief, out, "serial"))
        assert again.returncode == 3, again.stderr  # the text file is reported
        assert contents(out) == expected
        assert not any(is_temporary(path.name) for path in out.iterdir())
        shutil.rmtree(out.parent)
    assert len(old) in seen
