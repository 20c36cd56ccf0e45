"""metadata.json of a scene of CroCo's Multiview-Habitat: from where its views were taken, to render them again.

The layout is that of the release (CroCo, arXiv 2210.10716, datasets/habitat_sim of its code): eight keys for the scene,
and for each pair, under a label of eight digits: `positions` (n, 3) and `orientations` (n, 4; w, x, y, z) of the camera
in habitat's world, `covisibility_ratios` (n; the first is the reference's valid fraction), `valid_fractions` (n), and
`pairwise_visibility_ratios` (n, n; at [i][j] how much of view i the view j sees, the diagonal is the valid fractions).
Its three paths begin with the label of a data set, in the place of the folder where one has it.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.base import Picture, Pose, SceneFile, Simulator
from mimic_wds.sources.simulator.multiview import MultiviewPair, MultiviewSettings, pose_of

T = TypeVar("T")

#: How far from 1 the length of an orientation may be: numbers are written with all digits, but perhaps of 32 bits.
UNIT_TOLERANCE = 1e-3

_LABEL = re.compile(r"[0-9]{8}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Multiview:
    """The n views of one label, n = 2 in the release; view 0 is the reference. Raises ValueError, naming the key."""

    positions: NDArray[np.float64]  #: (n, 3) metres, of the cameras
    orientations: NDArray[np.float64]  #: (n, 4) w, x, y, z
    covisibility_ratios: NDArray[np.float64]  #: (n,) with the reference; of itself: its valid fraction
    valid_fractions: NDArray[np.float64]  #: (n,)
    pairwise_visibility_ratios: NDArray[np.float64]  #: (n, n) share of the pixels of view i that view j sees

    def __post_init__(self) -> None:
        n = len(self.positions)
        shapes = {"positions": (n, 3), "orientations": (n, 4), "pairwise_visibility_ratios": (n, n)}
        for name in self.__dataclass_fields__:
            values, shape = getattr(self, name), shapes.get(name, (n,))
            if values.shape != shape:
                raise ValueError(f"{name} has shape {values.shape}, expected {shape}")
            if not np.isfinite(values).all():
                raise ValueError(f"{name} holds numbers that are not finite")
            if name.endswith(("_ratios", "_fractions")) and not ((values >= 0) & (values <= 1)).all():
                raise ValueError(f"{name} must lie in 0..1, got {values.min():g}..{values.max():g}")
        lengths = np.hypot.reduce(self.orientations, axis=1)
        if (np.abs(lengths - 1) > UNIT_TOLERANCE).any():
            raise ValueError(f"orientations must be quaternions of length 1, got {[f'{x:g}' for x in lengths]}")

    @property
    def poses(self) -> list[Pose]:
        """Camera to world of each view. The agent stands at its position, its sensor where it stands."""
        return [pose_of(p, _unit(q)) for p, q in zip(self.positions, self.orientations, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneMetadata:
    """What metadata.json says of a scene."""

    scene_dataset_config_file: str  #: habitat-sim's scene data set configuration, "" = none
    scene: str  #: the mesh
    navmesh: str  #: "" = none
    views_count: int  #: views of a label
    size: int  #: labels that were asked for
    generate_depth: bool  #: whether depth was written, too
    resolution: tuple[int, int]  #: (height, width)
    hfov: float  #: degrees
    multiviews: Mapping[str, Multiview]  #: by label, in the order of the file


class _Scene(msgspec.Struct):
    """The file's outer layer; what is under a label is read by itself, so that mistakes can name it."""

    scene: str
    views_count: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    size: Annotated[int, msgspec.Meta(ge=0)]
    generate_depth: bool
    resolution: tuple[Annotated[int, msgspec.Meta(ge=1, le=65536)], Annotated[int, msgspec.Meta(ge=1, le=65536)]]
    hfov: Annotated[float, msgspec.Meta(gt=0, lt=180)]
    multiviews: dict[str, msgspec.Raw]
    scene_dataset_config_file: str | None = None
    navmesh: str | None = None


class _Views(msgspec.Struct):
    """What is under a label."""

    positions: list[list[float]]
    orientations: list[list[float]]
    covisibility_ratios: list[float]
    valid_fractions: list[float]
    pairwise_visibility_ratios: list[list[float]]


def read_metadata(path: Path) -> SceneMetadata:
    """Read a metadata.json. Raises ValueError naming the file and the key when it is missing or malformed."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    outer = _decode(content, _Scene, str(path))
    multiviews = {}
    for label, raw in outer.multiviews.items():
        where = f"{path}: multiviews[{label[:40]!r}]"
        if not _LABEL.fullmatch(label):
            raise ValueError(f"{where}: a label has eight digits")
        multiviews[label] = _multiview(raw, where, outer.views_count)
    return SceneMetadata(
        scene_dataset_config_file=outer.scene_dataset_config_file or "",
        scene=outer.scene,
        navmesh=outer.navmesh or "",
        views_count=outer.views_count,
        size=outer.size,
        generate_depth=outer.generate_depth,
        resolution=outer.resolution,
        hfov=outer.hfov,
        multiviews=multiviews,
    )


def _multiview(raw: msgspec.Raw, where: str, views_count: int) -> Multiview:
    """The views under a label. Raises ValueError that begins with `where`."""
    views = _decode(raw, _Views, where)
    try:
        found = Multiview(**{name: _array(name, getattr(views, name)) for name in views.__struct_fields__})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if len(found.positions) != views_count:
        raise ValueError(f"{where}: positions of {len(found.positions)} views, but views_count is {views_count}")
    return found


def _array(name: str, rows: list[list[float]] | list[float]) -> NDArray[np.float64]:
    """The numbers as an array. Raises ValueError when rows differ in length."""
    try:
        return np.array(rows, np.float64)
    except ValueError:
        raise ValueError(f"{name} has rows of different lengths") from None


def _decode(content: bytes | msgspec.Raw, kind: type[T], where: str) -> T:
    """Strict JSON. Raises ValueError that begins with `where`."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{where}: not valid JSON: {error}") from None


def scene_metadata(
    scene: SceneFile, pairs: Mapping[int, MultiviewPair], size: int, settings: MultiviewSettings
) -> SceneMetadata:
    """What to write of the pairs of a scene, given by their numbers; `size` is how many were asked for."""
    return SceneMetadata(
        scene_dataset_config_file=scene.stage_config,
        scene=scene.path,
        navmesh=scene.navmesh,
        views_count=2,
        size=size,
        generate_depth=False,
        resolution=settings.size,
        hfov=settings.hfov_deg,
        multiviews={f"{number:08d}": multiview(pairs[number]) for number in sorted(pairs)},
    )


def multiview(pair: MultiviewPair) -> Multiview:
    """A pair as metadata.json has it."""
    views = (pair.view0, pair.view1)
    valid0, valid1 = (view.valid for view in views)
    return Multiview(
        positions=np.array([view.position for view in views]),
        orientations=np.array([view.orientation for view in views]),
        covisibility_ratios=np.array([valid0, pair.covisibility]),
        valid_fractions=np.array([valid0, valid1]),
        pairwise_visibility_ratios=np.array([[valid0, pair.seen0], [pair.seen1, valid1]]),
    )


def write_metadata(path: Path, metadata: SceneMetadata) -> None:
    """Write a metadata.json, whole or not at all; the same metadata, the same bytes."""
    content: dict[str, object] = {name: getattr(metadata, name) for name in metadata.__dataclass_fields__}
    content["multiviews"] = {
        label: {name: getattr(views, name).tolist() for name in views.__dataclass_fields__}
        for label, views in metadata.multiviews.items()
    }
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    unfinished.replace(path)


def scene_file(metadata: SceneMetadata, roots: Mapping[str, str]) -> SceneFile:
    """The scene to load, its paths below the local folders: `roots` maps the labels of data sets to them.

    A bare .glb has z up, as habitat-sim takes it, everything else y. Raises ValueError when a path begins with no label
    of `roots`, or leaves its folder.
    """
    path = local_path(metadata.scene, "scene", roots)
    up: Literal["y", "z"] = "z" if path.lower().endswith(".glb") else "y"
    config = local_path(metadata.scene_dataset_config_file, "scene_dataset_config_file", roots)
    return SceneFile(path=path, up=up, navmesh=local_path(metadata.navmesh, "navmesh", roots), stage_config=config)


def local_path(path: str, key: str, roots: Mapping[str, str]) -> str:
    """A path of the metadata with its label replaced by the local folder; "" stays "". `key` is for messages.

    The longest label that fits counts: "replica_cad/..." is no path of "replica". Raises ValueError as `scene_file`.
    """
    if not path:
        return path
    for label in sorted(roots, key=len, reverse=True):
        rest = path.removeprefix(label)
        if rest == path or (rest and not rest.startswith("/") and not label.endswith("/")):
            continue
        inner = PurePosixPath(rest.lstrip("/"))
        if ".." in inner.parts or "\0" in path:
            raise ValueError(f"{key} is {path!r}, which leaves the folder of {label!r}")
        return str(Path(roots[label]) / inner)
    known = ", ".join(sorted(roots)) or "none"
    raise ValueError(f"{key} is {path!r}, which begins with no label that a folder is given for (these are: {known})")


def poses(metadata: SceneMetadata) -> dict[str, list[Pose]]:
    """Camera-to-world poses of the views of each label."""
    return {label: views.poses for label, views in metadata.multiviews.items()}


def render_metadata(simulator: Simulator, metadata: SceneMetadata) -> Iterator[tuple[str, list[Picture]]]:
    """Each label with its views, rendered again in the scene that is loaded.

    Raises ValueError when the simulator renders another size than the metadata says.
    """
    for label, views in metadata.multiviews.items():
        pictures = [simulator.render(pose) for pose in views.poses]
        for picture in pictures:
            if picture.image.shape[:2] != metadata.resolution:
                size = " x ".join(map(str, picture.image.shape[:2]))
                raise ValueError(f"the simulator renders {size} pixels, the metadata says {metadata.resolution}")
        yield label, pictures


def _unit(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quaternion at length 1; one that has it to the last digits is left as it is, so that its pose stays too."""
    length = np.linalg.norm(quaternion)
    return quaternion if abs(length - 1) < 1e-12 else np.asarray(quaternion / length)
