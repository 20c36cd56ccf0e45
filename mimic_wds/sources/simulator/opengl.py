"""Drawing a mesh with OpenGL, on a GPU or on the CPU (Mesa's llvmpipe), without a window: what habitat-sim draws.

Unlit base colour, trilinear mip maps, no multisampling, near plane 1 cm, far plane 1 km, black where nothing is: the
state of habitat-sim's default sensors. Conventions are those of `raster.py`, whose renderer has the same interface.
"""

import os
import threading
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.raster import Camera, Mesh, cell_boxes, in_sight, pool_2x2

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
uniform mat4 view; uniform vec4 lens;  // lens: focal x, focal y in clip space, and the two depth terms
in vec3 at; in vec2 where; in vec3 tint;
out vec2 uv; out vec3 colour; out float depth;
void main() {
    vec4 seen = view * vec4(at, 1.0);
    uv = where; colour = tint; depth = -seen.z;
    gl_Position = vec4(lens.x * seen.x, -lens.y * seen.y, lens.z * seen.z + lens.w, -seen.z);
}"""  # y is turned round, so that the first row read is the top one

FRAGMENT = """#version 330
uniform sampler2D base;
in vec2 uv; in vec3 colour; in float depth;
layout(location = 0) out vec4 pixel; layout(location = 1) out float metres;
void main() { pixel = vec4(texture(base, uv).rgb * colour, 1.0); metres = depth; }"""


class NoContext(RuntimeError):
    """There is no OpenGL to be had on this machine; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class _Target:
    """A frame to draw into."""

    buffer: Any  #: its attachments are colour and depth in metres
    zbuffer: Any


class GLRenderer:
    """Draws one mesh. To be used by the thread and process that made it. Raises NoContext where there is no OpenGL."""

    def __init__(self, mesh: Mesh, *, device: int | None = None, supersample: bool = False, cull_backs: bool = False):
        """`device` is the number of the EGL device (GPU), None = the first one."""
        self._context = context(device)
        self._supersample = supersample
        self._cull_backs = cull_backs
        self._targets: dict[tuple[int, int], _Target] = {}
        self._program = self._context.program(vertex_shader=VERTEX, fragment_shader=FRAGMENT)
        order, self._starts, self._group_textures = by_texture_and_cell(mesh)
        triangles = np.ascontiguousarray(mesh.triangles[order], np.int32)
        self._boxes = cell_boxes(mesh.vertices[triangles], self._starts)
        self._textures = [self._texture(pixels) for pixels in mesh.textures]
        self._buffers, self._array = self._upload(mesh, triangles)

    def render(self, camera: Camera) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Colour (H, W, 3) uint8 RGB, and depth (H, W) float32 in metres along the optical axis, 0 where nothing is."""
        target = self._draw(camera)
        depth = np.frombuffer(target.buffer.read(components=1, attachment=1, dtype="f4"), np.float32)
        lens = camera.twice() if self._supersample else camera
        drawn = self._draw(lens) if self._supersample else target
        pixels = np.frombuffer(drawn.buffer.read(components=3, alignment=1), np.uint8).reshape(*lens.size, 3)
        return pool_2x2(pixels) if self._supersample else pixels, depth.reshape(camera.size)

    def close(self) -> None:
        """Free what the graphics card holds; may be called twice."""
        for target in self._targets.values():
            for part in (target.buffer, *target.buffer.color_attachments, target.zbuffer):
                part.release()
        for part in (*self._textures, self._array, *self._buffers, self._program):
            part.release()
        self._targets, self._textures, self._buffers = {}, [], []

    def _draw(self, camera: Camera) -> _Target:
        """Draw what is in sight into a frame of the camera's size."""
        gl, target = self._context, self._target(camera.size)
        target.buffer.use()
        gl.enable_only(gl.DEPTH_TEST | (gl.CULL_FACE if self._cull_backs else gl.NOTHING))
        gl.front_face = "cw"  # the picture is upside down for OpenGL
        target.buffer.clear(0.0, 0.0, 0.0, 1.0)
        self._program["view"].write(np.linalg.inv(camera.pose).T.astype("f4").tobytes())
        self._program["lens"].value = projection(camera)
        for texture, first, last in runs(self._group_textures, self._starts, in_sight(self._boxes, camera)):
            self._textures[texture].use()
            self._array.render(gl.TRIANGLES, vertices=3 * (last - first), first=3 * first)
        return target

    def _target(self, size: tuple[int, int]) -> _Target:
        """The frame of this size, made once."""
        if size not in self._targets:
            shape = (size[1], size[0])
            colour = self._context.renderbuffer(shape, 4)
            depth = self._context.renderbuffer(shape, 1, dtype="f4")
            zbuffer = self._context.depth_renderbuffer(shape)
            self._targets[size] = _Target(self._context.framebuffer([colour, depth], zbuffer), zbuffer)
        return self._targets[size]

    def _texture(self, pixels: NDArray[np.uint8]) -> Any:
        """A texture with its mip maps; its bytes go to the picture unchanged."""
        gl = self._context
        height, width = pixels.shape[:2]
        texture = gl.texture((width, height), 3, np.ascontiguousarray(pixels).tobytes(), alignment=1)
        texture.build_mipmaps()
        texture.filter = (gl.LINEAR_MIPMAP_LINEAR, gl.LINEAR)
        texture.repeat_x = texture.repeat_y = True
        return texture

    def _upload(self, mesh: Mesh, triangles: NDArray[np.int32]) -> tuple[list[Any], Any]:
        """The mesh in the memory of the graphics card."""
        gl = self._context
        places = np.hstack([mesh.vertices, mesh.uv]).astype("f4")
        buffers = [gl.buffer(places.tobytes()), gl.buffer(triangles.tobytes())]
        content: list[tuple[Any, ...]] = [(buffers[0], "3f 2f", "at", "where")]
        if mesh.colors is None:
            buffers.append(gl.buffer(bytes([255, 255, 255])))
            content.append((buffers[2], "3f1/i", "tint"))
        else:
            buffers.append(gl.buffer(np.ascontiguousarray(mesh.colors).tobytes()))
            content.append((buffers[2], "3f1", "tint"))
        return buffers, gl.vertex_array(self._program, content, index_buffer=buffers[1], index_element_size=4)


def projection(camera: Camera) -> tuple[float, float, float, float]:
    """What the vertex shader scales by: x and y to the borders of the picture, z to the near and far planes."""
    height, width = camera.size
    depth_scale = -(FAR_M + NEAR_M) / (FAR_M - NEAR_M)
    return 2 * camera.focal / width, 2 * camera.focal / height, depth_scale, -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)


def by_texture_and_cell(mesh: Mesh) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Triangles grouped by texture, then cell: their order (T,), where groups start (G + 1,), their textures (G,)."""
    centres = mesh.vertices[mesh.triangles].mean(axis=1)
    cells = np.floor(centres / CELL_M).astype(np.int64)
    groups = np.column_stack([mesh.texture_ids, cells])
    kinds, group_of, counts = np.unique(groups, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(group_of.ravel(), kind="stable")
    return order, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), kinds[:, 0]


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


def context(device: int | None = None) -> Any:
    """This process's OpenGL context on a device, made on the first call. Raises NoContext, saying why there is none."""
    key = os.getpid(), threading.get_ident(), device
    if key not in _CONTEXTS:
        _CONTEXTS[key] = _new_context(device)
    return _CONTEXTS[key]


#: A context belongs to a process and a thread, and making one takes long: a forked child makes its own.
_CONTEXTS: dict[tuple[int, int, int | None], Any] = {}


def _new_context(device: int | None) -> Any:
    """A context without a window. Raises NoContext."""
    try:
        import moderngl
    except ImportError:
        raise NoContext("the package moderngl is missing; install it with: pip install 'mimic-wds[sim]'") from None
    if any(process != os.getpid() for process, _, _ in _CONTEXTS):
        raise NoContext("this process was forked from one that draws with OpenGL; start it by spawn")
    wanted: dict[str, Any] = {"standalone": True, "backend": "egl", "libegl": LIBEGL}
    if device is not None:
        wanted["device_index"] = device
    problems = []
    for name in LIBGL:
        try:
            return moderngl.create_context(**{**wanted, "libgl": name})
        except Exception as error:  # moderngl raises plain ones, of a library that is missing and of a device
            problems.append(f"{name}: {error}")
    raise NoContext("; ".join(problems))


def driver(device: int | None = None) -> str:
    """What draws: "NVIDIA H200/PCIe/SSE2", "llvmpipe (LLVM 15.0.6, 256 bits)". Raises NoContext."""
    return str(context(device).info["GL_RENDERER"])


def is_on_cpu(name: str) -> bool:
    """True for the name of a renderer that runs on the CPU."""
    return any(part in name.lower() for part in ON_CPU)
