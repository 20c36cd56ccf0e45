"""Walkable floor found in a scene's triangles: a voxel flood in the manner of Recast, without its polygons.

1. Triangles are cut into voxels (`kernels.voxelise`), columns of 0.05 m by voxels of 0.05 m.
2. A floor cell is a voxel of a triangle no steeper than `Body.slope_deg`, with room for the body above.
   What rises at most `Body.climb_m` from it is stepped on or over. Its height is that of the triangle, not of a voxel.
3. Neighbouring cells are joined where the step between them is at most `Body.climb_m`.
4. Cells nearer to a border than the body's radius go; what is left is sorted into islands (`regions`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import Body
from mimic_wds.sources.simulator.navigation import cell_kernels, kernels, regions, surface
from mimic_wds.sources.simulator.navigation.cells import CellFloor
from mimic_wds.sources.simulator.raster import Mesh

#: Metres: the side of a column (habitat-sim's NavMeshSettings) and the height of a voxel. habitat-sim's voxels are
#: 0.2 m high; lower ones cost little here (a bit each) and tell a table from the floor and a step from a wall.
CELL_M, VOXEL_M = 0.05, 0.05

#: Words of 64 voxels that a grid may have: 320 MB for each of three grids. A house of 60 x 60 x 15 m takes 58 MB each.
MAX_WORDS = 40_000_000

#: Columns that a grid may have: 50,000 square metres, a floor of which takes 3 GB.
MAX_COLUMNS = 20_000_000

#: Where the lowest corner lies in its cell: not on a border between two, as it would in scenes built to round numbers.
PHASE = 0.37

#: Room for no floor cells: they are counted.
NO_CELLS = np.empty((0, 4), np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Where the columns stand."""

    origin: NDArray[np.float64]  #: (3,) metres: the lowest corner of the first column
    units: NDArray[np.float64]  #: (3,) metres per column, voxel, column
    shape: tuple[int, int, int]  #: rows (z), columns (x), words of 64 voxels per column

    @property
    def width(self) -> int:
        """Columns in a row."""
        return self.shape[1]

    @property
    def num_words(self) -> int:
        """Words in a column."""
        return self.shape[2]


def grid_around(box: NDArray[np.float64], body: Body) -> Grid:
    """The grid for triangles within box (2, 3), lowest and highest corner. Raises SceneError when it is too large."""
    voxel_m = max(VOXEL_M, (body.height_m + body.climb_m) / 60)  # a body and its step fit into one word
    units = np.array([CELL_M, voxel_m, CELL_M])
    cells = np.ceil((box[1] - box[0]) / units) + 4
    size = box[1] - box[0]
    columns = cells[0] * cells[2]
    if columns > MAX_COLUMNS or columns * np.ceil(cells[1] / 64) > MAX_WORDS:
        raise SceneError(
            f"the scene is {size[0]:.4g} x {size[2]:.4g} m wide and {size[1]:.4g} m high, too large for a map of its "
            "floor; its units look wrong (set scale_m, metres per unit of the file), or it has stray triangles far away"
        )
    shape = int(cells[2]), int(cells[0]), int(-(-cells[1] // 64))
    return Grid(box[0] - (1 + PHASE) * units, units, shape)


def flood(mesh: Mesh, body: Body, *, name: str = "scene", open_sky: bool = False) -> CellFloor:
    """The floor of a mesh (metres, y up) for a body; `name` is for messages.

    Which islands count as floor, and what open_sky means, is said in `regions.choose`. Triangles with corners that are
    not finite, or without area, are passed over. Memory: three bits per voxel and up to 150 bytes per floor cell; a
    house of 60 x 60 x 15 m with four full storeys took 0.7 GB and 7 s, a flat of a million triangles 0.3 s.

    Raises SceneError when nothing is left to walk on, or the mesh is too large.
    """
    kinds = kernels.classify(mesh.vertices, mesh.triangles, float(np.cos(np.radians(body.slope_deg + 1e-3))))
    if not kinds.any():
        raise SceneError(f"{name}: no triangles with an area, nowhere to walk")
    try:
        grid = grid_around(kernels.bounds(mesh.vertices, mesh.triangles, kinds), body)
    except SceneError as error:
        raise SceneError(f"{name}: {error}") from None
    ground = survey(mesh, kinds, grid, body, name)
    room = ~cell_kernels.too_near(ground.links, body.radius_m / CELL_M + 0.5)
    chosen = regions.choose(ground, room, grid, body, name=name, open_sky=open_sky)
    return _floor(mesh, kinds, grid, body, ground, chosen)


def survey(mesh: Mesh, kinds: NDArray[np.int8], grid: Grid, body: Body, name: str) -> regions.Ground:
    """All floor cells of the scene and how they hang together. Raises SceneError when there are none."""
    solid, up, down = kernels.voxelise(mesh.vertices, mesh.triangles, kinds, grid.origin, grid.units, grid.shape)
    np.bitwise_or(up, down, out=down)
    climb = int(body.climb_m / grid.units[1] + 1e-6)
    head = int(np.ceil(body.height_m / grid.units[1] - 1e-6))
    cells = np.empty((cell_kernels.find_cells(solid, down, grid.num_words, climb, head, NO_CELLS), 4), np.int32)
    cell_kernels.find_cells(solid, down, grid.num_words, climb, head, cells)
    if not len(cells):
        raise SceneError(f"{name}: nowhere to walk: no level place with {body.height_m:g} m of room above it")
    facing_up = cell_kernels.meets(cells, up, grid.num_words)
    del up, down
    starts = cell_kernels.column_starts(cells, grid.shape[0] * grid.width)
    heights = cell_kernels.settle(
        mesh.vertices, mesh.triangles, kinds, grid.origin, grid.units, grid.width, cells, starts
    )
    links = cell_kernels.link(cells, heights, starts, grid.width, body.climb_m, head)
    up_m2, down_m2 = kernels.level_areas(mesh.vertices, mesh.triangles, kinds)
    return regions.Ground(cells, heights, starts, links, facing_up, down_m2 > 2 * up_m2, solid, head)


def _floor(
    mesh: Mesh, kinds: NDArray[np.int8], grid: Grid, body: Body, ground: regions.Ground, chosen: regions.Choice
) -> CellFloor:
    """The chosen cells, numbered anew, with what is needed to answer questions about them."""
    (kept,) = np.nonzero(chosen.labels >= 0)
    renumber = np.full(len(ground.cells) + 1, -1, np.int32)  # the last stands for "no link"
    renumber[kept] = np.arange(len(kept), dtype=np.int32)
    columns, heights = ground.cells[kept, 0], ground.heights[kept]
    return CellFloor(
        origin=grid.origin,
        cell_m=CELL_M,
        width=grid.width,
        columns=columns,
        heights=heights,
        links=renumber[ground.links[kept]],
        labels=chosen.labels[kept],
        drawn=np.flatnonzero(chosen.drawn[kept]),
        islands=chosen.islands,
        surface=surface.under(mesh, kinds, grid.origin, CELL_M, grid.width, columns, heights, body.climb_m),
        climb_m=body.climb_m,
    )
