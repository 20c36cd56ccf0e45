"""The same recipe built in many ways gives the same bytes; crashes, hangs and full disks lose nothing.

Real processes of the real command; what makes a worker crash or hang is a user's image filter.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import processes
import pytest
from processes import Program
from videos import write_pan

from mimic_wds.storage.layout import REPORT_NAME
from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.reader import open_shards
from mimic_wds.storage.scenes import read_scenes

SCENES = 12

FILTERS = """
import os, signal, time
from pathlib import Path

TROUBLE = Path(os.environ.get("TROUBLE", "/nowhere"))

def is_marked(image):
    return image[:8, :8].mean() > 250

def hang(image):
    if is_marked(image) and TROUBLE.exists():
        time.sleep(1000)
    return True

def crash(image):
    if is_marked(image) and TROUBLE.exists():
        os.kill(os.getpid(), signal.SIGSEGV)
    return True

def crash_once(image):
    if is_marked(image) and TROUBLE.exists():
        TROUBLE.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return True

def unmarked(image):
    return not is_marked(image)
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Twelve clips of different lengths; the frames of number 5 are marked by a white corner."""
    folder = tmp_path_factory.mktemp("in") / "clips"
    folder.mkdir()
    for number in range(SCENES):
        write_pan(folder / f"pan{number:02}.avi", 3 + number % 2, seed=number, marked=number == 5)
    return folder


@pytest.fixture
def command(clips, tmp_path, monkeypatch):
    """The command that builds the clips into a folder, with a module of filters at hand."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "trouble.py").write_text(FILTERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    monkeypatch.setenv("TROUBLE", str(tmp_path / "trouble"))

    def make(out, *arguments, image_filter=""):
        base = [sys.executable, "-m", "mimic_wds.cli.main", "build", "--source", "video", str(clips), "--out", str(out)]
        base += ["--name", "pans", "-o", "retry=false", "--max-shard-bytes", "250000", "--workers", "2"]
        base += ["-c", f"image_filter='{image_filter}'"] if image_filter else []
        return [*base, *arguments]

    return make


def run(command, code=0):
    """Run a command that should end with this code (None: any) and return what it printed."""
    done = processes.run(command)
    assert code in (None, done.returncode), done.stdout + done.stderr
    return done.stdout + done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a data set but the report, which holds times."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != REPORT_NAME)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def samples(folder: Path) -> dict[str, dict[str, bytes]]:
    """All samples by key; each is there once."""
    found = [(s.key(i), s.read(i)) for s in open_shards(folder, read_manifest(folder)) for i in range(len(s))]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.fixture(scope="module")
def built(clips, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "pans"
    arguments = ["--source", "video", str(clips), "--out", str(out), "--name", "pans", "-o", "retry=false"]
    run([sys.executable, "-m", "mimic_wds.cli.main", "build", *arguments, "--max-shard-bytes", "250000"])
    return out


def test_counts_add_up_per_scene_source_and_build(built):
    manifest, lines = read_manifest(built), list(read_scenes(built / "scenes.jsonl"))
    assert [line.scene for line in lines] == [f"clips/pan{n:02}.avi" for n in range(SCENES)]
    assert [line.counts.candidates for line in lines] == [2 + n % 2 for n in range(SCENES)]
    assert sum(line.kept for line in lines) == manifest.kept["video"] == manifest.num_samples == len(samples(built))
    assert sum(line.counts.candidates for line in lines) == manifest.candidates["video"]
    report = json.loads((built / REPORT_NAME).read_text())
    assert report["state"] == "done"
    assert report["scenes"] == {"all": SCENES, "finished_before": 0, "finished_now": SCENES, "failed_now": 0}
    assert report["candidates"] == manifest.candidates["video"] == report["kept"] + sum(report["dropped"].values())


@pytest.mark.parametrize("executor", ["serial", "local", pytest.param("ray", marks=pytest.mark.slow)])
def test_every_executor_gives_the_same_bytes(command, built, tmp_path, executor):
    if executor == "ray":
        pytest.importorskip("ray")
    run(command(tmp_path / "out", "--executor", executor))
    assert contents(tmp_path / "out") == contents(built)


def test_parts_merged_give_the_same_bytes_on_a_shared_disk_or_not(command, built, tmp_path):
    merge = [sys.executable, "-m", "mimic_wds.cli.main", "merge"]
    together, apart = tmp_path / "together", [tmp_path / f"apart{n}" for n in range(3)]
    for part in (2, 0):
        run(command(together, "--shard-of", f"{part}/3"))
        run(command(apart[part], "--shard-of", f"{part}/3"))
    assert "4 of 12 scenes are not done, the first is number 1" in run([*merge, str(together)], code=2)
    run(command(together, "--shard-of", "1/3"))
    run(command(apart[1], "--shard-of", "1/3"))
    run([*merge, str(together)])
    run([*merge, *map(str, apart)])
    assert contents(together) == contents(apart[0]) == contents(built)
    assert "the parts are merged already" in run(command(together, "--shard-of", "1/3"), code=2)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_and_resumed_gives_the_same_bytes(command, built, tmp_path):
    generator = random.Random(0)
    whole = 0
    for kill in range(20):
        out = tmp_path / f"out{whole}"
        process = Program(command(out, "--resume"))
        while not (out / ".build").exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 1.5) * (kill % 5 + 1) / 5)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (out / "manifest.json").exists():
            run(command(out, "--resume"))
            assert contents(out) == contents(built)
            whole += 1
    out = tmp_path / f"out{whole}"
    run(command(out, "--resume"))
    assert contents(out) == contents(built)


def workers_of(pid: int) -> list[int]:
    """The processes that mine for a build."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):  # it, or one of them, is gone
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


@pytest.mark.slow
def test_workers_killed_at_twenty_random_moments_lose_no_sample_once_failed_scenes_are_retried(
    command, built, tmp_path
):
    generator = random.Random(1)
    kills = 0
    for number in range(40):
        out = tmp_path / f"out{number}"
        process = Program(command(out))
        while process.poll() is None:
            time.sleep(generator.uniform(0.1, 0.5))
            victims = workers_of(process.pid)
            if victims and (out / ".build" / "000000").exists():
                with suppress(ProcessLookupError):
                    os.kill(generator.choice(victims), signal.SIGKILL)
                    kills += 1
        code = process.wait()
        if code == 1:  # so many were killed as they started that the build gave up
            assert "--resume" in run(command(out), code=2)
            run(command(out, "--resume"), code=None)
        failed = read_manifest(out).failed_scenes
        assert code in (1, 3 if failed else 0)
        assert all("the worker process died twice" in why for why in failed.values())
        if failed:
            run(command(out, "--retry-failed"))
            assert samples(out) == samples(built)
        else:
            assert contents(out) == contents(built)
        if kills >= 20:
            return
    raise AssertionError(f"only {kills} workers were killed")


def test_a_scene_whose_worker_dies_once_is_run_again(command, tmp_path):
    (tmp_path / "trouble").touch()
    run(command(tmp_path / "out", image_filter="trouble:crash_once"))
    run(command(tmp_path / "calm", image_filter="trouble:crash_once"))
    assert not (tmp_path / "trouble").exists()
    assert contents(tmp_path / "out") == contents(tmp_path / "calm")


@pytest.mark.parametrize(
    ("fault", "message"), [("crash", "the worker process died twice"), ("hang", "took longer than 5 s")]
)
def test_a_scene_that_crashes_or_hangs_fails_alone_and_can_be_retried(command, built, tmp_path, fault, message):
    out = tmp_path / "out"
    (tmp_path / "trouble").touch()
    make = [out, "--timeout-s", "5"]
    printed = run(command(*make, image_filter=f"trouble:{fault}"), code=3)
    assert f"failed: video/clips/pan05.avi: {message}" in printed
    manifest = read_manifest(out)
    assert list(manifest.failed_scenes) == ["video/clips/pan05.avi"]
    assert json.loads((out / REPORT_NAME).read_text())["scenes"]["failed_now"] == 1
    before = contents(out)
    run(command(*make, "--retry-failed", image_filter=f"trouble:{fault}"), code=3)  # it still fails: nothing changes
    assert samples(out) == {k: v for k, v in samples(built).items() if "pan05" not in k}

    (tmp_path / "trouble").unlink()
    run(command(*make, "--retry-failed", image_filter=f"trouble:{fault}"))
    after = contents(out)
    assert all(after[name] == data for name, data in before.items() if name.endswith((".tar", ".idx")))
    assert samples(out) == samples(built)
    manifest = read_manifest(out)
    assert (manifest.failed_scenes, manifest.shards[-1].generation) == ({}, manifest.generation)
    assert manifest.kept == read_manifest(built).kept
    assert manifest.candidates == read_manifest(built).candidates
    run(command(*make, "--retry-failed", image_filter=f"trouble:{fault}"))  # nothing is left to do
    assert contents(out) == after


def test_a_filter_s_veto_is_a_drop_reason_that_adds_up(command, built, tmp_path):
    run(command(tmp_path / "out", image_filter="trouble:unmarked"))
    manifest, whole = read_manifest(tmp_path / "out"), read_manifest(built)
    assert manifest.dropped["video"]["vetoed"] == 3  # clip 5 has four frames
    assert manifest.candidates == whole.candidates
    assert samples(tmp_path / "out") == {k: v for k, v in samples(built).items() if "pan05" not in k}
    assert manifest.criteria["image_filter"] == "trouble:unmarked"
    assert "sha256:" in manifest.versions["image_filter"]


FULL = """
set -e
mount -t tmpfs -o size=700k tmpfs "$0"
"$@" --out "$0/out" > "$0/../first.txt" 2>&1 && exit 9 || echo $? >> "$0/../first.txt"
mount -o remount,size=50m "$0"
"$@" --out "$0/out" --resume
cp -r "$0/out" "$0/../copy"
"""


def test_a_full_disk_stops_the_build_which_goes_on_when_there_is_space(command, built, tmp_path):
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    can_mount = (
        shutil.which("unshare")
        and not subprocess.run(
            [*unshare, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, check=False
        ).returncode
    )
    if not can_mount:
        pytest.skip("no file system may be mounted here")
    (tmp_path / "disk").mkdir()
    build = command("unused")
    del build[build.index("--out") : build.index("--out") + 2]
    done = subprocess.run(
        [*unshare, "sh", "-c", FULL, str(tmp_path / "disk"), *build], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first = (tmp_path / "first.txt").read_text()
    assert "No space left on device; free some space" in first
    assert first.endswith("\n1\n")
    assert contents(tmp_path / "copy") == contents(built)
