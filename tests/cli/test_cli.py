"""The command as people use it: what it prints, its exit codes, and one clear message for every mistake."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import processes
import pytest
from processes import Program
from videos import texture, write_pan

from mimic_wds.cli.main import VERBS, run


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("in") / "clips"
    folder.mkdir()
    write_pan(folder / "pan.avi", 6)
    return folder


@pytest.fixture(scope="module")
def data_set(clips, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "pans"
    assert run(["build", "--source", "video", str(clips), "--out", str(out), "--workers", "1"]) == 0
    return out


def command(*args, **options):
    return processes.run([sys.executable, "-m", "mimic_wds.cli.main", *args], **options)


def test_build_says_what_was_kept_and_dropped(clips, tmp_path, capsys):
    code = run(["build", "--source", "video", str(clips), "--out", str(tmp_path / "o"), "-c", "max_overlap=0.72"])
    printed = capsys.readouterr().out
    counted = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in printed.splitlines() if "│" in line}
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text())
    assert code == 0
    assert counted["kept"] == str(manifest["kept"]["video"])
    assert int(counted["candidate pairs"]) == int(counted["kept"]) + sum(
        int(n) for name, n in counted.items() if name.startswith("dropped")
    )
    assert "pairs/s" in printed


def test_images_are_built_and_verified(tmp_path, capsys):
    canvas = texture(3, 224, 500)
    (tmp_path / "walk").mkdir()
    for number, left in enumerate((0, 80, 160)):
        cv2.imwrite(str(tmp_path / "walk" / f"{number}.png"), canvas[:, left : left + 224])
    for keep, expected in (("all", 2), ("smallest", 1)):
        out = tmp_path / f"out-{keep}"
        assert (
            run(["build", "--source", "images", str(tmp_path / "walk"), "--out", str(out), "-o", f"keep={keep}"]) == 0
        )
        assert json.loads((out / "manifest.json").read_text())["kept"]["images"] == expected
        assert run(["verify", str(out)]) == 0
    assert "no problem found" in capsys.readouterr().out


def test_verify_names_the_problem_and_exits_1(data_set, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in data_set.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert run(["verify", str(copy)]) == 0
    shard = next(copy.glob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[2000] ^= 255
    shard.write_bytes(data)
    assert run(["verify", str(copy)]) == 1
    assert f"{shard.name}: has sha256" in capsys.readouterr().err


def test_verify_holds_maps_against_homographies(data_set, tmp_path, capsys):
    from dataclasses import replace

    from mimic_wds.storage.index import write_index
    from mimic_wds.storage.manifest import dataset_id, read_manifest, write_manifest
    from mimic_wds.storage.reader import open_shards
    from mimic_wds.storage.writer import ShardWriter

    manifest = read_manifest(data_set)
    (shard,) = open_shards(data_set, manifest)
    moved = np.array([[1, 0, 16], [0, 1, 0], [0, 0, 1.0]])
    with ShardWriter(tmp_path / shard.path.name) as writer:
        for i in range(len(shard)):
            sample = shard.sample(i)
            writer.add(replace(sample, H_0to1=moved @ sample.H_0to1) if i == 1 else sample)
    shard.close()
    write_index((tmp_path / shard.path.name).with_suffix(".idx"), writer.index)
    write_manifest(tmp_path, replace(manifest, shards=[writer.info()], id=dataset_id([writer.info()])))
    shutil.copy(data_set / "scenes.jsonl", tmp_path)
    assert run(["verify", str(tmp_path), "--deep"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "are not those that the stored homography gives" in errors[0]
    assert writer.keys[1] in errors[0]


def test_info_prints_the_manifest(data_set, capsys):
    assert run(["info", str(data_set), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((data_set / "manifest.json").read_text())
    assert run(["info", str(data_set)]) == 0
    assert "pans-000000.tar" in capsys.readouterr().out


def test_show_draws_corresponding_patches_in_the_same_colour(data_set, tmp_path):
    from mimic_wds.storage.manifest import read_manifest
    from mimic_wds.storage.reader import open_shards

    out = tmp_path / "pairs.png"
    (shard,) = open_shards(data_set, read_manifest(data_set))
    sample = shard.sample(2)
    shard.close()
    assert run(["show", str(data_set), "--key", sample.key, "--out", str(out)]) == 0
    picture = cv2.imread(str(out))[18:-8]
    tinted0, tinted1 = picture[:, 464:688], picture[:, 696:920]

    def mean_colour(image, patch):
        y, x = divmod(int(patch), 14)
        return image[16 * y : 16 * y + 16, 16 * x : 16 * x + 16].mean((0, 1))

    for patch0, patch1 in enumerate(sample.corr_0to1):
        if patch1 >= 0:
            assert np.abs(mean_colour(tinted0, patch0) - mean_colour(tinted1, patch1)).max() < 40
        else:
            assert np.ptp(mean_colour(tinted0, patch0)) < 6  # grey


def test_sources_lists_every_source_with_its_options(capsys):
    assert run(["sources"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("video:", "images:", "-o every_s=1.0", "-o keep='all'"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["build"], "give --source NAME, PATH... and --out DIR"),
        (["build", "--source", "vidoe", "CLIPS", "--out", "OUT"], "unknown source 'vidoe'; did you mean 'video'?"),
        (["build", "--source", "video", "nowhere", "--out", "OUT"], "nowhere: no such file or folder"),
        (["build", "--source", "video", "EMPTY", "--out", "OUT"], "no videos here or below"),
        (["build", "--source", "images", "EMPTY", "--out", "OUT"], "no images here or below"),
        (["build", "--source", "video", "CLIPS", "--out", "FULL"], "is not empty"),
        (["build", "--source", "video", "CLIPS", "--out", "OUT", "-o", "evry_s=1"], "did you mean 'every_s'?"),
        (["build", "--source", "video", "CLIPS", "--out", "OUT", "-o", "every_s=x"], "Expected `float`, got `str`"),
        (["build", "--source", "video", "CLIPS", "--out", "OUT", "-c", "min_overlap=2"], "min_overlap < max_overlap"),
        (["build", "--source", "video", "CLIPS", "--out", "OUT", "--name", "A B"], "cannot name a data set"),
        (["build", "--recipe", "none.toml"], "none.toml: no such file"),
        (["build", "--recipe", "r.toml", "--source", "video"], "--recipe stands alone"),
        (["info", "EMPTY"], "no manifest.json here"),
        (["verify", "nowhere"], "nowhere: no such folder"),
        (["verify", "DATA", "--fast", "--deep"], "not both"),
        (["show", "DATA", "--out", "x.txt"], "expected a name ending in .png or .jpg"),
        (["show", "DATA", "--key", "none"], "no pair has the key 'none'"),
    ],
)
def test_mistakes_get_one_message_and_exit_code_2(clips, data_set, tmp_path, capsys, args, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("precious")
    places = {"CLIPS": clips, "OUT": tmp_path / "out", "EMPTY": tmp_path / "empty", "FULL": tmp_path / "full"}
    places["DATA"] = data_set
    assert run([str(places.get(word, word)) for word in args]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_unreadable_scenes_are_reported_with_exit_code_3(clips, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "pan.avi").write_bytes((clips / "pan.avi").read_bytes())
    (mixed / "notes.mp4").write_text("not a video")
    done = command("build", "--source", "video", mixed, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "video/mixed/notes.mp4: mixed/notes.mp4: cannot be opened as a video" in done.stdout
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["kept"]["video"] == 5


def test_no_kept_pair_is_incomplete_not_done(tmp_path, clips, capsys):
    out = tmp_path / "out"
    assert run(["build", "--source", "video", str(clips), "--out", str(out), "-c", "max_overlap=0.51"]) == 3
    assert "no pair was kept" in capsys.readouterr().out


def test_a_full_disk_is_exit_code_1_and_resume_goes_on(clips, tmp_path):
    out = tmp_path / "out"
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000));"
    args = ["build", "--source", "video", str(clips), "--out", str(out), "--workers", "1"]
    code = f"{limit} import sys; from mimic_wds.cli.main import run; sys.exit(run({args!r}))"
    full = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=os.getcwd())
    assert full.returncode == 1
    assert "free some space and run the same command again with --resume" in full.stderr
    assert not list(out.glob("*.tar")) + list(out.glob("manifest.json"))
    assert run([*args, "--resume"]) == 0
    assert run(["verify", str(out)]) == 0


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_works_and_shows_an_example(verb):
    done = command(*([verb] if verb else []), "--help", env={**os.environ, "COLUMNS": "120"})
    assert done.returncode == 0
    assert "mimic-shard" in done.stdout
    if verb:
        assert f"Example: mimic-shard {verb}" in done.stdout


def test_help_does_not_import_torch():
    code = "import sys; from mimic_wds.cli.main import run\ntry: run(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_ctrl_c_is_exit_code_130(clips, tmp_path):
    import signal
    import time

    many = tmp_path / "many"
    many.mkdir()
    for number in range(12):
        (many / f"{number}.avi").write_bytes((clips / "pan.avi").read_bytes())
    args = [sys.executable, "-m", "mimic_wds.cli.main", "build", "--source", "video", many, "--out", tmp_path / "out"]
    process = Program([*args, "--workers", "2"], start_new_session=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob(".build/*/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    code, (_, stderr) = process.wait(60), process.output()
    assert code == 130, stderr
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert run(["build", "--source", "video", str(many), "--out", str(tmp_path / "out"), "--resume"]) == 0
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["kept"]["video"] == 60
