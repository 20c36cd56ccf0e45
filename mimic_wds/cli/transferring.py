"""What `push` and `pull` share: progress, what was copied."""

from typing import Self

import msgspec

from mimic_wds.cli.console import ProgressLine, say
from mimic_wds.storage.transfer import Report


def check_workers(workers: int) -> int:
    """`workers` if so many can be. Raises ValueError."""
    if workers < 1:
        raise ValueError(f"--workers must be 1 or more, got {workers}")
    return workers


class FileLines:
    """Progress of files; silent if `quiet`."""

    def __init__(self, quiet: bool):
        self._line = None if quiet else ProgressLine("files")

    def __enter__(self) -> Self:
        if self._line is not None:
            self._line.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._line is not None:
            self._line.__exit__()

    def step(self, name: str, done: int, total: int) -> None:
        """`name` is the last of `done` files; `total` are to come in all."""
        if self._line is None:
            return
        if done == 1:
            self._line.start(total)
        self._line.advance(name)


def show(report: Report, source: str, target: str, json: bool) -> None:
    """Print what was, or with a dry run would be, copied."""
    if json:
        print(msgspec.json.encode(report).decode())
        return
    if report.dry_run:
        for name in report.files:
            say(name)
    if not report.files:
        say(f"nothing to copy: {target} has all {report.kept:,} files")
        return
    verb = "would copy" if report.dry_run else "copied"
    say(
        f"{verb} {len(report.files):,} file(s), {report.bytes / 1e6:.1f} MB, from {source} to {target}; "
        f"{report.kept:,} were there already"
    )
