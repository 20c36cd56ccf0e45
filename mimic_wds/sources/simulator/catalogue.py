"""Which scenes a folder holds: data sets of 3D scans as their owners hand them out, or any folder of meshes.

HM3D and Matterport3D: the layout that habitat-sim's documentation gives (docs/DATASETS.md). Gibson: the release for
habitat, or the original one (github.com/StanfordVL/GibsonEnv). Replica: github.com/facebookresearch/Replica-Dataset.
"""

import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mimic_wds.sources.base import natural_key
from mimic_wds.sources.listing import walk, what_is_there
from mimic_wds.sources.simulator.scene_files import BASIS, PLAIN, READERS
from mimic_wds.sources.video import relative_name

#: Ends of names of files that hold labels of another file's surfaces, or its collision shape.
NO_SCENES = (".semantic.glb", "_semantic.ply", "_semantic.glb", "_convex.glb", ".collision.glb")


@dataclass(frozen=True, slots=True)
class Found:
    """A scene on disk."""

    name: str  #: the same wherever the data set lies
    path: Path  #: what is rendered
    semantic: Path | None = None  #: a file with the classes of its surfaces


@dataclass(frozen=True, slots=True)
class Layout:
    """How a data set is laid out."""

    expected: str  #: for people
    pick: Callable[[Path, Mapping[str, Path], Path], Iterator[Found]]  #: the scenes among the files of one folder


def find_scenes(root: Path, layout: str) -> list[Found]:
    """The scenes at or below a path, naturally sorted; the path may be one file.

    `layout` is a name in `LAYOUTS`. Raises ValueError when the path holds none, saying what it holds instead.
    """
    kind = LAYOUTS[layout]
    if root.is_file():
        if root.suffix.lower() not in READERS:
            raise ValueError(f"{root}: is no scene file; expected {kind.expected}; {what_is_there(root)}")
        return [Found(_stem(root.name), root, semantic_file(root))]
    found = [scene for folder, files in walk(root) for scene in kind.pick(folder, _paths(files), root)]
    if not found:
        raise ValueError(f"{root}: no scene here; expected {kind.expected}; {what_is_there(root)}")
    return sorted(found, key=lambda scene: natural_key(scene.name))


def has_basis_decoder() -> bool:
    """Whether Basis Universal textures can be read."""
    return importlib.util.find_spec("opengl_basisu") is not None


def _paths(files: list[os.DirEntry[str]]) -> dict[str, Path]:
    """The files of a folder that may be scenes, by name."""
    return {file.name: Path(file.path) for file in sorted(files, key=lambda f: f.name) if _is_scene(file.name)}


def _is_scene(name: str) -> bool:
    lower = name.lower()
    return Path(lower).suffix in READERS and not lower.endswith(NO_SCENES)


def _stem(name: str) -> str:
    return Path(name).stem.removesuffix(".basis")


def semantic_file(path: Path) -> Path | None:
    """The file beside a scene that has the classes of its surfaces, if there is one."""
    stem = _stem(path.name)
    beside = (f"{stem}.semantic.glb", f"{stem}_semantic.ply", "habitat/mesh_semantic.ply")
    return next((file for name in beside if (file := path.parent / name).is_file()), None)


def _one_of_each(files: Mapping[str, Path], *, basis: bool) -> Iterator[Path]:
    """A scene that is there with plain and with Basis textures counts once, `basis` says which; all others count."""
    for name, path in files.items():
        twin = name.removesuffix(BASIS) + PLAIN if name.endswith(BASIS) else name.removesuffix(PLAIN) + BASIS
        if twin == name or twin not in files or name.endswith(BASIS) == basis:
            yield path


def _meshes(folder: Path, files: Mapping[str, Path], root: Path) -> Iterator[Found]:
    chosen = list(_one_of_each(files, basis=has_basis_decoder()))
    stems = [_stem(path.name) for path in chosen]
    for path, stem in zip(chosen, stems, strict=True):
        name = stem if stems.count(stem) == 1 else path.name
        yield Found(f"{relative_name(folder, root)}/{name}", path, semantic_file(path))


def _hm3d(folder: Path, files: Mapping[str, Path], root: Path) -> Iterator[Found]:
    scans = {name: path for name, path in files.items() if name.endswith(PLAIN)}
    for path in _one_of_each(scans, basis=has_basis_decoder()):
        stem = _stem(path.name)
        named_folder = folder.name if re.fullmatch(rf"(\d+-)?{re.escape(stem)}", folder.name) else stem
        yield Found(named_folder, path, semantic_file(path))


def _gibson(folder: Path, files: Mapping[str, Path], root: Path) -> Iterator[Found]:
    if "mesh_z_up.obj" in files:
        yield Found(folder.resolve().name, files["mesh_z_up.obj"])
        return
    for name, path in files.items():
        if name.endswith(PLAIN):
            yield Found(_stem(name), path)


def _matterport(folder: Path, files: Mapping[str, Path], root: Path) -> Iterator[Found]:
    for name, path in files.items():
        if name.endswith(PLAIN):
            yield Found(_stem(name), path, semantic_file(path))


def _replica(folder: Path, files: Mapping[str, Path], root: Path) -> Iterator[Found]:
    if folder.name == "habitat":
        return
    name = folder.resolve().name
    labelled = folder / "habitat" / "mesh_semantic.ply"
    if "mesh.ply" in files:
        yield Found(name, files["mesh.ply"], semantic_file(files["mesh.ply"]))
    elif labelled.is_file():
        yield Found(name, labelled, labelled)
    for file, path in files.items():
        if file.endswith(PLAIN):
            yield Found(_stem(file), path, semantic_file(path))


#: By the name that a source gives.
LAYOUTS: Mapping[str, Layout] = {
    "mesh": Layout("files ending in .glb, .gltf, .obj or .ply", _meshes),
    "hm3d": Layout("00000-<hash>/<hash>.basis.glb or <hash>.glb", _hm3d),
    "gibson": Layout("<Name>.glb with <Name>.navmesh, or folders <Name> with mesh_z_up.obj", _gibson),
    "matterport": Layout("<house>/<house>.glb with <house>.navmesh", _matterport),
    "replica": Layout("<room>/mesh.ply, <room>/habitat/mesh_semantic.ply or <room>.glb", _replica),
}
