"""The script: the same run whatever cuts it up (processes, micro-batches, kills), and what it says when it cannot."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import processes
import pytest
import torch
from safetensors.torch import load_file
from samples import make_data_set, make_image, make_image_set
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mimic_wds.loading.dataset import PairDataset
from mimic_wds.models.published import read_published, to_ours
from mimic_wds.training.checkpoint import latest, load_model, read_state
from mimic_wds.training.trackers import read_log

DRIVER = Path(__file__).with_name("drive.py")
ROOT = DRIVER.parents[2]


def environment() -> dict[str, str]:
    """That of processes with as many threads each as this one has."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}


def drive(num_processes: int, *arguments: object) -> processes.Done:
    """Run drive.py in real processes; what rank 0 says of it."""
    return processes.run_ranks(num_processes, [sys.executable, DRIVER, *arguments], environment())[0]


def losses(output: Path) -> list[float]:
    log = read_log(output / "log.jsonl")
    assert [line["step"] for line in log] == list(range(1, len(log) + 1)), "every step once, in order"
    return [line["loss"] for line in log]


def weights(output: Path) -> dict[str, torch.Tensor]:
    """The final weights without the keys' biases: the softmax cancels those, so their gradient is rounding alone."""
    found = load_file(latest(output) / "model.safetensors")
    for name in [name for name in found if name.endswith("projk.bias")]:
        del found[name]
    for name in [name for name in found if name.endswith("qkv.bias")]:
        query, _, value = found[name].chunk(3)
        found[name] = torch.cat([query, value])
    return found


def assert_same_run(one: Path, other: Path, tolerance: float = 1e-5) -> None:
    assert losses(one) == pytest.approx(losses(other), abs=tolerance)
    torch.testing.assert_close(weights(one), weights(other), atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, script, pairs, config_file):
    """Runs of nine steps in one process and one micro-batch, by objective."""
    done: dict[str, Path] = {}

    def run(objective: str, pretrain) -> Path:
        if objective not in done:
            done[objective] = tmp_path_factory.mktemp(objective) / "run"
            assert pretrain(config_file(model={"objective": objective}), "--output", done[objective]) == 0
        return done[objective]

    return run


@pytest.mark.parametrize("objective", ["croco", "mae"])
def test_accumulation_changes_nothing(straight, pretrain, config_file, tmp_path, capsys, objective):
    reference = straight(objective, pretrain)
    capsys.readouterr()
    config = config_file(model={"objective": objective}, run={"max_device_batch": 2})
    assert pretrain(config, "--output", tmp_path) == 0
    unit = {"croco": "pairs", "mae": "images"}[objective]
    assert f"8 {unit} per step = 1 process x 2 {unit} x 4 micro-batches" in capsys.readouterr().out
    assert_same_run(tmp_path, reference)


def test_the_loss_falls_and_the_report_says_so(pretrain, config_file, tmp_path, capsys):
    assert pretrain(config_file(), "--output", tmp_path, "--set", "optimizer.base_lr=0.096") == 0
    log = read_log(tmp_path / "log.jsonl")
    assert log[-1]["loss"] < 0.93 * log[0]["loss"]
    printed = capsys.readouterr().out
    assert "24 pairs of 64x64 px, 3 steps per epoch" in printed
    assert "rate    0 -> 0.003 in 0.5 epochs, then down to 0 at epoch 3" in printed
    assert "run     steps 1 to 9 (3 epochs)" in printed
    assert f"loss {log[0]['loss']:.3f} -> " in printed
    # lr of step s is the schedule at epoch (s - 1) / 3; peak 0.096 * 8 / 256
    assert log[0]["lr"] == 0
    assert all(0.1 < line["visible_loss"] < 3 for line in log)
    assert log[3]["lr"] == pytest.approx(0.096 * 8 / 256 * 0.5 * (1 + np.cos(np.pi * 0.5 / 2.5)))


def test_two_processes_interrupted_and_resumed_by_one_give_the_same_run(
    straight, pretrain, config_file, pairs, tmp_path
):
    reference = straight("croco", pretrain)
    config = config_file(run={"checkpoint_every": 100})
    arguments = [config, "--data", pairs, "--output", tmp_path]
    done = drive(2, "terminate", 4, 1, *arguments)  # only one of the two is told to stop
    assert "2 processes x 4 pairs x 1 micro-batch\n" in done.stdout, done.stderr
    assert "interrupted after step" in done.stdout
    stopped_at = read_state(latest(tmp_path)).step
    assert stopped_at in (4, 5)
    assert len(losses(tmp_path)) == stopped_at
    assert pretrain(config, "--output", tmp_path, "--resume", "--set", "run.max_device_batch=4") == 0
    assert_same_run(tmp_path, reference)


def test_when_one_rank_dies_all_end_and_four_processes_go_on(straight, pretrain, config_file, pairs, tmp_path):
    reference = straight("croco", pretrain)
    arguments = [config_file(), "--data", pairs, "--output", tmp_path]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", DRIVER]
    command = [str(word) for word in (*launch, "kill", 5, 1, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())  # does not hang
    assert done.returncode == 1
    assert "SIGKILL" in done.stderr.upper() or "exitcode  : -9" in done.stderr
    assert latest(tmp_path).name == "checkpoint-0000003"
    done = drive(4, "never", 0, 0, *arguments, "--resume")
    assert "4 processes x 2 pairs x 1 micro-batch\n" in done.stdout, done.stderr
    assert_same_run(tmp_path, reference)


def test_killed_while_saving_and_resumed_gives_the_same_run(straight, pretrain, config_file, pairs, tmp_path):
    reference = straight("croco", pretrain)
    done = drive(1, "kill-while-saving", 6, 0, config_file(), "--data", pairs, "--output", tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert latest(tmp_path).name == "checkpoint-0000003"
    assert len(losses(tmp_path)) == 6  # the log is ahead of the checkpoint
    assert list(tmp_path.glob(".checkpoint-*"))
    assert pretrain(config_file(), "--output", tmp_path, "--resume") == 0
    assert_same_run(tmp_path, reference, tolerance=1e-6)
    assert not list(tmp_path.glob(".checkpoint-*"))


def test_an_interrupt_saves_and_exits_130(script, pretrain, config_file, tmp_path, monkeypatch, capsys):
    step, calls = script.optimizer_step, []

    def interrupted(*positional, **named):
        calls.append(named["stop"])
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*positional, **named)

    monkeypatch.setattr(script, "optimizer_step", interrupted)
    assert pretrain(config_file(run={"checkpoint_every": 100}), "--output", tmp_path) == 130
    assert calls == [False, False, True]
    assert read_state(latest(tmp_path)).loader["step"] == 0  # of the next epoch: three steps are an epoch
    assert "interrupted after step 3; go on with --resume" in capsys.readouterr().out
    assert not (tmp_path / "reconstructions.png").exists()


def test_steps_stop_early_without_changing_the_schedule(straight, pretrain, config_file, tmp_path):
    reference = straight("croco", pretrain)
    assert pretrain(config_file(), "--output", tmp_path, "--steps", 4) == 0
    assert losses(tmp_path) == pytest.approx(losses(reference)[:4], abs=1e-6)
    assert pretrain(config_file(), "--output", tmp_path, "--resume") == 0
    assert_same_run(tmp_path, reference, tolerance=1e-6)


@pytest.mark.parametrize(("objective", "columns"), [("croco", 7), ("mae", 4)])
def test_the_picture_shows_target_masked_prediction_and_reference(straight, pretrain, pairs, objective, columns):
    output = straight(objective, pretrain)
    picture = cv2.imread(str(output / "reconstructions.png"))
    assert picture.shape == (28 + 6 * 224 + 5 * 4, columns * 224 + (columns - 1) * 4, 3)
    target, masked, prediction = (picture[28 : 28 + 224, 228 * i : 228 * i + 224].astype(int) for i in range(3))
    hidden = (np.abs(masked - masked[2, 2]).reshape(4, 56, 4, 56, 3).max((1, 3, 4)) == 0).sum()
    same = (np.abs(target - prediction).reshape(4, 56, 4, 56, 3).max((1, 3, 4)) == 0).sum()
    assert same == 4  # 16 patches at ratio 0.75
    assert hidden in (0, 12)  # all grey ones are equal, if the corner patch is one of them


def test_a_finished_run_can_be_loaded_and_used(straight, pretrain):
    model = load_model(straight("mae", pretrain))
    assert model(torch.zeros(1, 3, 64, 64), torch.rand(1, 16)).prediction.shape == (1, 16, 768)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--set", "model.sise=small"], "[model]: unknown key 'sise'; did you mean 'size'"),
        (["--set", "data.global_batch=25"], "data.global_batch = 25 is more than the 24 pairs in"),
        (["--set", "model.image_size=[64, 32]"], "given as squares, but model.image_size = (64, 32)"),
        (["--set", "nonsense"], "--set: expected KEY=VALUE, got 'nonsense'"),
        (["--epochs", "0"], "run.epochs must be at least 1, got 0"),
        (["--set", "run.precision=fp16"], 'run.precision = "fp16" needs a GPU'),
    ],
)
def test_mistakes_are_one_line_and_exit_2(pretrain, config_file, tmp_path, capsys, changes, message):
    if "fp16" in message and torch.cuda.is_available():
        pytest.skip("fp16 works here")
    assert pretrain(config_file(), "--output", tmp_path, *changes) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_missing_data_missing_config_and_a_taken_output_exit_2(straight, pretrain, config_file, tmp_path, capsys):
    assert pretrain(config_file(), "--output", tmp_path, data=tmp_path / "nowhere") == 2
    assert "no such data set" in capsys.readouterr().err
    assert pretrain(tmp_path / "none.toml", "--output", tmp_path) == 2
    assert "none.toml: no such file" in capsys.readouterr().err
    assert pretrain(config_file(), "--output", straight("croco", pretrain)) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_resuming_on_other_data_is_refused(straight, pretrain, config_file, tmp_path, capsys):
    make_data_set(tmp_path / "other", per_scene=(9, 9, 7))
    output = straight("croco", pretrain)
    assert pretrain(config_file(), "--output", output, "--resume", data=tmp_path / "other") == 2
    assert "another manifest" in capsys.readouterr().err


def test_a_run_that_never_has_a_finite_loss_fails_with_advice(
    script, pretrain, pairs, config_file, tmp_path, monkeypatch, capsys
):
    inputs = script.model_inputs

    def poisoned(config, image0, image1, rows, draws):
        return inputs(config, image0 * float("nan"), image1, rows, draws)

    monkeypatch.setattr(script, "model_inputs", poisoned)
    assert pretrain(config_file(), "--output", tmp_path, "--set", "run.max_skipped_steps=2") == 1
    printed = capsys.readouterr()
    assert "step 1: loss is not finite" in printed.err
    assert "That were 2 steps in a row (run.max_skipped_steps)" in printed.err
    assert latest(tmp_path) is None
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["skipped"] == "loss"
    (skipped,) = map(json.loads, (tmp_path / "skipped.jsonl").read_text().splitlines())  # the second one ended the run
    assert (skipped["step"], skipped["reason"]) == (1, "loss")
    with PairDataset(pairs) as dataset:
        assert set(skipped["keys"]) < {dataset.read(index)[0] for index in range(len(dataset))}
    assert len(set(skipped["keys"])) == len(skipped["keys"]) == 8


@pytest.mark.parametrize("action", ["skip", "raise"])
def test_a_bad_sample_is_counted_or_ends_the_run(pretrain, config_file, tmp_path, capsys, action):
    folder = tmp_path / "damaged"
    make_data_set(folder, per_scene=(12, 12), max_shard_bytes=10**9)
    (shard,) = folder.glob("*.tar")
    shard.write_bytes(shard.read_bytes().replace(b"\xff\xd8\xff", b"\x00\x00\x00", 1))
    with PairDataset(folder) as dataset:
        key = dataset.read(0)[0]
    code = pretrain(config_file(), "--output", tmp_path / "run", "--set", f"data.bad_samples={action}", data=folder)
    assert code == (0 if action == "skip" else 1)
    if action == "skip":
        told = json.loads((tmp_path / "run" / "faults.json").read_text())
        assert (told["samples"], told["unusable"]) == (24, 1)
        ((reason, account),) = told["reasons"].items()
        assert "jpeg" in reason
        assert account == {"count": 1, "first_keys": [key]}
    else:
        assert key in capsys.readouterr().err


def test_too_many_bad_samples_fail_with_one_message(pretrain, config_file, tmp_path, capsys):
    folder = tmp_path / "damaged"
    make_data_set(folder, per_scene=(12, 12), max_shard_bytes=10**9)
    (shard,) = folder.glob("*.tar")
    shard.write_bytes(shard.read_bytes().replace(b"\xff\xd8\xff", b"\x00\x00\x00"))
    assert pretrain(config_file(), "--output", tmp_path / "run", data=folder) == 1
    printed = capsys.readouterr().err
    assert "pretrain: more than 10 samples cannot be used" in printed
    assert "Traceback" not in printed


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """24 single images of different sizes."""
    folder = tmp_path_factory.mktemp("single") / "images"
    make_image_set(folder, [make_image(number) for number in range(24)])
    return folder


@pytest.fixture(scope="module")
def on_images(tmp_path_factory, script, images, config_file):
    """A run of nine steps on single images, with random crops, in one micro-batch."""
    output = tmp_path_factory.mktemp("on-images") / "run"

    def run(pretrain) -> Path:
        if not output.exists():
            config = config_file(model={"objective": "mae"}, data={"augmentation": "mae"})
            assert pretrain(config, "--output", output, data=images) == 0
        return output

    return run


def test_mae_trains_on_single_images(on_images, pretrain, capsys):
    output = on_images(pretrain)
    printed = capsys.readouterr().out
    assert "24 images cropped to 64x64 px, 3 steps per epoch" in printed
    assert "8 images per step = 1 process x 8 images x 1 micro-batch" in printed
    assert len(losses(output)) == 9
    assert np.mean(losses(output)[-3:]) < losses(output)[0]
    assert cv2.imread(str(output / "reconstructions.png")).shape == (28 + 6 * 224 + 5 * 4, 4 * 224 + 3 * 4, 3)


def test_crops_and_masks_of_single_images_do_not_depend_on_who_works(
    on_images, pretrain, config_file, images, tmp_path
):
    reference = on_images(pretrain)
    config = config_file(model={"objective": "mae"}, data={"augmentation": "mae", "num_threads": 3})
    done = drive(2, "terminate", 4, 1, config, "--data", images, "--output", tmp_path)
    assert "2 processes x 4 images x 1 micro-batch\n" in done.stdout, done.stderr
    assert read_state(latest(tmp_path)).step in (4, 5)
    assert pretrain(config, "--output", tmp_path, "--resume", "--set", "run.max_device_batch=2", data=images) == 0
    assert_same_run(tmp_path, reference)


def test_single_images_without_augmentation_are_other_crops(on_images, pretrain, config_file, images, tmp_path):
    reference = on_images(pretrain)
    assert pretrain(config_file(model={"objective": "mae"}), "--output", tmp_path, "--steps", 1, data=images) == 0
    assert abs(losses(tmp_path)[0] - losses(reference)[0]) > 1e-4


def test_croco_on_single_images_is_refused(pretrain, config_file, images, tmp_path, capsys):
    assert pretrain(config_file(), "--output", tmp_path, data=images) == 2
    assert 'holds single images, but model.objective = "croco" needs pairs' in capsys.readouterr().err
    config = config_file(model={"objective": "mae"})
    assert pretrain(config, "--output", tmp_path, "--set", "data.global_batch=26", data=images) == 2
    assert "data.global_batch = 26 is more than the 24 images in" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


DINO = {
    "model": {
        "objective": "dino",
        "mask_ratio": 0.0,
        "dino": {"out_dim": 64, "hidden_dim": 32, "bottleneck_dim": 16, "local_crops": 2, "local_size": 32},
    },
    "data": {"augmentation": "none", "global_batch": 16},
    "optimizer": {"weight_decay": 0.04, "weight_decay_end": 0.4, "clip_each_norm": 0.3},
}


@pytest.fixture(scope="module")
def dino(tmp_path_factory, script, config_file):
    """A DINO run of nine steps in one process and one micro-batch."""
    output = tmp_path_factory.mktemp("dino") / "run"

    def run(pretrain) -> Path:
        if not output.exists():
            assert pretrain(config_file(**DINO), "--output", output) == 0
        return output

    return run


def test_dino_trains_and_its_teacher_follows(dino, pretrain):
    output = dino(pretrain)
    log = read_log(output / "log.jsonl")
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]
    assert all(0 < line["entropy"] <= np.log(64) for line in log)
    found = load_file(latest(output) / "model.safetensors")
    moved = {name: (t - found[f"student.{name}"]).abs().max().item() for name, t in found.items()
             if f"student.{name}" in found and name.endswith("weight") and "norm" not in name}  # fmt: skip
    assert all(value > 0 for name, value in moved.items() if name != "head.last_layer.weight_g")
    assert max(moved.values()) < 0.1  # momentum 0.996
    assert found["centre"].abs().max() > 0
    optimizer = torch.load(latest(output) / "optimizer.pt", weights_only=True)["optimizer"]
    last = 0.4 + (0.04 - 0.4) * (1 + np.cos(np.pi * 8 / 9)) / 2  # in step 9 of 9
    assert [group["weight_decay"] for group in optimizer["param_groups"]] == [pytest.approx(last), 0.0]
    assert not (output / "reconstructions.png").exists()


def test_dino_in_micro_batches_and_resumed_is_the_same_run(dino, pretrain, config_file, tmp_path):
    reference = dino(pretrain)
    config = config_file(**DINO | {"run": {"max_device_batch": 8, "recompute": True}})
    assert pretrain(config, "--output", tmp_path, "--steps", 4) == 0
    assert pretrain(config, "--output", tmp_path, "--resume") == 0
    assert_same_run(tmp_path, reference)


def test_a_run_begins_with_the_weights_of_another_and_says_so(straight, pretrain, config_file, tmp_path, capsys):
    mae = straight("mae", pretrain)
    capsys.readouterr()
    options = ["--set", "optimizer.warmup_epochs=1", "--steps", 1]  # the rate of the first step is 0
    assert pretrain(config_file(), "--init", mae, "--output", tmp_path / "croco", *options) == 0
    said = capsys.readouterr().out
    told = [line.split()[1] for line in said.splitlines()[1:6]]
    assert told == ["used", "renamed", "resized", "dropped", "initialised"]
    theirs = load_file(latest(mae) / "model.safetensors")
    ours = load_file(latest(tmp_path / "croco") / "model.safetensors")
    shared = [name for name in theirs if name in ours]
    assert {name for name in shared if name.startswith("blocks.")} == {n for n in ours if n.startswith("blocks.")}
    assert all(torch.equal(theirs[name], ours[name]) for name in shared)
    config = config_file(**DINO)
    assert pretrain(config, "--init", mae, "--output", tmp_path / "dino", *options) == 0
    ours = load_file(latest(tmp_path / "dino") / "model.safetensors")
    assert torch.equal(ours["blocks.0.attn.qkv.weight"], theirs["blocks.0.attn.qkv.weight"])
    assert torch.equal(ours["student.blocks.0.attn.qkv.weight"], theirs["blocks.0.attn.qkv.weight"])
    assert pretrain(config, "--init", tmp_path / "none.pth", "--output", tmp_path / "none") == 2
    assert "none.pth: no such file" in capsys.readouterr().err


def test_weights_of_a_run_are_exported_and_read_back(straight, pretrain, tmp_path):
    run = straight("croco", pretrain)
    for layout, name in (("timm", "encoder.safetensors"), ("croco", "croco.pth")):
        export = [sys.executable, ROOT / "train" / "export.py", run]
        done = processes.run([*export, "--layout", layout, "--output", tmp_path / name])
        assert f"{layout} layout" in done.stdout
        found, _ = to_ours(read_published(tmp_path / name))
        weights = load_file(latest(run) / "model.safetensors")
        assert all(torch.equal(value, weights[name]) for name, value in found.items() if "pos_embed" not in name)
        assert {n for n in found if n.startswith("blocks.")} == {n for n in weights if n.startswith("blocks.")}


def test_the_model_is_compiled_in_place(straight, pretrain, config_file, tmp_path, monkeypatch):
    """With torch's compiler in front of its plain backend: what it is, not how fast; names of weights stay."""
    reference = straight("croco", pretrain)
    plain = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: plain(self, backend="eager"))
    assert pretrain(config_file(run={"compile": True}), "--output", tmp_path, "--steps", 2) == 0
    assert losses(tmp_path) == pytest.approx(losses(reference)[:2], abs=1e-5)
    assert (
        load_file(latest(tmp_path) / "model.safetensors").keys()
        == load_file(latest(reference) / "model.safetensors").keys()
    )


def test_the_loss_of_every_source_is_logged(pretrain, config_file, tmp_path):
    """Rows of a mixture by its data sets; their means over all sources are the loss."""
    for name in ("rooms", "clips"):
        make_data_set(tmp_path / name, per_scene=(12,), name=name)
    data = [str(tmp_path / "rooms"), str(tmp_path / "clips")]
    assert pretrain(config_file(run={"max_device_batch": 2}), "--output", tmp_path / "run", data=data) == 0
    for line in read_log(tmp_path / "run" / "log.jsonl"):
        assert line["loss"] == pytest.approx((line["loss/rooms"] + line["loss/clips"]) / 2, rel=1e-5)


@pytest.mark.slow
def test_killed_twenty_times_the_curve_is_that_of_an_undisturbed_run(pretrain, config_file, pairs, tmp_path):
    config = config_file(run={"epochs": 16, "checkpoint_every": 2})
    assert pretrain(config, "--output", tmp_path / "straight") == 0
    driver = DRIVER.with_name("unkillable.py")
    command = [sys.executable, driver, "20", "0", config, "--data", pairs, "--output", tmp_path / "killed"]
    done = processes.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    kills = [line.split() for line in done.stdout.splitlines() if line.endswith(f" {int(signal.SIGKILL)}")]
    assert len(kills) == 20
    assert len({checkpoint for _, checkpoint, _ in kills}) > 5, "the kills fell on different parts of the run"
    assert losses(tmp_path / "killed") == losses(tmp_path / "straight")
    one, other = (load_file(latest(tmp_path / name) / "model.safetensors") for name in ("killed", "straight"))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_other_trackers_are_told_the_same(pretrain, config_file, tmp_path, capsys):
    """Through accelerate; its own TensorBoard tracker stands for those that need a service."""
    run = tmp_path / "run"
    assert pretrain(config_file(run={"trackers": ["tensorboard"]}), "--output", run, "--steps", 2) == 0
    board = EventAccumulator(str(run / "mimic-wds")).Reload()
    told = [(event.step, event.value) for event in board.Scalars("loss")]
    assert told == [(number, pytest.approx(loss)) for number, loss in enumerate(losses(run), start=1)]
    assert pretrain(config_file(run={"trackers": ["wandbb"]}), "--output", tmp_path / "none") == 2
    assert "run.trackers: Unsupported logging capability: wandbb" in capsys.readouterr().err
    assert pretrain(config_file(run={"trackers": ["aim"]}), "--output", tmp_path / "none") == 2
    assert "run.trackers names aim, not installed here" in capsys.readouterr().err
