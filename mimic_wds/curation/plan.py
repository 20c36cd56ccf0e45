"""The plan of a build: all scenes in their final order, in a file, so that ten million of them need little memory.

The first line of `plan.jsonl` says how the data set is made, every other one is a scene: [source, name, path, bytes],
the source as its number in the recipe.
"""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Self

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from mimic_wds import __version__
from mimic_wds.curation.image_filter import identity, load_image_filter
from mimic_wds.curation.privacy import load_face_blur
from mimic_wds.curation.recipe import Recipe
from mimic_wds.pairs import Scene
from mimic_wds.sources.scenes import SceneFiles
from mimic_wds.storage.files import atomic_write
from mimic_wds.storage.manifest import Manifest, manifest_hash

PLAN_NAME = "plan.jsonl"


class Plan:
    """An open plan. Scenes are read from the file when they are asked for."""

    def __init__(self, folder: Path):
        """Open the plan of a staging folder. Raises ValueError when there is none or it is damaged."""
        self.folder = folder
        path = folder / PLAN_NAME
        try:
            self._file = path.open("rb")
        except FileNotFoundError:
            raise ValueError(f"{path}: is missing: no build was started here") from None
        try:
            self.header: dict[str, Any] = json.loads(self._file.readline())
            self._offsets, self._bytes = _scan(self._file)
        except ValueError:
            self._file.close()
            raise ValueError(f"{path}: is damaged; delete {path.parent} and build again") from None

    def __len__(self) -> int:
        return len(self._offsets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def scene(self, number: int) -> tuple[int, Scene]:
        """Scene `number` of the plan, after the number of its source in the recipe."""
        self._file.seek(self._offsets[number])
        source, name, path, num_bytes = json.loads(self._file.readline())
        kind = self.header["recipe"]["sources"][source]["source"]
        return source, Scene(source=kind, name=name, path=path, num_bytes=num_bytes)

    def digest(self) -> str:
        """sha256 (hex) of all of it: equal for equal builds."""
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()

    def largest_first(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The scene numbers, those of the largest scenes first: the last to finish are then short ones."""
        return numbers[np.argsort(-self._bytes[numbers], kind="stable")]


def _scan(file: BinaryIO) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each scene's line begins, and the size of the scene."""
    offsets, sizes = array("q"), array("q")
    position = file.tell()
    for line in file:
        offsets.append(position)
        sizes.append(int(line[line.rindex(b",") + 1 : line.rindex(b"]")]))
        position += len(line)
    return np.array(offsets, np.int64), np.array(sizes, np.int64)


def every_scene(scene: Scene) -> bool:
    """A build that is new wants all of them."""
    return True


def write_plan(
    folder: Path, recipe: Recipe, base: Manifest | None = None, wanted: Callable[[Scene], bool] = every_scene
) -> Plan:
    """List the scenes of a recipe that are wanted and write the plan; if one is there, check that it is the same.

    `base` is the manifest of the data set that they are added to.
    Raises ValueError for missing input, equal scene names, and a plan of another recipe or input.
    """
    path = folder / PLAN_NAME
    plain = {"recipe": recipe.as_plain(), "base": manifest_hash(base) if base else "", **describe(recipe)}
    header = json.dumps(plain).encode() + b"\n"
    lines = _lines(recipe, wanted)
    if path.exists():
        _check_same(path, header, lines)
    else:
        with atomic_write(path) as file:
            file.writelines(chain([header], lines))
    return Plan(folder)


def _lines(recipe: Recipe, wanted: Callable[[Scene], bool]) -> Iterator[bytes]:
    """The lines of the scenes that are wanted.

    Raises ValueError when two sources of the recipe hold the same scene.
    """
    encoder, seen = msgspec.json.Encoder(), set[tuple[str, str]]()
    several = len({source.name for source in recipe.sources}) < len(recipe.sources)
    for number, source in enumerate(recipe.sources):
        for scene in source.scenes():
            if several and (scene.source, scene.name) in seen:
                raise ValueError(
                    f"two [[sources]] of the recipe hold the {scene.source} scene {scene.name!r}; list it once"
                )
            if several:
                seen.add((scene.source, scene.name))
            if wanted(scene):
                yield encoder.encode([number, scene.name, scene.path, scene.num_bytes]) + b"\n"


def _check_same(path: Path, header: bytes, lines: Iterator[bytes]) -> None:
    """Raise ValueError saying what changed since the plan was written."""
    out = path.parent.parent
    with path.open("rb") as file:
        then, now = json.loads(file.readline()), json.loads(header)
        if then["versions"] != now["versions"]:
            raise ValueError(
                f"{out}: the unfinished build was made with {_versions(then)}, this is {_versions(now)}; pictures and "
                "keypoints may differ: use the same versions, or another --out"
            )
        otherwise = f"delete {path.parent} to give it up" if then["base"] else "build in another --out"
        if then != now:
            raise ValueError(f"{out}: the unfinished run has another recipe; use the same one, or {otherwise}")
        if _digest(file) != _digest(lines):
            raise ValueError(
                f"{out}: the input has other scenes, or of other sizes, than when the run began; restore the input, "
                f"or {otherwise}"
            )


def _digest(lines: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()


def _versions(header: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in header["versions"].items())


def describe(recipe: Recipe) -> dict[str, Any]:
    """What the manifest says about how the data set was made: no paths, no times, so a rebuild gives the same bytes."""
    return {
        "criteria": {"preset": recipe.preset, **asdict(recipe.criteria)},
        "versions": versions(recipe),
        "licences": licences(recipe),
        "maps": ["depth"] if recipe.criteria.store_depth else [],
        "truth": recipe.criteria.store_truth,
    }


def versions(recipe: Recipe) -> dict[str, str]:
    """Of all that decides what comes out. Raises ValueError when a package that the recipe asks for is missing."""
    criteria = recipe.criteria
    own = {"mimic_wds": __version__, "opencv": cv2.__version__, "numpy": np.__version__}
    for source in recipe.sources:
        if isinstance(source, SceneFiles):
            own["renderer"] = source.renderer_name()
    if criteria.blur_faces:
        own["blur_faces"] = load_face_blur().identity
    if criteria.image_filter:
        load_image_filter(criteria.image_filter)
        own["image_filter"] = identity(criteria.image_filter)
    return own


def licences(recipe: Recipe) -> dict[str, str]:
    """The licence note of each kind of source; several notes of one kind are joined."""
    notes: dict[str, list[str]] = {}
    for source in recipe.sources:
        known = notes.setdefault(source.name, [])
        if source.licence and source.licence not in known:
            known.append(source.licence)
    return {name: "; ".join(known) for name, known in notes.items()}
