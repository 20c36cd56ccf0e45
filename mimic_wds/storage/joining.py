"""What several data sets have in common, and whether their samples may be in one."""

from collections.abc import Mapping, Sequence
from typing import Any

from mimic_wds.storage.catalog import DataSet
from mimic_wds.storage.manifest import Manifest, Plain

#: Fields of a manifest in which data sets must agree: their samples have other members, fields or meanings otherwise.
_MUST_AGREE = {
    "kind": "one holds pairs, the other single images",
    "maps": "their samples have other members",
    "truth": "the samples of one say where their cameras were",
    "classes": "labels number other classes; import both together instead",
    "semseg_classes": "pixels number other classes",
}

#: Criteria that say how correspondences follow from a sample's homography, and of what size views are.
_MEANINGS = ("size", "patch_size", "points_per_patch", "fold_horizon")

#: Of criteria that differ: the wider bounds hold for all samples.
_WIDEST = {"min_overlap": min, "max_overlap": max}


def joined(data_sets: list[DataSet], allow_different_criteria: bool = False) -> dict[str, Any]:
    """The fields of the manifest of a data set of all these samples that are no counts.

    With `allow_different_criteria` the criteria that differ are left out, but for bounds of the overlap, which become
    the widest, and the preset, which becomes "mixed", or "import" if one of them is: nothing may be promised then that
    does not hold for all. Raises ValueError that names what differs.
    """
    first = data_sets[0]
    for other in data_sets[1:]:
        _check_kind(first, other)
    return {
        "criteria": _criteria(data_sets, allow_different_criteria),
        "versions": joined_texts([d.manifest.versions for d in data_sets], ", "),
        "licences": joined_texts([d.manifest.licences for d in data_sets], "; "),
        **{name: getattr(first.manifest, name) for name in _MUST_AGREE},
    }


def _check_kind(a: DataSet, b: DataSet) -> None:
    """Raise ValueError when samples of both cannot be in one data set."""
    for name, why in _MUST_AGREE.items():
        values = [getattr(data_set.manifest, name) for data_set in (a, b)]
        if values[0] != values[1]:
            shown = [str(value)[:60] for value in values]
            raise ValueError(f"{a.folder} and {b.folder} cannot be joined: {name} is {shown[0]} and {shown[1]} ({why})")


def _criteria(data_sets: list[DataSet], allow: bool) -> dict[str, Plain]:
    """The criteria that hold for all samples. Raises ValueError when some differ that must not."""
    all_of = [data_set.manifest.criteria for data_set in data_sets]
    names = list(dict.fromkeys(name for criteria in all_of for name in criteria))
    differ = [name for name in names if any(criteria.get(name) != all_of[0].get(name) for criteria in all_of)]
    if not differ:
        return dict(all_of[0])
    never = [name for name in differ if name in _MEANINGS and len({c[name] for c in all_of if name in c}) > 1]
    if never or not allow:
        lines = [_row(name, data_sets) for name in never or differ]
        advice = (
            "so their samples cannot be in one data set"
            if never
            else "--allow-different-criteria joins them all the same, and keeps only what holds for all"
        )
        raise ValueError("the data sets were made with different criteria:\n" + "\n".join(lines) + f"\n{advice}")
    common: dict[str, Plain] = {}
    for name in names:
        values = [criteria[name] for criteria in all_of if name in criteria]
        if name not in differ or name in _MEANINGS:
            common[name] = values[0]
        elif name in _WIDEST and len(values) == len(all_of):
            common[name] = _WIDEST[name](values)
        elif name == "estimator" and "truth" in values:
            common[name] = "truth"  # whose samples have no homography
    return {**common, "preset": _preset(all_of)}


def _preset(all_of: list[dict[str, Plain]]) -> str:
    """The name of what criteria that differ have started from."""
    presets = {str(criteria.get("preset", "")) for criteria in all_of}
    if "import" in presets:
        return "import"
    return presets.pop() if len(presets) == 1 else "mixed"


def _row(name: str, data_sets: list[DataSet]) -> str:
    """A line that says which value of a criterion each data set has."""
    values = (f"{d.manifest.criteria.get(name, 'not given')} in {d.folder}" for d in data_sets)
    return f"    {name}: {', '.join(values)}"


def joined_texts(tables: Sequence[Mapping[str, str]], separator: str) -> dict[str, str]:
    """Tables of texts as one; different texts for the same name are all kept, each once."""
    parts: dict[str, dict[str, None]] = {name: {} for name in sorted({name for table in tables for name in table})}
    for table in tables:
        for name, text in table.items():
            parts[name].update(dict.fromkeys(filter(None, text.split(separator))))
    return {name: separator.join(texts) for name, texts in parts.items()}


def origin(manifest: Manifest, digest: str) -> dict[str, str]:
    """How a report names a data set that samples came from: by what it holds, not where it lies."""
    return {"name": manifest.name, "id": manifest.id, "manifest": digest}
