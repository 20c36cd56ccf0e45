"""Which of a scene's level places are floor: not roofs, not furniture, not scraps."""

import logging
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import Body
from mimic_wds.sources.simulator.navigation import cell_kernels
from mimic_wds.sources.simulator.navigation.base import Island

#: Cells: smaller islands are dropped (Recast's region_min_size is the side of this square, 1 m at 0.05 m).
MIN_CELLS = 20 * 20

#: Metres: a room is at least this wide somewhere; what is not lies between two walls.
MIN_WIDTH_M = 0.65

#: Share of a piece of floor whose triangles must face up.
MIN_FACING_UP = 0.25

#: Square metres: an open place smaller than this is a hole in a ceiling, as scans have them, and one can walk below it.
HOLE_M2 = 4.0

#: Indoor floor of less than this, in square metres and as a share of all floor, is not what the scene is about.
LITTLE_INDOORS_M2, LITTLE_INDOORS = 10.0, 0.1

#: Square metres: a raised place can be a table, a bed or a counter up to this size ...
FURNITURE_M2 = 8.0

#: ... if at least this share of its border drops to a larger floor no farther below than the body is high.
FURNITURE_BORDER = 0.25

log = logging.getLogger(__name__)


class Columns(Protocol):
    """What is asked of a grid here."""

    @property
    def width(self) -> int:
        """Columns in a row."""
        ...

    @property
    def num_words(self) -> int:
        """Words of voxels in a column."""
        ...

    @property
    def units(self) -> NDArray[np.float64]:
        """(3,) metres per column, voxel, column."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """All level places of a scene where a body has room to stand, N floor cells."""

    cells: NDArray[np.int32]  #: (N, 4) as `cell_kernels.find_cells` writes them
    heights: NDArray[np.float32]  #: (N,) metres
    starts: NDArray[np.int32]  #: (columns + 1,) where each column's cells begin
    links: NDArray[np.int32]  #: (N, 4) as `cell_kernels.link` writes them
    facing_up: NDArray[np.bool_]  #: (N,) whether a triangle there does
    faces_down: bool  #: whether two thirds of the scene's level triangles do, by area
    solid: NDArray[np.uint64]  #: the voxels
    head: int  #: voxels that a body is high

    @property
    def covered(self) -> NDArray[np.bool_]:
        """(N,) whether there is anything overhead."""
        return np.asarray(self.cells[:, 3] >= 0)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What of the ground is floor."""

    labels: NDArray[np.int32]  #: (N,) island of each cell, -1 = not floor
    drawn: NDArray[np.bool_]  #: (N,) whether random points are drawn from it
    islands: tuple[Island, ...]


def choose(
    ground: Ground, room: NDArray[np.bool_], grid: Columns, body: Body, *, name: str, open_sky: bool = False
) -> Choice:
    """The islands that count as floor among the cells with room to all sides (N,), largest first.

    - Under the open sky is outside (see `indoors`), unless open_sky=True.
    - What faces down is no floor (see `right_way_up`).
    - Table tops, beds and the like cannot be got at (see `furniture`).
    - Islands of fewer than `MIN_CELLS` cells are dropped, and those nowhere `MIN_WIDTH_M` wide: gaps between walls.

    Random points are drawn from covered cells only; a cell below a hole in the ceiling is walked through. An island's
    radius is the distance from the mean of its floor to the farthest corner. habitat-sim takes the mean of its
    polygons' corners instead, which depends on how Recast happens to cut the floor up: its radii were 3 and 11 % larger
    in two scenes that were compared. Raises SceneError when no island is left.
    """
    cell_m2 = float(grid.units[0] * grid.units[2])
    pieces = cell_kernels.label(ground.links, np.ones(len(ground.cells), np.bool_))
    usable = room & right_way_up(ground, pieces, name) & ~furniture(ground, pieces, grid, body)
    inside = usable if open_sky else indoors(ground, usable, cell_m2, name)
    drawn = inside if open_sky or inside is usable else inside & well_covered(ground)
    labels = cell_kernels.label(ground.links, inside)
    counts = np.bincount(labels[drawn & (labels >= 0)], minlength=labels.max(initial=-1) + 1)
    fit = (counts >= MIN_CELLS) & (
        np.bincount(labels[wide_places(ground, inside, grid, body)], minlength=len(counts)) > 0
    )
    order = np.argsort(-counts, kind="stable")
    order = order[fit[order]]
    if not len(order):
        raise SceneError(
            f"{name}: nowhere to walk: no floor of {MIN_CELLS * cell_m2:.3g} m2 in one piece for a body of "
            f"{body.height_m:g} m height and {body.radius_m:g} m radius; if it should have, look at scale_m and up"
        )
    renumber = np.full(len(counts) + 1, -1, np.int32)  # the last stands for "no label"
    renumber[order] = np.arange(len(order), dtype=np.int32)
    labels = renumber[labels]
    radii = cell_kernels.radii(ground.cells, ground.heights, labels, len(order), grid.width, float(grid.units[0]))
    islands = tuple(Island(float(counts[k] * cell_m2), float(r)) for k, r in zip(order, radii, strict=True))
    return Choice(labels, drawn & (labels >= 0), islands)


def indoors(ground: Ground, usable: NDArray[np.bool_], cell_m2: float, name: str) -> NDArray[np.bool_]:
    """The usable cells (N,) without those outside: connected places of `HOLE_M2` and more with nothing overhead.

    Roofs, the upper sides of ceilings, terraces and gardens go that way; smaller open places are holes in a ceiling and
    stay. Where next to nothing is covered (less than `LITTLE_INDOORS_M2` and than `LITTLE_INDOORS` of all floor: a room
    scanned without its ceiling, a yard) the rule cannot tell floors from roofs: `usable` itself comes back, and a line
    is logged.
    """
    num_covered = int((usable & ground.covered).sum())
    if num_covered * cell_m2 < LITTLE_INDOORS_M2 and num_covered < LITTLE_INDOORS * usable.sum():
        log.info("%s: hardly any floor has something overhead; floor under the open sky counts, too", name)
        return usable
    labels = cell_kernels.label(ground.links, usable & ~ground.covered)
    sizes = np.bincount(labels[labels >= 0], minlength=1)
    outside = (labels >= 0) & (sizes[labels] * cell_m2 >= HOLE_M2)
    return np.asarray(usable & ~outside)


def well_covered(ground: Ground) -> NDArray[np.bool_]:
    """The cells (N,) with something overhead that reaches over all eight neighbours: over all of the cell, that is."""
    return _shrunk(_shrunk(ground.covered, ground.links, (0, 1), True), ground.links, (2, 3), True)


def _shrunk(
    member: NDArray[np.bool_], links: NDArray[np.int32], ways: tuple[int, ...], beyond: bool
) -> NDArray[np.bool_]:
    """The member cells (N,) whose neighbours in these ways are members; `beyond` stands for missing neighbours."""
    padded = np.append(member, beyond)
    for way in ways:
        member = member & padded[links[:, way]]
    return member


def right_way_up(ground: Ground, pieces: NDArray[np.int32], name: str) -> NDArray[np.bool_]:
    """The cells (N,) of pieces that face up: all of a piece if at least `MIN_FACING_UP` of it does.

    In a scene whose triangles all go round the same way floors face up, and what faces down is the underside of
    something, seen from within a wall. Where triangles go round either way they do so within a piece. When most of what
    has something overhead faces down (of all level triangles, if nothing has), the scene is inside out and every piece
    counts.
    """
    share = np.bincount(pieces, weights=ground.facing_up) / np.bincount(pieces)
    upright = (share >= MIN_FACING_UP)[pieces]
    if upright[ground.covered].mean() >= 0.5 if ground.covered.any() else not ground.faces_down:
        return np.asarray(upright)
    log.info("%s: most of the floor faces down; whichever way its triangles face, they count as floor", name)
    return np.ones(len(pieces), np.bool_)


def furniture(ground: Ground, pieces: NDArray[np.int32], grid: Columns, body: Body) -> NDArray[np.bool_]:
    """The cells (N,) on top of things: pieces up to `FURNITURE_M2` that one could only jump down from.

    A landing or a room that lies a high step above the next one is none: walls or stairs make up most of its border.
    """
    areas = np.bincount(pieces)
    border, dropping = cell_kernels.drops(
        ground.cells, ground.heights, ground.starts, ground.links, pieces, areas, ground.solid,
        grid.width, grid.num_words, ground.head, body.height_m,
    )  # fmt: skip
    small = areas * float(grid.units[0] * grid.units[2]) <= FURNITURE_M2
    return np.asarray((small & (dropping > FURNITURE_BORDER * border))[pieces])


def wide_places(ground: Ground, inside: NDArray[np.bool_], grid: Columns, body: Body) -> NDArray[np.bool_]:
    """The cells (N,) among `inside`, whose borders are a body's radius away from walls, in the middle of wide places.

    Each round takes a cell off all borders, by turns as a square and as a diamond: an octagon in the end.
    """
    for turn in range(int((MIN_WIDTH_M / 2 - body.radius_m) / grid.units[0])):
        for ways in (((0, 1), (2, 3)), ((0, 1, 2, 3),))[turn % 2]:
            inside = _shrunk(inside, ground.links, ways, False)
    return inside
