"""Labels for free: views of 3D scenes with their depth, normals and classes, in the layout that finetuning reads."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.importing.base import Lost, Made, Plan, Settings, Unit
from mimic_wds.pairs import Camera, DropReason, Image, ImageSample, Kind, Scene
from mimic_wds.sources.registry import SOURCES, make_source
from mimic_wds.sources.scenes import SceneFiles
from mimic_wds.sources.simulator.backends import check_installed
from mimic_wds.sources.simulator.base import Body, Pose, SceneFile
from mimic_wds.sources.simulator.catalogue import semantic_file
from mimic_wds.sources.simulator.location import EYE_M, generator
from mimic_wds.sources.simulator.navigation.base import Floor, make_floor
from mimic_wds.sources.simulator.raster import Camera as Lens
from mimic_wds.sources.simulator.raster import Mesh, Renderer, pose
from mimic_wds.sources.simulator.scene_files import load_mesh
from mimic_wds.storage.layout import MAPS, image_key
from mimic_wds.storage.maps import encode_depth, encode_normal, encode_semseg

#: Of the stored views, as of the views that a build makes.
JPEG_QUALITY = 95

#: OpenGL's camera axes (y up, looks along -z) to OpenCV's (y down, z forward), in which cameras and normals are stored.
FLIP = np.array([1.0, -1.0, -1.0])


@dataclass(frozen=True, kw_only=True)
class RenderedLabels:
    """Single images at random places of the floor, looking in random directions."""

    name: ClassVar[str] = "rendered-labels"
    reads: ClassVar[str] = "3D scenes, as the sources of them do"
    kind: ClassVar[Kind] = "images"
    default_size: ClassVar[int] = 256

    paths: tuple[str, ...]
    source: str = "mesh"  #: which data set the paths are of: mesh, hm3d, gibson, matterport or replica
    views: int = 100  #: of each scene
    maps: tuple[str, ...] = MAPS  #: what is stored beside each view
    hfov_deg: float = 60.0  #: horizontal field of view
    pitch_deg: float = 15.0  #: views look up or down by at most this
    max_empty: float = 0.1  #: share of a view that may show nothing
    up: Literal["auto", "y", "z"] = "auto"  #: axis of the files that points up
    scale_m: float = 1.0  #: metres per unit of the files
    licence: str = ""  #: goes into the manifest

    def __post_init__(self) -> None:
        unknown = [name for name in self.maps if name not in MAPS]
        if unknown or not self.maps:
            raise ValueError(f"maps are some of {', '.join(MAPS)}, got {', '.join(self.maps) or 'none'}")
        if self.views < 1 or not 0 < self.hfov_deg < 180 or not 0 <= self.pitch_deg < 90:
            raise ValueError("views must be 1 or more, hfov_deg between 0 and 180 and pitch_deg from 0 to below 90")

    def plan(self, settings: Settings) -> Plan:
        """One unit per scene. Where classes are asked for, all scenes are read first, to number their names."""
        check_installed()
        scenes = self._scenes.scenes()
        named = (classes_mesh(self._scenes.file(scene)).semantic_names for scene in scenes if "semseg" in self.maps)
        classes = sorted(set().union(*named))
        if len(classes) > 255:
            raise ValueError(f"the scenes name {len(classes)} classes, a map holds 255: leave semseg out of maps")
        return Plan(
            units=[Unit(scene=scene, num_pairs=self.views, payload="\n".join(classes).encode()) for scene in scenes],
            notes=[f"{len(scenes)} scenes, {self.views} views of each, {len(classes)} classes"],
            maps=[name for name in MAPS if name in self.maps],
            semseg_classes=classes,
            truth=True,
        )

    def pairs(self, unit: Unit, settings: Settings) -> Iterator[Made | Lost]:
        """Render the views of a scene."""
        file = self._scenes.file(unit.scene)
        mesh = load_mesh(file)
        floor, painter = make_floor(mesh, file, Body()), Painter(mesh, file, unit.payload.decode().split("\n"))
        for number in range(self.views):
            where = f"{unit.scene.path}: view {number}"
            lens = Lens(self._pose(floor, generator(unit.scene.name, number)), self.hfov_deg, (settings.size,) * 2)
            seen = painter.see(lens)
            if np.count_nonzero(seen.depth) < (1 - self.max_empty) * seen.depth.size:
                yield Lost(DropReason.EMPTY_VIEW.value, where)
                continue
            yield Made(self._sample(unit.scene, f"{number:05d}", lens, seen), ())

    def _pose(self, floor: Floor, rng: np.random.Generator) -> Pose:
        """A random place, height and direction."""
        place = floor.random_point(rng) + np.array([0, rng.uniform(*EYE_M), 0])
        return pose(place, rng.uniform(0, 360), rng.uniform(-self.pitch_deg, self.pitch_deg))

    def _sample(self, scene: Scene, frame: str, lens: Lens, seen: "Seen") -> ImageSample:
        encoded = {
            "depth": lambda: encode_depth(seen.depth),
            "normal": lambda: encode_normal(seen.normal),
            "semseg": lambda: encode_semseg(seen.classes),
        }
        _, jpeg = cv2.imencode(".jpg", seen.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        return ImageSample(
            key=image_key(scene.source, scene.name, frame),
            image_jpg=jpeg.tobytes(),
            size=seen.depth.shape,
            source=scene.source,
            scene=scene.name,
            frame=frame,
            camera=Camera(intrinsics=lens.intrinsics, pose=lens.pose @ np.diag([*FLIP, 1.0])),
            maps={f"0.{name}.png": encoded[name]() for name in MAPS if name in self.maps},
        )

    @property
    def _scenes(self) -> SceneFiles:
        """The source of the scenes."""
        if not issubclass(SOURCES.get(self.source, object), SceneFiles):
            raise ValueError(f"{self.name}: source {self.source!r} has no 3D scenes")
        options = {"paths": list(self.paths), "up": self.up, "scale_m": self.scale_m}
        found = make_source(self.source, options, self.name)
        assert isinstance(found, SceneFiles)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A view and its labels, (H, W)."""

    image: Image  #: (H, W, 3) uint8 RGB
    depth: NDArray[np.float32]  #: metres
    normal: NDArray[np.float64]  #: (H, W, 3) right, down, forward, towards the camera; (0, 0, 0) = nothing there
    classes: NDArray[np.int64]  #: 0 = none


class Painter:
    """Renders views of a scene with their labels."""

    def __init__(self, mesh: Mesh, file: SceneFile, classes: list[str]):
        """`classes` are the names that classes are numbered by, from 1."""
        self._mesh, self._renderer = mesh, Renderer(mesh)
        labelled = mesh if mesh.semantic_ids is not None else classes_mesh(file)
        self._labelled = self._renderer if labelled is mesh else Renderer(labelled)
        self._numbers = class_numbers(labelled, classes)

    def see(self, lens: Lens) -> Seen:
        """One view."""
        image, depth = self._renderer.render(lens)
        rows, _ = self._renderer.visibility(lens)
        normal = facing_normals(self._mesh, rows, lens) @ lens.pose[:3, :3] * FLIP
        labelled, _ = self._labelled.visibility(lens)
        return Seen(image, depth, normal, np.append(self._numbers, 0)[labelled])  # row -1 picks the last


def facing_normals(mesh: Mesh, rows: NDArray[np.int64], lens: Lens) -> NDArray[np.float64]:
    """Unit normals (H, W, 3), in the world, of the triangles that pixels show, on the camera's side; 0 = none shown."""
    shown = rows >= 0
    a, b, c = np.moveaxis(mesh.vertices[mesh.triangles[np.where(shown, rows, 0)]].astype(np.float64), -2, 0)
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    towards = ((lens.pose[:3, 3] - a) * normal).sum(axis=-1, keepdims=True) >= 0
    return np.where(towards, normal, -normal) * shown[..., None]


def classes_mesh(file: SceneFile) -> Mesh:
    """The mesh whose triangles have classes: the scene itself, or what lies beside it."""
    beside = semantic_file(Path(file.path))
    return load_mesh(replace(file, path=str(beside)) if beside else file)


def class_numbers(mesh: Mesh, classes: list[str]) -> NDArray[np.int64]:
    """The number (T,) of each triangle's class among `classes`, from 1; 0 = none."""
    if mesh.semantic_ids is None:
        return np.zeros(len(mesh.triangles), np.int64)
    of_name = {name: number for number, name in enumerate(classes, 1)}
    table = np.array([*(of_name.get(name, 0) for name in mesh.semantic_names), 0], np.int64)  # id -1 picks the last
    return table[mesh.semantic_ids]
