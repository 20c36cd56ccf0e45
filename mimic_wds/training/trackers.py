"""Where the numbers of a run go: a JSONL file, TensorBoard, and lines on the console. Only the main process has these.

``log.jsonl`` is the record to rely on: one line per logged step, each step once, also after a kill and a resume.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

from accelerate import Accelerator
from accelerate.tracking import filter_trackers
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from mimic_wds.training.engine import StepResult

LOG_NAME = "log.jsonl"
TENSORBOARD_NAME = "tensorboard"
SKIPPED_NAME = "skipped.jsonl"  #: a line per step that left the weights alone, with the keys of its samples


#: Takes numbers by name, and their step.
Report: TypeAlias = Callable[[Mapping[str, float], int], None]


def other_trackers(
    accelerator: Accelerator, names: Sequence[str], folder: Path, settings: Mapping[str, Any]
) -> Report | None:
    """Start trackers that accelerate knows ("wandb", "mlflow", ...), told the settings of the run; None for no names.

    Those with files of their own write them into `folder`. Raises ValueError for one that is unknown or not installed.
    """
    if not names:
        return None
    try:
        found = filter_trackers(list(names), str(folder))
    except ValueError as error:
        raise ValueError(f"run.trackers: {error}") from None
    if missing := set(names) - {str(getattr(each, "value", each)) for each in found}:
        raise ValueError(f"run.trackers names {', '.join(sorted(missing))}, not installed here: pip install it")
    accelerator.project_configuration.set_directories(str(folder))
    accelerator.log_with = found
    plain = {name: v if isinstance(v, int | float | str) else str(v) for name, v in settings.items()}
    accelerator.init_trackers("mimic-wds", plain)
    return lambda values, step: accelerator.log(dict(values), step=step)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """One line of the log. Loss and gradient norm are null in the file when they were not finite."""

    step: int  #: optimizer steps done, this one included
    epoch: float  #: fractional epoch at the end of the step
    loss: float  #: mean over the global batch of this step
    lr: float  #: learning rate of this step
    grad_norm: float  #: before clipping
    pairs_per_s: float  #: over all processes, since the last line
    loader_wait: float  #: share of that time spent waiting for data, in [0, 1]
    attention: float | None = None  #: agreement of the cross-attention with the stored correspondences, in [0, 1]
    measures: Mapping[str, float] = field(default_factory=dict)  #: see `Measures`; written beside the others, by name
    skipped: str = ""  #: why the weights were left alone in this step ("loss", "gradient"), or ""

    @classmethod
    def of(
        cls,
        result: StepResult,
        *,
        step: int,
        steps_per_epoch: int,
        lr: float,
        speed: tuple[float, float],
        attention: float | None = None,
        measures: Mapping[str, float] | None = None,
    ) -> "LogRecord":
        """A line about `result`; `speed` is what `Meter.read` gives, `attention` what a look at the model has found."""
        return cls(
            step=step,
            epoch=step / steps_per_epoch,
            loss=result.loss,
            lr=lr,
            grad_norm=result.grad_norm,
            pairs_per_s=speed[0],
            loader_wait=speed[1],
            attention=attention,
            measures=measures or {},
            skipped=result.skipped,
        )

    def numbers(self) -> dict[str, float]:
        """Everything that can be drawn over the steps, by name."""
        names = ("loss", "lr", "grad_norm", "pairs_per_s", "loader_wait", "attention")
        known = {name: getattr(self, name) for name in names}
        return {name: value for name, value in known.items() if value is not None} | dict(self.measures)


class Trackers:
    """JSONL, TensorBoard and console in one; a context manager. On a terminal a bar stands in for lines."""

    def __init__(self, output: Path, start_step: int, total_steps: int, report: Report | None = None) -> None:
        """Open the logs in `output`; what they say about steps after `start_step` is dropped (the run repeats them).

        `report` is given every line, too.
        """
        self._report = report
        output.mkdir(parents=True, exist_ok=True)
        truncate_log(output / LOG_NAME, start_step)
        self._output = output
        self._file = (output / LOG_NAME).open("a", encoding="utf-8")
        self._board = SummaryWriter(str(output / TENSORBOARD_NAME), purge_step=start_step + 1)
        self._total, self._start = total_steps, start_step
        self._started = time.monotonic()
        self._live = sys.stdout.isatty()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("", total=total_steps, completed=start_step)

    def step(self, step: int) -> None:
        """A step is done: move the bar, if there is one."""
        self._bar.update(self._task, completed=step)

    def log(self, record: LogRecord) -> None:
        """Write one step everywhere."""
        plain = asdict(record)
        values = {name: _json_value(value) for name, value in (plain | plain.pop("measures")).items()}
        self._file.write(json.dumps(values, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in record.numbers().items():
            self._board.add_scalar(name, value, record.step)
        if self._report:
            self._report(record.numbers(), record.step)
        if self._live:
            self._bar.update(self._task, description=short_line(record))
        else:
            print(f"{console_line(record, self._total)}  {self._eta(record.step)}", flush=True)

    def skipped(self, step: int, reason: str, keys: Sequence[str]) -> None:
        """Note what a step saw whose loss or gradient was not finite, over all processes."""
        with (self._output / SKIPPED_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "reason": reason, "keys": list(keys)}) + "\n")

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        self._board.close()

    def __enter__(self) -> "Trackers":
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._bar.stop()
        self.close()

    def _eta(self, step: int) -> str:
        """How long the rest takes if it goes on like this."""
        seconds = (time.monotonic() - self._started) / max(step - self._start, 1) * (self._total - step)
        return f"ETA {timedelta(seconds=round(seconds))}"


def console_line(record: LogRecord, total_steps: int) -> str:
    """One readable line with units: where the run stands, the loss and how fast it goes."""
    width = len(str(total_steps))
    return (
        f"step {record.step:{width}}/{total_steps}  epoch {record.epoch:6.2f}  loss {record.loss:.4f}  "
        f"lr {record.lr:.2e}  |g| {record.grad_norm:.2f}  {record.pairs_per_s:6.1f} pairs/s  "
        f"loader wait {record.loader_wait:4.0%}"
        + ("" if record.attention is None else f"  attention {record.attention:.1%}")
        + (f"  SKIPPED: {record.skipped} not finite" if record.skipped else "")
    )


def short_line(record: LogRecord) -> str:
    """What stands beside the bar."""
    return (
        f"loss {record.loss:.4f}  lr {record.lr:.1e}  {record.pairs_per_s:.1f} pairs/s  wait {record.loader_wait:.0%}"
        + ("" if record.attention is None else f"  attention {record.attention:.1%}")
    )


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, up to the first torn one (a killed run can leave its last line half-written)."""
    records: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def truncate_log(path: Path, last_step: int) -> None:
    """Keep only what the log says about steps up to `last_step`. Atomic; a missing log is an empty one."""
    if not path.exists():
        return
    kept = [record for record in read_log(path) if record["step"] <= last_step]
    staging = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with staging.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in kept)
        file.flush()
        os.fsync(file.fileno())
    staging.replace(path)


def loss_summary(path: Path, last: int = 10) -> str:
    """How far the loss fell, by the log: "loss 1.02 -> 0.81" (first line; mean of up to `last` last ones)."""
    losses = [record["loss"] for record in read_log(path) if record["loss"] is not None]
    if not losses:
        return "loss: nothing logged"
    tail = losses[-min(last, max(1, len(losses) // 4)) :]
    return f"loss {losses[0]:.3f} -> {sum(tail) / len(tail):.3f}"


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
