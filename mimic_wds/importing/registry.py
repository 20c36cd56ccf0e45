"""The formats that can be imported, by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from mimic_wds.importing.base import Format
from mimic_wds.importing.croco import CrocoPairs
from mimic_wds.importing.crops import CrocoCrops
from mimic_wds.importing.foreign import WebDatasetPairs
from mimic_wds.importing.image_folder import ImageFolder
from mimic_wds.importing.mimic3m import Mimic3M
from mimic_wds.settings import from_mapping, nearest

FORMATS: dict[str, type[Any]] = {
    kind.name: kind for kind in (Mimic3M, CrocoPairs, CrocoCrops, WebDatasetPairs, ImageFolder)
}

#: Formats that are known and cannot be read: what to say.
NOT_YET = {
    "habitat-metadata": "CroCo's habitat metadata lists camera poses, not pictures: rendering them needs the 3D scenes "
    "and a source that renders them, which this version does not have",
}


def make_format(name: str, paths: Sequence[str], options: Mapping[str, Any]) -> Format:
    """The format `name` with its options. Raises ValueError naming what is unknown, or of the wrong type."""
    if name in NOT_YET:
        raise ValueError(f"{name}: {NOT_YET[name]}")
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}{nearest(name, [*FORMATS, *NOT_YET])}")
    if "paths" in options:
        raise ValueError(f"{name}: paths are given without --option")
    format: Format = from_mapping(FORMATS[name], {"paths": tuple(paths), **options}, f"format {name}")
    return format
