"""Scene files as meshes: which reader, which axis is up, and what lies beside a file.

The world is metres, y up, as `base.py` has it. Files with z up are turned by -90 degrees about x, which takes (x, y, z)
to (x, z, -y): their front, +y, becomes -z. habitat-sim takes every bare `.glb` and every `mesh.ply` that way
(`NAME.stage_config.json` beside the file says otherwise), and HM3D, Gibson and Matterport3D are made for it.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import SceneFile
from mimic_wds.sources.simulator.formats import gltf, obj, ply, semantics
from mimic_wds.sources.simulator.formats.basis import BasisMissing
from mimic_wds.sources.simulator.formats.parts import Part, join
from mimic_wds.sources.simulator.raster import Mesh

log = logging.getLogger(__name__)

READERS: Mapping[str, Callable[[Path], Iterator[Part]]] = {
    ".glb": gltf.read,
    ".gltf": gltf.read,
    ".obj": obj.read,
    ".ply": ply.read,
}

#: Ends of the name of a file whose textures are Basis Universal, and of the same scene with plain ones (HM3D).
BASIS, PLAIN = ".basis.glb", ".glb"

#: What a stage configuration calls up and front for the two axes that are supported.
_FRONTS = {"y": (0, 0, -1), "z": (0, 1, 0)}


def load_mesh(scene: SceneFile) -> Mesh:
    """The triangles of a scene in metres, y up. What is broken in it is left out, and logged.

    `NAME.basis.glb` without a decoder for its textures is read from the plain `NAME.glb` beside it, if that is there.
    Raises SceneError when the file cannot be read, is not what its name says, or holds nothing to draw.
    """
    path = Path(scene.path)
    try:
        return upright(_read(path), scene)
    except BasisMissing:
        plain = path.with_name(path.name.removesuffix(BASIS) + PLAIN)
        if not path.name.endswith(BASIS) or not plain.is_file():
            raise
    log.info("%s: no decoder for its textures, reading %s", path, plain.name)
    return upright(_read(plain), scene)


def upright(mesh: Mesh, scene: SceneFile) -> Mesh:
    """The mesh in metres, y up, from the axes and units of its file."""
    if scene.up == "y" and scene.scale_m == 1:
        return mesh
    vertices = np.empty_like(mesh.vertices)
    axes = ((0, 1), (1, 1), (2, 1)) if scene.up == "y" else ((0, 1), (2, 1), (1, -1))
    for column, (axis, sign) in enumerate(axes):
        vertices[:, column] = mesh.vertices[:, axis] * np.float32(sign * scene.scale_m)
    return replace(mesh, vertices=vertices)


def scene_file(
    path: Path, *, up: Literal["auto", "y", "z"] = "auto", z_up_by_default: bool = False, scale_m: float = 1.0
) -> SceneFile:
    """A file and how to read it, with the navigation mesh that lies beside it.

    up = "auto" takes the axis of the stage configuration beside the file, else z if `z_up_by_default`, else y. A
    navigation mesh is in habitat-sim's world, so it is used only if the axis is that one and the units are metres.
    Raises SceneError when a stage configuration is no JSON, or has an up axis other than y or z.
    """
    config, folder = stage_config(path)
    known: Literal["y", "z"] = _up_of(config, path) or ("z" if z_up_by_default else "y")
    axis = known if up == "auto" else up
    usual = axis == known and scale_m == 1 and tuple(config.get("front", _FRONTS[axis])) == _FRONTS[axis]
    found = _navmesh(path, config, folder) if usual else None
    return SceneFile(path=str(path), up=axis, scale_m=scale_m, navmesh=str(found or ""))


def stage_config(path: Path) -> tuple[Mapping[str, Any], Path]:
    """The habitat-sim stage configuration of a scene file, and the folder that its paths are relative to.

    It is `NAME.stage_config.json`, or one in the same folder that names the file as its `render_asset`; {} = none.
    """
    names = (path.stem, path.stem.removesuffix(".basis"))
    own = [path.with_name(f"{name}.stage_config.json") for name in dict.fromkeys(names)]
    for file in own:
        if file.is_file():
            return _config(file), file.parent
    for file in sorted(path.parent.glob("*.stage_config.json")):
        config = _config(file)
        if Path(str(config.get("render_asset", ""))).name == path.name:
            return config, file.parent
    return {}, path.parent


def _read(path: Path) -> Mesh:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise SceneError(f"{path}: is no scene file; expected {', '.join(READERS)}")
    try:
        mesh = join(reader(path), str(path))
    except SceneError:
        raise
    except OSError as error:
        raise SceneError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, OverflowError) as error:
        raise SceneError(f"{path}: is damaged: {error}") from error
    try:
        return semantics.named(mesh, path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SceneError(f"{path}: the list of its classes is damaged: {error}") from error


def _config(file: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SceneError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise SceneError(f"{file}: is no stage configuration, expected a JSON object")
    return config


def _up_of(config: Mapping[str, Any], path: Path) -> Literal["y", "z"] | None:
    """The up axis that a stage configuration names; None = it names none."""
    if "up" not in config:
        return None
    axes: dict[tuple[float, ...], Literal["y", "z"]] = {(0, 1, 0): "y", (0, 0, 1): "z"}
    try:
        return axes[tuple(round(float(number), 6) for number in config["up"])]
    except (KeyError, TypeError, ValueError):
        found = config["up"]
    raise SceneError(f"{path}: its stage configuration has up = {found!r}; only [0, 1, 0] and [0, 0, 1] are read")


def _navmesh(path: Path, config: Mapping[str, Any], folder: Path) -> Path | None:
    """The data set's navigation mesh: what the stage configuration names, else a file with the scene's name."""
    base = path.stem.removesuffix(".basis")
    names = [f"{base}.basis.navmesh", f"{base}.navmesh"]
    if not path.stem.endswith(".basis"):
        names.reverse()
    places = [folder / str(config["nav_asset"])] if config.get("nav_asset") else []
    places += [path.with_name(name) for name in names]
    return next((place for place in places if place.is_file()), None)
