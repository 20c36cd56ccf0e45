"""Pairs as CroCo's Multiview-Habitat generator draws them (arXiv 2210.10716): two views of the same things in 3D."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from mimic_wds.geometry.covisibility import shares
from mimic_wds.pairs import Camera, Fault, Policy, Scene, SceneError, View, Windows
from mimic_wds.sources.scenes import FLIP, SceneFiles
from mimic_wds.sources.simulator.backends import simulator
from mimic_wds.sources.simulator.multiview import Intrinsics, MultiviewSettings, PosedView, sample_pair


@dataclass(frozen=True, kw_only=True)
class Multiview(SceneFiles):
    """Every pair has a co-visibility of at least `min_covisibility`; the recipe's criteria say which are kept.

    With `estimator = "truth"`, `min_overlap = 0` and `max_overlap = 1` all but those without any overlap are kept, as
    CroCo does; `store_truth = true` stores their co-visibility.
    """

    name: ClassVar[str] = "multiview"
    reads: ClassVar[str] = (
        "3D scenes (glb, gltf, obj, ply), or folders of them, for CroCo's Multiview-Habitat generator"
    )

    num_pairs: int = 1000  #: of each scene
    min_covisibility: float = 0.5  #: share of the pixels that see what the other view sees too, within 5 cm
    min_valid: float = 0.7  #: share of a view's pixels that must show a surface
    render_size: int = 256  #: pixels, height and width
    hfov_deg: float = 60.0  #: horizontal field of view

    def __post_init__(self) -> None:
        if self.num_pairs < 1:
            raise ValueError(f"num_pairs must be 1 or more, got {self.num_pairs}")
        _ = self._settings

    def policy(self, scene: Scene) -> Policy:
        """The two views of each pair."""
        return Windows(heads=1, tails=1)

    def views(self, scene: Scene) -> Iterator[View | Fault]:
        """The views of one pair after the other. Raises SceneError when no pair is found."""
        given = False
        with simulator(self.backend_settings(self._settings.lens), self.file(scene)) as held:
            for number in range(self.num_pairs):
                pair = sample_pair(held, shares, scene.name, number, self._settings)
                if pair is None:
                    yield Fault("no_second_view", f"{scene.path}: pair {number}")
                    continue
                given = True
                for which, view in enumerate((pair.view0, pair.view1)):
                    yield _view(f"{number:08d}-{which}", view, pair.intrinsics)
        if not given:
            raise SceneError(
                f"{scene.path}: none of {self.num_pairs} tries gave two views of the same things: check up and scale_m"
            )

    @property
    def _settings(self) -> MultiviewSettings:
        return MultiviewSettings(
            size=(self.render_size, self.render_size),
            hfov_deg=self.hfov_deg,
            min_covisibility=self.min_covisibility,
            min_valid=self.min_valid,
        )


def _view(frame: str, seen: PosedView, intrinsics: Intrinsics) -> View:
    camera = Camera(intrinsics=intrinsics, pose=seen.pose @ FLIP)
    return View(image=seen.picture.image, frame=frame, camera=camera, depth=seen.picture.depth)
