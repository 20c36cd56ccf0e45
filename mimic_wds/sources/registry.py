"""The table of sources: to add one, write its module and name its class here."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mimic_wds.settings import from_mapping, nearest
from mimic_wds.sources.arkitscenes import ARKitScenes
from mimic_wds.sources.base import Source
from mimic_wds.sources.co3d import Co3d
from mimic_wds.sources.demon import Demon
from mimic_wds.sources.images import Images
from mimic_wds.sources.mannequin import Mannequin, RealEstate10K
from mimic_wds.sources.objectron import Objectron
from mimic_wds.sources.scannet import ScanNet
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
    )
}


def make_source(name: str, options: Mapping[str, Any], where: str) -> Source:
    """The source called `name`. Raises ValueError for an unknown name or option, naming the nearest."""
    if name not in SOURCES:
        raise ValueError(f"{where}: unknown source {name!r}{nearest(name, list(SOURCES))}")
    return from_mapping(SOURCES[name], options, f"{where}: source {name!r}")


def path_options(name: object) -> list[str]:
    """The options of a source that name a file: those whose field says so (`metadata={"is_path": True}`)."""
    if name not in SOURCES:
        return []
    fields = dataclasses.fields(SOURCES[str(name)])  # type: ignore[arg-type]
    return [field.name for field in fields if field.metadata.get("is_path")]
