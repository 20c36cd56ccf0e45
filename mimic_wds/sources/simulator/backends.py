"""Which simulator runs: the embedded one or habitat-sim; one is kept per process, since opening it takes seconds."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal, TypeAlias

from mimic_wds.sources.simulator.base import Body, Lens, SceneFile, Simulator
from mimic_wds.sources.simulator.habitat import HabitatSimulator

#: "auto" is OpenGL where there is a context, else numba; both are the embedded simulator.
Kind: TypeAlias = Literal["auto", "opengl", "numba", "habitat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A simulator and its settings."""

    kind: Kind = "auto"
    lens: Lens = field(default_factory=Lens)
    body: Body = field(default_factory=Body)
    open_sky: bool = False  #: walk also where nothing is overhead (not habitat-sim, which always does)
    cull_backs: bool = False  #: triangles are seen from their front only (habitat-sim always does so)
    supersample: bool = False  #: average 2 x 2 samples a pixel (not habitat-sim)
    gpus: tuple[int, ...] = ()  #: worker processes take them by turns; none = the first there is, or the CPU
    habitat_python: str = ""  #: interpreter that habitat-sim is installed for, "" = this one


@contextmanager
def simulator(backend: Backend, scene: SceneFile) -> Iterator[Simulator]:
    """This process's simulator with `scene` loaded. It is kept for the next call, unless an error passes through."""
    held = _HELD.take(backend)
    try:
        held.load(scene)
        yield held
    except BaseException:
        _HELD.close()
        raise


class _Held:
    """The simulator of this process; a forked child has none of its parent's."""

    def __init__(self) -> None:
        self._owner: tuple[int, Backend] | None = None
        self._simulator: Simulator | None = None

    def take(self, backend: Backend) -> Simulator:
        """The simulator held, or a new one if it is of another backend or another process."""
        owner = os.getpid(), backend
        if self._simulator is None or self._owner != owner:
            self.close()
            self._simulator, self._owner = open_simulator(backend), owner
        return self._simulator

    def close(self) -> None:
        """Close the simulator, if it is this process's own."""
        if self._simulator is not None and self._owner is not None and self._owner[0] == os.getpid():
            self._simulator.close()
        self._simulator = self._owner = None


#: A graphics context belongs to a process, so this is one of the few things that do.
_HELD = _Held()


def open_simulator(backend: Backend) -> Simulator:
    """A new simulator. Raises ValueError, with the command that installs it, when what it needs is missing."""
    gpu = worker_gpu(backend.gpus)
    if backend.kind == "habitat":
        return HabitatSimulator(backend.lens, python=backend.habitat_python, gpu=gpu, body=backend.body)
    from mimic_wds.sources.simulator.embedded import EmbeddedSimulator

    return EmbeddedSimulator(
        backend.lens,
        renderer=backend.kind,
        device=gpu,
        supersample=backend.supersample,
        cull_backs=backend.cull_backs,
        body=backend.body,
        open_sky=backend.open_sky,
    )


def worker_gpu(gpus: tuple[int, ...]) -> int | None:
    """The GPU of this worker process: they take them by turns, in the order in which they were started."""
    if not gpus:
        return None
    identity = multiprocessing.current_process()._identity  # of a main process ()
    return gpus[(identity[-1] - 1 if identity else 0) % len(gpus)]


def check_installed(kind: Kind = "auto") -> None:
    """Raise ValueError, with the command that installs it, when what the embedded simulator needs is missing."""
    if kind != "habitat" and find_spec("numba") is None:
        raise ValueError("3D scenes need packages that are not installed: pip install 'mimic-wds[sim]'")


def renderer_name(backend: Backend) -> str:
    """What draws, with its version: "opengl llvmpipe (LLVM 15.0.6, 256 bits)", "numba 0.68.1", "habitat-sim 0.3.3".

    Asked of a process of its own, since one that has drawn must not be forked. Raises ValueError when it is missing.
    """
    check_installed(backend.kind)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_renderer_name, backend).result()


def _renderer_name(backend: Backend) -> str:
    gpu = worker_gpu(backend.gpus)
    if backend.kind == "habitat":
        opened = open_simulator(backend)
        assert isinstance(opened, HabitatSimulator)
        version = opened.versions["habitat_sim"]
        opened.close()
        return f"habitat-sim {version}"
    from mimic_wds.sources.simulator.renderers import renderer_name

    return renderer_name(backend.kind, gpu)
