"""glTF 2.0 scenes as parts: every triangle of every node of the scene, in metres and the axes of the file."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.formats.gltf_document import Document, Json, open_document
from mimic_wds.sources.simulator.formats.gltf_materials import Paint, Palette
from mimic_wds.sources.simulator.formats.parts import BLOCK, Part

log = logging.getLogger(__name__)

#: Modes of primitives that are triangles; the others are points and lines.
TRIANGLES, STRIP, FAN = 4, 5, 6

#: First parts of node names that say no more than "part of the building"; the second part is the class then.
GENERIC = frozenset({"room", "house", "building", "scene", "structure"})


def read(path: Path) -> Iterator[Part]:
    """The parts of a `.glb` or `.gltf`, one per primitive. Raises SceneError when it is damaged."""
    document = open_document(path)
    palette = Palette(document)
    skipped = 0
    try:
        for node, matrix in placed(document):
            name = class_of(str(node.get("name", "")))
            for primitive in document.json["meshes"][node["mesh"]]["primitives"]:
                paint = palette.paint(primitive.get("material"))
                if primitive.get("mode", TRIANGLES) < TRIANGLES or not paint.visible:
                    skipped += 1
                    continue
                yield _part(document, primitive, matrix, paint, name)
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise SceneError(f"{path}: is damaged glTF: {type(error).__name__}: {error}") from error
    if skipped:
        log.info("%s: left out %d primitives that are points, lines or invisible", path, skipped)


def class_of(name: str) -> str:
    """The semantic class that a node's name gives, "" = none.

    Names with slashes are "class/part/..."; under a general first part (`GENERIC`) it is the second: "sofa/sofa_03/0"
    is a sofa, "room/Floor/3" a floor. Other names say too little: every exporter numbers its nodes somehow.
    """
    first, *others = (part.strip().lower() for part in name.split("/"))
    if not others:
        return ""
    return others[0] if first in GENERIC else first


def placed(document: Document) -> Iterator[tuple[Json, NDArray[np.float64]]]:
    """The nodes of the scene that have a mesh, each with its transform (4, 4) to the world."""
    nodes = document.items("nodes")
    scenes = document.items("scenes")
    if scenes:
        roots = scenes[document.json.get("scene", 0)].get("nodes", [])
    else:
        children = {child for node in nodes for child in node.get("children", ())}
        roots = [number for number in range(len(nodes)) if number not in children]
    waiting = [(number, np.eye(4), 0) for number in reversed(roots)]
    while waiting:
        number, parent, depth = waiting.pop()
        if depth > len(nodes):
            raise SceneError(f"{document.path}: is damaged glTF: its nodes are their own children")
        node = nodes[number]
        matrix = parent @ local_matrix(node)
        if "mesh" in node:
            yield node, matrix
        waiting += [(child, matrix, depth + 1) for child in reversed(node.get("children", []))]


def local_matrix(node: Json) -> NDArray[np.float64]:
    """The transform (4, 4) of a node to its parent: its matrix (stored column by column), or shift, turn and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _part(document: Document, primitive: Json, matrix: NDArray[np.float64], paint: Paint, name: str) -> Part:
    attributes = primitive["attributes"]
    vertices = transformed(document.floats(attributes["POSITION"]), matrix)
    triangles = _triangles(document, primitive, len(vertices))
    if np.linalg.det(matrix[:3, :3]) < 0:  # mirrored: keep the front sides in front
        triangles = triangles[:, ::-1]
    coordinates = attributes.get(f"TEXCOORD_{paint.uv_set}")
    uv = None
    if coordinates is not None:
        uv = document.floats(coordinates)
        if paint.uv_matrix is not None:
            uv = (uv @ paint.uv_matrix[:, :2].T + paint.uv_matrix[:, 2]).astype(np.float32)
    elif paint.uv_set >= 0:
        log.warning("%s: a surface has a texture but no texture coordinates: its mean colour instead", document.path)
    _check_lengths(document, len(vertices), uv, name)
    return Part(
        vertices=vertices,
        triangles=triangles,
        texture=paint.texture,
        uv=uv,
        colors=_colors(document, attributes.get("COLOR_0"), len(vertices)),
        classes=np.zeros(len(triangles), np.int32) if name else None,
        class_names=(name,) if name else (),
    )


def _triangles(document: Document, primitive: Json, num_vertices: int) -> NDArray[np.integer]:
    if "indices" in primitive:
        indices = document.array(primitive["indices"])[:, 0]
    else:
        indices = np.arange(num_vertices, dtype=np.uint32)
    return unrolled(indices, primitive.get("mode", TRIANGLES))


def unrolled(indices: NDArray, mode: int) -> NDArray[np.integer]:
    """Triangles (T, 3) of a list, strip or fan of vertices; numbers that make no whole triangle are left out."""
    if mode == TRIANGLES:
        return indices[: len(indices) // 3 * 3].reshape(-1, 3)
    count = max(len(indices) - 2, 0)
    rows = np.arange(count)
    if mode == FAN:
        return np.stack([indices[rows + 1], indices[rows + 2], np.broadcast_to(indices[:1], count)], axis=1)
    odd = rows % 2  # every second triangle of a strip is turned round
    return np.stack([indices[rows], indices[rows + 1 + odd], indices[rows + 2 - odd]], axis=1)


def transformed(vertices: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """The vertices (V, 3) under a transform (4, 4), computed in float64."""
    if np.array_equal(matrix, np.eye(4)):
        return vertices
    result = np.empty(vertices.shape, np.float32)
    for start in range(0, len(vertices), BLOCK):
        block = vertices[start : start + BLOCK].astype(np.float64)
        result[start : start + BLOCK] = block @ matrix[:3, :3].T + matrix[:3, 3]
    return result


def _colors(document: Document, number: int | None, count: int) -> NDArray[np.uint8] | None:
    """Vertex colours (V, 3); None when there are none, or all are white."""
    if number is None:
        return None
    colors = np.rint(np.clip(np.nan_to_num(document.floats(number)[:, :3]), 0, 1) * 255).astype(np.uint8)
    if len(colors) != count:
        raise SceneError(f"{document.path}: is damaged glTF: {len(colors)} colours for {count} vertices")
    return None if (colors == 255).all() else colors


def _check_lengths(document: Document, count: int, uv: NDArray[np.float32] | None, name: str) -> None:
    if uv is not None and uv.shape != (count, 2):
        raise SceneError(
            f"{document.path}: is damaged glTF: texture coordinates of shape {uv.shape} for {count} vertices"
            + (f" of {name}" if name else "")
        )
