"""Real processes of our own programs, begun in milliseconds: forked from a server that has imported everything.

A program that is started afresh imports for one to six seconds before it does anything; tests that start hundreds would
spend most of their time so. Tests of what is imported, or of how Python starts, use `subprocess`.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

CLI = Path(__file__).parents[1] / "mimic_wds" / "cli"
PRELOADED = [
    *sorted(f"mimic_wds.cli.{path.stem}" for path in CLI.glob("*.py") if path.stem not in ("__init__", "main")),
    "typeguard",
    "accelerate",
    "mimic_wds.models.build",
    "mimic_wds.models.published",
    "mimic_wds.training.engine",
    "mimic_wds.training.looks",
    "mimic_wds.downstream.running",
    "mimic_wds.downstream.tasks.registry",
]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(PRELOADED)


class Program:
    """A running `[python, script, ...]` or `[python, "-m", module, ...]`; as `subprocess.Popen`, as far as it goes.

    env and cwd: those of the caller unless given. What it prints goes into files, which `output()` reads.
    """

    def __init__(
        self,
        command: Sequence[object],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        start_new_session: bool = False,
    ) -> None:
        self.command = [str(word) for word in command]
        assert self.command[0] == sys.executable
        self._files = [tempfile.NamedTemporaryFile() for _ in range(2)]  # noqa: SIM115 (open as long as this lives)
        names = [file.name for file in self._files]
        settings = (dict(os.environ if env is None else env), str(cwd or Path.cwd()), start_new_session, *names)
        ready, told = SERVER.Pipe(duplex=False)
        self._process = SERVER.Process(target=_program, args=(told, self.command[1:], *settings))
        self._process.start()
        ready.recv()  # the first one waits until the server has imported everything
        self._began_s = time.monotonic()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.command, timeout or 0)
        return self._process.exitcode

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began_s

    def send_signal(self, number: int) -> None:
        if self._process.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def output(self) -> tuple[str, str]:
        """What it has written to stdout and to stderr."""
        out, err = (Path(file.name).read_text() for file in self._files)
        return out, err


@dataclass(frozen=True)
class Done:
    """What came of a program: its exit code, what it printed, and how long it took."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float


def run(command: Sequence[object], timeout: float = 300, **settings) -> Done:
    """As `subprocess.run(command, capture_output=True, text=True)`."""
    program = Program(command, **settings)
    try:
        code = program.wait(timeout)
    finally:
        program.kill()
    return Done(code, *program.output(), program.seconds)


def run_ranks(number: int, command: Sequence[object], env: Mapping[str, str] | None = None) -> list[Done]:
    """So many processes of one training run on this machine, as torchrun starts them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(number)}
    shared = {**(os.environ if env is None else env), **meeting, "LOCAL_WORLD_SIZE": str(number)}
    programs = [Program(command, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(number)]
    try:
        return [Done(program.wait(300), *program.output(), program.seconds) for program in programs]
    finally:
        for program in programs:
            program.kill()


def killed_after(command: Sequence[object], seconds: float, **settings) -> bool:
    """Start a program and end it by SIGKILL so many seconds later, unless it has ended; was it killed?"""
    program = Program(command, **settings)
    time.sleep(seconds)
    program.kill()
    return program.wait(30) == -signal.SIGKILL


def _program(
    told: Connection, words: list[str], environment: dict[str, str], cwd: str, new_session: bool, out: str, err: str
) -> None:
    if new_session:
        os.setsid()
    told.send("begins")
    for number, name in ((1, out), (2, err)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    os.chdir(cwd)
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).resolve().parent))
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
