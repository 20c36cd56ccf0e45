"""A model that is cut up over processes trains as one that is not, and its checkpoints are whole."""

import os
import signal
import sys
from pathlib import Path

import processes
import pytest
import torch
from safetensors.torch import load_file

from mimic_wds.training.checkpoint import latest, read_state, restore
from mimic_wds.training.config import read_config
from mimic_wds.training.optimizer import build_optimizer
from mimic_wds.training.sharding import blocks
from mimic_wds.training.trackers import read_log

DRIVER = Path(__file__).with_name("drive.py")
LOOKS = {"look_every": 3}


def drive(number, *arguments):
    """Real processes of train/pretrain.py; what rank 0 says of it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = processes.run_ranks(number, [sys.executable, DRIVER, *arguments], environment)
    assert len({each.returncode for each in done}) == 1, "".join(each.stderr for each in done)
    return done[0]


def assert_same(one, other):
    """Logs and final weights; the keys' biases have no gradient but rounding, for the softmax cancels them."""
    logs = [read_log(run / "log.jsonl") for run in (one, other)]
    for mine, theirs in zip(*logs, strict=True):
        assert mine.keys() == theirs.keys()
        for name in ("loss", "grad_norm", "attention", "attention_same_place", "look_loss"):
            assert mine.get(name) == pytest.approx(theirs.get(name), abs=1e-5), name
    weights = [load_file(latest(run) / "model.safetensors") for run in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        if not name.endswith(("qkv.bias", "projk.bias")):
            torch.testing.assert_close(value, weights[1][name], atol=1e-5, rtol=0, msg=name)


def test_two_processes_learn_what_one_learns_and_one_goes_on(pretrain, config_file, pairs, tmp_path):
    """Pictures and attention agreement too; stopped by a signal to one, and taken up uncut."""
    config = config_file(model={"depth": 2}, run=LOOKS, optimizer={"clip_grad_norm": 0.5})
    assert pretrain(config, "--output", tmp_path / "one") == 0
    arguments = [config, "--data", pairs, "--set", "run.shard=true", "--set", "run.max_device_batch=2"]
    done = drive(2, "never", 0, 0, *arguments, "--output", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert "attention agreement" in done.stdout
    assert (tmp_path / "two" / "reconstructions.png").stat().st_size > 1000
    assert_same(tmp_path / "two", tmp_path / "one")

    stopped = drive(2, "terminate", 4, 1, *arguments, "--output", tmp_path / "stopped")
    assert stopped.returncode == 130, stopped.stderr
    assert read_state(latest(tmp_path / "stopped")).step in (4, 5)
    assert pretrain(config, "--output", tmp_path / "stopped", "--resume") == 0
    assert_same(tmp_path / "stopped", tmp_path / "one")


def test_a_run_in_one_piece_is_taken_up_by_three(pretrain, config_file, pairs, tmp_path):
    """MAE; widths that three does not divide, activations not kept: killed, and taken up by three."""
    mae = {"objective": "mae", "depth": 2}
    config = config_file(model=mae, data={"global_batch": 12}, run={"checkpoint_every": 2})
    assert pretrain(config, "--output", tmp_path / "one") == 0
    killed = drive(1, "kill", 4, 0, config, "--data", pairs, "--output", tmp_path / "run")
    assert killed.returncode == -signal.SIGKILL
    assert latest(tmp_path / "run").name == "checkpoint-0000002"
    shard = ["--set", "run.shard=true", "--set", "run.recompute=true"]
    done = drive(3, "never", 0, 0, config, "--data", pairs, "--output", tmp_path / "run", "--resume", *shard)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "run", tmp_path / "one")


PARTS = """
import json, sys
import torch
from accelerate import Accelerator
from mimic_wds.models.build import build_model
from mimic_wds.training.checkpoint import restore
from mimic_wds.training.config import read_config
from mimic_wds.training.optimizer import build_optimizer
from mimic_wds.training.sharding import shard, whole
from pathlib import Path

accelerator = Accelerator(cpu=True)
config = read_config(Path(sys.argv[1]))
model = build_model(config.model)
names = [name for name, _ in model.named_parameters()]
shard(model, torch.device("cpu"), accelerator.num_processes)
assert [name for name, _ in model.named_parameters()] == names
optimizer = build_optimizer(model, lr=0.1)
restore(Path(sys.argv[2]), model, optimizer)
held = [p.to_local().numel() for p in model.parameters()]
held += [v.to_local().numel() for s in optimizer.state.values() for n, v in s.items() if n != "step"]
weights, state = whole(model, model).state_dict(), whole(optimizer, model).state_dict()
assert not any(type(t).__name__ == "DTensor" for t in weights.values())
torch.save({"weights": weights, "state": state, "held": sum(held)}, sys.argv[3] + str(accelerator.process_index))
"""


def test_each_process_holds_its_part_and_the_whole_is_exact(pretrain, config_file, pairs, tmp_path, script):
    """What is put together from the parts is what was cut up, to the bit: weights and AdamW's moments."""
    config = config_file(model={"depth": 3})
    assert pretrain(config, "--output", tmp_path / "run", "--steps", 2) == 0
    program = tmp_path / "parts.py"
    program.write_text(PARTS)
    done = processes.run_ranks(2, [sys.executable, program, config, latest(tmp_path / "run"), tmp_path / "rank"])
    assert [each.returncode for each in done] == [0, 0], done[0].stderr
    found = [torch.load(tmp_path / f"rank{rank}", weights_only=True) for rank in range(2)]

    model = script.build_model(read_config(config).model)
    optimizer = build_optimizer(model, lr=0.1)
    restore(latest(tmp_path / "run"), model, optimizer)
    for each in found:
        assert all(torch.equal(each["weights"][name], tensor) for name, tensor in model.state_dict().items())
        for number, values in optimizer.state_dict()["state"].items():
            assert all(torch.equal(each["state"]["state"][number][name], value) for name, value in values.items())
    total = sum(p.numel() * (3 if p.requires_grad else 1) for p in model.parameters())  # AdamW has two moments
    assert sum(each["held"] for each in found) == total
    assert max(each["held"] for each in found) < 0.51 * total


def test_blocks_are_those_of_encoder_and_decoder(script, tiny):
    model = script.build_model(tiny(model={"depth": 3, "decoder_depth": 2}).model)
    assert len(blocks(model)) == 5
    assert len({id(block) for block in blocks(model)}) == 5


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "run.shard = true cuts the model up over several processes, and there is one"),
        (["model.objective=dino", "model.mask_ratio=0"], "the teacher of DINO follows whole weights"),
        (["run.precision=fp16"], "run.shard goes without the loss scale of fp16"),
    ],
)
def test_what_cannot_be_cut_up_is_refused(pretrain, config_file, pairs, tmp_path, capsys, keys, message):
    arguments = [word for key in ["run.shard=true", *keys] for word in ("--set", key)]
    assert pretrain(config_file(), "--output", tmp_path / "run", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
