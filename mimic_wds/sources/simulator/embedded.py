"""The default simulator: a scene file, a renderer of ours and a map of its floor; needs nothing but `pip install`."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from mimic_wds.sources.simulator.base import Body, Lens, Picture, Point, Pose, SceneFile
from mimic_wds.sources.simulator.navigation.base import Floor, make_floor
from mimic_wds.sources.simulator.raster import Camera
from mimic_wds.sources.simulator.renderers import Renderer, make_renderer
from mimic_wds.sources.simulator.scene_files import load_mesh


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """The current scene."""

    file: SceneFile
    renderer: Renderer
    floor: Floor


class EmbeddedSimulator:
    """Implements `Simulator`."""

    def __init__(
        self,
        lens: Lens,
        *,
        renderer: Literal["auto", "opengl", "numba"] = "auto",
        device: int | None = None,
        supersample: bool = False,
        cull_backs: bool = False,
        body: Body | None = None,
        open_sky: bool = False,
    ):
        """`device` is the number of the GPU that draws; None = the first there is, or the CPU."""
        self._lens = lens
        self._renderer = partial(
            make_renderer, backend=renderer, device=device, supersample=supersample, cull_backs=cull_backs
        )
        self._body = body or Body()
        self._open_sky = open_sky
        self._scene: _Loaded | None = None

    def load(self, scene: SceneFile) -> None:
        """See `Simulator`."""
        if self._scene is not None and self._scene.file == scene:
            return
        self.close()
        mesh = load_mesh(scene)
        floor = make_floor(mesh, scene, self._body, open_sky=self._open_sky)
        self._scene = _Loaded(scene, self._renderer(mesh), floor)

    def random_point(self, seed: int) -> Point | None:
        """See `Simulator`."""
        return self._loaded.floor.random_point(np.random.default_rng(seed))

    def island_radius(self, point: Point) -> float:
        """See `Simulator`."""
        return self._loaded.floor.island_radius(point)

    def snap(self, point: Point) -> Point | None:
        """See `Simulator`."""
        return self._loaded.floor.snap(point)

    def step(self, start: Point, end: Point) -> Point:
        """See `Simulator`."""
        return self._loaded.floor.step(start, end)

    def render(self, pose: Pose) -> Picture:
        """See `Simulator`."""
        lens = self._lens
        image, depth = self._loaded.renderer.render(Camera(pose, lens.hfov_deg, lens.size))
        return Picture(image=image, depth=depth if lens.depth else None)

    def close(self) -> None:
        """See `Simulator`."""
        if self._scene is not None:
            self._scene.renderer.close()
            self._scene = None

    @property
    def _loaded(self) -> _Loaded:
        assert self._scene is not None, "load a scene first"
        return self._scene
