"""A small software rasteriser: textured triangles to colour and depth, with no graphics library and no display.

World: metres, y up. A camera looks along its -z axis, +x is right, +y is up (OpenGL's axes, habitat-sim's poses).
Pictures are unlit: texture bytes go to the picture unchanged. In the picture, points are (x, y) and whole numbers are
pixel centres, so the optical axis meets it at ((width - 1) / 2, (height - 1) / 2).
"""

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator import mipmaps

#: Metres: triangles are sorted into cells of this size, and drawn or passed over cell by cell.
CELL_M = 0.7

#: Texture probes along the longer axis of a pixel's footprint, at most.
MAX_PROBES = 8


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """Textured triangles. Raises ValueError when shapes or numbers do not fit together."""

    vertices: NDArray[np.float32]  #: (V, 3) metres
    triangles: NDArray[np.int32]  #: (T, 3) rows of `vertices`
    uv: NDArray[np.float32]  #: (V, 2) place in the texture: (0, 0) top left, (1, 1) bottom right; repeats
    texture_ids: NDArray[np.int32]  #: (T,) which of `textures`
    textures: tuple[NDArray[np.uint8], ...]  #: each (h, w, 3) RGB, any size
    colors: NDArray[np.uint8] | None = None  #: (V, 3) RGB, multiply the texture; None = white
    semantic_ids: NDArray[np.int32] | None = None  #: (T,) place in `semantic_names`, -1 = none; None = not known
    semantic_names: tuple[str, ...] = ()  #: what parts of the scene are called

    def __post_init__(self) -> None:
        num_vertices, num_triangles = len(self.vertices), len(self.triangles)
        expected = {
            "vertices": (num_vertices, 3),
            "triangles": (num_triangles, 3),
            "uv": (num_vertices, 2),
            "texture_ids": (num_triangles,),
        }
        if self.colors is not None:
            expected["colors"] = (num_vertices, 3)
        if self.semantic_ids is not None:
            expected["semantic_ids"] = (num_triangles,)
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"mesh: {name} has shape {getattr(self, name).shape}, expected {shape}")
        limits = {
            "triangles": num_vertices,
            "texture_ids": len(self.textures),
            "semantic_ids": len(self.semantic_names),
        }
        for name, limit in limits.items():
            numbers, lowest = getattr(self, name), -1 if name == "semantic_ids" else 0
            if numbers is not None and numbers.size and not lowest <= numbers.min() <= numbers.max() < limit:
                raise ValueError(f"mesh: {name} must be {lowest}..{limit - 1}, got {numbers.min()}..{numbers.max()}")


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A pinhole camera with square pixels and the optical axis in the middle."""

    pose: NDArray[np.float64]  #: (4, 4) camera to world
    hfov_deg: float  #: horizontal field of view
    size: tuple[int, int]  #: (height, width)

    def __post_init__(self) -> None:
        if not 0 < self.hfov_deg < 180:
            raise ValueError(f"hfov_deg must lie between 0 and 180, got {self.hfov_deg}")
        if min(self.size) <= 0:
            raise ValueError(f"size must be two positive numbers (height, width), got {self.size}")

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return float(self.size[1] / 2 / np.tan(np.radians(self.hfov_deg) / 2))

    @property
    def intrinsics(self) -> NDArray[np.float64]:
        """(3, 3): takes a point with axes right, down, forward to (x d, y d, d), (x, y) its pixel and d its depth."""
        height, width = self.size
        return np.array([[self.focal, 0, (width - 1) / 2], [0, self.focal, (height - 1) / 2], [0, 0, 1]])

    @property
    def world_to_rays(self) -> NDArray[np.float64]:
        """(3, 3): takes a point of the world, less the camera's place, to (x d, y d, d)."""
        return np.asarray(self.intrinsics @ (self.pose[:3, :3] * (1, -1, -1)).T, np.float64)

    def to_rays(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """World points (N, 3) as (x d, y d, d), (N, 3): (x, y) is the pixel, d the depth along the optical axis."""
        return np.asarray((points.astype(np.float64) - self.pose[:3, 3]) @ self.world_to_rays.T, np.float64)

    def twice(self) -> "Camera":
        """The same view with twice as many pixels each way."""
        return Camera(self.pose, self.hfov_deg, (2 * self.size[0], 2 * self.size[1]))


def pose(
    position: NDArray[np.floating] | tuple[float, float, float],
    yaw_deg: float = 0.0,
    pitch_deg: float = 0.0,
    roll_deg: float = 0.0,
) -> NDArray[np.float64]:
    """Camera to world (4, 4). Without angles the camera looks along -z.

    Positive yaw turns left, positive pitch looks up, positive roll tilts the head to the left.
    """
    (cy, sy), (cp, sp), (cr, sr) = (
        (np.cos(angle), np.sin(angle)) for angle in np.radians([yaw_deg, pitch_deg, roll_deg])
    )
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    result = np.eye(4)
    result[:3, :3] = yaw @ pitch @ roll
    result[:3, 3] = position
    return result


class Renderer:
    """Draws one mesh from any number of cameras. May be used from several threads at once.

    Raises ImportError with the install command when numba is missing. The first picture on a machine waits for the
    compiler (some seconds); the machine code is kept for later runs.
    """

    def __init__(self, mesh: Mesh, *, supersample: bool = False, cull_backs: bool = False):
        """`supersample` is the default of `render`.

        With `cull_backs` triangles are seen from their front only, where their corners go round counter-clockwise.
        """
        self._supersample, self._cull_backs = supersample, cull_backs
        self._kernels = _load_kernels()
        self._mips = mipmaps.build(mesh.textures)
        self._order, self._starts = sort_in_cells(mesh)
        self._vertices = np.ascontiguousarray(mesh.vertices, np.float32)
        self._triangles = np.ascontiguousarray(mesh.triangles[self._order], np.int32)
        self._uv = np.ascontiguousarray(mesh.uv, np.float32)
        self._texture_ids = mesh.texture_ids[self._order].astype(np.int32)
        self._colors = None if mesh.colors is None else np.ascontiguousarray(mesh.colors, np.uint8)
        self._boxes = cell_boxes(mesh.vertices[self._triangles], self._starts)

    def render(
        self, camera: Camera, *, supersample: bool | None = None, max_probes: int = MAX_PROBES
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Colour (H, W, 3) uint8 RGB, and depth (H, W) float32 in metres along the optical axis, 0 where nothing is.

        supersample=True (default: as the renderer was made) averages 2 x 2 samples of colour in each pixel; depth is
        always that of the pixel's centre.
        """
        drawn = self._rasterise(camera)
        depth = _depth(drawn[1])
        if not (self._supersample if supersample is None else supersample):
            return self._shade(*drawn, max_probes), depth
        return pool_2x2(self._shade(*self._rasterise(camera.twice()), max_probes)), depth

    def close(self) -> None:
        """There is nothing to free; other renderers have something."""

    def visibility(self, camera: Camera) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The triangle that each pixel shows, (H, W), as a row of the mesh's `triangles` or -1; and depth as above."""
        ids, inverse, _, visible = self._rasterise(camera)
        rows = np.append(self._order[visible], -1)  # id -1 picks the last
        return rows[ids], _depth(inverse)

    def _rasterise(
        self, camera: Camera
    ) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """What the kernel of that name returns, and the rows of the sorted triangles that were drawn."""
        visible = members(self._starts, np.flatnonzero(in_sight(self._boxes, camera)))
        drawn = self._kernels.rasterise(
            self._vertices,
            np.ascontiguousarray(camera.pose[:3, 3], np.float64),
            camera.world_to_rays,
            self._triangles,
            self._uv,
            visible,
            camera.size,
            self._cull_backs,
        )
        return *drawn, visible

    def _shade(
        self,
        ids: NDArray[np.int32],
        inverse: NDArray[np.float64],
        forms: NDArray[np.float64],
        visible: NDArray[np.int64],
        max_probes: int,
    ) -> NDArray[np.uint8]:
        mips = self._mips
        textures = self._texture_ids[visible]
        colours: NDArray[np.uint8] = self._kernels.shade(
            ids, inverse, forms, textures, mips.texels, mips.sizes, mips.offsets, max_probes
        )
        if self._colors is not None:
            self._kernels.tint(colours, ids, inverse, forms, self._triangles, visible, self._colors)
        return colours


def pool_2x2(fine: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of 2 x 2 pixels, rounded: (2 H, 2 W, 3) to (H, W, 3)."""
    wide = fine.astype(np.uint16)
    sums = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    return ((sums + 2) // 4).astype(np.uint8)


def sort_in_cells(mesh: Mesh) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Triangles grouped by the cell that holds their centre: their order (T,), and where each cell starts (C + 1,)."""
    keys = cell_keys(mesh, CELL_M)
    order = np.argsort(keys, kind="stable")
    return order, starts_of_runs(keys[order])


def cell_keys(mesh: Mesh, size_m: float) -> NDArray[np.int64]:
    """The cell of each triangle's centre as one number (T,), in the order of x, then y, then z.

    In a mesh so wide that the number overflows, far away cells may share one.
    """
    corners = mesh.triangles.T
    centres = (mesh.vertices[corners[0]] + mesh.vertices[corners[1]] + mesh.vertices[corners[2]]) / 3
    cells = np.floor(centres / size_m).astype(np.int64)
    if not len(cells):
        return np.empty(0, np.int64)
    cells -= cells.min(axis=0)
    _, height, depth = cells.max(axis=0) + 1
    return np.asarray((cells[:, 0] * height + cells[:, 1]) * depth + cells[:, 2], np.int64)


def starts_of_runs(*keys: NDArray[np.integer]) -> NDArray[np.int64]:
    """Where runs of equal keys start in arrays (T,) of them, and T at the end: (C + 1,)."""
    changes = np.any([np.diff(key) != 0 for key in keys], axis=0)
    inner = np.flatnonzero(changes) + 1
    return np.concatenate([[0], inner, [len(keys[0])] if len(keys[0]) else []]).astype(np.int64)


def cell_boxes(corners: NDArray[np.float32], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Boxes (C, 2, 3), lowest and highest corner, around the triangles (T, 3, 3) of each cell."""
    if not len(corners):
        return np.empty((0, 2, 3))
    low = np.minimum.reduceat(corners.min(axis=1), starts[:-1])
    high = np.maximum.reduceat(corners.max(axis=1), starts[:-1])
    return np.stack([low, high], axis=1).astype(np.float64)


def in_sight(boxes: NDArray[np.float64], camera: Camera) -> NDArray[np.bool_]:
    """Which boxes (C, 2, 3) may be seen (C,): those that are not wholly outside one side of the view."""
    x, y, d = camera.world_to_rays
    height, width = camera.size
    sides = np.stack([d, x + d, width * d - x, y + d, height * d - y], axis=1)  # a pixel wider than the picture
    low, high = boxes[:, 0] - camera.pose[:3, 3], boxes[:, 1] - camera.pose[:3, 3]
    farthest = low @ np.minimum(sides, 0) + high @ np.maximum(sides, 0)  # of all corners, beyond each side
    return np.asarray((farthest > 0).all(axis=1))


def members(starts: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """The triangles of the given cells: the ranges starts[c] .. starts[c + 1] one after the other."""
    lengths = starts[cells + 1] - starts[cells]
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts[cells] - (ends - lengths), lengths)


def _depth(inverse: NDArray[np.float64]) -> NDArray[np.float32]:
    """Metres from inverse depth; 0 stays 0."""
    return np.divide(1.0, inverse, out=np.zeros_like(inverse), where=inverse > 0).astype(np.float32)


def _load_kernels() -> ModuleType:
    """The compiled loops; numba is imported here, so that only what renders waits for it."""
    from mimic_wds.sources.simulator import kernels

    return kernels
