"""The table of sources: to add one, write its module, name its class here and the origin of its data in `ORIGINS`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mimic_wds.settings import from_mapping, nearest
from mimic_wds.sources.arkitscenes import ARKitScenes
from mimic_wds.sources.base import Source
from mimic_wds.sources.co3d import Co3d
from mimic_wds.sources.demon import Demon
from mimic_wds.sources.images import Images
from mimic_wds.sources.mannequin import Mannequin, RealEstate10K
from mimic_wds.sources.multiview import Multiview
from mimic_wds.sources.objectron import Objectron
from mimic_wds.sources.scannet import ScanNet
from mimic_wds.sources.scenes import HM3D, Gibson, Matterport, Meshes, Replica
from mimic_wds.sources.streetview import StreetView
from mimic_wds.sources.video import Video

SOURCES: dict[str, type[Source]] = {
    source.name: source
    for source in (
        Video,
        Images,
        ScanNet,
        ARKitScenes,
        Objectron,
        Co3d,
        Mannequin,
        RealEstate10K,
        StreetView,
        Demon,
        Meshes,
        Multiview,
        HM3D,
        Gibson,
        Matterport,
        Replica,
    )
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the data of a source come from."""

    url: str
    terms: str  #: what one has to do or to agree to


#: By the data sets' own pages. Sources that read anybody's files have no origin.
ORIGINS: dict[str, Origin] = {
    "scannet": Origin("https://github.com/ScanNet/ScanNet", "sign the terms of use and mail them; links come by mail"),
    "arkitscenes": Origin("https://github.com/apple/ARKitScenes", "non-commercial licence; its download_data.py, raw"),
    "objectron": Origin("https://github.com/google-research-datasets/Objectron", "C-UDA 1.0; a public bucket"),
    "co3d": Origin("https://github.com/facebookresearch/co3d", "CC BY-NC 4.0; its download_dataset.py"),
    "mannequin": Origin(
        "https://google.github.io/mannequinchallenge/www/download.html", "lists CC BY 4.0; the videos are on YouTube"
    ),
    "realestate10k": Origin(
        "https://google.github.io/realestate10k/download.html", "lists CC BY 4.0; the videos are on YouTube"
    ),
    "streetview": Origin(
        "https://github.com/amir32002/3D_Street_View", "by downloading one consents to non-commercial use"
    ),
    "demon": Origin("https://github.com/lmb-freiburg/demon", "research only; its datasets/download_traindata.sh"),
    "hm3d": Origin("https://aihabitat.org/datasets/hm3d", "request access from Matterport; academic use"),
    "gibson": Origin("http://gibsonenv.stanford.edu/database", "sign the terms of use in a form"),
    "replica": Origin("https://github.com/facebookresearch/Replica-Dataset", "research use; its download.sh"),
    "matterport": Origin("https://niessner.github.io/Matterport", "sign the terms of use and mail them"),
}


def make_source(name: str, options: Mapping[str, Any], where: str) -> Source:
    """The source called `name`. Raises ValueError for an unknown name or option, naming the nearest."""
    if name not in SOURCES:
        raise ValueError(f"{where}: unknown source {name!r}{nearest(name, list(SOURCES))}")
    return from_mapping(SOURCES[name], options, f"{where}: source {name!r}")


def paper_options(name: object) -> Mapping[str, Any]:
    """Options of a source that the preset "paper" sets as the released code of MIMIC does."""
    return getattr(SOURCES.get(str(name)), "paper", {})


def path_options(name: object) -> list[str]:
    """The options of a source that name a file: those whose field says so (`metadata={"is_path": True}`)."""
    if name not in SOURCES:
        return []
    fields = dataclasses.fields(SOURCES[str(name)])  # type: ignore[arg-type]
    return [field.name for field in fields if field.metadata.get("is_path")]
