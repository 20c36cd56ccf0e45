"""What a run will read, said before it: checked against loaders that read; and without torch."""

import dataclasses
import json
import subprocess
import sys

import pytest
from servers_for_transfer import WebServer

from mimic_wds.cli.main import run
from mimic_wds.loading.order import rank_rows
from mimic_wds.loading.plan import Setup, make_order, plan_loading
from mimic_wds.storage.manifest import read_manifest


@pytest.fixture
def manifest(folder):
    return read_manifest(folder)


def larger(manifest, num_shards, samples=100, num_bytes=5000):
    shard = manifest.shards[0]
    shards = [
        dataclasses.replace(shard, name=f"tiny-{n:06d}.tar", samples=samples, bytes=num_bytes)
        for n in range(num_shards)
    ]
    return dataclasses.replace(manifest, shards=shards, scenes={"video": num_shards * 10})


@pytest.mark.parametrize(("world_size", "lanes"), [(1, 4), (2, 8), (8, 8), (3, 4)])
def test_shares_are_those_that_ranks_are_told_to_expect(manifest, world_size, lanes):
    setup = Setup(global_batch=24, world_size=world_size, lanes=lanes, window=2)
    big = larger(manifest, 40)
    plan, order = plan_loading(big, setup), make_order(big, setup)
    expected = []
    for rank in range(world_size):
        groups = order.shards_ahead(0, 0, rank_rows(24, world_size, rank, 1).ravel())
        expected.append(len({shard for group in groups for shard in group}))
    assert (plan.shards_per_rank.least, plan.shards_per_rank.most) == (min(expected), max(expected))
    assert plan.read_bytes == 5000 * sum(expected)
    assert (plan.steps_per_epoch, plan.left_out, plan.padding) == (166, 16, 0)
    assert bool(plan.remarks) == (world_size == 3)
    assert plan.megabytes_per_second == pytest.approx(65 * world_size * 50 / 1e6, abs=0.01)


def test_the_cache_holds_a_window_of_each_lane_and_the_next(manifest):
    plan = plan_loading(larger(manifest, 640), Setup(global_batch=64, world_size=4, lanes=16, window=3))
    assert 4 * 3 * 5000 <= plan.cache_bytes.least <= plan.cache_bytes.most <= 5 * 5 * 5000
    assert plan_loading(larger(manifest, 8), Setup(global_batch=64)).cache_bytes.most == 8 * 5000


def test_padding_and_epochs(manifest):
    plan = plan_loading(larger(manifest, 3), Setup(global_batch=64, tail="pad", epochs=4))
    assert (plan.steps_per_epoch, plan.steps, plan.padding, plan.left_out) == (5, 20, 20, 0)


def test_a_million_shards_are_planned(manifest):
    plan = plan_loading(larger(manifest, 10**6, 1000), Setup(global_batch=4096, world_size=64))
    assert (plan.samples, plan.lanes, plan.steps_per_epoch) == (10**9, 64, 244140)
    assert plan.shards_per_rank.least == 10**6 // 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --batch-size"),
        (["--batch-size", "8", "--world-size", "3"], "make it 6 or 9, or change the number of processes"),
        (["--batch-size", "31"], "a global batch of 31 cannot be made from 30 samples"),
        (["--batch-size", "6", "--lanes", "4"], "the lanes must divide it"),
        (["--batch-size", "6", "--workers", "0"], "1 process, worker and epoch or more"),
        (["--batch-size", "6", "--window", "0"], "got window = 0"),
    ],
)
def test_runs_that_cannot_be_are_refused_with_what_to_change(folder, capsys, arguments, message):
    assert run(["plan", str(folder), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_plan_is_printed(folder, capsys):
    assert run(["plan", str(folder), "--batch-size", "12", "--world-size", "4", "--samples-per-second", "9000"]) == 0
    printed = capsys.readouterr().out
    assert "steps per epoch" in printed
    assert "steps between neighbours, p50" in printed
    assert "8 threads decode about 8800 samples/s of the 9000 asked for: give 3 workers to each process" in printed


def test_the_plan_as_json(folder, capsys):
    assert run(["plan", str(folder), "--batch-size", "12", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["samples"], plan["steps_per_epoch"], plan["left_out"]) == (30, 2, 6)
    assert plan["quality"]["scene_samples"] == 6


def test_a_data_set_on_a_server_is_planned_from_its_manifest_alone(folder, capsys):
    assert run(["plan", str(folder), "--batch-size", "6", "--json"]) == 0
    local = capsys.readouterr().out
    with WebServer(folder) as server:
        assert run(["plan", server.url, "--batch-size", "6", "--json"]) == 0
        assert [(method, name) for method, name, _, _ in server.log] == [("GET", "manifest.json")]
    assert json.loads(capsys.readouterr().out) == json.loads(local)


def test_a_folder_without_a_data_set(tmp_path, capsys):
    assert run(["plan", str(tmp_path), "--batch-size", "12"]) == 2
    assert "no manifest.json here" in capsys.readouterr().err


def test_planning_needs_no_torch(folder):
    code = f"""
import sys
from mimic_wds.cli.main import run
import mimic_wds.loading.mixing, mimic_wds.loading.faults, mimic_wds.loading.joined, mimic_wds.loading.state
assert run(["plan", {str(folder)!r}, "--batch-size", "12"]) == 0
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
