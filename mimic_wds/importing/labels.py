"""Labels for free: views of 3D scenes with their depth, normals and classes, in the layout that finetuning reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.importing.base import Lost, Made, Plan, Settings, Unit
from mimic_wds.pairs import Camera, DropReason, Image, ImageSample, Kind, Scene
from mimic_wds.sources.registry import make_source
from mimic_wds.sources.scenes import Meshes
from mimic_wds.sources.simulator.base import Body, Pose
from mimic_wds.sources.simulator.location import EYE_M, generator
from mimic_wds.sources.simulator.navigation.base import Floor, make_floor
from mimic_wds.sources.simulator.raster import Camera as Lens
from mimic_wds.sources.simulator.raster import Mesh, Renderer, pose
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
        from mimic_wds.sources.simulator.scene_files import load_mesh

        scenes = self._scenes.scenes()
        named = (load_mesh(self._scenes.file(scene)).semantic_names for scene in scenes if "semseg" in self.maps)
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
        from mimic_wds.sources.simulator.scene_files import load_mesh

        file = self._scenes.file(unit.scene)
        mesh = load_mesh(file)
        floor, renderer = make_floor(mesh, file, Body()), Renderer(mesh)
        numbers = class_numbers(mesh, unit.payload.decode().split("\n"))
        for number in range(self.views):
            where = f"{unit.scene.path}: view {number}"
            lens = Lens(self._pose(floor, generator(unit.scene.name, number)), self.hfov_deg, (settings.size,) * 2)
            seen = see(renderer, mesh, lens, numbers)
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
    def _scenes(self) -> Meshes:
        """The source of the scenes."""
        options = {"paths": list(self.paths), "up": self.up, "scale_m": self.scale_m}
        found = make_source(self.source, options, self.name)
        if not isinstance(found, Meshes):
            raise ValueError(f"{self.name}: source {self.source!r} has no 3D scenes")
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A view and its labels, (H, W)."""

    image: Image  #: (H, W, 3) uint8 RGB
    depth: NDArray[np.float32]  #: metres
    normal: NDArray[np.float64]  #: (H, W, 3) right, down, forward, towards the camera; (0, 0, 0) = nothing there
    classes: NDArray[np.int64]  #: 0 = none


def see(renderer: Renderer, mesh: Mesh, lens: Lens, numbers: NDArray[np.int64]) -> Seen:
    """Render a view; `numbers` (T,) are the classes of the triangles."""
    image, depth = renderer.render(lens)
    rows, _ = renderer.visibility(lens)
    hit = rows >= 0
    corners = mesh.vertices[mesh.triangles[np.where(hit, rows, 0)]].astype(np.float64)  # (H, W, 3, 3)
    normal = np.cross(corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    facing = ((lens.pose[:3, 3] - corners[..., 0, :]) * normal).sum(axis=-1, keepdims=True) >= 0
    outward = np.where(facing, normal, -normal) * hit[..., None]
    return Seen(image, depth, outward @ lens.pose[:3, :3] * FLIP, np.where(hit, numbers[np.where(hit, rows, 0)], 0))


def class_numbers(mesh: Mesh, classes: list[str]) -> NDArray[np.int64]:
    """The number (T,) of each triangle's class among `classes`, from 1; 0 = none."""
    if mesh.semantic_ids is None:
        return np.zeros(len(mesh.triangles), np.int64)
    of_name = {name: number for number, name in enumerate(classes, 1)}
    table = np.array([*(of_name.get(name, 0) for name in mesh.semantic_names), 0], np.int64)  # id -1 picks the last
    return table[mesh.semantic_ids]
