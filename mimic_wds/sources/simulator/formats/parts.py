"""What the readers of all formats give: parts with one texture each, and how they are put together to one mesh."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.raster import Mesh

log = logging.getLogger(__name__)

#: Triangles that are looked at together: bounds the memory of intermediate results.
BLOCK = 1 << 18

#: A triangle whose height is less than this share of its longest side has no area: float32 holds no more digits.
FLAT = 1e-6

#: Why such triangles are left out.
FLAT_ONES = "without area"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Triangles with one texture, in the axes and units of the file (transforms within the file are applied)."""

    vertices: NDArray[np.float32]  #: (V, 3)
    triangles: NDArray[np.integer]  #: (T, 3) rows of `vertices`; not checked
    texture: NDArray[np.uint8]  #: (h, w, 3) RGB; the same array in several parts is kept once
    uv: NDArray[np.float32] | None = None  #: (V, 2), (0, 0) top left; None = the texture's mean colour everywhere
    colors: NDArray[np.uint8] | None = None  #: (V, 3) RGB, multiply the texture; None = white
    classes: NDArray[np.int32] | None = None  #: (T,) row of `class_names`, -1 = none; None = no triangle has one
    class_names: tuple[str, ...] = ()


@dataclass(slots=True)
class Repairs:
    """What was left out of a file, by reason."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, count: int) -> None:
        """Count `count` more."""
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + count

    def __str__(self) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in self.counts.items())


@dataclass(slots=True)
class _Columns:
    """The mesh as it grows, one list of arrays per field; parts are let go of as soon as they are added."""

    vertices: list[NDArray[np.float32]] = field(default_factory=list)
    triangles: list[NDArray[np.int32]] = field(default_factory=list)
    uv: list[NDArray[np.float32]] = field(default_factory=list)
    colors: list[NDArray[np.uint8] | None] = field(default_factory=list)
    texture_ids: list[NDArray[np.int32]] = field(default_factory=list)
    classes: list[NDArray[np.int32] | None] = field(default_factory=list)
    textures: dict[int, tuple[int, NDArray[np.uint8]]] = field(default_factory=dict)  #: id of the array -> number
    class_names: dict[str, int] = field(default_factory=dict)
    num_vertices: int = 0


def join(parts: Iterable[Part], where: str) -> Mesh:
    """One mesh of all parts, without vertices that no triangle uses.

    Triangles that name a vertex which is not there, have one that is no number, or no area, are left out; how many is
    logged. Raises SceneError when none is left. `where` names the file in messages.
    """
    columns, repairs = _Columns(), Repairs()
    for part in parts:
        _add(columns, part, repairs)
    if repairs.counts:
        # Nearly every modelled scene has some triangles without area.
        level = logging.INFO if repairs.counts.keys() == {FLAT_ONES} else logging.WARNING
        log.log(level, "%s: left out triangles: %s", where, repairs)
    if not columns.triangles:
        raise SceneError(f"{where}: holds no triangles" + (f" that could be used: {repairs}" if repairs.counts else ""))
    return _mesh(columns)


def _add(columns: _Columns, part: Part, repairs: Repairs) -> None:
    kept = usable(part.vertices, part.triangles, repairs)
    triangles = part.triangles if kept.all() else part.triangles[kept]
    if not len(triangles):
        return
    used, triangles = compact(triangles, len(part.vertices))
    texture, uv = part.texture, part.uv
    if uv is None and texture.size > 3:
        texture = mean_colour(texture)
    start = columns.num_vertices
    columns.vertices.append(np.ascontiguousarray(part.vertices[used], np.float32))
    count = len(columns.vertices[-1])
    columns.num_vertices += count
    columns.triangles.append(triangles + np.int32(start))
    columns.uv.append(np.zeros((count, 2), np.float32) if uv is None else _finite(uv[used]))
    columns.colors.append(None if part.colors is None else part.colors[used])
    number, _ = columns.textures.setdefault(id(texture), (len(columns.textures), texture))
    columns.texture_ids.append(np.full(len(triangles), number, np.int32))
    columns.classes.append(_classes(columns, part, kept))


def _classes(columns: _Columns, part: Part, kept: NDArray[np.bool_]) -> NDArray[np.int32] | None:
    """The classes of the triangles kept, numbered as in the whole mesh."""
    if part.classes is None:
        return None
    numbers = [columns.class_names.setdefault(name, len(columns.class_names)) for name in part.class_names]
    return np.array([*numbers, -1], np.int32)[part.classes[kept]]


def _mesh(columns: _Columns) -> Mesh:
    counts = [len(block) for block in columns.vertices]
    sizes = [len(block) for block in columns.triangles]
    colors = semantic_ids = None
    if any(block is not None for block in columns.colors):
        white = [_or_full(block, (n, 3), 255, np.uint8) for block, n in zip(columns.colors, counts, strict=True)]
        colors = np.concatenate(white)
    if any(block is not None for block in columns.classes):
        none = [_or_full(block, (n,), -1, np.int32) for block, n in zip(columns.classes, sizes, strict=True)]
        semantic_ids = np.concatenate(none)
    return Mesh(
        vertices=_joined(columns.vertices),
        triangles=_joined(columns.triangles),
        uv=_joined(columns.uv),
        texture_ids=_joined(columns.texture_ids),
        textures=tuple(texture for _, texture in columns.textures.values()),
        colors=colors,
        semantic_ids=semantic_ids,
        semantic_names=tuple(columns.class_names),
    )


def _joined(blocks: list[NDArray]) -> NDArray:
    """The blocks one after the other; the list is emptied, so that each field is there twice for a moment only."""
    whole = np.concatenate(blocks)
    blocks.clear()
    return whole


def _or_full(block: NDArray | None, shape: tuple[int, ...], value: int, dtype: type) -> NDArray:
    return np.full(shape, value, dtype) if block is None else block


def usable(vertices: NDArray[np.float32], triangles: NDArray[np.integer], repairs: Repairs) -> NDArray[np.bool_]:
    """Which triangles (T,) can be drawn: they name vertices that are there and finite, and have an area."""
    kept = np.ones(len(triangles), bool)
    whole = np.asarray(np.isfinite(vertices).all(axis=1))
    for start in range(0, len(triangles), BLOCK):
        rows = np.asarray(triangles[start : start + BLOCK]).astype(np.int64)
        there = ((rows >= 0) & (rows < len(vertices))).all(axis=1)
        rows[~there] = 0
        finite = whole[rows].all(axis=1) if len(vertices) else there
        good = there & finite
        area = np.zeros(len(rows), bool)
        area[good] = has_area(vertices[rows[good]])
        kept[start : start + BLOCK] = area
        repairs.add("with a vertex number out of range", int(np.count_nonzero(~there)))
        repairs.add("with a vertex that is not finite", int(np.count_nonzero(there & ~finite)))
        repairs.add(FLAT_ONES, int(np.count_nonzero(good & ~area)))
    return kept


def has_area(corners: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which triangles (T, 3, 3) are more than a line or a point (T,)."""
    a, b, c = np.moveaxis(corners.astype(np.float64), 1, 0)
    twice = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    longest = np.maximum(np.maximum(_squared(b - a), _squared(c - a)), _squared(c - b))
    return np.asarray(twice > FLAT * longest)


def compact(triangles: NDArray[np.integer], num_vertices: int) -> tuple[NDArray[np.bool_] | slice, NDArray[np.int32]]:
    """The vertices in use (V,), and the triangles (T, 3) int32 as rows of those. Vertex numbers must be in range."""
    used = np.zeros(num_vertices, bool)
    used[triangles] = True
    if used.all():
        return slice(None), triangles.astype(np.int32)
    rows = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return used, rows[triangles]


def mean_colour(texture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of a texture, as one of 1 x 1."""
    return np.rint(texture.reshape(-1, 3).mean(axis=0)).astype(np.uint8).reshape(1, 1, 3)


def _finite(uv: NDArray[np.float32]) -> NDArray[np.float32]:
    """Texture coordinates; those that are no numbers become 0."""
    uv = np.ascontiguousarray(uv, np.float32)
    return uv if np.isfinite(uv).all() else np.nan_to_num(uv, nan=0.0, posinf=0.0, neginf=0.0)


def _squared(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors))
