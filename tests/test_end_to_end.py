"""From a video to a trained model, by the commands a user types."""

import json
import sys
from pathlib import Path

import processes
import pytest
from videos import write_pan

ROOT = Path(__file__).parents[1]


def run(*command: object) -> str:
    done = processes.run(command, cwd=ROOT)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("objective", ["croco", "mae"])
def test_video_to_shards_to_model(tmp_path, objective):
    clips, data, out = tmp_path / "clips", tmp_path / "data", tmp_path / "run"
    clips.mkdir()
    for number in range(2):
        write_pan(clips / f"pan{number}.avi", 7, seed=number)
    run(sys.executable, "-m", "mimic_wds.cli.main", "build", "--source", "video", clips, "--out", data)
    run(sys.executable, "-m", "mimic_wds.cli.main", "verify", data)
    config = tmp_path / "tiny.toml"
    config.write_text(
        f'[model]\nobjective = "{objective}"\nsize = "tiny"\ndepth = 1\ndecoder_dim = 32\ndecoder_depth = 1\n'
        "decoder_heads = 2\nmask_ratio = 0.75\n"
        "[data]\nglobal_batch = 4\n[optimizer]\nbase_lr = 0.02\n[run]\nepochs = 4\nlog_every = 1\n"
    )
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", 1, "--mixed_precision", "no"]
    launch += ["--num_machines", 1, "--dynamo_backend", "no"]
    printed = run(*launch, "train/pretrain.py", config, "--data", data, "--output", out)
    losses = [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]
    pairs = json.loads((data / "manifest.json").read_text())["kept"]["video"]
    steps = pairs // (4 if objective == "croco" else 2)
    assert len(losses) == 4 * steps
    assert losses[-1] < losses[0]
    assert f"{losses[0]:.3f}" in printed
    assert (out / "reconstructions.png").stat().st_size > 10_000
