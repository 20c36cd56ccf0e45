"""Runs ``train/pretrain.py`` as a process of its own and, on one of the ranks, sends it a signal at a chosen point.

drive.py WHEN STEP RANK ARGUMENTS...: WHEN is "kill-while-saving" or "kill" (SIGKILL), "terminate" (SIGTERM, during a
step) or "never".
"""

import os
import signal
import sys
from pathlib import Path
from runpy import run_path

from mimic_wds.training import checkpoint, engine

when, at_step, rank, *arguments = sys.argv[1:]
mine = os.environ.get("RANK", "0") == rank
SIGNALS = {"terminate": signal.SIGTERM, "kill": signal.SIGKILL}
original_sync, original_step = checkpoint._sync_file, engine.optimizer_step
steps = 0


def sync(path: Path) -> None:
    original_sync(path)
    if mine and when == "kill-while-saving" and int(at_step) == steps:
        os.kill(os.getpid(), signal.SIGKILL)


def step(*positional, **named):
    global steps
    steps += 1
    if mine and when in SIGNALS and int(at_step) == steps:
        os.kill(os.getpid(), SIGNALS[when])
    return original_step(*positional, **named)


checkpoint._sync_file, engine.optimizer_step = sync, step
script = Path(__file__).parents[2] / "train" / "pretrain.py"
sys.argv = [str(script), *arguments]
run_path(str(script), run_name="__main__")
