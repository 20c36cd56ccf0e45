"""PLY meshes as parts: triangles and polygons, colours per vertex, texture coordinates, object numbers per face.

As scans have them: Replica (quads, colours, `object_id`), Matterport3D (`category_id`), MeshLab (a picture and texture
coordinates). Points without faces are no scene.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.formats import pictures
from mimic_wds.sources.simulator.formats.parts import Part
from mimic_wds.sources.simulator.formats.ply_layout import Lists, Table, read_tables

log = logging.getLogger(__name__)

WHITE = pictures.solid((1, 1, 1))

#: Names that programs give to a vertex's texture coordinates.
UV_NAMES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))

#: A face's number of its object: Replica and other instance meshes, in this order.
OBJECT_NAMES = ("object_id", "category_id", "segment_id")


def read(path: Path) -> Iterator[Part]:
    """The one part of a `.ply`. Raises SceneError when it is damaged or holds no faces."""
    header, tables = read_tables(path, frozenset({"vertex", "face"}))
    vertex, face = tables.get("vertex", {}), tables.get("face", {})
    corners = face.get("vertex_indices", face.get("vertex_index"))
    if not isinstance(corners, Lists) or not {"x", "y", "z"} <= vertex.keys():
        found = ", ".join(f"{e.count} {e.name}" for e in header.elements) or "nothing"
        raise SceneError(f"{path}: is a PLY file without faces, points only ({found}): a mesh is needed")
    vertices = np.stack([np.asarray(vertex[axis], np.float32) for axis in "xyz"], axis=1)
    triangles, faces = fans(corners)
    texture = WHITE if not header.texture else pictures.read(path.parent / header.texture, str(path))
    names, classes = _objects(face)
    uv, colors = _uv(vertex), _colors(vertex)
    face_uv = face.get("texcoord")
    if uv is None and header.texture and isinstance(face_uv, Lists):
        uv, used = corner_uv(corners, face_uv), corners.values.astype(np.int64)
        used = np.where((used >= 0) & (used < len(vertices)), used, 0)
        vertices, colors = vertices[used], None if colors is None else colors[used]
        triangles = fans(Lists(corners.counts, np.arange(len(used))))[0]
    yield Part(
        vertices=vertices,
        triangles=triangles,
        texture=texture,
        uv=uv,
        colors=colors,
        classes=None if classes is None else classes[faces],
        class_names=names,
    )


def fans(corners: Lists) -> tuple[NDArray[np.int64] | NDArray[np.int32], NDArray[np.int64]]:
    """Polygons as fans of triangles round their first corner: the triangles (T, 3), and the polygon of each (T,)."""
    counts, values = corners.counts, corners.values
    if len(counts) and counts.min() == counts.max() >= 3:
        size = int(counts[0])
        table = values.reshape(-1, size)
        pieces = [table[:, [0, k, k + 1]] for k in range(1, size - 1)]
        return np.stack(pieces, axis=1).reshape(-1, 3), np.repeat(np.arange(len(counts)), size - 2)
    per_face = np.maximum(counts - 2, 0)
    starts = np.cumsum(counts) - counts
    faces = np.repeat(np.arange(len(counts)), per_face)
    within = np.arange(len(faces)) - np.repeat(np.cumsum(per_face) - per_face, per_face)
    first = starts[faces]
    return np.stack([values[first], values[first + within + 1], values[first + within + 2]], axis=1), faces


def corner_uv(corners: Lists, face_uv: Lists) -> NDArray[np.float32]:
    """Texture coordinates (corners, 2) that are stored with the faces; zero where a face has too few."""
    result = np.zeros((len(corners.values), 2), np.float32)
    if np.array_equal(face_uv.counts, 2 * corners.counts):
        result[:] = np.asarray(face_uv.values, np.float32).reshape(-1, 2)
        result[:, 1] = 1 - result[:, 1]
    return result


def _objects(face: Table) -> tuple[tuple[str, ...], NDArray[np.int32] | None]:
    """Names and the number of each face's (F,), from the numbers of objects; none when faces have no such column."""
    for name in OBJECT_NAMES:
        column = face.get(name)
        if isinstance(column, np.ndarray):
            numbers, rows = np.unique(column, return_inverse=True)
            return tuple(f"{name.removesuffix('_id')} {number}" for number in numbers), rows.astype(np.int32)
    return (), None


def _uv(vertex: Table) -> NDArray[np.float32] | None:
    """(V, 2), turned so that (0, 0) is the top left: PLY counts from the bottom."""
    for u, v in UV_NAMES:
        if u in vertex and v in vertex:
            return np.stack([np.asarray(vertex[u], np.float32), 1 - np.asarray(vertex[v], np.float32)], axis=1)
    return None


def _colors(vertex: Table) -> NDArray[np.uint8] | None:
    """(V, 3): bytes as they are, 16-bit numbers scaled down, fractions times 255."""
    for names in (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b")):
        if set(names) <= vertex.keys():
            columns = [np.asarray(vertex[name]) for name in names]
            break
    else:
        return None
    if columns[0].dtype.kind == "f":
        columns = [np.clip(np.nan_to_num(column), 0, 1) * 255 for column in columns]
    elif columns[0].dtype.itemsize == 2:
        columns = [column / 257 for column in columns]
    return np.stack([np.rint(np.clip(c, 0, 255)).astype(np.uint8) for c in columns], axis=1)
