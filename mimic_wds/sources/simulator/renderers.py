"""What draws a mesh: OpenGL where there is a context, else the rasteriser in numba, which needs no system library."""

import logging
import os
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator import opengl
from mimic_wds.sources.simulator.raster import Camera, Mesh
from mimic_wds.sources.simulator.raster import Renderer as NumbaRenderer

log = logging.getLogger(__name__)

#: "auto" = "opengl" if there is a context, else "numba".
Choice: TypeAlias = Literal["auto", "opengl", "numba"]

#: What to do where OpenGL is asked for and missing.
ADVICE = (
    "install the libraries of the graphics driver (Debian, for the CPU: apt install libegl1 libgl1-mesa-dri), or draw "
    'with backend = "numba", which needs none'
)


class Renderer(Protocol):
    """Draws one mesh from any number of cameras."""

    def render(
        self, camera: Camera, *, supersample: bool | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Colour (H, W, 3) uint8 RGB, and depth (H, W) float32 in metres along the optical axis, 0 where nothing is.

        supersample=True averages 2 x 2 samples of colour in each pixel; None = as the renderer was made.
        """
        ...

    def close(self) -> None:
        """Free what is held."""
        ...


def make_renderer(
    mesh: Mesh,
    *,
    backend: Choice = "auto",
    device: int | None = None,
    supersample: bool = False,
    cull_backs: bool = False,
) -> Renderer:
    """The renderer of a mesh; `device` is the number of the GPU for OpenGL, None = the first there is.

    Raises ValueError, saying what to install, when OpenGL is asked for and cannot be had, or when there is neither
    OpenGL nor numba; ImportError with the install command when numba is asked for and missing.
    """
    if choose(backend, device) == "opengl":
        return opengl.GLRenderer(mesh, device=device, supersample=supersample, cull_backs=cull_backs)
    return NumbaRenderer(mesh, supersample=supersample, cull_backs=cull_backs)


def choose(backend: Choice, device: int | None = None) -> Literal["opengl", "numba"]:
    """Which of the two it will be; the log says why. Raises ValueError when OpenGL is asked for and cannot be had."""
    return _choose(backend, device, os.getpid())


@lru_cache(maxsize=8)  # so that the log says it once in a process
def _choose(backend: Choice, device: int | None, process: int) -> Literal["opengl", "numba"]:
    if backend == "numba":
        return "numba"
    try:
        name = opengl.driver(device)
    except opengl.NoContext as error:
        if backend == "opengl":
            raise ValueError(f"no OpenGL here ({error}): {ADVICE}") from None
        if find_spec("numba") is None:
            raise ValueError("rendering needs packages: pip install 'mimic-wds[sim]'") from None
        log.warning("no OpenGL here (%s): drawing with numba", error)
        return "numba"
    log.info("drawing with OpenGL on %s%s", name, " (the CPU)" if opengl.is_on_cpu(name) else "")
    return "opengl"


def renderer_name(backend: Choice, device: int | None = None) -> str:
    """What draws, for the record: "opengl llvmpipe (LLVM 15.0.6, 256 bits)", "numba 0.68.1"."""
    if choose(backend, device) == "opengl":
        return f"opengl {opengl.driver(device)}"
    return f"numba {version('numba')}"
