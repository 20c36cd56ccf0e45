"""Builds end to end: right pairs, same bytes however they are made, nothing lost when they are killed."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import Program, run
from videos import write_pan

from mimic_wds.curation import build as building
from mimic_wds.curation.recipe import make_recipe, read_recipe
from mimic_wds.curation.report import Report
from mimic_wds.executors.local import LocalExecutor
from mimic_wds.executors.serial import SerialExecutor
from mimic_wds.storage.layout import REPORT_NAME, STAGING_NAME
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.reader import open_shards


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Four panning clips (neighbours overlap by 10/14 or 8/14) and a text file named like a video."""
    folder = tmp_path_factory.mktemp("in") / "clips"
    folder.mkdir()
    for number in range(4):
        write_pan(folder / f"pan{number}.avi", 6, step=64 if number % 2 else 96, seed=number)
    (folder / "notes.mp4").write_text("not a video")
    return folder


def recipe(clips, out, **changes):
    arguments = {
        "name": "pans",
        "out": out,
        "preset_name": "default",
        "criteria": {},
        "sources": [{"source": "video", "paths": [str(clips)], "retry": False}],
        "where": "test",
        "max_shard_bytes": 400_000,
    }
    return make_recipe(**{**arguments, **changes})


def build(made, workers=0, **changes):
    executor = LocalExecutor(workers=workers, timeout_s=60) if workers else SerialExecutor()
    return building.build(made, executor, Report({}), **changes)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a data set but the report, which holds times."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != REPORT_NAME)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def built(clips, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "pans"
    build(recipe(clips, out))
    return out


def test_every_neighbouring_pair_is_kept_with_its_overlap(built):
    manifest = read_manifest(built)
    samples = [shard.sample(i) for shard in open_shards(built, manifest) for i in range(len(shard))]
    assert len(samples) == manifest.num_samples == 20
    assert [s.scene for s in samples] == [f"clips/pan{n}.avi" for n in range(4) for _ in range(5)]
    for sample in samples:
        step = 64 if sample.scene in ("clips/pan1.avi", "clips/pan3.avi") else 96
        assert sample.overlap == pytest.approx(1 - step / 224, abs=0.02)
        corners = sample.H_0to1 @ np.array([[112, 112, 1]]).T
        assert corners[:2, 0] / corners[2, 0] == pytest.approx([112 - step, 112], abs=1.5)
        assert (sample.time0_s, sample.time1_s) == (float(sample.frame0), float(sample.frame1))


def test_counts_add_up_and_the_broken_file_is_named(built):
    manifest = read_manifest(built)
    dropped = sum(manifest.dropped["video"].values())
    assert manifest.candidates["video"] == manifest.kept["video"] + dropped == 20
    assert manifest.scenes["video"] == 5
    assert list(manifest.failed_scenes) == ["video/clips/notes.mp4"]
    assert sum(s.samples for s in manifest.shards) == 20
    assert len(manifest.shards) > 1
    assert all(s.bytes <= 400_000 for s in manifest.shards)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_rebuild_gives_the_same_bytes_with_any_number_of_workers(clips, built, tmp_path, workers):
    out = tmp_path / "elsewhere" / "again"
    build(recipe(clips, out), workers=workers)
    assert contents(out) == contents(built)


def test_sampled_points_are_reproducible_too(clips, tmp_path):
    for name, workers in (("a", 1), ("b", 2)):
        build(recipe(clips, tmp_path / name, preset_name="paper"), workers=workers)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_killed_and_resumed_gives_the_same_bytes(clips, built, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "mimic_wds.cli.main", "build", "--source", "video", str(clips), "--out", str(out)]
    command += ["--workers", "2", "--name", "pans", "-o", "retry=false", "--max-shard-bytes", "400000"]
    process = Program(command)
    deadline = time.monotonic() + 60
    while not list(out.glob(f"{STAGING_NAME}/*/*.json")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (out / "manifest.json").exists()
    again = run(command)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    resumed = run([*command, "--resume"])
    assert resumed.returncode == 3, resumed.stderr  # the text file is reported
    assert contents(out) == contents(built)
    assert run([*command, "--resume"]).returncode == 3  # nothing to do


def test_resume_runs_only_what_is_missing(clips, built, tmp_path, monkeypatch):
    out = tmp_path / "out"
    ran = []

    def stop_after_two(task):
        if len(ran) == 2:
            raise OSError("power cut")
        ran.append(task.number)
        original(task)

    original = building.run_scene
    monkeypatch.setattr(building, "run_scene", stop_after_two)
    with pytest.raises(OSError, match="power cut"):
        build(recipe(clips, out))
    monkeypatch.setattr(building, "run_scene", lambda task: (ran.append(task.number), original(task))[1])
    build(recipe(clips, out), resume=True)
    assert sorted(ran) == [0, 1, 2, 3, 4]
    assert contents(out) == contents(built)


def test_a_changed_recipe_or_input_is_not_resumed(clips, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(building, "run_scene", lambda task: (_ for _ in ()).throw(OSError("stop")))
        with pytest.raises(OSError, match="stop"):
            build(recipe(clips, out))
    with pytest.raises(ValueError, match="another recipe"):
        build(recipe(clips, out, criteria={"min_overlap": 0.4}), resume=True)


def test_resuming_a_finished_build_changes_nothing(clips, built, tmp_path):
    before = contents(built)
    (built / STAGING_NAME).mkdir()  # as if killed just before the clean-up
    build(recipe(clips, built), resume=True)
    assert contents(built) == before
    assert not (built / STAGING_NAME).exists()
    with pytest.raises(ValueError, match="made with other criteria"):
        build(recipe(clips, built, criteria={"min_overlap": 0.4}), resume=True)


def test_output_folders_with_something_in_them_are_refused(clips, built, tmp_path):
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(ValueError, match="is not empty"):
        build(recipe(clips, tmp_path))
    with pytest.raises(ValueError, match="already holds a data set"):
        build(recipe(clips, built))
    assert (tmp_path / "thesis.doc").read_text() == "precious"


def test_two_builds_at_once_one_says_so(clips, tmp_path):
    import fcntl

    out = tmp_path / "out"
    (out / STAGING_NAME).mkdir(parents=True)
    with (out / STAGING_NAME / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run is working"):
            build(recipe(clips, out), resume=True)


def test_a_recipe_file_gives_the_same_data_set(clips, built, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        'name = "pans"\nout = "out"\nmax_shard_bytes = 400000\n'
        f'[[sources]]\nsource = "video"\npaths = ["{clips}"]\nretry = false\n'
    )
    build(read_recipe(path))
    assert contents(tmp_path / "out") == contents(built)


def test_nothing_to_keep_writes_a_manifest_that_says_why(clips, tmp_path):
    manifest = build(recipe(clips, tmp_path / "out", criteria={"min_overlap": 0.0, "max_overlap": 0.01}))
    assert manifest.num_samples == 0
    assert manifest.dropped["video"] == {"overlap_too_large": 20}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["shards"] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("naem = 'x'\n", r"unknown key 'naem'; did you mean 'name'"),
        ("out = 'o'\n", r"no \[\[sources\]\] table"),
        ("out='o'\n[[sources]]\npaths=['x']\n", r"no source ="),
        ("out='o'\n[[sources]]\nsource='video'\n", r"needs paths ="),
        ("out='o'\n[[sources]]\nsource='vidoe'\npaths=['x']\n", r"unknown source 'vidoe'; did you mean 'video'"),
        (
            "out='o'\n[[sources]]\nsource='video'\npaths=['x']\nevery=1\n",
            r"did you mean 'every_s'",
        ),
        (
            "out='o'\n[criteria]\nmin_overlp=1\n[[sources]]\nsource='video'\npaths=['x']\n",
            r"mean 'min_overlap'",
        ),
        ("[[sources]]\nsource='video'\npaths=['x']\n", r"names no output folder"),
        ("out='o'\npreset='papr'\n[[sources]]\nsource='video'\npaths=['x']\n", r"did you mean 'paper'"),
    ],
)
def test_mistakes_in_a_recipe_are_named(tmp_path, text, message):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_recipe(path)


def test_paths_in_a_recipe_are_relative_to_it(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    (folder / "photos").mkdir(parents=True)
    (folder / "pairs.txt").write_text("")
    path = folder / "recipe.toml"
    path.write_text('out="o"\n[[sources]]\nsource="images"\npaths=["photos"]\npairs="pairs.txt"\n')
    monkeypatch.chdir(tmp_path)
    made = read_recipe(path)
    assert made.out == folder / "o"
    (source,) = made.sources
    assert (source.paths, source.pairs) == ((str(folder / "photos"),), str(folder / "pairs.txt"))
