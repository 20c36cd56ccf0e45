"""Ray with two machines, one of which is lost: every task is done all the same."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from videos import write_pan

from mimic_wds.curation import build as building
from mimic_wds.curation.recipe import make_recipe
from mimic_wds.curation.report import Report
from mimic_wds.executors.base import make_executor

sys.path.append(str(Path(__file__).parent))  # worker processes search where we do
import executor_tasks as do
from executor_tasks import is_alive, wait_until

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="Ray is not installed")

STORE_BYTES = 100 * 1024**2


@pytest.fixture
def cluster(monkeypatch) -> Iterator:
    """The head, a machine with one CPU, as processes of this one."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


def test_a_lost_machine_costs_no_task(tmp_path, cluster):
    machine = cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES)
    tasks = [tmp_path / f"{n:02}" for n in range(10)]
    at_loss = []

    def lose_machine() -> None:
        wait_until(lambda: sum(task.exists() and task.stat().st_size > 0 for task in tasks) == 3)  # all CPUs are busy
        pids = [task.read_text().split()[0] for task in tasks if task.exists()]
        cluster.remove_node(machine, allow_graceful=False)
        wait_until(lambda: sum(is_alive(int(pid)) for pid in pids) == 1)  # its workers end with it
        at_loss.extend(task.name for task in tasks if task.exists())
        (tmp_path / "go").touch()

    thread = threading.Thread(target=lose_machine)
    thread.start()
    done = dict(make_executor("ray", address=cluster.address).run(do.note_and_wait_for_go, tasks))
    thread.join()
    assert at_loss[:3] == ["00", "01", "02"]
    assert done == dict.fromkeys(tasks)
    runs = [len(task.read_text().splitlines()) for task in tasks]
    assert sorted(runs[:3]) == [1, 2, 2]  # two were under way on the lost machine
    assert runs[3:] == [1] * 7
    assert not ray.is_initialized()


def test_a_build_that_loses_a_machine_gives_the_same_bytes(tmp_path, cluster):
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(8):
        write_pan(clips / f"{number:02}.avi", 3, seed=number)

    def build(out, executor):
        made = make_recipe(
            name="pans",
            out=out,
            preset_name="default",
            criteria={"image_filter": "executor_tasks:slowly"},
            sources=[{"source": "video", "paths": [str(clips)], "retry": False}],
            where="test",
        )
        return building.build(made, executor, Report({}))

    machine = cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES)
    out, before = tmp_path / "a" / "pans", []

    def lose_machine() -> None:
        wait_until(lambda: len(list(out.glob(".build/*/*.json"))) >= 2)
        before.extend(out.glob(".build/*/*.json"))
        cluster.remove_node(machine, allow_graceful=False)

    thread = threading.Thread(target=lose_machine)
    thread.start()
    manifest = build(out, make_executor("ray", address=cluster.address))
    thread.join()
    assert 2 <= len(before) < 8
    assert (manifest.failed_scenes, manifest.kept) == ({}, {"video": 16})
    build(tmp_path / "b" / "pans", make_executor("serial", workers=1))
    files = {path.name for path in out.iterdir()}
    assert files == {path.name for path in (tmp_path / "b" / "pans").iterdir()} >= {"pans-000000.tar", "scenes.jsonl"}
    assert all((out / name).read_bytes() == (tmp_path / "b" / "pans" / name).read_bytes() for name in files)


def test_workers_limits_how_many_run_at_once(tmp_path, cluster):
    cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES)
    pulled, most = 0, 0

    def count() -> Iterator[Path]:
        nonlocal pulled
        for n in range(6):
            pulled += 1
            yield tmp_path / str(n)

    for finished, _ in enumerate(make_executor("ray", address=cluster.address, workers=1).run(do.note, count())):
        most = max(most, pulled - finished)
    assert most == 2  # the one that has just finished, and its successor


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://head", "nowhere.invalid:6379"])
def test_an_address_without_a_cluster_is_an_error_at_once(address):
    with pytest.raises(ValueError, match=f"no Ray cluster at '{address}'"):
        next(make_executor("ray", address=address).run(do.ignore, [1]))
