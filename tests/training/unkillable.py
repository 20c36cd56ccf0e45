"""Runs ``train/pretrain.py`` again and again, each time killed with SIGKILL at a random moment, then once to its end.

unkillable.py KILLS SEED ARGUMENTS...: prints a line per kill: steps that this try began, the newest checkpoint, and how
it ended. Tries are forks of one process that has imported everything, so that they take a second each.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from runpy import run_path

import torch

from mimic_wds.training import checkpoint, engine

kills, seed, *arguments = sys.argv[1:]
script = str(Path(__file__).parents[2] / "train" / "pretrain.py")
output = Path(arguments[arguments.index("--output") + 1])
draw = random.Random(int(seed))
torch.set_num_threads(1)
namespace = run_path(script)  # imports, and nothing else


def attempt(pipe: int) -> None:
    """In the child: the whole run, with a byte in the pipe at the beginning of every step and of every saved file."""
    step, sync = engine.optimizer_step, checkpoint._sync_file

    def noted_step(*positional, **named):
        os.write(pipe, b"s")
        return step(*positional, **named)

    def noted_sync(path: Path) -> None:
        os.write(pipe, b"f")
        sync(path)

    engine.optimizer_step, checkpoint._sync_file = noted_step, noted_sync
    sys.argv = [script, *arguments, "--resume"]
    run_path(script, run_name="__main__")


for number in range(int(kills) + 1):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        attempt(writing)
        os._exit(0)
    os.close(writing)
    if number < int(kills):
        seen = b""
        for _ in range(draw.randint(1, 8)):
            seen += os.read(reading, 1)
        time.sleep(draw.random() * 0.03)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    if number < int(kills):
        print(seen.count(b"s"), getattr(checkpoint.latest(output), "name", None), status, flush=True)
sys.exit(os.waitstatus_to_exitcode(status))
