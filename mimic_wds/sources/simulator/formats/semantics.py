"""Names of what the surfaces of scans are, from the files that data sets put beside a labelled mesh.

HM3D: `<hash>.semantic.glb`, each object in a colour of its own, and `<hash>.semantic.txt`, which names the colours.
Matterport3D: `<house>_semantic.ply` with `object_id` per face, and `<house>.house` (niessner.github.io/Matterport).
Replica: `mesh_semantic.ply` with `object_id` per face, and `info_semantic.json`.
"""

import csv
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.raster import Mesh

log = logging.getLogger(__name__)

#: How the reader of PLY files names an object that it knows by its number only.
NUMBERED = "object "


def named(mesh: Mesh, path: Path) -> Mesh:
    """The mesh of a labelled file with the classes that its companion file names; unchanged if there is none.

    Triangles whose colour or number is not in the list get class -1. Raises ValueError when the list is damaged.
    """
    name = path.name
    if name.endswith(".semantic.glb"):
        table = path.with_name(name.removesuffix(".glb") + ".txt")
        return by_colour(mesh, hm3d_colours(_text(table))) if table.is_file() else mesh
    if name.endswith("_semantic.ply"):
        stem = name.removesuffix("_semantic.ply")
        house, info = path.with_name(f"{stem}.house"), path.with_name(f"info{name.removeprefix('mesh')[:-4]}.json")
        if house.is_file():
            return by_number(mesh, matterport_objects(_text(house)))
        if info.is_file():
            return by_number(mesh, replica_objects(_text(info)))
    return mesh


def hm3d_colours(text: str) -> dict[int, str]:
    """Class names by colour (red * 65536 + green * 256 + blue). Lines are: number, RRGGBB, "class", region."""
    rows = (row for row in csv.reader(text.splitlines()) if len(row) >= 3)
    return {int(row[1], 16): row[2].strip().lower() for row in rows}


def matterport_objects(text: str) -> dict[int, str]:
    """Class names (mpcat40) by object number, from the lines "O" and "C" of a .house file."""
    rows = [line.split() for line in text.splitlines()]
    categories = {int(row[1]): row[5].lower() for row in rows if len(row) > 5 and row[0] == "C"}
    objects = ((int(row[1]), int(row[3])) for row in rows if len(row) > 3 and row[0] == "O")
    return {number: categories[category] for number, category in objects if category in categories}


def replica_objects(text: str) -> dict[int, str]:
    """Class names by object number."""
    info = json.loads(text)
    names = {entry["id"]: str(entry["name"]).lower() for entry in info["classes"]}
    return {number: names[label] for number, label in enumerate(info["id_to_label"]) if label in names}


def by_colour(mesh: Mesh, names: Mapping[int, str]) -> Mesh:
    """The mesh with the class that each triangle's colour stands for, looked up at its centre."""
    codes = np.full(len(mesh.triangles), -1, np.int64)
    centres = mesh.uv[mesh.triangles].mean(axis=1)
    for number, texture in enumerate(mesh.textures):
        rows = np.flatnonzero(mesh.texture_ids == number)
        size = np.array(texture.shape[1::-1])
        x, y = (np.floor(centres[rows] * size).astype(np.int64) % size).T
        codes[rows] = texture[y, x].astype(np.int64) @ (65536, 256, 1)
    if len(mesh.textures) == 1 and mesh.textures[0].size == 3 and mesh.colors is not None:
        codes = mesh.colors[mesh.triangles[:, 0]].astype(np.int64) @ (65536, 256, 1)
    return _with_classes(mesh, codes, names)


def by_number(mesh: Mesh, names: Mapping[int, str]) -> Mesh:
    """The mesh with the class of each triangle's object instead of the object's number."""
    if mesh.semantic_ids is None:
        return mesh
    numbers = [int(n.removeprefix(NUMBERED)) if n.startswith(NUMBERED) else -1 for n in mesh.semantic_names]
    return _with_classes(mesh, np.array([*numbers, -1], np.int64)[mesh.semantic_ids], names)


def _with_classes(mesh: Mesh, codes: NDArray[np.int64], names: Mapping[int, str]) -> Mesh:
    classes = {name: number for number, name in enumerate(sorted(set(names.values())))}
    keys = np.array(sorted(names), np.int64)
    values = np.array([*(classes[names[key]] for key in keys.tolist()), -1], np.int32)
    places = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
    found = np.where(keys[places] == codes, values[places], -1) if len(keys) else np.full(len(codes), -1)
    return replace(mesh, semantic_ids=found.astype(np.int32), semantic_names=tuple(classes))


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace")
