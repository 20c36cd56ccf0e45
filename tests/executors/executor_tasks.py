"""Tasks for the tests of the executors, which worker processes import by name, and two helpers to watch them."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from mimic_wds.storage.files import OutputError


def note(path: Path) -> None:
    """Write who runs this, one line for each time."""
    with path.open("a") as file:
        file.write(f"{os.getpid()} {os.getppid()} {os.environ.get('OPENBLAS_NUM_THREADS')}\n")


def note_slowly(path: Path) -> None:
    note(path)
    time.sleep(0.1)


def note_threads(path: Path) -> None:
    import cv2

    path.write_text(f"{cv2.getNumThreads()} {os.environ['OMP_NUM_THREADS']} {os.environ['MKL_NUM_THREADS']}")


def die_once(path: Path) -> None:
    """The tasks 1 and 3 die the first time."""
    first = not path.exists()
    note(path)
    if first and path.name in ("1", "3"):
        os.kill(os.getpid(), signal.SIGKILL if path.name == "1" else signal.SIGSEGV)


def die_always(path: Path) -> None:
    note(path)
    if path.name == "2":
        os._exit(1)


def hang(path: Path) -> None:
    """Task 2 hangs, deaf to polite signals."""
    note(path)
    if path.name == "2":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)


def sleep_after_the_first(path: Path) -> None:
    note(path)
    if path.name != "0":
        time.sleep(600)


def sleep_deaf(path: Path) -> None:
    """Sleep, deaf to polite signals."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(path)
    time.sleep(600)


def disk_full(path: Path) -> None:
    note(path)
    if path.name == "3":
        raise OutputError(28, "the disk is full", str(path))


class StubbornError(Exception):
    """Cannot be unpickled: its __init__ wants what pickle does not give."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def raise_stubborn(path: Path) -> None:
    raise StubbornError("no", "pickle")


def leave(path: Path) -> None:
    raise SystemExit(3)


def nap(seconds: float) -> None:
    time.sleep(seconds)


def ignore(task: object) -> None:
    pass


def note_and_wait_for_go(path: Path) -> None:
    """Wait until there is a file "go" beside the task's, a minute at most."""
    note(path)
    deadline = time.monotonic() + 60
    while not path.with_name("go").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("no go")
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def slowly(image: object) -> bool:
    """An image filter that keeps every frame and takes its time."""
    time.sleep(0.2)
    return True
