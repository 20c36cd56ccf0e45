"""A recipe: what to build. A TOML file, or the command line's paths and options turned into the same thing.

::

    name = "my-videos"            # default: the name of the output folder
    out = "shards/my-videos"      # or --out; relative to this file, like all paths here
    preset = "default"            # or "paper"

    [criteria]                    # anything in mimic_wds/curation/criteria.py
    min_overlap = 0.5

    [[sources]]
    source = "video"              # `mimic-shard sources` lists them and their options
    paths = ["clips"]
    every_s = 0.5
    licence = "CC0"
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimic_wds.curation.criteria import Criteria, preset
from mimic_wds.settings import check_names, from_mapping, read_toml
from mimic_wds.sources.base import Source
from mimic_wds.sources.registry import make_source, path_options

DEFAULT_SHARD_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class RecipeFile:
    """The tables of a recipe file as written."""

    name: str = ""
    out: str = ""
    preset: str = "default"
    max_shard_bytes: int = DEFAULT_SHARD_BYTES
    criteria: dict[str, Any] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to build, checked."""

    name: str  #: of the data set, and so of its shards
    out: Path  #: output folder
    preset: str
    criteria: Criteria
    sources: tuple[Source, ...]
    max_shard_bytes: int = DEFAULT_SHARD_BYTES

    def as_plain(self) -> dict[str, Any]:
        """Plain values of everything that decides the bytes of the data set, for comparing two recipes."""
        return {
            "name": self.name,
            "max_shard_bytes": self.max_shard_bytes,
            "criteria": dataclasses.asdict(self.criteria),
            "sources": [{"source": s.name, **dataclasses.asdict(s)} for s in self.sources],  # type: ignore[call-overload]
        }


def read_recipe(path: Path, out: Path | None = None) -> Recipe:
    """Read a recipe file; `out` replaces the output folder it names. Raises ValueError naming file and key."""
    tables = from_mapping(RecipeFile, read_toml(path), str(path))
    if not tables.sources:
        raise ValueError(f"{path}: no [[sources]] table; a recipe lists at least one source with its paths")
    sources = [_at(table, path) for table in tables.sources]
    if out is None and not tables.out:
        raise ValueError(f'{path}: names no output folder; add out = "..." or give --out')
    return make_recipe(
        name=tables.name,
        out=out or path.parent / tables.out,
        preset_name=tables.preset,
        criteria=tables.criteria,
        sources=sources,
        max_shard_bytes=tables.max_shard_bytes,
        where=str(path),
    )


def make_recipe(
    *,
    name: str,
    out: Path,
    preset_name: str,
    criteria: Mapping[str, Any],
    sources: list[dict[str, Any]],
    where: str,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> Recipe:
    """A recipe from plain values; `where` names their origin in messages. Raises ValueError for anything unknown."""
    if max_shard_bytes <= 0:
        raise ValueError(f"{where}: max_shard_bytes must be above 0, got {max_shard_bytes}")
    check_names(Criteria, criteria, f"{where}: [criteria]")
    merged = {**dataclasses.asdict(preset(preset_name)), **criteria}
    return Recipe(
        name=name or out.resolve().name.lower(),
        out=out,
        preset=preset_name,
        criteria=from_mapping(Criteria, merged, f"{where}: [criteria]"),
        sources=tuple(_make_source(table, where) for table in sources),
        max_shard_bytes=max_shard_bytes,
    )


def _make_source(table: Mapping[str, Any], where: str) -> Source:
    options = dict(table)
    name = options.pop("source", None)
    if name is None:
        raise ValueError(f'{where}: a [[sources]] table has no source = "..." line')
    return make_source(name, options, where)


def _at(table: dict[str, Any], recipe: Path) -> dict[str, Any]:
    """The source table with its paths, and options that are paths, taken relative to the recipe's folder."""
    paths = table.get("paths")
    if not isinstance(paths, list) or not all(isinstance(p, str) for p in paths):
        raise ValueError(f'{recipe}: a [[sources]] table needs paths = ["...", ...]')
    options = {name: str(recipe.parent / table[name]) for name in path_options(table.get("source")) if table.get(name)}
    return {**table, **options, "paths": [str(recipe.parent / p) for p in paths]}
