"""habitat-sim as a simulator (https://github.com/facebookresearch/habitat-sim, v0.2.4 to v0.3.4); optional.

Its packages are conda's, and for Python versions of their own, so it usually runs as a process of another interpreter,
driven over pipes (see `habitat_worker`). Where habitat_sim can be imported, it runs in this process by the same code.
"""

import dataclasses
import fcntl
import importlib.util
import os
import select
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator import habitat_worker
from mimic_wds.sources.simulator.base import Body, Lens, Picture, Point, Pose, SceneFile
from mimic_wds.sources.simulator.habitat_units import in_metres

INSTALL = """habitat-sim is installed by conda, in an environment of its own:
  conda create -n habitat python=3.9
  conda install -n habitat habitat-sim headless -c conda-forge -c aihabitat
then give that environment's Python: --habitat-python PATH (`conda run -n habitat which python` prints it)"""

#: What habitat-sim says last when it finds no graphics device; it then ends the process (its issues 1829, 2337, 2582).
NO_DEVICE = ("CUDA device", "EGL", "WindowlessContext", "GLX", "cannot open display")

#: Lines of what the worker printed that a message shows.
TAIL_LINES = 8

#: Seconds that a worker has to close its simulator before it is killed.
CLOSE_S = 10.0

#: A result, and the arrays of a picture.
Answer = tuple[Any, list[NDArray[Any]]]


class HabitatSimulator:
    """Implements `Simulator`.

    When habitat-sim ends its process (it does on some broken scenes), the call under way raises SceneError with what it
    printed last, and so does every other until the next `load`, which starts a new process.
    """

    def __init__(
        self,
        lens: Lens,
        *,
        python: str = "",
        gpu: int | None = None,
        body: Body | None = None,
        sliding: bool = False,
        timeout_s: float = 600.0,
    ) -> None:
        """`python` is the interpreter that habitat-sim is installed for, "" = this one.

        `gpu` is the CUDA number of the GPU that draws, None = the first EGL device, which may be the CPU. With
        `sliding` a step slides along walls, as habitat-sim's own agents do, where `Simulator.step` stops. A call that
        takes longer than `timeout_s` seconds raises SceneError, and the process is ended.

        Raises ValueError, saying what to do, when habitat-sim is missing or cannot be started.
        """
        settings = {
            "size": list(lens.size),
            "hfov_deg": lens.hfov_deg,
            "depth": lens.depth,
            "gpu": gpu,
            "body": dataclasses.asdict(body or Body()),
            "sliding": sliding,
        }
        self._link: _Link = _Here(settings) if not python else _Process(find_python(python), settings, timeout_s)
        self._scene: SceneFile | None = None

    def load(self, scene: SceneFile) -> None:
        """See `Simulator`. `scene.stage_config` says which axis is up, where it is given: `scene.up` is not read."""
        if self._scene == scene and self._link.alive:
            return
        self._scene = None
        with in_metres(scene) as scaled:
            paths = {key: _absolute(getattr(scaled, key)) for key in ("path", "navmesh", "stage_config")}
            self._link.ask("load", {"scene": {**paths, "up": scaled.up, "name": scene.path}})
        self._scene = scene

    def random_point(self, seed: int) -> Point | None:
        """See `Simulator`."""
        return _point(self._ask("random_point", seed=seed))

    def island_radius(self, point: Point) -> float:
        """See `Simulator`."""
        return float(self._ask("island_radius", point=_numbers(point)))

    def snap(self, point: Point) -> Point | None:
        """See `Simulator`."""
        return _point(self._ask("snap", point=_numbers(point)))

    def step(self, start: Point, end: Point) -> Point:
        """See `Simulator`."""
        reached = _point(self._ask("step", start=_numbers(start), end=_numbers(end)))
        return np.asarray(start, np.float64) if reached is None else reached

    def render(self, pose: Pose) -> Picture:
        """See `Simulator`."""
        assert self._scene is not None, "load a scene first"
        _, arrays = self._link.ask("render", {"pose": _numbers(pose)})
        return Picture(image=arrays[0], depth=arrays[1] if len(arrays) > 1 else None)

    def close(self) -> None:
        """See `Simulator`."""
        self._scene = None
        self._link.close()

    @property
    def versions(self) -> Mapping[str, Any]:
        """Of "habitat_sim", of its "python", and of the "protocol"."""
        return self._link.versions

    def _ask(self, command: str, **arguments: Any) -> Any:
        assert self._scene is not None, "load a scene first"
        return self._link.ask(command, arguments)[0]


class _Link(Protocol):
    """How a `habitat_worker.Session` is asked."""

    versions: Mapping[str, Any]

    @property
    def alive(self) -> bool:
        """Whether the session is there, with what it has loaded."""
        ...

    def ask(self, command: str, arguments: dict[str, Any]) -> Answer:
        """Its answer. Raises SceneError."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class _Here:
    """A session in this process. Raises ValueError when habitat_sim is not installed."""

    alive = True

    def __init__(self, settings: dict[str, Any]) -> None:
        if importlib.util.find_spec("habitat_sim") is None:
            raise ValueError(f"habitat_sim is not installed for this Python. {INSTALL}")
        try:
            self._session = habitat_worker.Session(**settings)
        except ImportError as error:
            raise ValueError(f"habitat_sim cannot be imported: {error}. {INSTALL}") from None
        self.versions: Mapping[str, Any] = self._session.versions()
        self._stop = weakref.finalize(self, _stop_here, self._session, os.getpid())

    def ask(self, command: str, arguments: dict[str, Any]) -> Answer:
        """See `_Link`."""
        try:
            return self._session.handle(command, arguments)
        except habitat_worker.SceneFault as fault:
            raise SceneError(str(fault)) from None

    def close(self) -> None:
        """See `_Link`."""
        self._stop()


def _stop_here(session: habitat_worker.Session, owner: int) -> None:
    """Close the simulator; not in a forked child, whose graphics context it is not."""
    if owner == os.getpid():
        session.close()


class _Process:
    """A session in a process of another interpreter. Started at once, and again by `load` when it has died."""

    def __init__(self, python: str, settings: dict[str, Any], timeout_s: float) -> None:
        self._python, self._settings, self._timeout_s = python, settings, timeout_s
        self._worker: _Worker | None = None
        self._has_drawn = False  # whether a scene was ever loaded, so that there is a graphics device
        self.versions = self._start()

    @property
    def alive(self) -> bool:
        """See `_Link`."""
        return self._worker is not None

    def ask(self, command: str, arguments: dict[str, Any]) -> Answer:
        """See `_Link`. Raises ValueError, too, when there is no graphics device, RuntimeError for bugs."""
        if self._worker is None:
            if command != "load":
                raise SceneError("habitat-sim has ended; load a scene to start it again")
            self._start()
        assert self._worker is not None
        try:
            header, arrays = self._worker.ask({"command": command, **arguments}, self._timeout_s)
        except _Dead as death:
            self.close()
            raise self._why(death, arguments) from None
        except BaseException:
            # An answer may be left in the pipe, which would be taken for that of the next request.
            self.close()
            raise
        if "error" in header:
            _raise(self._python, header["error"])
        self._has_drawn = True
        return header["result"], arrays

    def close(self) -> None:
        """See `_Link`."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _start(self) -> Mapping[str, Any]:
        """Start the worker and see that it is what it should be. Raises ValueError."""
        worker = _Worker(self._python)
        hello = {"command": "hello", "protocol": habitat_worker.PROTOCOL, "settings": self._settings}
        try:
            header, _ = worker.ask(hello, self._timeout_s)
            if "error" in header:
                _raise(self._python, header["error"])
            theirs = header["result"]["protocol"]
            if theirs != habitat_worker.PROTOCOL:
                raise ValueError(
                    f"{self._python}: its habitat_worker.py speaks protocol {theirs}, expected "
                    f"{habitat_worker.PROTOCOL}: both must be of one version of mimic-wds"
                )
        except _Dead as death:
            worker.close()
            raise ValueError(f"{self._python}: cannot run habitat-sim: {death}\n{INSTALL}") from None
        except BaseException:
            worker.close()
            raise
        self._worker = worker
        return dict(header["result"])

    def _why(self, death: "_Dead", arguments: dict[str, Any]) -> ValueError:
        """The error that a dead worker stands for: of the scene, unless it had no graphics device."""
        what = arguments["scene"]["name"] if "scene" in arguments else "habitat-sim"
        gpu = self._settings["gpu"]
        if not self._has_drawn and any(word in death.printed for word in NO_DEVICE):
            return ValueError(
                f"habitat-sim found no graphics device (gpu_device_id {-1 if gpu is None else gpu}). Leave out gpus to "
                "take the first EGL device, which may be the CPU; an NVIDIA GPU needs libEGL_nvidia of its driver, the "
                f"CPU libegl1 and libgl1-mesa-dri: {death}"
            )
        return SceneError(f"{what}: {death}")


class _Dead(Exception):
    """The worker has ended, or is of no use any more."""

    def __init__(self, reason: str, printed: str) -> None:
        super().__init__(f"{reason}; it printed last:\n{printed}" if printed else f"{reason}; it printed nothing")
        self.printed = printed


class _Worker:
    """A running `habitat_worker.py`. Raises ValueError when it cannot be started.

    It is stopped by `close`, when nothing refers to it any more, and when this process ends, however it does: then its
    input ends.
    """

    def __init__(self, python: str) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115, as long as the process runs
        # What is written after the file has been emptied goes to its beginning.
        fcntl.fcntl(self._stderr, fcntl.F_SETFL, fcntl.fcntl(self._stderr, fcntl.F_GETFL) | os.O_APPEND)
        try:
            self._process = subprocess.Popen(
                [python, str(Path(habitat_worker.__file__).resolve())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for this process, which then stops the worker
            )
        except OSError as error:
            self._stderr.close()
            raise ValueError(f"{python}: cannot be run: {error.strerror}") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout
        held = (self._requests, self._replies, self._stderr)
        self._stop = weakref.finalize(self, _stop, self._process, held, os.getpid())

    def ask(self, request: dict[str, Any], timeout_s: float) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """The reply to a request. Raises _Dead when none comes in time."""
        deadline = time.monotonic() + timeout_s
        self._stderr.truncate(0)
        try:
            habitat_worker.send(self._requests, request)
            lengths = habitat_worker.parse_head(bytes(_read(self._replies, habitat_worker.HEAD.size, deadline)))
            header, payload = (_read(self._replies, length, deadline) for length in lengths)
            return habitat_worker.parse_body(bytes(header), payload)
        except TimeoutError:
            self._process.kill()
            raise _Dead(f"no answer to {request['command']!r} within {timeout_s:g} s", self._printed()) from None
        except habitat_worker.ProtocolError as error:
            raise _Dead(f"this is no habitat_worker.py: {error}", self._printed()) from None
        except (EOFError, BrokenPipeError):
            raise _Dead(self._ending(), self._printed()) from None

    def close(self) -> None:
        """Stop it; does nothing the second time."""
        self._stop()

    def _ending(self) -> str:
        """How the process has ended."""
        try:
            code = self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            return "habitat-sim's process stopped answering"
        return f"habitat-sim's process was ended by signal {-code}" if code < 0 else f"its process exited with {code}"

    def _printed(self) -> str:
        """The last lines that the worker printed since it was asked."""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 10_000))
        lines = self._stderr.read().decode(errors="replace").splitlines()
        return "\n".join([line for line in lines if line.strip()][-TAIL_LINES:])


def _stop(process: "subprocess.Popen[bytes]", held: tuple[IO[bytes], ...], owner: int) -> None:
    """End a worker by closing its input, or by force. In a forked child of its owner only close what was inherited."""
    for stream in held:
        stream.close()
    if owner != os.getpid():
        return
    try:
        process.wait(CLOSE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read(stream: IO[bytes], length: int, deadline: float) -> bytearray:
    """Exactly `length` bytes. Raises EOFError, or TimeoutError at the deadline (`time.monotonic()`)."""
    data = bytearray(length)
    left = memoryview(data)
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    while left:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        count = os.readv(stream.fileno(), [left])
        if not count:
            raise EOFError
        left = left[count:]
    return data


def _raise(python: str, error: Mapping[str, str]) -> None:
    """Raise what a reply says went wrong."""
    if error["kind"] == "scene":
        raise SceneError(error["message"])
    if error["kind"] == "missing":
        raise ValueError(f"{python}: habitat_sim cannot be imported: {error['message']}. {INSTALL}")
    raise RuntimeError(f"{python}: habitat_worker.py failed:\n{error['message']}")


def find_python(python: str) -> str:
    """The interpreter's path, or ValueError."""
    found = shutil.which(os.path.expanduser(python))
    if found is None:
        raise ValueError(f"{python}: no such Python interpreter. {INSTALL}")
    return os.path.abspath(found)


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""


def _numbers(array: NDArray[np.float64]) -> list[Any]:
    return np.asarray(array, np.float64).tolist()


def _point(numbers: list[float] | None) -> Point | None:
    return None if numbers is None else np.array(numbers, np.float64)
