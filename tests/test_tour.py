"""The tour: what it plans, what it skips, how it fails; and the houses that it writes."""

import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mimic_wds.sources.simulator.base import SceneFile
from mimic_wds.sources.simulator.scene_files import load_mesh

ROOT = Path(__file__).parents[1]


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


tour, make_house = tool("tour"), tool("make_house")


def python(code):
    return (sys.executable, "-c", code)


def test_the_plan_names_files_that_exist_and_every_step_once():
    steps = [step for phase in tour.plan("OUT", 1.0) for step in phase]
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        for command in step.commands:
            for word in command:
                if word.endswith((".py", ".toml")):
                    assert (ROOT / word).is_file(), word
    trained = [s for s in steps if s.name.startswith("full-")]
    assert len(trained) == 3 * 3 * 3
    assert {step.commands[0][step.commands[0].index("--init") + 1] for step in trained} == {
        "random", "OUT/mae", "OUT/croco",
    }  # fmt: skip


def test_what_is_scored_on_is_never_learned_from():
    for phase in tour.plan("OUT", 1.0):
        for step in phase:
            for command in step.commands:
                learned = [word for flag, word in itertools.pairwise(command) if flag == "--data"]
                if any(script in command for script in ("train/pretrain.py", "finetune/finetune.py")):
                    assert learned in (["OUT/pairs"], ["OUT/labels"])
    (build,) = [s for s in tour.plan("OUT", 1.0)[1] if s.name == "pairs"]
    assert "OUT/videos" in build.commands[0]
    held = [s.commands[0] for s in tour.plan("OUT", 1.0)[0] if "-9" in s.name]
    assert all("OUT/held-" in " ".join(command) and "9" in command for command in held)


def test_a_budget_scales_the_steps():
    def steps(budget):
        words = " ".join(" ".join(c) for phase in tour.plan("OUT", budget) for s in phase for c in s.commands)
        return [int(n) for n in re.findall(r"run\.steps=(\d+)|--epochs (\d+)", words) for n in n if n]

    assert steps(4.0) == [4 * n for n in steps(1.0)]


def test_steps_that_are_done_are_not_done_again(tmp_path, capsys):
    count = python(f"open({str(tmp_path / 'ran')!r}, 'a').write('x')")
    steps = [tour.Step("one", (count, count)), tour.Step("two", (count,))]
    assert tour.run_phase(tmp_path, steps, 2) == 0
    assert (tmp_path / "ran").read_text() == "xxx"
    assert all(tour.marker(tmp_path, step).is_file() for step in steps)
    assert capsys.readouterr().out.count("$ ") == 3


def test_a_failing_step_is_told_and_ends_it(tmp_path, capsys):
    bad = tour.Step("bad", (python("print('what went wrong'); raise SystemExit(3)"), python("open('never', 'w')")))
    late = tour.Step("late", (python(f"open({str(tmp_path / 'late')!r}, 'w')"),))
    assert tour.run_phase(tmp_path, [bad, late], 1) == 1
    told = capsys.readouterr().err
    assert "what went wrong" in told
    assert "bad ended with 3" in told
    assert not tour.marker(tmp_path, bad).exists()
    assert not (tmp_path / "late").exists()


def test_a_folder_that_is_there_is_gone_on_with(tmp_path):
    show = python(f"import sys; open({str(tmp_path / 'words')!r}, 'w').write(' '.join(sys.argv[1:]))")
    step = tour.Step("build", (show,), str(tmp_path / "shards"))
    for expected in ("", "--resume"):
        assert tour.run_step(tmp_path, step) == 0
        assert (tmp_path / "words").read_text() == expected
        (tmp_path / "shards").mkdir(exist_ok=True)


def test_larger_models_are_the_same_in_pretraining_and_finetuning():
    def settings(budget, script):
        commands = [c for phase in tour.plan("OUT", budget) for s in phase for c in s.commands if script in c]
        return {tuple(word for word in command if word.startswith("model.")) for command in commands}

    scripts = ("train/pretrain.py", "finetune/finetune.py", "finetune/fewshot.py")
    assert [settings(1.0, script) for script in scripts] == [{()}] * 3
    assert [settings(8.0, script) for script in scripts] == [{("model.size=small", "model.depth=12")}] * 3


def test_settings_fit_the_configs():
    from mimic_wds.downstream.config import read_config as read_finetuning
    from mimic_wds.training.config import read_config as read_pretraining

    commands = [c for phase in tour.plan("OUT", 8.0) for s in phase for c in s.commands]
    read = {"train/pretrain.py": read_pretraining, "finetune/finetune.py": read_finetuning}
    configs = [
        read[command[1]](ROOT / command[2], [word for flag, word in itertools.pairwise(command) if flag == "--set"])
        for command in commands
        if command[1] in read
    ]
    assert len(configs) == 2 + 27
    assert {(config.model.size, config.model.depth) for config in configs} == {("small", 12)}


def test_a_folder_belongs_to_one_budget(tmp_path, monkeypatch, capsys):
    with tour.begun(tmp_path, 1.0):
        pass
    monkeypatch.setattr(sys, "argv", ["tour.py", "--out", str(tmp_path), "--budget", "2"])
    assert tour.main() == 2
    assert "--budget 1.0, not 2" in capsys.readouterr().err


def test_a_step_that_outlives_a_killed_tour_keeps_others_out(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import tour; from pathlib import Path; "
        f"out = Path({str(tmp_path)!r}); "
        "step = tour.Step('long', ((sys.executable, '-c', 'import time; time.sleep(60)'),))\n"
        "with tour.begun(out, 1.0) as lock: tour.run_phase(out, [step], 1, lock)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline().startswith(b"$ ")
        time.sleep(0.5)
        process.kill()
        process.wait(timeout=20)
        with pytest.raises(OSError, match="step that one has left behind"), tour.begun(tmp_path, 1.0):
            pass
        os.killpg(process.pid, signal.SIGKILL)
    wait_until(lambda: free(tmp_path))
    assert not (tmp_path / "done" / "long").exists()


def free(folder):
    try:
        with tour.begun(folder, 1.0):
            return True
    except OSError:
        return False


def wait_until(holds, seconds=20.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_programs_of_this_python_are_found_without_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert tour.run_step(tmp_path, tour.Step("version", (("mimic-shard", "--help"),))) == 0


def test_ctrl_c_is_130(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import tour; from pathlib import Path; "
        "step = tour.Step('long', ((sys.executable, '-c', 'import time; time.sleep(60)'),)); "
        f"sys.exit(tour.run_phase(Path({str(tmp_path)!r}), [step], 1))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline().startswith(b"$ ")
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=20) == 130
    assert not (tmp_path / "done" / "long").exists()


def test_the_table_has_means_and_deviations(tmp_path):
    for seed, value in enumerate((0.5, 0.7)):
        for folder in ("full/depth-croco", "few/depth-croco/shots-8"):
            place = tmp_path / folder / f"seed-{seed}"
            place.mkdir(parents=True)
            scores = {"protocols": {"standard": {"scores": {"delta1": value}}}}
            (place / "scores.json").write_text(json.dumps(scores))
    lines = tour.table(tmp_path).splitlines()
    assert lines[1].split()[:3] == ["depth", "delta1", "8"]
    assert lines[2].split()[:3] == ["depth", "delta1", "all"]
    assert lines[2].endswith("0.600 ± 0.141")


def test_houses_are_read_as_they_were_drawn(tmp_path):
    mesh = make_house.build_house(3).mesh
    num_shell = 492
    parts = make_house.parts_of(mesh, num_shell)
    for flip in (False, True):
        (tmp_path / "house.glb").write_bytes(make_house.as_glb(make_house.mirrored(mesh) if flip else mesh, parts))
        read = load_mesh(SceneFile(path=str(tmp_path / "house.glb")))
        assert set(read.semantic_names) == set(make_house.PARTS)
        counts = np.bincount(read.semantic_ids, minlength=4)
        expected = {name: int((parts == number).sum()) for number, name in enumerate(make_house.PARTS)}
        assert {name: int(counts[n]) for n, name in enumerate(read.semantic_names)} == expected
        corners = read.vertices[read.triangles]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
        own = mesh.vertices[mesh.triangles]
        expected_area = np.linalg.norm(np.cross(own[:, 1] - own[:, 0], own[:, 2] - own[:, 0]), axis=1) / 2
        assert area.sum() == pytest.approx(expected_area.sum(), rel=1e-5)
        floor = read.semantic_ids == read.semantic_names.index("floor")
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[floor]
        assert (normal[:, 1] > 0).any()
        assert (np.abs(normal[:, 1]) > 0.9 * np.linalg.norm(normal, axis=1)).all()
        assert np.sign(read.vertices[:, 0].mean()) == (-1 if flip else 1)
