"""CroCo's habitat metadata: where the views of its release were taken; they are rendered again in the user's scenes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2

from mimic_wds.importing.base import Plan, RawPair, Settings, Unit, existing
from mimic_wds.importing.walk import walk
from mimic_wds.pairs import Image, Kind, Scene, SceneError
from mimic_wds.sources.simulator.backends import Backend, check_installed, simulator
from mimic_wds.sources.simulator.backends import Kind as BackendKind
from mimic_wds.sources.simulator.base import Lens
from mimic_wds.sources.simulator.multiview_metadata import local_path, read_metadata, render_metadata, scene_file

FILE_NAME = "metadata.json"

#: Of the views, as of those that a build makes.
JPEG_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class HabitatMetadata:
    """One metadata.json is one unit; each of its labels gives the pairs of its first view with the others."""

    name: ClassVar[str] = "habitat-metadata"
    reads: ClassVar[str] = "metadata.json files of CroCo's Multiview-Habitat, or folders of them, and the scenes"
    kind: ClassVar[Kind] = "pairs"
    default_size: ClassVar[int] = 256

    paths: tuple[str, ...]
    roots: str = ""  #: where the data sets of the scenes are: "hm3d=/data/hm3d,gibson=/data/gibson"
    source: str = "habitat"  #: name that the pairs are counted under
    backend: BackendKind = "auto"  #: what renders; habitat = habitat-sim, as CroCo did
    habitat_python: str = ""  #: the Python that habitat-sim is installed for; "" = this one
    licence: str = ""  #: goes into the manifest

    def __post_init__(self) -> None:
        _ = self._roots

    def plan(self, settings: Settings) -> Plan:
        """All metadata files. Raises ValueError for one that is malformed or whose scene's data set has no root."""
        check_installed(self.backend)
        units, missing = [], 0
        for path in self._files():
            metadata = read_metadata(path)
            if metadata.resolution != (settings.size, settings.size):
                raise ValueError(f"{path}: its views have {metadata.resolution} pixels: give their size with --size")
            missing += not Path(local_path(metadata.scene, f"{path}: scene", self._roots)).exists()
            num_pairs = len(metadata.multiviews) * (metadata.views_count - 1)
            units.append(
                Unit(scene=Scene(source=self.source, name=metadata.scene, path=str(path)), num_pairs=num_pairs)
            )
        return Plan(units=units, notes=[f"{len(units)} scenes, {missing} of which are not there"])

    def pairs(self, unit: Unit, settings: Settings) -> Iterator[RawPair]:
        """Render the views of a scene. Raises SceneError when it is not there."""
        metadata = read_metadata(Path(unit.scene.path))
        scene = scene_file(metadata, self._roots)
        if not Path(scene.path).exists():
            raise SceneError(f"{scene.path}: no such scene")
        lens = Lens(size=metadata.resolution, hfov_deg=metadata.hfov)
        backend = Backend(kind=self.backend, lens=lens, habitat_python=self.habitat_python)
        with simulator(backend, scene) as held:
            for label, pictures in render_metadata(held, metadata):
                jpegs = [_jpeg(picture.image) for picture in pictures]
                for number in range(1, len(jpegs)):
                    yield RawPair(
                        source=self.source,
                        scene=unit.scene.name,
                        frame0=f"{label}-0",
                        frame1=f"{label}-{number}",
                        image0_jpg=jpegs[0],
                        image1_jpg=jpegs[number],
                    )

    def _files(self) -> list[Path]:
        found: list[Path] = []
        for root in existing(self.paths):
            if root.is_file():
                found.append(root)
                continue
            here = [root / folder / FILE_NAME for folder, files in walk(root) if FILE_NAME in files]
            if not here:
                raise ValueError(f"{root}: no {FILE_NAME} here or below")
            found += here
        return found

    @property
    def _roots(self) -> dict[str, str]:
        pairs = [text.partition("=") for text in self.roots.split(",") if text]
        wrong = [label for label, equals, folder in pairs if not (label and equals and folder)]
        if wrong:
            raise ValueError(f"{self.name}: roots must be LABEL=FOLDER,LABEL=FOLDER, got {self.roots!r}")
        return {label: folder for label, _, folder in pairs}


def _jpeg(image: Image) -> bytes:
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()
