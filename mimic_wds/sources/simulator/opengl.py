"""Drawing a mesh with OpenGL, on a GPU or on the CPU (Mesa's llvmpipe), without a window: what habitat-sim draws.

Unlit base colour, trilinear mip maps, no multisampling, near plane 1 cm, far plane 1 km, black where nothing is: the
state of habitat-sim's default sensors. Conventions are those of `raster.py`, whose renderer has the same interface.

Depth is drawn in float32 beside the colours, in metres as the vertex shader finds them, and not taken back from the
depth buffer: its error is some 1e-6 of the depth. Which of two surfaces is seen is decided by the depth buffer of 24
bits, which cannot tell apart what lies closer together than depth^2 / (near 2^24): 0.6 mm at 10 m.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.raster import Camera, Mesh, cell_boxes, cell_keys, in_sight, pool_2x2, starts_of_runs

#: Metres: as habitat-sim's sensors.
NEAR_M, FAR_M = 0.01, 1000.0

#: Metres: triangles of one texture are drawn or passed over by cells of this size.
CELL_M = 1.5

#: Libraries as they are called at run time; the bare names that moderngl asks for come with -dev packages.
LIBEGL = "libEGL.so.1"
LIBGL = ("libGL.so.1", "libOpenGL.so.0", "libEGL.so.1")

#: Parts of the names of renderers that run on the CPU.
ON_CPU = ("llvmpipe", "softpipe", "swiftshader")

VERTEX = """#version 330
uniform vec3 eye; uniform mat3 turn; uniform vec4 lens;  // lens: x and y in clip space, and the two depth terms
in vec3 at; in vec2 where; in vec3 tint;
out vec2 uv; out vec3 colour; out float depth;
void main() {
    vec3 seen = turn * (at - eye);  // the difference first: it is exact, however far from the origin
    uv = where; colour = tint; depth = -seen.z;
    gl_Position = vec4(lens.x * seen.x, -lens.y * seen.y, lens.z * seen.z + lens.w, -seen.z);
}"""  # y is turned round, so that the first row read is the top one

FRAGMENT = """#version 330
uniform sampler2D base;
in vec2 uv; in vec3 colour; in float depth;
layout(location = 0) out vec4 pixel; layout(location = 1) out float metres;
void main() { pixel = vec4(texture(base, uv).rgb * colour, 1.0); metres = depth; }"""


class NoContext(RuntimeError):
    """There is no OpenGL to be had on this machine or in this process; the message says why."""


class GLRenderer:
    """Draws one mesh. For the process that made it; its threads take turns.

    Raises NoContext where there is no OpenGL, MemoryError when the graphics card has no room for the mesh.
    """

    def __init__(
        self,
        mesh: Mesh,
        *,
        device: int | None = None,
        supersample: bool = False,
        cull_backs: bool = False,
        samples: int = 0,
        anisotropy: float = 1.0,
    ):
        """`device` is the number of the EGL device (GPU), None = the first one; `supersample` the default of `render`.

        With `cull_backs` triangles are seen from their front only, where their corners go round counter-clockwise.
        `samples` of colour at edges (multisampling) and texture probes along grazing views (`anisotropy`) cost a GPU
        nothing, and are very slow on the CPU; habitat-sim has neither. Both are cut to what the driver offers.
        """
        self._shared = shared_context(device)
        self._supersample, self._cull_backs = supersample, cull_backs
        self._frames: dict[tuple[int, int, int], Any] = {}
        self._parts: list[Any] = []  # all that is to be freed
        order, self._starts, self._group_textures = by_texture_and_cell(mesh)
        triangles = np.ascontiguousarray(mesh.triangles[order], np.int32)
        self._boxes = cell_boxes(mesh.vertices[triangles], self._starts)
        try:
            with self._shared.turn() as gl:
                self._samples = min(samples, gl.max_samples)
                self._textures = [self._keep(texture(gl, pixels, anisotropy)) for pixels in mesh.textures]
                self._program = self._keep(gl.program(vertex_shader=VERTEX, fragment_shader=FRAGMENT))
                self._array = self._upload(gl, mesh, triangles)
                check_memory(gl, "this mesh and its textures")
        except BaseException:
            self.close()
            raise

    def render(
        self, camera: Camera, *, supersample: bool | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Colour (H, W, 3) uint8 RGB, and depth (H, W) float32 in metres along the optical axis, 0 where nothing is.

        supersample=True (default: as the renderer was made) averages 2 x 2 samples of colour in each pixel; depth is
        always that of the pixel's centre.
        """
        fine = self._supersample if supersample is None else supersample
        lens = camera.twice() if fine else camera
        colours, depth = np.empty((*lens.size, 3), np.uint8), np.empty(camera.size, np.float32)
        with self._shared.turn() as gl:
            frame = self._draw(gl, camera, 0)
            frame.read_into(depth, components=1, attachment=1, dtype="f4")
            if fine or self._samples:
                frame = self._draw(gl, lens, self._samples)
            frame.read_into(colours, components=3, alignment=1)
        return pool_2x2(colours) if fine else colours, depth

    def close(self) -> None:
        """Free what the graphics card holds; may be called twice. In a forked child that is its parent's affair."""
        if self._parts and self._shared.is_ours:
            with self._shared.turn():
                for part in reversed(self._parts):
                    part.release()
        self._parts, self._frames = [], {}

    def _draw(self, gl: Any, camera: Camera, samples: int) -> Any:
        """Draw what is in sight; returns a frame of the camera's size to be read."""
        assert self._parts, "the renderer is closed"
        frame = self._frame(gl, camera.size, samples)
        frame.use()
        gl.enable_only(gl.DEPTH_TEST | (gl.CULL_FACE if self._cull_backs else gl.NOTHING))
        gl.front_face = "cw"  # the picture is upside down for OpenGL
        frame.clear(0.0, 0.0, 0.0, 1.0)
        self._program["eye"].value = tuple(camera.pose[:3, 3].tolist())
        self._program["turn"].write(camera.pose[:3, :3].astype("f4").tobytes())  # column by column: the inverse
        self._program["lens"].value = projection(camera)
        for number, first, last in runs(self._group_textures, self._starts, in_sight(self._boxes, camera)):
            self._textures[number].use()
            self._array.render(gl.TRIANGLES, vertices=3 * (last - first), first=3 * first)
        if not samples:
            return frame
        plain = self._frame(gl, camera.size, 0)
        gl.copy_framebuffer(plain, frame)
        return plain

    def _frame(self, gl: Any, size: tuple[int, int], samples: int) -> Any:
        """A frame of this size to draw into, made once: colour, and depth in metres."""
        key = (*size, samples)
        if key not in self._frames:
            shape = (size[1], size[0])
            colour = self._keep(gl.renderbuffer(shape, 4, samples=samples))
            metres = self._keep(gl.renderbuffer(shape, 1, samples=samples, dtype="f4"))
            zbuffer = self._keep(gl.depth_renderbuffer(shape, samples=samples))
            self._frames[key] = self._keep(gl.framebuffer([colour, metres], zbuffer))
            check_memory(gl, f"pictures of {shape[0]} x {shape[1]}")
        return self._frames[key]

    def _upload(self, gl: Any, mesh: Mesh, triangles: NDArray[np.int32]) -> Any:
        """The mesh in the memory of the graphics card, ready to be drawn."""
        places = np.hstack([mesh.vertices, mesh.uv]).astype("f4")
        tints = np.full(3, 255, np.uint8) if mesh.colors is None else np.ascontiguousarray(mesh.colors)
        corners, colours, indices = (
            self._keep(gl.buffer(part) if part.size else gl.buffer(reserve=64)) for part in (places, tints, triangles)
        )  # a buffer cannot be empty
        each = "3f1/i" if mesh.colors is None else "3f1"  # /i: one for all
        content = [(corners, "3f 2f", "at", "where"), (colours, each, "tint")]
        return self._keep(gl.vertex_array(self._program, content, index_buffer=indices, index_element_size=4))

    def _keep(self, part: Any) -> Any:
        """Remember to free `part`."""
        self._parts.append(part)
        return part


def texture(gl: Any, pixels: NDArray[np.uint8], anisotropy: float = 1.0) -> Any:
    """A texture with its mip maps, made smaller where the driver has a limit; its bytes go to the picture unchanged."""
    largest = min(1.0, int(gl.info["GL_MAX_TEXTURE_SIZE"]) / max(pixels.shape[:2]))
    if largest < 1:
        size = [max(1, int(side * largest)) for side in pixels.shape[1::-1]]
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    made = gl.texture(pixels.shape[1::-1], 3, np.ascontiguousarray(pixels), alignment=1)
    made.build_mipmaps()
    made.filter = (gl.LINEAR_MIPMAP_LINEAR, gl.LINEAR)
    made.repeat_x = made.repeat_y = True
    if anisotropy > 1:
        made.anisotropy = min(anisotropy, gl.max_anisotropy)
    return made


def check_memory(gl: Any, what: str) -> None:
    """Raise MemoryError when the graphics card had no room; OpenGL itself says so only when asked.

    Other errors are passed over: moderngl leaves one when it binds again a frame that another renderer has freed.
    """
    if gl.error == "GL_OUT_OF_MEMORY":
        raise MemoryError(f"the graphics card has no room for {what}")


def projection(camera: Camera) -> tuple[float, float, float, float]:
    """What the vertex shader scales by: x and y to the borders of the picture, z to the near and far planes."""
    height, width = camera.size
    depth_scale = -(FAR_M + NEAR_M) / (FAR_M - NEAR_M)
    return 2 * camera.focal / width, 2 * camera.focal / height, depth_scale, -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)


def by_texture_and_cell(mesh: Mesh) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Triangles grouped by texture, then cell: their order (T,), where groups start (G + 1,), their textures (G,)."""
    keys = cell_keys(mesh, CELL_M)
    order = np.lexsort((keys, mesh.texture_ids))
    textures = mesh.texture_ids[order].astype(np.int64)
    starts = starts_of_runs(textures, keys[order])
    return order, starts, textures[starts[:-1]]


def runs(
    textures: NDArray[np.int64], starts: NDArray[np.int64], visible: NDArray[np.bool_]
) -> list[tuple[int, int, int]]:
    """Neighbouring visible groups of one texture as (texture, first triangle, last triangle + 1)."""
    (groups,) = np.nonzero(visible)
    if not len(groups):
        return []
    breaks = np.flatnonzero((np.diff(groups) != 1) | (np.diff(textures[groups]) != 0)) + 1
    ends = [0, *breaks.tolist(), len(groups)]
    return [
        (int(textures[groups[a]]), int(starts[groups[a]]), int(starts[groups[b - 1] + 1])) for a, b in pairwise(ends)
    ]


class SharedContext:
    """The OpenGL context of a process on one device, and whose turn it is.

    Calls of OpenGL go to whichever context was made current last, whatever object they are made on. So every use is a
    turn: it makes the context current in this thread, and then lets go of it for other threads and devices.
    """

    def __init__(self, device: int) -> None:
        """Raises NoContext."""
        self._process, self._lock = os.getpid(), threading.Lock()
        self._gl = _new_context(device)
        with self._gl:  # it is current when made: let go of it
            pass

    @property
    def is_ours(self) -> bool:
        """False in a child forked from the process that made it."""
        return self._process == os.getpid()

    @contextmanager
    def turn(self) -> Iterator[Any]:
        """Make the context current. Turns are not nested. Raises NoContext in a forked child."""
        if not self.is_ours:
            raise NoContext("a renderer does not outlive a fork: make it in the process that draws")
        with self._lock, self._gl:
            yield self._gl


#: Making a context takes long, so renderers share it; and it belongs to a process, as few things do.
_CONTEXTS: dict[int, SharedContext] = {}
_MAKING = threading.Lock()


def shared_context(device: int | None = None) -> SharedContext:
    """This process's context on a device, made on the first call. Raises NoContext, saying why there is none."""
    if any(not context.is_ours for context in _CONTEXTS.values()):  # Mesa's threads are gone: it would wait for ever
        raise NoContext("this process was forked from one that draws with OpenGL; start it by spawn")
    with _MAKING:
        if (device or 0) not in _CONTEXTS:
            _CONTEXTS[device or 0] = SharedContext(device or 0)
        return _CONTEXTS[device or 0]


def _new_context(device: int) -> Any:
    """A context without a window. Raises NoContext."""
    try:
        import moderngl
    except ImportError:
        raise NoContext("the package moderngl is missing; install it with: pip install 'mimic-wds[sim]'") from None
    wanted: dict[str, Any] = {"standalone": True, "backend": "egl", "libegl": LIBEGL, "device_index": device}
    problems: dict[str, None] = {}  # in order, each once
    for name in LIBGL:
        try:
            return moderngl.create_context(**{**wanted, "libgl": name})
        except Exception as error:  # moderngl raises plain ones, of a library that is missing and of a device
            problems[str(error)] = None
    raise NoContext("; ".join(problems))


def driver(device: int | None = None) -> str:
    """What draws: "NVIDIA H200/PCIe/SSE2", "llvmpipe (LLVM 15.0.6, 256 bits)". Raises NoContext."""
    with shared_context(device).turn() as gl:
        return str(gl.info["GL_RENDERER"])


def is_on_cpu(name: str) -> bool:
    """True for the name of a renderer that runs on the CPU."""
    return any(part in name.lower() for part in ON_CPU)
