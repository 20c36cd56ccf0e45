"""The formats that can be imported, by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from mimic_wds.importing.base import Format
from mimic_wds.importing.croco import CrocoPairs
from mimic_wds.importing.crops import CrocoCrops
from mimic_wds.importing.foreign import WebDatasetPairs
from mimic_wds.importing.habitat_metadata import HabitatMetadata
from mimic_wds.importing.image_folder import ImageFolder
from mimic_wds.importing.mimic3m import Mimic3M
from mimic_wds.settings import from_mapping, nearest

FORMATS: dict[str, type[Any]] = {
    kind.name: kind for kind in (Mimic3M, CrocoPairs, CrocoCrops, WebDatasetPairs, ImageFolder, HabitatMetadata)
}


def make_format(name: str, paths: Sequence[str], options: Mapping[str, Any]) -> Format:
    """The format `name` with its options. Raises ValueError naming what is unknown, or of the wrong type."""
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}{nearest(name, list(FORMATS))}")
    if "paths" in options:
        raise ValueError(f"{name}: paths are given without --option")
    format: Format = from_mapping(FORMATS[name], {"paths": tuple(paths), **options}, f"format {name}")
    return format
