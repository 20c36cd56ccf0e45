"""Going on after a kill: exactly the rest, for other numbers of processes; nothing is read again."""

import json
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from samples import make_data_set

from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.order import rank_rows
from mimic_wds.loading.pairs import PairLoader

RANK = """
import json, sys
sys.path[:0] = {path!r}
from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.pairs import PairLoader
folder, share, state = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
loader = PairLoader(PairDataset(folder), seed=5, **share)
epoch, step = loader.load_state(state) if state else (0, 0)
while epoch < 2:
    for batch in loader.epoch(epoch, step):
        print(json.dumps([batch.rows.tolist(), batch.keys, loader.state()]), flush=True)
        sys.stdin.readline()  # the other ranks' gradients
    epoch, step = epoch + 1, 0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """150 pairs in some shards."""
    place = tmp_path_factory.mktemp("resuming") / "tiny"
    make_data_set(place, per_scene=(10,) * 15, max_shard_bytes=150_000)
    return place


@pytest.fixture
def dataset(folder):
    with PairDataset(folder) as opened:
        yield opened


class Ranks:
    """The processes of a run, which take their steps together."""

    def __init__(self, folder, world_size, global_batch, accumulation=1, state=None):
        self.accumulation, self.global_batch = accumulation, global_batch
        self.processes = []
        for rank in range(world_size):
            share = {"rank": rank, "world_size": world_size, "global_batch": global_batch, "accumulation": accumulation}
            share["num_threads"] = 1 + rank % 3
            code = RANK.format(path=sys.path)
            command = [sys.executable, "-c", code, str(folder), json.dumps(share), json.dumps(state)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self.processes.append(subprocess.Popen(command, **pipes))

    def step(self):
        """The keys of the next global batch, by rows, and the state behind it; None after the last."""
        keys = [""] * self.global_batch
        for _ in range(self.accumulation):
            for process in self.processes:
                line = process.stdout.readline()
                if not line:
                    return None
                rows, own, state = json.loads(line)
                for row, key in zip(rows, own, strict=True):
                    assert keys[row] == ""
                    keys[row] = key
                process.stdin.write("\n")
                process.stdin.flush()
        return keys, state

    def end(self, with_signal=None):
        """Wait for all of them, killed or not."""
        for process in self.processes:
            if with_signal:
                process.send_signal(with_signal)
            process.stdin.close()
            process.stdout.close()
            code = process.wait(60)
            assert code == (-with_signal if with_signal else 0)


def undisturbed(dataset, global_batch):
    loader = PairLoader(dataset, global_batch=global_batch, seed=5)
    return [list(batch.keys) for epoch in range(2) for batch in loader.epoch(epoch)]


@pytest.mark.parametrize(
    ("global_batch", "resumed"), [pytest.param(24, [(1, 2), (3, 1), (4, 2)], marks=pytest.mark.slow), (12, [(3, 2)])]
)
def test_killed_runs_go_on_with_another_number_of_processes(folder, dataset, global_batch, resumed):
    whole = undisturbed(dataset, global_batch)
    ranks = Ranks(folder, 2, global_batch)
    before = [ranks.step() for _ in range(len(whole) // 2 + 2)]  # in the second epoch
    ranks.end(signal.SIGKILL)
    state = before[-1][1]
    assert state["epoch"] == 1
    assert state["step"] > 0
    for world_size, accumulation in resumed:
        others = Ranks(folder, world_size, global_batch, accumulation, state)
        after = []
        while (taken := others.step()) is not None:
            after.append(taken[0])
        others.end()
        assert [keys for keys, _ in before] + after == whole


def test_nothing_that_was_consumed_is_read_again(dataset, monkeypatch):
    loader = PairLoader(dataset, global_batch=15, seed=3)
    state = {**loader.state(), "epoch": 4, "step": 9}  # nine tenths
    read, original = Counter(), dataset.read
    monkeypatch.setattr(dataset, "read", lambda index: (read.update([index]), original(index))[1])
    told = []
    monkeypatch.setattr(dataset, "expect", lambda groups: told.extend(groups), raising=False)
    list(loader.epoch(*loader.load_state(state)))
    assert read == Counter(loader.order.batch(4, 9).tolist())
    ends = np.cumsum([len(shard) for shard in dataset.shards])
    assert {shard for group in told for shard in group} == set(np.searchsorted(ends, list(read), side="right").tolist())


def test_a_rank_reads_its_own_lanes_only(dataset, monkeypatch):
    shards = []
    for rank in range(2):
        loader = PairLoader(dataset, global_batch=24, rank=rank, world_size=2, window=1)
        told = []
        monkeypatch.setattr(dataset, "expect", lambda groups, told=told: told.extend(groups), raising=False)
        list(loader.epoch(0))
        shards.append({shard for group in told for shard in group})
    assert len(shards[0] & shards[1]) <= 1
    assert len(shards[0] | shards[1]) == len(dataset.shards) > 4


def test_another_global_batch_goes_on_at_the_same_sample(dataset, capsys):
    before = PairLoader(dataset, global_batch=12, seed=1)
    state = {**before.state(), "step": 4}
    after = PairLoader(dataset, global_batch=24, seed=1)
    assert after.order.lanes != before.order.lanes
    with pytest.raises(ValueError, match=r"another global_batch \(12\) than the one given now \(24\)"):
        after.load_state(state)
    assert after.load_state(state, adapt=True) == (0, 2)
    assert "going on after 48 samples of epoch 0, none again" in capsys.readouterr().err
    consumed = {index for step in range(4) for index in before.order.batch(0, step).tolist()}
    rest = {index for step in range(2, 6) for index in after.order.batch(0, step).tolist()}
    assert not consumed & rest
    assert len(consumed | rest) == 144


def test_a_global_batch_that_does_not_divide_begins_the_next_epoch(dataset, capsys):
    state = {**PairLoader(dataset, global_batch=12, seed=1).state(), "epoch": 3, "step": 5}
    assert PairLoader(dataset, global_batch=24, seed=1).load_state(state, adapt=True) == (4, 0)
    printed = capsys.readouterr().err
    assert "another global_batch than before: epoch 3 ends after its 5 steps" in printed
    assert "epoch 4 begins with every sample in the new order" in printed


def test_another_data_set_begins_the_next_epoch_only_when_asked_to(dataset, tmp_path, capsys):
    state = {**PairLoader(dataset, global_batch=6).state(), "epoch": 2, "step": 7}
    make_data_set(tmp_path / "more", per_scene=(9, 9, 9))
    with PairDataset(tmp_path / "more") as more:
        loader = PairLoader(more, global_batch=6)
        with pytest.raises(ValueError, match=r"another manifest .*: resume with the same data set"):
            loader.load_state(state)
        assert loader.load_state(state, adapt=True) == (3, 0)
        assert (loader.state()["epoch"], loader.state()["step"]) == (3, 0)
        assert "another manifest than before: epoch 2 ends after its 7 steps" in capsys.readouterr().err
        assert loader.load_state({**state, "step": 0}, adapt=True) == (2, 0)
        assert PairLoader(more, global_batch=6, rank=1, world_size=2).load_state(state, adapt=True) == (3, 0)
        assert "epoch 2 ends" not in capsys.readouterr().err.split("from its beginning")[1]
        with pytest.raises(ValueError, match="no state of this loader: epoch None"):
            loader.load_state({}, adapt=True)


def test_the_same_run_adapts_to_nothing(dataset, capsys):
    loader = PairLoader(dataset, global_batch=6, lanes=2, window=1)
    state = {**loader.state(), "epoch": 1, "step": 3}
    assert loader.load_state(state, adapt=True) == loader.load_state(state) == (1, 3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["lanes", "window"])
def test_lanes_and_windows_belong_to_the_state(dataset, name):
    state = PairLoader(dataset, global_batch=8, lanes=4, window=2).state()
    with pytest.raises(ValueError, match=f"this run was at another {name}"):
        PairLoader(dataset, global_batch=8, **{"lanes": 4, "window": 2, name: 1}).load_state(state)


def test_samples_seen_are_those_of_all_ranks(dataset):
    for rank, world_size in ((0, 1), (1, 3)):
        loader = PairLoader(dataset, global_batch=24, rank=rank, world_size=world_size)
        assert [loader.seen()["all"] for _ in loader.epoch(1)] == [144 + 24 * n for n in range(1, 7)]


def test_with_padding_an_epoch_gives_every_sample(dataset):
    keys = []
    for rank in range(3):
        loader = PairLoader(dataset, global_batch=24, tail="pad", rank=rank, world_size=3)
        for step, batch in enumerate(loader.epoch(0)):
            valid = loader.order.valid(0, step)[batch.rows.numpy()]
            keys += [key for key, own in zip(batch.keys, valid, strict=True) if own]
    assert (loader.steps_per_epoch, loader.order.padding) == (7, 18)
    assert sorted(keys) == sorted(dataset.read(index)[0] for index in range(150))


def test_an_order_of_another_batch_is_refused(dataset):
    order = PairLoader(dataset, global_batch=24).order
    with pytest.raises(ValueError, match="the order has global batches of 24, the loader of 12"):
        PairLoader(dataset, global_batch=12, order=order)
    assert rank_rows(24, 2, 1, 1).min() == 12
