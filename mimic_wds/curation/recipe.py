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
    optional = true               # build without it where its paths are missing
    expected_pairs = 100          # what `mimic-shard plan` shows beside what is there
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimic_wds.curation.criteria import Criteria, preset
from mimic_wds.settings import check_names, from_mapping, read_toml
from mimic_wds.sources.base import Source
from mimic_wds.sources.registry import make_source, paper_options, path_options

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
class Entry:
    """One [[sources]] table, checked. Its paths need not exist."""

    source: str  #: name in the registry
    paths: tuple[str, ...]
    options: Mapping[str, Any]  #: of the source, without its paths
    where: str  #: the recipe, for messages
    optional: bool = False  #: build without it where it is missing
    expected_pairs: int = 0  #: for comparison only; 0 = not known

    @property
    def missing(self) -> tuple[str, ...]:
        """The paths that do not exist."""
        return tuple(path for path in self.paths if not Path(path).exists())

    def make(self, paths: Iterable[str]) -> Source:
        """The source with these paths. Raises ValueError for a wrong option."""
        return make_source(self.source, {**self.options, "paths": list(paths)}, self.where)


@dataclass(frozen=True, slots=True)
class Skipped:
    """An optional source of a recipe that is not there, or some of its paths."""

    source: str
    paths: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.source}: {', '.join(self.paths)}: not there"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to build, checked."""

    name: str  #: of the data set, and so of its shards
    out: Path  #: output folder
    preset: str
    criteria: Criteria
    sources: tuple[Source, ...]
    skipped: tuple[Skipped, ...] = ()  #: optional sources that are not there
    max_shard_bytes: int = DEFAULT_SHARD_BYTES

    def as_plain(self) -> dict[str, Any]:
        """Plain values of everything that decides the bytes of the data set, for comparing two recipes."""
        return {
            "name": self.name,
            "max_shard_bytes": self.max_shard_bytes,
            "criteria": dataclasses.asdict(self.criteria),
            "sources": [{"source": s.name, **dataclasses.asdict(s)} for s in self.sources],  # type: ignore[call-overload]
            "skipped": [{"source": s.source, "paths": list(s.paths)} for s in self.skipped],
        }


def read_tables(path: Path) -> RecipeFile:
    """The tables of a recipe file, its sources' paths relative to it. Raises ValueError naming file and key."""
    tables = from_mapping(RecipeFile, read_toml(path), str(path))
    if not tables.sources:
        raise ValueError(f"{path}: no [[sources]] table; a recipe lists at least one source with its paths")
    return dataclasses.replace(tables, sources=[_at(table, path) for table in tables.sources])


def read_recipe(path: Path, out: Path | None = None) -> Recipe:
    """Read a recipe file; `out` replaces the output folder it names. Raises ValueError naming file and key."""
    tables = read_tables(path)
    if out is None and not tables.out:
        raise ValueError(f'{path}: names no output folder; add out = "..." or give --out')
    return make_recipe(
        name=tables.name,
        out=out or path.parent / tables.out,
        preset_name=tables.preset,
        criteria=tables.criteria,
        sources=tables.sources,
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
    """A recipe from plain values; `where` names their origin in messages.

    Optional sources that are missing are left out and noted. Raises ValueError for anything unknown, and when nothing
    is left.
    """
    if max_shard_bytes <= 0:
        raise ValueError(f"{where}: max_shard_bytes must be above 0, got {max_shard_bytes}")
    made_criteria = make_criteria(preset_name, criteria, where)
    found, skipped = _found([make_entry(table, where, preset_name) for table in sources])
    if not found:
        names = ", ".join(dict.fromkeys(s.source for s in skipped))
        raise ValueError(
            f"{where}: none of its optional sources can be built ({names}); `mimic-shard plan` says what is missing "
            "and where to get it"
        )
    return Recipe(
        name=name or out.resolve().name.lower(),
        out=out,
        preset=preset_name,
        criteria=made_criteria,
        sources=tuple(found),
        skipped=tuple(skipped),
        max_shard_bytes=max_shard_bytes,
    )


def make_criteria(preset_name: str, changes: Mapping[str, Any], where: str) -> Criteria:
    """The criteria of a preset with changes. Raises ValueError for anything unknown."""
    check_names(Criteria, changes, f"{where}: [criteria]")
    merged = {**dataclasses.asdict(preset(preset_name)), **changes}
    return from_mapping(Criteria, merged, f"{where}: [criteria]")


def make_entry(table: Mapping[str, Any], where: str, preset_name: str = "default") -> Entry:
    """One [[sources]] table, checked; the preset "paper" sets what it leaves open as the released code does.

    Raises ValueError for anything unknown.
    """
    options = dict(table)
    name = options.pop("source", None)
    if name is None:
        raise ValueError(f'{where}: a [[sources]] table has no source = "..." line')
    place = f"{where}: source {name!r}"
    ours = {key: options.pop(key) for key in ("optional", "expected_pairs") if key in options}
    paths = tuple(options.pop("paths", ()))
    if preset_name == "paper":
        options = {**paper_options(name), **options}
    known: dict[str, Any] = {"source": name, "paths": paths, "options": options, "where": where}
    entry = from_mapping(Entry, known | ours, place)
    if entry.expected_pairs < 0:
        raise ValueError(f"{place}: expected_pairs must be 0 (not known) or more, got {entry.expected_pairs}")
    entry.make(paths)
    return entry


def _found(entries: list[Entry]) -> tuple[list[Source], list[Skipped]]:
    """The sources to build, and what is left out of the optional ones."""
    found: list[Source] = []
    skipped: list[Skipped] = []
    for entry in entries:
        if not entry.optional:
            found.append(entry.make(entry.paths))  # a missing path is an error when its scenes are listed
            continue
        missing = entry.missing
        if missing:
            skipped.append(Skipped(entry.source, missing))
        if here := [path for path in entry.paths if path not in missing]:
            found.append(entry.make(here))
    return found, skipped


def _at(table: dict[str, Any], recipe: Path) -> dict[str, Any]:
    """The source table with its paths, and options that are paths, taken relative to the recipe's folder."""
    paths = table.get("paths")
    if not isinstance(paths, list) or not all(isinstance(p, str) for p in paths):
        raise ValueError(f'{recipe}: a [[sources]] table needs paths = ["...", ...]')
    options = {name: str(recipe.parent / table[name]) for name in path_options(table.get("source")) if table.get(name)}
    return {**table, **options, "paths": [str(recipe.parent / p) for p in paths]}
