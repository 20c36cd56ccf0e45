"""The output folder of a build or an import: what may lie in it, and who may work in it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from mimic_wds.storage.layout import MANIFEST_NAME, REPORT_NAME, STAGING_NAME

#: What may lie in an output folder beforehand.
MAY_BE_THERE = frozenset({"recipe.toml", ".gitignore", STAGING_NAME, REPORT_NAME})


def check_output(out: Path, resume: bool) -> Literal["new", "resume", "complete"]:
    """What the folder holds. Raises ValueError when a run must not touch it, or not without `resume`."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; the output must be a folder")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if MANIFEST_NAME in names:
        if resume:
            return "complete"
        raise ValueError(f"{out}: already holds a data set (it has a {MANIFEST_NAME}); choose another --out")
    if STAGING_NAME in names:
        if resume:
            return "resume"
        raise ValueError(f"{out}: holds an unfinished data set; continue it with --resume, or delete the folder")
    if names - MAY_BE_THERE:
        raise ValueError(f"{out}: is not empty ({sorted(names)[0]!r} is there); choose an empty or new folder")
    return "new"


@contextmanager
def locked(staging: Path, part: int = 0, of: int = 1) -> Iterator[None]:
    """Hold the staging folder's lock: alone, or as one of several parts beside the others.

    Raises ValueError when another process holds it.
    """
    with (staging / "lock").open("w") as whole, (staging / f"lock-{part}-of-{of}").open("w") as own:
        try:
            fcntl.flock(whole, (fcntl.LOCK_EX if of == 1 else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{staging.parent}: another run is working here; wait for it") from None
        yield
