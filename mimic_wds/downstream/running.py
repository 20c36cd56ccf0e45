"""What a finetuning run writes beside its checkpoints: log.jsonl, TensorBoard, and lines on the console."""

import json
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from mimic_wds.downstream.config import FinetuneConfig
from mimic_wds.downstream.task import Scored, Task
from mimic_wds.training.trackers import LOG_NAME, TENSORBOARD_NAME, read_log, truncate_log


class Log:
    """Only the main process has one. Lines behind the step that a run goes on from are dropped."""

    def __init__(self, folder: Path, step: int, last: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / LOG_NAME
        truncate_log(self.path, step)
        self._board = SummaryWriter(str(folder / TENSORBOARD_NAME), purge_step=step + 1)
        self._started, self._first, self._last = time.monotonic(), step, last

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line; values that are not finite become null in the file."""
        known = {name: value if abs(value) < float("inf") else None for name, value in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **known}, allow_nan=False) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        rest = (time.monotonic() - self._started) / max(step - self._first, 1) * (self._last - step)
        told = "  ".join(f"{name} {value:.5g}" for name, value in values.items())
        print(f"step {step}/{self._last}  {told}  ETA {timedelta(seconds=round(rest))}", flush=True)

    def best(self, name: str, *, higher_is_better: bool) -> float | None:
        """The best value of this name so far."""
        records = read_log(self.path) if self.path.exists() else []
        found = [record[name] for record in records if record.get(name) is not None]
        return (max if higher_is_better else min)(found) if found else None

    def close(self) -> None:
        """Flush and close."""
        self._board.close()


def headlines(task: Task, scored: Scored) -> dict[str, float]:
    """The score of each protocol that tables show, as the log names it; the first one chooses the best checkpoint."""
    names = [protocol.name for protocol in task.protocols if protocol.name in scored]
    return {
        log_name(name, scored[name]["headline"]): scored[name]["scores"][scored[name]["headline"]] for name in names
    }


def log_name(protocol: str, score: str) -> str:
    """How the log names a score on held-out samples."""
    return f"val_{protocol.replace(' ', '_')}_{score}"


def is_better(value: float, best: float | None, *, higher_is_better: bool) -> bool:
    """Whether a score beats the best so far; nothing is better than nan."""
    return value == value and (best is None or (value > best if higher_is_better else value < best))


def told_plan(config: FinetuneConfig, *, where: str, samples: int, loaded: str, trained: int, batch: int,
              rates: tuple[float, float]) -> str:  # fmt: skip
    """What a run is about to do, for people; `rates` are the peaks of the first layer and of the head."""
    return (
        f"task    {config.task} on {samples} samples of {where}\n"
        f"init    {loaded}\n"
        f"model   {config.model.size}, {trained:,} trained parameters{', encoder frozen' * config.model.frozen}\n"
        f"rates   {rates[0]:.3g} (first layer) to {rates[1]:.3g} (head), warm-up {config.optimizer.warmup:.0%}\n"
        f"run     {config.run.steps} steps of {batch} samples, seed {config.run.seed}"
    )
