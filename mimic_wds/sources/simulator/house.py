"""A small furnished house: five rooms joined by doorways, every surface with something to see on it.

Metres, y up; x runs to the east, z to the south; the floor lies at y = 0. The plan:

    z=0   +-------------+-----------+
          |   living        kitchen |
    3.6   |             +---  ------+
    4.7   +---  --------+   hall    |
    6.2   |  bedroom        ------  |
          |             +  study    |
    9     +-------------+-----------+
         x=0            6          11
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator import furniture as f
from mimic_wds.sources.simulator.builder import Builder, Material, Side
from mimic_wds.sources.simulator.materials import PORTRAITS, WALLPAPER_M, load_textures
from mimic_wds.sources.simulator.raster import Mesh

HEIGHT_M = 2.6
DOOR_HEIGHT_M = 2.1
WALL_M = 0.15  #: thickness of every wall

FRAME = Material("planks", (0.5, 0.5))
PLASTER = Material("stucco", (3, 3))
TRIM = Material("oak", (0.9, 0.9))

#: Places (x, z) in the rooms where one may stand and look around.
STOPS = (
    *((3.0, 1.5), (4.8, 1.4), (4.8, 3.4), (3.05, 3.6), (1.6, 3.65), (1.5, 1.0), (3.6, 2.4)),  # living room
    *((6.9, 2.7), (8.0, 2.2), (8.0, 1.3), (10.2, 1.25)),  # kitchen
    *((8.78, 4.6), (7.2, 5.0), (9.8, 4.6)),  # hall
    *((4.0, 6.2), (3.05, 5.7), (2.8, 8.2), (3.7, 7.4)),  # bedroom
    *((9.5, 7.1), (7.3, 7.1), (7.3, 7.9), (8.6, 7.6)),  # study
)

#: Places in the doorways and on both sides of them.
PASSAGES = (
    *((5.3, 1.88), (6.07, 1.88), (6.9, 1.88)),  # living room - kitchen
    *((3.07, 4.1), (3.07, 4.77), (3.07, 5.4)),  # living room - bedroom
    *((8.6, 3.0), (8.75, 3.68), (8.75, 4.3)),  # kitchen - hall
    *((5.3, 5.57), (6.07, 5.57), (6.8, 5.2)),  # bedroom - hall
    *((9.86, 5.6), (9.86, 6.28), (9.8, 6.9)),  # hall - study
)


@dataclass(frozen=True, slots=True, eq=False)
class House:
    """What is drawn, what must not be walked through, and where to walk."""

    mesh: Mesh
    solids: NDArray[np.float64]  #: (N, 2, 3) boxes, lowest and highest corner: walls, floor, ceiling, furniture
    stops: tuple[tuple[float, float], ...] = STOPS  #: (x, z) in the rooms
    passages: tuple[tuple[float, float], ...] = PASSAGES  #: (x, z) between them


@dataclass(frozen=True, slots=True)
class Room:
    """A rectangle in plan (inner sides of its walls), and what it is lined with."""

    x: tuple[float, float]
    z: tuple[float, float]
    wall: Material
    floor: Material
    ceiling: Material


def paper(room: str) -> Material:
    """The wallpaper of a room."""
    return Material(f"paper_{room}", WALLPAPER_M)


ROOMS = {
    "living": Room((0, 6), (0, 4.7), paper("living"), Material("oak", (2.4, 2.4)), Material("ceiling", (2.4, 2.4))),
    "kitchen": Room((6.15, 11), (0, 3.6), Material("brick", (2.6, 2.6)), Material("tiles", (2, 2)), PLASTER),
    "hall": Room((6.15, 11), (3.75, 6.2), paper("hall"), Material("marble", (3.1, 3.1)), Material("pine", (2, 2))),
    "bedroom": Room((0, 6), (4.85, 9), paper("bedroom"), Material("planks", (2.2, 2.2)), PLASTER),
    "study": Room((6.15, 11), (6.35, 9), paper("study"), Material("gravel", (2.5, 2.5)), PLASTER),
}


def build_house(seed: int = 0) -> House:
    """The house; `seed` draws the wallpapers, the carpets and the small things. The same seed, the same house.

    Raises ImportError with the install command when a package that carries the textures is missing.
    """
    b = Builder(load_textures(seed))
    add_shell(b)
    add_living(b, seed)
    add_kitchen(b, seed)
    add_hall(b, seed)
    add_bedroom(b, seed)
    add_study(b, seed)
    return House(b.mesh(), b.solids())


def add_shell(b: Builder) -> None:
    """Floors, ceilings, outer walls, inner walls with their doorways."""
    for room in ROOMS.values():
        (x0, x1), (z0, z1) = room.x, room.z
        b.box((x0, -0.1, z0), (x1, 0, z1), room.floor)
        b.box((x0, HEIGHT_M, z0), (x1, HEIGHT_M + 0.1, z1), room.ceiling)
    r = ROOMS
    outside = Material("cinder", (2, 2))
    # north and south: along x
    wall_x(b, (0, 6), -WALL_M, north=outside, south=r["living"].wall)
    wall_x(b, (6, 11), -WALL_M, north=outside, south=r["kitchen"].wall)
    wall_x(b, (0, 6), 9, north=r["bedroom"].wall, south=outside)
    wall_x(b, (6, 11), 9, north=r["study"].wall, south=outside)
    wall_x(b, (0, 6), 4.7, north=r["living"].wall, south=r["bedroom"].wall, door=(2.5, 3.6))
    wall_x(b, (6.15, 11), 3.6, north=r["kitchen"].wall, south=r["hall"].wall, door=(8.2, 9.3))
    wall_x(b, (6.15, 11), 6.2, north=r["hall"].wall, south=r["study"].wall, door=(9.3, 10.4))
    # west and east: along z
    wall_z(b, (0, 4.7), -WALL_M, west=outside, east=r["living"].wall)
    wall_z(b, (4.7, 9), -WALL_M, west=outside, east=r["bedroom"].wall)
    wall_z(b, (0, 3.6), 11, west=r["kitchen"].wall, east=outside)
    wall_z(b, (3.6, 6.2), 11, west=r["hall"].wall, east=outside)
    wall_z(b, (6.2, 9), 11, west=r["study"].wall, east=outside)
    wall_z(b, (0, 3.675), 6, west=r["living"].wall, east=r["kitchen"].wall, door=(1.3, 2.4))
    wall_z(b, (3.675, 4.775), 6, west=r["living"].wall, east=r["hall"].wall)
    wall_z(b, (4.775, 6.275), 6, west=r["bedroom"].wall, east=r["hall"].wall, door=(5.0, 6.1))
    wall_z(b, (6.275, 9), 6, west=r["bedroom"].wall, east=r["study"].wall)


def wall_x(b: Builder, x: tuple[float, float], z: float, *, north: Material, south: Material,
           door: tuple[float, float] | None = None) -> None:  # fmt: skip
    """A wall from west to east whose north side is at z; `door` is the gap in x."""
    skin: dict[Side | Literal["other"], Material] = {"north": north, "south": south, "other": TRIM}
    for (x0, x1), y0 in pieces(x, door):
        b.box((x0, y0, z), (x1, HEIGHT_M, z + WALL_M), skin)
    if door:
        b.box((door[0], -0.1, z), (door[1], 0, z + WALL_M), TRIM)


def wall_z(b: Builder, z: tuple[float, float], x: float, *, west: Material, east: Material,
           door: tuple[float, float] | None = None) -> None:  # fmt: skip
    """A wall from north to south whose west side is at x; `door` is the gap in z."""
    skin: dict[Side | Literal["other"], Material] = {"west": west, "east": east, "other": TRIM}
    for (z0, z1), y0 in pieces(z, door):
        b.box((x, y0, z0), (x + WALL_M, HEIGHT_M, z1), skin)
    if door:
        b.box((x, -0.1, door[0]), (x + WALL_M, 0, door[1]), TRIM)


def pieces(span: tuple[float, float], door: tuple[float, float] | None) -> list[tuple[tuple[float, float], float]]:
    """The parts of a wall as (from, to) and the height at which they begin: both sides of a doorway and its lintel."""
    if door is None:
        return [(span, 0.0)]
    return [((span[0], door[0]), 0.0), ((door[1], span[1]), 0.0), (door, DOOR_HEIGHT_M)]


def add_living(b: Builder, seed: int) -> None:
    """Sofa, carpet, low table, television, bookshelf, plant."""
    b.box((1.4, 0, 1.2), (4.4, 0.012, 3.4), Material("carpet_red"), solid=False)
    f.sofa(b, 0.5, 2.3, (0.95, 2.1), "west", Material("cloth_green", (1.2, 1.2)))
    f.table(b, 1.75, 2.3, (0.6, 1.1), 0.42)
    f.clutter(b, (1.75, 0.42, 2.3), (0.4, 0.8), 4, seed)
    f.bookshelf(b, 4.9, 4.52, (1.9, 0.32), "south")
    f.bookshelf(b, 1.3, 4.52, (1.6, 0.32), "south", boards=3, height=1.2)
    f.clutter(b, (1.3, 1.23, 4.52), (1.3, 0.1), 5, seed + 1)
    f.cupboard(b, 3.0, 0.22, (1.8, 0.42), 0.55, {"south": Material("door")}, f.DARK)
    b.picture((3.0, 1.1, 0.06), "south", (1.3, 0.73), "rocket", FRAME)
    f.plant(b, 0.4, 0.45)
    f.plant(b, 5.6, 0.4, 1.6)
    f.lamp(b, 0.4, 3.75)
    for i, (x, y, name) in enumerate([(0.9, 1.7, "stars"), (5.1, 1.6, "portrait0"), (1.9, 1.9, "portrait1")]):
        b.picture((x, y, 0), "south", (0.8, 0.7) if i == 0 else (0.55, 0.55), name, FRAME)
    gallery(b, "east", 0, [(1.0, 1.6, 0.7), (1.8, 1.75, 0.5), (2.6, 1.6, 0.8), (3.4, 1.75, 0.5)], 2)
    gallery(b, "west", 6, [(0.75, 1.6, 0.6), (3.0, 1.6, 0.8), (3.9, 1.6, 0.6)], 6)
    b.picture((1.3, 1.9, 4.7), "north", (1.3, 0.75), "astronaut", FRAME)


def add_kitchen(b: Builder, seed: int) -> None:
    """A counter with hanging cupboards, a refrigerator, a dining table with four chairs."""
    f.cupboard(b, 8.2, 0.3, (3.2, 0.6), 0.88, {"south": Material("pine", (0.6, 0.88))}, f.OAK)
    f.slab(b, 8.2, 0.31, (3.24, 0.62), 0.88, 0.92, f.STONE)
    f.clutter(b, (8.2, 0.92, 0.25), (2.9, 0.2), 9, seed + 2)
    f.slab(b, 8.2, 0.18, (3.2, 0.36), 1.75, 2.35, {"south": Material("oak", (0.8, 0.6)), "other": f.DARK})
    f.cupboard(b, 10.55, 0.38, (0.75, 0.7), 1.8, {"south": Material("metal"), "west": f.METAL}, f.METAL)
    f.slab(b, 10.55, 0.38, (0.5, 0.4), 1.8, 2.05, Material("cardboard"))
    f.table(b, 9.7, 2.3, (1.0, 1.0), 0.75, Material("oak", (1.0, 1.0)))
    f.clutter(b, (9.7, 0.75, 2.3), (0.8, 0.5), 5, seed + 3)
    f.chair(b, 10.4, 2.3, "east")
    f.chair(b, 9.0, 2.3, "west")
    f.chair(b, 9.7, 3.0, "south")
    b.box((8.6, 0, 1.3), (10.8, 0.01, 3.4), Material("carpet_blue"), solid=False)
    gallery(b, "west", 11, [(1.5, 1.6, 0.6), (2.3, 1.7, 0.75), (3.1, 1.6, 0.55)], 9)
    gallery(b, "east", 6.15, [(0.8, 1.6, 0.5), (2.9, 1.6, 0.8)], 12)
    b.picture((7.0, 1.6, 3.6), "north", (0.9, 0.7), "coffee", FRAME)
    b.picture((10.2, 1.6, 3.6), "north", (0.9, 0.7), "cat", FRAME)


def add_hall(b: Builder, seed: int) -> None:
    """A gallery: portraits all round, a bench, a small cupboard, a plant."""
    for i in range(4):
        b.picture((6.6 + 0.45 * i, 1.75 - 0.25 * (i % 2), 3.75), "south", (0.32, 0.4), f"portrait{13 + i}", FRAME)
    b.picture((10.2, 1.6, 3.75), "south", (1.1, 0.9), "camera", FRAME)
    for i in range(5):
        b.picture((6.7 + 0.5 * i, 1.5 + 0.25 * (i % 2), 6.2), "north", (0.36, 0.42), f"portrait{17 + i}", FRAME)
    gallery(b, "west", 11, [(4.4, 1.6, 0.6), (5.4, 1.6, 0.8)], 22)
    b.picture((6.15, 1.6, 4.35), "east", (0.8, 0.8), "retina", FRAME)
    f.cupboard(b, 10.75, 4.9, (0.45, 1.2), 0.8, {"west": Material("door")}, f.OAK)
    f.clutter(b, (10.75, 0.8, 4.9), (0.2, 0.9), 4, seed + 4)
    f.slab(b, 7.5, 5.98, (1.5, 0.36), 0.4, 0.46, f.PINE)
    for x in (6.85, 8.15):
        f.slab(b, x, 5.98, (0.08, 0.3), 0, 0.4, f.DARK)
    b.box((7.0, 0, 4.5), (10.0, 0.01, 5.5), Material("carpet_blue"), solid=False)
    f.plant(b, 6.45, 4.0, 1.2)


def add_bedroom(b: Builder, seed: int) -> None:
    """A double bed, bedside tables with lamps, a wardrobe, a desk with a mirror-like picture, a chair."""
    f.bed(b, 1.05, 7.1, (2.05, 1.6), "west", Material("cloth_ochre", (1.8, 1.8)))
    for z in (6.0, 8.25):
        f.slab(b, 0.25, z, (0.45, 0.42), 0, 0.5, {"east": Material("door"), "other": f.OAK})
        f.lamp(b, 0.25, z, 0.5, 0.5)
    f.cupboard(b, 4.9, 8.68, (2.0, 0.6), 2.1, {"north": Material("vent", (1.0, 2.1))}, f.PINE)
    f.cupboard(b, 0.9, 5.12, (1.5, 0.5), 0.9, {"south": Material("planks", (0.75, 0.45))}, f.OAK)
    f.clutter(b, (0.9, 0.9, 5.12), (1.2, 0.25), 5, seed + 5)
    f.table(b, 5.65, 7.2, (0.6, 1.2))
    f.clutter(b, (5.65, 0.75, 7.2), (0.3, 0.9), 5, seed + 6)
    f.chair(b, 5.1, 7.2, "west")
    b.box((2.2, 0, 5.6), (4.3, 0.012, 8.2), Material("carpet_red"), solid=False)
    gallery(b, "east", 0, [(5.6, 1.7, 0.5), (7.1, 1.7, 0.9), (8.4, 1.7, 0.5)], 4)
    gallery(b, "west", 6, [(6.7, 1.6, 0.6), (7.6, 1.6, 0.7)], 15)
    b.picture((2.6, 1.6, 9), "north", (1.4, 1.0), "stars", FRAME)
    b.picture((1.3, 1.7, 4.85), "south", (0.9, 0.9), "coins", FRAME)
    b.picture((4.7, 1.6, 4.85), "south", (1.2, 0.9), "coffee", FRAME)


def add_study(b: Builder, seed: int) -> None:
    """Shelves full of books, a desk with a screen, an armchair."""
    f.bookshelf(b, 7.6, 8.82, (2.6, 0.32), "south", boards=6, height=2.2)
    f.bookshelf(b, 6.33, 7.4, (0.32, 1.6), "west")
    f.table(b, 10.6, 7.9, (0.7, 1.4))
    f.slab(b, 10.8, 7.9, (0.05, 0.7), 0.85, 1.27, {"west": Material("text"), "other": f.METAL})
    f.slab(b, 10.8, 7.9, (0.2, 0.2), 0.75, 0.85, f.METAL)
    f.clutter(b, (10.55, 0.75, 7.9), (0.3, 1.1), 6, seed + 7)
    f.sofa(b, 10.0, 8.5, (0.9, 0.8), "south", Material("carpet_blue", (1.1, 1.1)))
    f.lamp(b, 9.25, 8.7)
    b.box((7.3, 0, 6.8), (9.8, 0.012, 8.2), Material("cloth_green"), solid=False)
    gallery(b, "west", 11, [(6.9, 1.6, 0.7), (7.9, 1.85, 0.6), (8.6, 1.6, 0.5)], 19)
    b.picture((7.7, 1.6, 6.35), "south", (1.3, 0.9), "tissue", FRAME)
    b.picture((8.8, 1.6, 6.35), "south", (0.5, 0.6), "portrait25", FRAME)


def gallery(b: Builder, faces: f.Wall, x: float, places: list[tuple[float, float, float]], first: int) -> None:
    """Portraits on an east or west facing wall at x: (z, height, side) each; `first` is the number of the first."""
    for i, (z, y, side) in enumerate(places):
        b.picture((x, y, z), faces, (side, side), f"portrait{(first + i) % len(PORTRAITS)}", FRAME)
