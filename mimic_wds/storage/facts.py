"""What is asked of a sample's KEY.json when it is chosen, not decoded: a few fields, or any that a condition names."""

from typing import cast

import msgspec

from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.sample import FIELDS, IMAGE_FIELDS, IMAGE_TRUTH_FIELDS, TRUTH_FIELDS, Fields


class Facts(msgspec.Struct):
    """Of a pair; other fields are left out."""

    source: str
    scene: str
    overlap: float


class ImageFacts(Facts):
    """Of an image, which has no overlap."""

    overlap: float = -1.0


def fields_of(manifest: Manifest) -> Fields:
    """The fields of the KEY.json of a data set's samples."""
    if manifest.kind == "images":
        return {**IMAGE_FIELDS, **(IMAGE_TRUTH_FIELDS if manifest.truth else {})}
    return {**FIELDS, **(TRUTH_FIELDS if manifest.truth else {})}


def facts_type(manifest: Manifest, everything: bool = False) -> type[Facts]:
    """What to decode a KEY.json of this data set to: the few fields, or everything that it has."""
    base = ImageFacts if manifest.kind == "images" else Facts
    if not everything:
        return base
    fields: list[tuple[str, type]] = []
    for name, kind in fields_of(manifest).items():
        if name not in base.__struct_fields__:
            fields.append((name, cast(type, tuple.__class_getitem__(kind)) if isinstance(kind, tuple) else kind))
    return cast(type[Facts], msgspec.defstruct("AllFacts", fields, bases=(base,), kw_only=True))
