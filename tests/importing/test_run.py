"""An import keeps a build's promises: the same bytes with any number of workers, killed and resumed or not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from published import pair_files, run_import, write_tree

from mimic_wds.executors.local import LocalExecutor
from mimic_wds.executors.serial import SerialExecutor
from mimic_wds.importing import base
from mimic_wds.importing.registry import FORMATS, make_format
from mimic_wds.importing.run import Target, import_data_set
from mimic_wds.storage.verify import verify


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Pairs of two sources, in units of four."""
    monkeypatch.setattr(base, "UNIT_PAIRS", 4)
    files = {}
    for number in range(11):
        files |= pair_files(f"Gibson/Adrian/{number}", number)
    return write_tree(tmp_path / "in", files | pair_files("HM3D/x/1", 50))


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_workers_change_nothing(tree, tmp_path):
    run_import(tmp_path / "a", "mimic3m", [tree])
    run_import(tmp_path / "b", "mimic3m", [tree], executor=LocalExecutor(2))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert list(verify(tmp_path / "a")) == []


class Stopping:
    """Runs so many tasks, then stops as Ctrl-C does."""

    def __init__(self, tasks):
        self.left = tasks

    def run(self, function, tasks):
        for task in tasks:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            function(task)
            yield task, None


@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_interrupted_import_goes_on(tree, tmp_path, after):
    run_import(tmp_path / "whole", "mimic3m", [tree])
    with pytest.raises(KeyboardInterrupt):
        run_import(tmp_path / "out", "mimic3m", [tree], executor=Stopping(after))
    with pytest.raises(ValueError, match="holds an unfinished data set; continue it with --resume"):
        run_import(tmp_path / "out", "mimic3m", [tree])
    counting = Stopping(4 - after)  # of four units these are left
    run_import(tmp_path / "out", "mimic3m", [tree], executor=counting, resume=True)
    assert counting.left == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert run_import(tmp_path / "out", "mimic3m", [tree], resume=True).num_samples == 12


def test_a_killed_import_goes_on(tree, tmp_path):
    run_import(tmp_path / "whole", "mimic3m", [tree])
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from published import run_import\n"
        "from mimic_wds.importing import base; base.UNIT_PAIRS = 4\n"
        "from mimic_wds.storage import staging; add = staging.SceneStage.add\n"
        "staging.SceneStage.add = lambda self, sample: (time.sleep(0.05), add(self, sample))\n"
        "run_import(__import__('pathlib').Path(sys.argv[3]), 'mimic3m', [sys.argv[2]])\n"
    )
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", program, Path(__file__).parent, tree, out])
    deadline = time.monotonic() + 60
    while not list(out.rglob("001.*")) and not list(out.rglob(".001.*")):  # in the second unit
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run_import(out, "mimic3m", [tree], resume=True)
    assert contents(out) == contents(tmp_path / "whole")


def test_other_input_or_options_are_told(tree, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_import(tmp_path / "out", "mimic3m", [tree], executor=Stopping(1))
    with pytest.raises(ValueError, match="the unfinished import has other options"):
        run_import(tmp_path / "out", "mimic3m", [tree], resume=True, licence="CC0")
    write_tree(tree, pair_files("Gibson/Adrian/99", 99))
    with pytest.raises(ValueError, match="the input has changed since the import began"):
        run_import(tmp_path / "out", "mimic3m", [tree], resume=True)


def test_a_finished_folder_is_left_alone(tree, tmp_path):
    run_import(tmp_path / "out", "mimic3m", [tree])
    with pytest.raises(ValueError, match="already holds a data set"):
        run_import(tmp_path / "out", "mimic3m", [tree])
    with pytest.raises(ValueError, match="made in another way"):
        run_import(tmp_path / "out", "mimic3m", [tree], size=256, resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"is not empty \('thesis.tex' is there\)"):
        run_import(tmp_path / "mine", "mimic3m", [tree])


def test_two_imports_into_one_folder_are_told(tree, tmp_path):
    class Nested(SerialExecutor):
        def run(self, function, tasks):
            with pytest.raises(ValueError, match="another run is working here"):
                run_import(tmp_path / "out", "mimic3m", [tree], resume=True)
            yield from super().run(function, tasks)

    assert run_import(tmp_path / "out", "mimic3m", [tree], executor=Nested()).num_samples == 12


def test_a_unit_that_is_given_up_is_counted(tree, tmp_path):
    class Failed:
        message = "the worker process died twice"

    class GivingUp(SerialExecutor):
        def run(self, function, tasks):
            for number, task in enumerate(tasks):
                if number != 1:
                    function(task)
                yield task, Failed() if number == 1 else None

    manifest = run_import(tmp_path / "out", "mimic3m", [tree], executor=GivingUp())
    assert manifest.kept == {"gibson": 7, "hm3d": 1}
    assert manifest.dropped["gibson"] == {"unreadable": 4}
    assert manifest.candidates == {"gibson": 11, "hm3d": 1}
    assert manifest.failed_scenes == {"gibson/pairs 4 to 7": "the worker process died twice"}


def test_formats_are_named_as_they_are_registered():
    assert {name: kind.name for name, kind in FORMATS.items()} == {name: name for name in FORMATS}
    with pytest.raises(ValueError, match=r"unknown format 'mimic'; did you mean 'mimic3m'"):
        make_format("mimic", ["x"], {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"size": 225}, "no whole patches"), ({"name": "Ä"}, "cannot name"), ({"size": 224 * 20}, "too many patches")],
)
def test_a_target_that_cannot_be_is_told(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Target(**{"out": tmp_path, "name": "x", "size": 224, **changes})


def test_an_import_of_nothing_is_a_data_set_of_nothing(tmp_path):
    files = {k: v[:100] if k.endswith("jpg") else v for k, v in pair_files("Gibson/a/1").items()}
    chosen = make_format("mimic3m", [str(write_tree(tmp_path / "in", files))], {})
    manifest = import_data_set(chosen, Target(out=tmp_path / "out", name="x", size=224), SerialExecutor())
    assert (manifest.num_samples, manifest.dropped) == (0, {"gibson": {"unreadable": 1}})
