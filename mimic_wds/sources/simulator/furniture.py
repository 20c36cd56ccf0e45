"""Furniture from boxes and prisms. Every function adds one piece to a `Builder`; lengths are in metres.

A piece stands on the floor. `x` and `z` are its centre in plan, `size_m` its extent (east-west, north-south), `back`
the side of the room that it stands against: chairs, sofas, beds and shelves face away from it.
"""

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.builder import Builder, Material, Side, Skin

Wall: TypeAlias = Literal["east", "west", "south", "north"]

#: Unit steps in plan (x, z).
STEP: dict[Wall, tuple[int, int]] = {"east": (1, 0), "west": (-1, 0), "south": (0, 1), "north": (0, -1)}

OPPOSITE: dict[Wall, Wall] = {"east": "west", "west": "east", "south": "north", "north": "south"}

OAK = Material("oak", (0.9, 0.9))
PINE = Material("pine", (0.9, 0.9))
DARK = Material("planks", (0.7, 0.7))
METAL = Material("metal", (0.8, 1.6))
STONE = Material("marble", (0.9, 0.9))


def slab(b: Builder, x: float, z: float, size_m: tuple[float, float], low: float, high: float, skin: Skin) -> None:
    """A box centred at (x, z) between two heights."""
    w, d = size_m[0] / 2, size_m[1] / 2
    b.box((x - w, low, z - d), (x + w, high, z + d), skin)


def table(b: Builder, x: float, z: float, size_m: tuple[float, float], height: float = 0.75, top: Skin = OAK) -> None:
    """Four legs and a top."""
    slab(b, x, z, size_m, height - 0.05, height, top)
    for sx in (-1, 1):
        for sz in (-1, 1):
            leg = (x + sx * (size_m[0] / 2 - 0.06), z + sz * (size_m[1] / 2 - 0.06))
            slab(b, *leg, (0.06, 0.06), 0, height - 0.05, DARK)


def chair(b: Builder, x: float, z: float, back: Wall, seat: Skin = PINE) -> None:
    """A dining chair: a low table with a back."""
    table(b, x, z, (0.42, 0.42), 0.46, seat)
    dx, dz = STEP[back]
    size = (0.04, 0.4) if dx else (0.4, 0.04)
    slab(b, x + 0.19 * dx, z + 0.19 * dz, size, 0.46, 0.95, seat)


def sofa(b: Builder, x: float, z: float, size_m: tuple[float, float], back: Wall, cloth: Material) -> None:
    """Seat, back, two arms and two cushions."""
    dx, dz = STEP[back]
    w, d = size_m
    slab(b, x, z, size_m, 0.0, 0.42, cloth)
    slab(b, *_beside(x, z, size_m, back, 0.2), (0.2, d) if dx else (w, 0.2), 0.42, 0.85, cloth)
    for sign in (-1, 1):
        across = (x, z + sign * (d / 2 - 0.1)) if dx else (x + sign * (w / 2 - 0.1), z)
        slab(b, *across, (w - 0.02, 0.19) if dx else (0.19, d - 0.02), 0.42, 0.6, cloth)
        cushion = (x + 0.1 * dx, z + sign * d / 5) if dx else (x + sign * w / 5, z + 0.1 * dz)
        picture = "cat" if sign > 0 else "retina"
        slab(b, *cushion, (0.16, 0.45) if dx else (0.45, 0.16), 0.42, 0.8, Material(picture))


def bed(b: Builder, x: float, z: float, size_m: tuple[float, float], back: Wall, cover: Material) -> None:
    """Frame, mattress with a cover, headboard, two pillows."""
    dx, _ = STEP[back]
    w, d = size_m
    slab(b, x, z, size_m, 0.0, 0.3, DARK)
    slab(b, x, z, (w - 0.06, d - 0.06), 0.3, 0.52, cover)
    slab(b, *_beside(x, z, size_m, back, 0.06), (0.06, d) if dx else (w, 0.06), 0.3, 1.1, OAK)
    head_x, head_z = _beside(x, z, size_m, back, 0.6)
    for sign in (-1, 1):
        pillow = (head_x, head_z + sign * d / 4) if dx else (head_x + sign * w / 4, head_z)
        slab(b, *pillow, (0.36, 0.6) if dx else (0.6, 0.36), 0.52, 0.64, Material("stucco", (0.5, 0.5)))


def bookshelf(
    b: Builder, x: float, z: float, size_m: tuple[float, float], back: Wall, boards: int = 5, height: float = 2.0
) -> None:
    """A case with `boards` rows of books; the rows stand a little back from its edge."""
    front = OPPOSITE[back]
    dx, dz = STEP[front]
    w, d = size_m
    depth = w if dx else d
    inner = (depth - 0.06, d) if dx else (w, depth - 0.06)
    pitch = height / boards
    for row in range(boards):
        skin: Skin = {front: Material(f"books{row % 3}"), "other": OAK}
        slab(b, x - 0.03 * dx, z - 0.03 * dz, inner, row * pitch + 0.03, (row + 1) * pitch, skin)
        slab(b, x, z, size_m, row * pitch, row * pitch + 0.03, OAK)
    slab(b, x, z, size_m, height, height + 0.03, OAK)
    for sign in (-1, 1):
        cheek = (x, z + sign * (d / 2 + 0.015)) if dx else (x + sign * (w / 2 + 0.015), z)
        slab(b, *cheek, (depth, 0.03) if dx else (0.03, depth), 0, height + 0.03, OAK)


def cupboard(
    b: Builder,
    x: float,
    z: float,
    size_m: tuple[float, float],
    height: float,
    front: dict[Side, Material],
    body: Material,
) -> None:
    """A closed box; `front` gives the doors' material by side."""
    skin: dict[Side | Literal["other"], Material] = {"other": body}
    skin.update(front.items())
    slab(b, x, z, size_m, 0, height, skin)


def plant(b: Builder, x: float, z: float, height: float = 1.3) -> None:
    """A pot, a trunk, and a crown of two prisms."""
    b.prism((x, 0, z), 0.17, 0.35, Material("brick"), taper=1.25)
    b.prism((x, 0.35, z), 0.03, height - 0.9, DARK, sides=6)
    b.prism((x, height - 0.6, z), 0.18, 0.4, Material("leaves"), sides=6, taper=1.5)
    b.prism((x, height - 0.2, z), 0.27, 0.35, Material("leaves"), sides=6, taper=0.35)


def lamp(b: Builder, x: float, z: float, foot: float = 0.0, height: float = 1.6) -> None:
    """A standing lamp, or a table lamp when `foot` is a table's height."""
    b.prism((x, foot, z), 0.13, 0.03, METAL)
    b.prism((x, foot + 0.03, z), 0.015, height - 0.3, METAL, sides=4)
    b.prism((x, foot + height - 0.3, z), 0.2, 0.3, Material("cloth_ochre"), taper=0.6)


def clutter(b: Builder, centre: tuple[float, float, float], spread_m: tuple[float, float], num: int, seed: int) -> None:
    """Small things on a table: books, boxes, cups. `centre` is on its top."""
    rng = np.random.default_rng(seed)
    x, y, z = centre
    places: NDArray[np.float64] = (np.arange(num) + 0.5) / num - 0.5
    names = rng.choice(["coffee", "tissue", "coins", "text", "cardboard", "bricks"], num)
    for place, name in zip(places, names, strict=True):
        at = (x + place * spread_m[0], z + float(rng.uniform(-0.5, 0.5)) * spread_m[1])
        if rng.random() < 0.4:
            b.prism(
                (at[0], y, at[1]), float(rng.uniform(0.04, 0.08)), float(rng.uniform(0.1, 0.3)), Material(str(name))
            )
        else:
            size, high = rng.uniform(0.07, 0.22, 2), float(rng.uniform(0.04, 0.25))
            slab(b, *at, (float(size[0]), float(size[1])), y, y + high, Material(str(name)))


def _beside(x: float, z: float, size_m: tuple[float, float], side: Wall, thickness: float) -> tuple[float, float]:
    """The centre of a board of that thickness, inside the piece, along one of its sides."""
    dx, dz = STEP[side]
    return x + dx * (size_m[0] - thickness) / 2, z + dz * (size_m[1] - thickness) / 2
