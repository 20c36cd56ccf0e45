"""3D scenes: an agent walks through them and looks round; MIMIC's walk (arXiv 2306.15128, appendix C.1).

HM3D, Gibson, Matterport3D and Replica as their owners hand them out, and any folder of meshes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import Camera, DropReason, Fault, Image, Policy, Scene, SceneError, View, Windows
from mimic_wds.sources.base import check_unique, existing, natural_key
from mimic_wds.sources.simulator.backends import Backend, Kind, renderer_name, simulator
from mimic_wds.sources.simulator.base import Lens, SceneFile
from mimic_wds.sources.simulator.catalogue import find_scenes
from mimic_wds.sources.simulator.location import RING, Refused, Seen, Walk, locations
from mimic_wds.sources.simulator.scene_files import scene_file
from mimic_wds.sources.texture import laplacian_variance

#: OpenGL's camera axes (y up, looks along -z) to OpenCV's (y down, looks along z).
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class SceneFiles:
    """One scene file is one scene: how the files are found, read and drawn."""

    name: ClassVar[str]
    layout: ClassVar[str] = "mesh"  #: of the data set, in `simulator/catalogue.py`
    z_up: ClassVar[bool] = False  #: whether bare files of the data set have z up

    paths: tuple[str, ...]
    backend: Kind = "auto"  #: auto = OpenGL, without a graphics context numba; habitat = habitat-sim
    habitat_python: str = ""  #: the Python that habitat-sim is installed for; "" = this one
    gpus: tuple[int, ...] = ()  #: worker processes take them by turns; none = the first there is, or the CPU
    cull_backs: bool = False  #: triangles are seen from their front only, as habitat-sim draws them
    supersample: bool = False  #: average 2 x 2 samples a pixel (not habitat-sim)
    up: Literal["auto", "y", "z"] = "auto"  #: axis of the files that points up; auto = as their data set has it
    scale_m: float = 1.0  #: metres per unit of the files
    open_sky: bool = False  #: walk also where nothing is overhead
    licence: str = ""  #: goes into the manifest

    def scenes(self) -> list[Scene]:
        """One scene per file. Raises ValueError when a folder does not look like the data set."""
        found: list[Scene] = []
        for root in existing(self.paths):
            found += [
                Scene(source=self.name, name=held.name, path=str(held.path), num_bytes=held.path.stat().st_size)
                for held in find_scenes(root, self.layout)
            ]
        return sorted(check_unique(found), key=lambda scene: natural_key(scene.name))

    def file(self, scene: Scene) -> SceneFile:
        """The file of a scene, and how to read it. Raises SceneError when it is gone."""
        return scene_file(Path(scene.path), up=self.up, z_up_by_default=self.z_up, scale_m=self.scale_m)

    def renderer_name(self) -> str:
        """What will draw, for the record. Raises ValueError when it is missing."""
        return renderer_name(self.backend_settings(Lens()))

    def backend_settings(self, lens: Lens) -> Backend:
        """The simulator that draws the scenes."""
        return Backend(
            kind=self.backend,
            lens=lens,
            cull_backs=self.cull_backs,
            supersample=self.supersample,
            gpus=self.gpus,
            habitat_python=self.habitat_python,
            open_sky=self.open_sky,
        )


@dataclass(frozen=True, kw_only=True)
class Meshes(SceneFiles):
    """MIMIC's walk; of every location at most one pair is kept."""

    name: ClassVar[str] = "mesh"
    reads: ClassVar[str] = "3D scenes (glb, gltf, obj, ply), or folders of them; one file = one scene"

    #: What the preset "paper" changes: the released code's walk.
    paper: ClassVar[Mapping[str, Any]] = {"walk": "paper", "attempts": 3000, "min_island_m": 6.0, "max_empty": 1.0}

    walk: Literal["default", "paper"] = "default"  #: paper = with the released code's defects (simulator/location.py)
    attempts: int = 100  #: random places tried in each scene; each gives 24 views and at most one pair
    min_island_m: float = 1.5  #: radius in metres of the floor that a place must be part of; the paper asks 6
    min_texture: float = 1000.0  #: Laplacian variance that a view must have (appendix C.1); 0 = any
    max_empty: float = 0.1  #: share of a view that may show nothing: holes in scans
    render_size: int = 256  #: pixels, height and width
    crop: int = 224  #: pixels of the centre that are kept
    hfov_deg: float = 90.0  #: field of view of the whole rendered picture (habitat-sim's default)

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.scale_m <= 0 or not 0 < self.hfov_deg < 180:
            raise ValueError("attempts must be 1 or more, scale_m above 0 and hfov_deg between 0 and 180")
        if not 0 <= self.max_empty <= 1:
            raise ValueError(f"max_empty is a share in [0, 1], got {self.max_empty}")
        if not 16 <= self.crop <= self.render_size or (self.render_size - self.crop) % 2:
            raise ValueError(f"crop must be 16 to render_size {self.render_size} and as even or odd, got {self.crop}")

    def policy(self, scene: Scene) -> Policy:
        """The views of ring a with those of rings b and c; of each location the smallest accepted overlap."""
        return Windows(heads=RING, tails=2 * RING)

    def views(self, scene: Scene) -> Iterator[View | Fault]:
        """24 views for each place that gives a location. Raises SceneError when none does."""
        walk = Walk(rule=self.walk, attempts=self.attempts, min_island_m=self.min_island_m)
        largest_m, given = 0.0, False
        with simulator(self.backend_settings(self.lens), self.file(scene)) as held:
            for number, found in enumerate(locations(held, scene.name, walk)):
                if isinstance(found, Refused):
                    largest_m = max(largest_m, found.radius_m)
                    yield Fault(found.reason, f"{scene.path}: attempt {number}")
                    continue
                given = True
                for seen in found:
                    yield self.view(f"{number:04d}-{seen.name}", seen)
        if not given:
            raise SceneError(
                f"{scene.path}: none of {self.attempts} places is on a floor of {self.min_island_m:g} m radius, the "
                f"largest found has {largest_m:.1f} m: lower min_island_m, or check up and scale_m"
            )

    def view(self, frame: str, seen: Seen) -> View:
        """The middle of a rendered picture, with its camera."""
        edge = (self.render_size - self.crop) // 2
        assert seen.picture.depth is not None
        image, depth = _middle(seen.picture.image, edge), _middle(seen.picture.depth, edge)
        focal = self.render_size / 2 / np.tan(np.radians(self.hfov_deg) / 2)
        middle = (self.crop - 1) / 2
        intrinsics = np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
        return View(
            image=image,
            frame=frame,
            camera=Camera(intrinsics=intrinsics, pose=seen.agent.camera @ FLIP),
            depth=depth,
            unusable=self._refuses(image, depth),
        )

    @property
    def lens(self) -> Lens:
        """What the simulator renders."""
        return Lens(size=(self.render_size, self.render_size), hfov_deg=self.hfov_deg, depth=True)

    def _refuses(self, image: Image, depth: NDArray[np.float32]) -> DropReason | None:
        """Why a view must not be in a pair."""
        if np.count_nonzero(depth) < (1 - self.max_empty) * depth.size:
            return DropReason.EMPTY_VIEW
        return DropReason.LOW_TEXTURE if laplacian_variance(image) < self.min_texture else None


@dataclass(frozen=True, kw_only=True)
class HM3D(Meshes):
    """Habitat-Matterport 3D; `.basis.glb` needs a decoder of Basis textures, the plain `.glb` beside it does not."""

    name: ClassVar[str] = "hm3d"
    reads: ClassVar[str] = "HM3D: 00000-<hash>/<hash>.basis.glb or <hash>.glb, with <hash>.basis.navmesh"
    layout: ClassVar[str] = "hm3d"
    z_up: ClassVar[bool] = True
    cull_backs: bool = True
    licence: str = "Matterport End User License Agreement for Academic Use (HM3D)"


@dataclass(frozen=True, kw_only=True)
class Gibson(Meshes):
    """Gibson, as released for habitat or in its original folders."""

    name: ClassVar[str] = "gibson"
    reads: ClassVar[str] = "Gibson: <Name>.glb with <Name>.navmesh, or <Name>/mesh_z_up.obj"
    layout: ClassVar[str] = "gibson"
    z_up: ClassVar[bool] = True
    cull_backs: bool = True
    licence: str = "Gibson Dataset Terms of Use (non-commercial)"


@dataclass(frozen=True, kw_only=True)
class Matterport(Meshes):
    """Matterport3D, as released for habitat. The released code of MIMIC tries 500 places of a scene."""

    name: ClassVar[str] = "matterport"
    reads: ClassVar[str] = "Matterport3D: <house>/<house>.glb with <house>.navmesh"
    layout: ClassVar[str] = "matterport"
    z_up: ClassVar[bool] = True
    paper: ClassVar[Mapping[str, Any]] = {**Meshes.paper, "attempts": 500}
    cull_backs: bool = True
    licence: str = "Matterport3D Terms of Use (academic, non-commercial)"


@dataclass(frozen=True, kw_only=True)
class Replica(Meshes):
    """Replica; its meshes have vertex colours of high dynamic range, or textures of their own format as a .glb."""

    name: ClassVar[str] = "replica"
    reads: ClassVar[str] = "Replica: <room>/mesh.ply, or <room>.glb"
    layout: ClassVar[str] = "replica"
    z_up: ClassVar[bool] = True
    cull_backs: bool = True
    licence: str = "Replica Dataset Research Terms (Meta Platforms, Inc.)"


def _middle(pixels: NDArray[Any], edge: int) -> NDArray[Any]:
    return np.ascontiguousarray(pixels[edge : len(pixels) - edge, edge : pixels.shape[1] - edge])
