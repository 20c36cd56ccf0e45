"""The promises of `Executor`, on real processes that crash, hang and are killed."""

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mimic_wds.executors.base import make_executor
from mimic_wds.storage.files import OutputError

sys.path.append(str(Path(__file__).parent))  # worker processes search where we do
import executor_tasks as do
from executor_tasks import is_alive, wait_until

try:
    import ray
except ImportError:
    ray = None

with_ray = pytest.param("ray", marks=[pytest.mark.skipif(ray is None, reason="Ray is not installed"), pytest.mark.slow])
isolated_programs = pytest.mark.parametrize("name", ["local", with_ray])
isolated = pytest.mark.parametrize("engine", ["local", with_ray], indirect=True)


@pytest.fixture(scope="module")
def small_cluster() -> Iterator[None]:
    """A Ray cluster with two CPUs, which the tests of this module share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 1024**2)
    yield
    ray.shutdown()


@pytest.fixture
def engine(request) -> str:
    if request.param == "ray":
        request.getfixturevalue("small_cluster")
    return request.param


def files(folder: Path, count: int) -> list[Path]:
    return [folder / str(n) for n in range(count)]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.mark.parametrize("engine", ["serial", "local", with_ray], indirect=True)
def test_every_task_runs_once(tmp_path, engine):
    tasks = files(tmp_path, 20)
    done = list(make_executor(engine, workers=2, timeout_s=60).run(do.note, iter(tasks)))
    assert sorted(task for task, _ in done) == sorted(tasks)
    assert {failure for _, failure in done} == {None}
    assert all(len(lines(task)) == 1 for task in tasks)
    processes = {int(lines(task)[0].split()[0]) for task in tasks}
    if engine == "serial":
        assert processes == {os.getpid()}
    else:
        assert os.getpid() not in processes
        assert len(processes) <= 2


def test_one_worker_is_a_process_of_its_own(tmp_path):
    executor = make_executor("local", workers=1)
    list(executor.run(do.note, files(tmp_path, 2)))
    assert {lines(task)[0].split()[1] for task in files(tmp_path, 2)} == {str(os.getpid())}


@isolated
def test_workers_use_one_thread(tmp_path, engine, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    list(make_executor(engine, workers=1).run(do.note_threads, files(tmp_path, 1)))
    assert (tmp_path / "0").read_text() == "1 1 1"
    assert os.environ["OMP_NUM_THREADS"] == "7"


@isolated
def test_no_tasks(engine):
    assert list(make_executor(engine, workers=2).run(do.ignore, [])) == []


@isolated
def test_tasks_are_pulled_as_they_are_needed(tmp_path, engine):
    pulled = 0

    def count() -> Iterator[float]:
        nonlocal pulled
        while True:
            pulled += 1
            yield 0.0

    results = make_executor(engine, workers=2).run(do.nap, itertools.islice(count(), 1_000_000))
    assert pulled == 0
    for finished, _ in enumerate(itertools.islice(results, 50)):
        assert pulled <= finished + 1 + 2 * 2
    results.close()
    assert pulled <= 50 + 2 * 2


def test_one_worker_keeps_the_order(tmp_path):
    tasks = files(tmp_path, 12)
    for executor in (make_executor("serial"), make_executor("local", workers=1)):
        assert [task for task, _ in executor.run(do.note, tasks)] == tasks


@isolated
def test_a_task_that_dies_once_is_run_again(tmp_path, engine):
    tasks = files(tmp_path, 6)
    done = dict(make_executor(engine, workers=2).run(do.die_once, tasks))
    assert done == dict.fromkeys(tasks)
    assert [len(lines(task)) for task in tasks] == [1, 2, 1, 2, 1, 1]


@isolated
def test_a_task_that_always_dies_is_given_up_and_the_others_finish(tmp_path, engine):
    tasks = files(tmp_path, 8)
    done = dict(make_executor(engine, workers=2).run(do.die_always, tasks))
    failure = done.pop(tasks[2])
    assert failure.reason == "worker_died"
    assert failure.message == "the worker process died twice (out of memory, or a crash in a decoder)"
    assert len(lines(tasks[2])) == 2
    assert done == {task: None for task in tasks if task.name != "2"}


@isolated
def test_a_task_that_hangs_is_given_up_and_the_others_are_not_disturbed(tmp_path, engine):
    tasks = files(tmp_path, 8)
    done = dict(make_executor(engine, workers=2, timeout_s=1.5).run(do.hang, tasks))
    failure = done.pop(tasks[2])
    assert (failure.reason, failure.message) == ("timeout", "took longer than 1.5 s")
    assert done == {task: None for task in tasks if task.name != "2"}
    assert [len(lines(task)) for task in tasks] == [1] * 8
    wait_until(lambda: not is_alive(int(lines(tasks[2])[0].split()[0])))


@isolated
def test_time_is_counted_from_the_start_of_a_task(engine):
    """Ten tasks of 0.4 s on two workers wait up to 2 s for their turn, and a process takes as long to start."""
    done = list(make_executor(engine, workers=2, timeout_s=1.5).run(do.nap, [0.4] * 10))
    assert done == [(0.4, None)] * 10


@isolated
def test_an_exception_stops_the_run_and_keeps_its_type(tmp_path, engine):
    tasks = files(tmp_path, 1000)
    with pytest.raises(OutputError, match="the disk is full") as caught:
        list(make_executor(engine, workers=2).run(do.disk_full, tasks))
    assert (caught.value.errno, caught.value.filename) == (28, str(tasks[3]))
    assert type(caught.value) is OutputError
    assert sum(task.exists() for task in tasks) < 20


@isolated
def test_exceptions_that_cannot_travel_become_text(tmp_path, engine):
    with pytest.raises(RuntimeError, match=r"raise_stubborn(.|\n)*StubbornError: nopickle"):
        list(make_executor(engine, workers=1).run(do.raise_stubborn, files(tmp_path, 2)))
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        list(make_executor(engine, workers=1).run(do.leave, files(tmp_path, 2)))


def test_tasks_that_cannot_be_sent_or_read_are_errors_not_deaths():
    executor = make_executor("local", workers=1)
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        list(executor.run(do.ignore, [lambda: None]))
    with pytest.raises(ZeroDivisionError):
        list(executor.run(do.ignore, [Unreadable()]))


class Unreadable:
    def __reduce__(self):
        return divmod, (1, 0)


def test_processes_are_renewed_after_some_tasks(tmp_path):
    tasks = files(tmp_path, 6)
    list(make_executor("local", workers=1, max_tasks_per_worker=2).run(do.note, tasks))
    pids = [lines(task)[0].split()[0] for task in tasks]
    assert pids[0::2] == pids[1::2]
    assert len(set(pids)) == 3


def test_random_kills_cost_nothing_but_time(tmp_path):
    """Workers are killed at any moment, while they start, work or wait: every task still has one outcome."""
    tasks = files(tmp_path, 60)
    chance, stop, kills = random.Random(0), threading.Event(), 0

    def kill_workers() -> None:
        nonlocal kills
        children = Path(f"/proc/self/task/{main}/children")
        while not stop.wait(chance.uniform(0.05, 0.6)):
            pids = [int(pid) for pid in children.read_text().split()]
            workers = [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            if workers:
                os.kill(chance.choice(workers), signal.SIGKILL)
                kills += 1

    main = threading.get_native_id()
    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        done = dict(make_executor("local", workers=3).run(do.note_slowly, tasks))
    finally:
        stop.set()
        killer.join()
    assert kills >= 3
    assert done.keys() == set(tasks)
    for task, failure in done.items():
        assert len(lines(task)) >= 1 if failure is None else failure.reason == "worker_died"


@isolated
def test_closing_stops_the_workers(tmp_path, engine):
    tasks = files(tmp_path, 6)
    results = make_executor(engine, workers=2).run(do.sleep_after_the_first, tasks)
    assert next(results) == (tasks[0], None)
    wait_until(lambda: tasks[1].exists() and tasks[2].exists())
    before = time.monotonic()
    results.close()
    pids = [int(lines(task)[0].split()[0]) for task in tasks[1:3]]
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 5.0 - (time.monotonic() - before))
    assert not tasks[3].exists()


#: A program as a user's: two workers that would sleep for ten minutes, deaf to polite signals.
PROGRAM = """
import sys
from pathlib import Path
import executor_tasks
from mimic_wds.executors.base import make_executor
if __name__ == "__main__":
    tasks = [Path(sys.argv[1]) / str(n) for n in range(4)]
    try:
        list(make_executor(sys.argv[2], workers=2).run(executor_tasks.sleep_deaf, tasks))
    except KeyboardInterrupt:
        sys.exit("interrupted")
"""


def program_command(script: Path, folder: Path, name: str) -> tuple[list[object], dict[str, str]]:
    return [sys.executable, script, folder, name], {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}


@isolated_programs
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_an_interrupted_or_killed_program(tmp_path, name, sent):
    """Ctrl-C reaches the whole process group, as from a terminal; SIGKILL the program alone."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    command, environment = program_command(script, tmp_path, name)
    program = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        tasks = files(tmp_path, 2)
        wait_until(lambda: all(task.exists() and lines(task) for task in tasks))
        pids = [int(lines(task)[0].split()[0]) for task in tasks]
        sent_s = time.monotonic()
        if sent is signal.SIGINT:
            os.killpg(program.pid, sent)
            _, said = program.communicate(timeout=5)
            assert (program.returncode, said.splitlines()[-1]) == (1, "interrupted")
            assert name == "ray" or said == "interrupted\n"  # one clean message, nothing from the workers
        else:
            program.kill()
        wait_until(lambda: not any(is_alive(pid) for pid in pids), 5.0 - (time.monotonic() - sent_s))
    finally:
        program.kill()
        program.communicate()


def test_processes_that_cannot_start_stop_the_run(tmp_path):
    script = tmp_path / "program.py"  # without the guard that started processes need
    script.write_text(PROGRAM.replace('if __name__ == "__main__":', "if True:"))
    command, environment = program_command(script, tmp_path, "local")
    program = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert program.returncode == 1
    last = "RuntimeError: the worker processes die as they start; run with the executor 'serial' to see why"
    assert last in program.stderr.splitlines()  # Python's resource tracker may have a word after it


def test_wrong_arguments_say_what_is_right(monkeypatch):
    with pytest.raises(ValueError, match="unknown executor 'lokal'; did you mean 'local'"):
        make_executor("lokal")
    with pytest.raises(ValueError, match="timeout_s must be 0 or more, got -1"):
        make_executor("local", timeout_s=-1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs Ray: pip install 'mimic-wds\[ray\]'"):
        make_executor("ray")
