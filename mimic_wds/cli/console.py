"""What the verbs print: tables and progress on a terminal, plain lines elsewhere, errors on stderr."""

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

#: Seconds between two progress lines where there is no terminal.
LINE_EVERY_S = 10.0


def error(message: str) -> None:
    """Print one error message on stderr."""
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False)


def say(message: str) -> None:
    """Print one line on stdout."""
    Console(soft_wrap=True).print(escape(message), highlight=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; the first column is text, the others are numbers."""
    out = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        out.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in rows:
        out.add_row(*(f"{cell:,}" if isinstance(cell, int) else escape(str(cell)) for cell in row))
    console = Console()
    console.print(out)


class ProgressLine:
    """How far the work is, with a count of your own: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, unit: str):
        self.unit = unit
        self.total = self.done = self.before = 0
        self.started = self.printed = time.monotonic()
        self.live = sys.stdout.isatty()
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), transient=True
        )
        self.task: TaskID | None = None

    def __enter__(self) -> Self:
        if self.live:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.bar.stop()

    def start(self, total: int, done: int = 0) -> None:
        """Set the number of units of work, and how many of them were done before."""
        self.total, self.done, self.before = total, done, done
        self.started = time.monotonic()
        if self.live:
            self.task = self.bar.add_task(self.unit, total=total, completed=done)

    def advance(self, note: str) -> None:
        """One more unit is done; `note` is shown beside the count."""
        self.done += 1
        now = time.monotonic()
        if self.task is not None:
            self.bar.update(self.task, advance=1, description=f"{self.unit}  {note}")
        elif now - self.printed >= LINE_EVERY_S or self.done == self.total:
            self.printed = now
            say(f"{self.unit} {self.done:,}/{self.total:,}  {note}  ({self._times(now - self.started)})")

    def _times(self, seconds: float) -> str:
        """How long it has taken and how long the rest may."""
        left = (self.total - self.done) / (self.done - self.before) * seconds
        return f"{seconds:.0f} s" + (f", about {left:.0f} s left" if self.done < self.total else "")
