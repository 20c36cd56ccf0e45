"""The pool: every task once, errors raised, a dead worker named, no process left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mimic_wds.curation.executor import run_all


def write_environment(path: Path) -> None:
    path.write_text(f"{os.getpid()} {os.environ.get('OPENBLAS_NUM_THREADS')}")


def fail_on_three(path: Path) -> None:
    if path.name == "3":
        raise KeyError("three")
    write_environment(path)


def die_on_three(path: Path) -> None:
    if path.name == "3":
        os.kill(os.getpid(), signal.SIGKILL)
    write_environment(path)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_runs_once(tmp_path, workers):
    tasks = [tmp_path / str(n) for n in range(20)]
    assert sorted(run_all(write_environment, tasks, workers)) == sorted(tasks)
    processes = {task.read_text().split()[0] for task in tasks}
    assert len(processes) <= workers
    if workers > 1:
        assert str(os.getpid()) not in processes
        assert {task.read_text().split()[1] for task in tasks} == {"1"}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_of_a_task_is_raised(tmp_path, workers):
    with pytest.raises(KeyError, match="three"):
        list(run_all(fail_on_three, [tmp_path / str(n) for n in range(6)], workers))


def test_a_dead_worker_is_an_error_that_says_where(tmp_path):
    with pytest.raises(RuntimeError, match=r"a worker process died .* near one of: .*/\d.*--resume"):
        list(run_all(die_on_three, [tmp_path / str(n) for n in range(6)], 2))


PARENT = """
import sys, time
from pathlib import Path
from mimic_wds.curation.executor import run_all
from sleeper import sleep
if __name__ == "__main__":
    list(run_all(sleep, [Path(sys.argv[1]) / str(n) for n in range(2)], 2))
"""
SLEEPER = """
import os, time
def sleep(path):
    path.write_text(str(os.getpid()))
    time.sleep(600)
"""


def test_a_killed_build_leaves_no_worker_behind(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py", tmp_path])
    deadline = time.monotonic() + 60
    while not all((tmp_path / str(n)).exists() and (tmp_path / str(n)).read_text() for n in range(2)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = [int((tmp_path / str(n)).read_text()) for n in range(2)]
    parent.kill()
    parent.wait()
    while any(is_alive(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False
