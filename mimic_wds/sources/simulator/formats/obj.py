"""Wavefront OBJ meshes as parts, one per material; read in blocks, so that the text is never held as a whole.

Polygons become fans of triangles. Normals, groups, curves and free-form surfaces are passed over.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.formats import pictures
from mimic_wds.sources.simulator.formats.contents import describe
from mimic_wds.sources.simulator.formats.obj_text import Block, blocks
from mimic_wds.sources.simulator.formats.parts import Part

log = logging.getLogger(__name__)

#: The surface of faces without a material, or with one that is not there.
PLAIN = pictures.solid((1, 1, 1))


@dataclass(slots=True, eq=False)
class _Faces:
    """Corners (T, 3) of the triangles of one material: rows of positions and of texture coordinates, -1 = none."""

    positions: list[NDArray[np.int32]] = field(default_factory=list)
    coordinates: list[NDArray[np.int32]] = field(default_factory=list)


def read(path: Path) -> Iterator[Part]:
    """The parts of an `.obj`, one per material. Raises SceneError when it is damaged or no OBJ file."""
    positions: list[NDArray[np.float32]] = []
    colors: list[NDArray[np.uint8]] = []
    coordinates: list[NDArray[np.float32]] = []
    faces: dict[str, _Faces] = {}
    libraries: list[str] = []
    try:
        for block in blocks(path):
            positions.append(block.positions)
            colors.append(block.colors)
            coordinates.append(block.coordinates)
            libraries += block.libraries
            _collect(block, faces)
    except ValueError as error:
        raise SceneError(f"{path}: is damaged: {error}") from error
    if not sum(map(len, positions)):
        with path.open("rb") as file:
            raise SceneError(f"{path}: is no OBJ file with vertices, {describe(file.read(256))}")
    paints = _materials(path, libraries)
    vertices, uv = np.concatenate(positions), np.concatenate(coordinates)
    tints = np.concatenate(colors) if all(len(c) == len(p) for c, p in zip(colors, positions, strict=True)) else None
    for name in list(faces):
        if name and name not in paints:
            log.warning("%s: no material %r in %s, white instead", path, name, ", ".join(libraries) or "any library")
        yield from _parts(faces.pop(name), vertices, uv, tints, paints.get(name, PLAIN))


def _collect(block: Block, faces: dict[str, _Faces]) -> None:
    for name, positions, coordinates in block.faces:
        held = faces.setdefault(name, _Faces())
        held.positions.append(positions)
        held.coordinates.append(coordinates)


def _parts(
    faces: _Faces,
    vertices: NDArray[np.float32],
    uv: NDArray[np.float32],
    tints: NDArray[np.uint8] | None,
    texture: NDArray[np.uint8],
) -> Iterator[Part]:
    """One part, two if only some of the faces have texture coordinates. A vertex is kept once for each of its uv."""
    positions, coordinates = np.concatenate(faces.positions), np.concatenate(faces.coordinates)
    inside = (coordinates >= 0) & (coordinates < len(uv)) & (positions >= 0) & (positions < len(vertices))
    textured = np.asarray(inside.all(axis=1))
    if texture.size == 3:  # one colour: it does not matter where it is looked up
        textured = np.zeros(len(positions), bool)
    if textured.any():
        corners = positions[textured].astype(np.int64) * len(uv) + coordinates[textured]
        pairs, rows = np.unique(corners, return_inverse=True)
        where = pairs // len(uv)
        yield Part(
            vertices=vertices[where],
            triangles=rows.reshape(-1, 3).astype(np.int32),
            texture=texture,
            uv=uv[pairs % len(uv)],
            colors=None if tints is None else tints[where],
        )
    if not textured.all():
        yield Part(vertices=vertices, triangles=positions[~textured], texture=texture, colors=tints)


def _materials(path: Path, libraries: list[str]) -> dict[str, NDArray[np.uint8]]:
    """The textures of all materials of an OBJ file's libraries. A library that is missing is warned about."""
    found: dict[str, NDArray[np.uint8]] = {}
    for library in dict.fromkeys(libraries):
        file = path.parent / library
        try:
            text = file.read_text("utf-8", "replace")
        except OSError as error:
            log.warning("%s: its materials %s cannot be read (%s), white instead", path, file, error.strerror)
            continue
        found |= materials(text, file)
    return found


def materials(text: str, file: Path) -> dict[str, NDArray[np.uint8]]:
    """The diffuse colours of an MTL file as textures: the picture `map_Kd` times the colour `Kd`."""
    described: dict[str, dict[str, list[str]]] = {}
    current: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "newmtl":
            current = described.setdefault(value.strip(), {})
        elif key in ("Kd", "map_Kd"):
            current[key] = value.split()
    pictures_by_name: dict[str, NDArray[np.uint8]] = {}
    return {name: _paint(entry, file, pictures_by_name) for name, entry in described.items()}


def _paint(entry: dict[str, list[str]], file: Path, seen: dict[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    try:
        factor = [float(number) for number in entry.get("Kd", ())[:3]]
    except ValueError:
        factor = []
    factor = (factor * 3)[:3] if len(factor) in (1, 3) else [1.0, 1.0, 1.0]
    words = entry.get("map_Kd")
    if not words:
        return pictures.solid(factor)
    name = _picture(words, file.parent)
    if name not in seen:
        seen[name] = pictures.read(file.parent / name, str(file))
    # Exporters write Kd 0 0 0 beside a picture when they mean the picture.
    return pictures.tinted(seen[name], factor if any(factor) else (1, 1, 1))


def _picture(words: list[str], folder: Path) -> str:
    """The file name at the end of a map's options; names may hold spaces, and Windows' separators."""
    whole = " ".join(words).replace("\\", "/")
    if not words[0].startswith("-"):
        return whole
    tails = [" ".join(words[i:]).replace("\\", "/") for i in range(1, len(words))]
    return next((tail for tail in tails if (folder / tail).is_file()), tails[-1] if tails else whole)
