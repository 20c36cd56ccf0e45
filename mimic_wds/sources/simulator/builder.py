"""Putting a scene together from textured boxes, prisms and pictures; it remembers what a camera must not run into.

Axes: x to the east, y up, z to the south. Light is baked in: surfaces facing north or south are a little darker than
those facing up, so that edges show although the rasteriser knows no lamps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mimic_wds.sources.simulator.raster import Mesh

Vector: TypeAlias = tuple[float, float, float]
Side: TypeAlias = Literal["east", "west", "up", "down", "south", "north"]

#: The outward direction of each side of a box, and the brightness of what faces there.
SIDES: dict[Side, tuple[Vector, float]] = {
    "east": ((1, 0, 0), 0.93),
    "west": ((-1, 0, 0), 0.93),
    "up": ((0, 1, 0), 1.0),
    "down": ((0, -1, 0), 0.8),
    "south": ((0, 0, 1), 0.85),
    "north": ((0, 0, -1), 0.85),
}

#: Of a side seen from outside: where its top left corner lies (0 = low, 1 = high of x, y, z), which way is right, down.
FRAMES: dict[Side, tuple[Vector, Vector, Vector]] = {
    "south": ((0, 1, 1), (1, 0, 0), (0, -1, 0)),
    "north": ((1, 1, 0), (-1, 0, 0), (0, -1, 0)),
    "east": ((1, 1, 1), (0, 0, -1), (0, -1, 0)),
    "west": ((0, 1, 0), (0, 0, 1), (0, -1, 0)),
    "up": ((0, 1, 0), (1, 0, 0), (0, 0, 1)),
    "down": ((0, 0, 1), (1, 0, 0), (0, 0, -1)),
}

#: The corners of a quad in its own (right, down) coordinates.
UNIT = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float64)

#: Metres: how far a frame reaches beyond its picture, and how far it stands off the wall.
RIM_M, DEPTH_M = 0.035, 0.03


@dataclass(frozen=True, slots=True)
class Material:
    """A texture, and how large it lies on a surface."""

    texture: str  #: its name
    size_m: tuple[float, float] | None = None  #: metres (right, down) that it spans; None = it fills each side once


Skin: TypeAlias = Material | Mapping[Side | Literal["other"], Material]


class Builder:
    """Collects quads and solid boxes; `mesh()` and `solids()` give the result."""

    def __init__(self, textures: Mapping[str, NDArray[np.uint8]]):
        self._source = textures
        self._slots: dict[tuple[str, float], int] = {}
        self._textures: list[NDArray[np.uint8]] = []
        self._corners: list[NDArray[np.float64]] = []
        self._uv: list[NDArray[np.float64]] = []
        self._quad_textures: list[int] = []
        self._solids: list[tuple[Vector, Vector]] = []

    def quad(self, top_left: ArrayLike, right: ArrayLike, down: ArrayLike, skin: Material, light: float = 1) -> None:
        """A rectangle from its top left corner and its two edges, in metres; `light` darkens its texture."""
        corner, along, below = (np.asarray(v, np.float64) for v in (top_left, right, down))
        uv = UNIT
        if skin.size_m is not None:  # fixed to the world, so that it runs on from one quad to the next
            lengths = np.array([np.linalg.norm(along), np.linalg.norm(below)])
            start = np.array([corner @ along, corner @ below]) / lengths
            uv = (start + UNIT * lengths) / np.array(skin.size_m)
        self._add(corner + UNIT[:, :1] * along + UNIT[:, 1:] * below, uv, skin.texture, light)

    def box(self, low: Vector, high: Vector, skin: Skin, *, solid: bool = True) -> None:
        """An upright box; `skin` is one material, or one for each side that differs and "other"."""
        ends = np.array([low, high], np.float64)
        assert (ends[0] < ends[1]).all(), f"a box needs low < high, got {low} and {high}"
        for side, (corner, right, down) in FRAMES.items():
            material = skin if isinstance(skin, Material) else skin.get(side) or skin["other"]
            start = ends[np.array(corner, int), [0, 1, 2]]
            spans = ends[1] - ends[0]
            self.quad(start, np.multiply(right, spans), np.multiply(down, spans), material, SIDES[side][1])
        if solid:
            self._solids.append((low, high))

    def prism(
        self, foot: Vector, radius_m: float, height_m: float, skin: Material, *, sides: int = 8, taper: float = 1.0
    ) -> None:
        """A regular prism standing on `foot`, its texture once around it.

        `sides` is even; `taper` is the radius of its top over that of its foot.
        """
        angles = 2 * np.pi * np.arange(sides + 1) / sides
        ring = radius_m * np.stack([np.sin(angles), np.zeros(sides + 1), np.cos(angles)], axis=1)
        bottom, centre = np.array(foot) + ring, np.add(foot, (0, height_m, 0))
        top = centre + taper * ring
        for i in range(sides):
            light = 0.93 - 0.2 * abs(float(np.cos((angles[i] + angles[i + 1]) / 2)))
            uv = np.add(UNIT, (i, 0)) / (sides, 1)
            self._add(np.array([top[i], top[i + 1], bottom[i + 1], bottom[i]]), uv, skin.texture, light)
        for i in range(0, sides, 2):  # the lid, two of its triangles at a time
            lid = np.array([centre, top[i], top[i + 1], top[i + 2]])
            self._add(lid, (lid - centre)[:, ::2] / (2 * radius_m), skin.texture, 1.0)
        reach = radius_m * max(1.0, taper)
        x, y, z = foot
        self._solids.append(((x - reach, y, z - reach), (x + reach, y + height_m, z + reach)))

    def picture(self, centre: Vector, faces: Side, size_m: tuple[float, float], texture: str, frame: Material) -> None:
        """A framed picture (width, height) on a wall; `centre` lies on the wall, `faces` says which way it looks."""
        normal, light = np.array(SIDES[faces][0], float), SIDES[faces][1]
        right, down = (np.array(v, float) for v in FRAMES[faces][1:])
        half = (abs(right) * size_m[0] + abs(down) * size_m[1]) / 2 + RIM_M * (abs(right) + abs(down))
        ends = np.array([centre - half, centre + half])
        ends[int(normal.sum() > 0)] += DEPTH_M * normal
        self.box(_vector(ends[0]), _vector(ends[1]), frame)
        start = np.array(centre) + 1.1 * DEPTH_M * normal - right * size_m[0] / 2 - down * size_m[1] / 2
        self.quad(start, right * size_m[0], down * size_m[1], Material(texture), (1 + light) / 2)

    def mesh(self) -> Mesh:
        """Everything that was added, two triangles a quad."""
        corners, uv = np.concatenate(self._corners), np.concatenate(self._uv)
        first = 4 * np.arange(len(self._corners))[:, None]
        triangles = np.concatenate([np.add(first, (0, 2, 1)), np.add(first, (0, 3, 2))], axis=1).reshape(-1, 3)
        return Mesh(
            vertices=corners.astype(np.float32),
            triangles=triangles.astype(np.int32),
            uv=uv.astype(np.float32),
            texture_ids=np.repeat(self._quad_textures, 2).astype(np.int32),
            textures=tuple(self._textures),
        )

    def solids(self) -> NDArray[np.float64]:
        """What a camera must not run into: boxes (N, 2, 3), lowest and highest corner in metres."""
        return np.array(self._solids, np.float64)

    def _add(self, corners: NDArray[np.float64], uv: NDArray[np.float64], texture: str, light: float) -> None:
        """Four corners in order around a flat quad (4, 3), with their uv (4, 2)."""
        self._corners.append(corners)
        self._uv.append(uv)
        self._quad_textures.append(self._slot(texture, light))

    def _slot(self, name: str, light: float) -> int:
        """The number of the texture `name` at a brightness."""
        key = (name, round(light, 2))
        if key not in self._slots:
            self._slots[key] = len(self._textures)
            self._textures.append(np.rint(self._source[name] * np.float32(key[1])).astype(np.uint8))
        return self._slots[key]


def _vector(values: NDArray[np.float64]) -> Vector:
    x, y, z = values.tolist()
    return x, y, z
