"""What the viewer asks of a data set, as pure functions: which samples pass the filters, and which are on a page.

Samples are numbered through the shards, from 0. The manifest knows which shards hold a source, `scenes.jsonl` in which
order the scenes were packed; together they give spans of numbers without reading a single sample.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mimic_wds.storage.expression import Expression, all_of, parse
from mimic_wds.storage.facts import fields_of
from mimic_wds.storage.manifest import Manifest

#: (n, 2) first sample and the one after the last, ascending, apart from each other.
Spans: TypeAlias = NDArray[np.int64]

#: Samples on a page at most.
MOST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which samples are wanted; "" and None ask for nothing."""

    source: str = ""
    scene: str = ""  #: a name, with * for any characters and ? for one
    shard: str = ""  #: its name
    least: float | None = None  #: overlap
    most: float | None = None
    where: str = ""  #: a condition as `ls --where` takes it


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """The scenes of a data set that have samples, S of them, in the order of their samples."""

    source: list[str]
    scene: list[str]
    start: NDArray[np.int64]  #: (S,) number of its first sample
    count: NDArray[np.int64]  #: (S,) of its samples


def read_query(fields: Mapping[str, str]) -> Query:
    """The query in the fields of an address. Raises ValueError for an overlap that is none."""
    texts = {name: fields.get(name, "").strip() for name in ("source", "scene", "shard", "where")}
    return Query(**texts, least=_overlap(fields, "least"), most=_overlap(fields, "most"))


def whole_number(fields: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """A number in the fields of an address. Raises ValueError when it is none, or not in `least` to `most`."""
    text = fields.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise ValueError(f"{name}: expected a whole number from {least} to {most}, got {text!r}")
    return int(text)


def _overlap(fields: Mapping[str, str], name: str) -> float | None:
    text = fields.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError(f"overlap: expected numbers from 0 to 1, got {text!r}")
    return value


def check_query(query: Query, manifest: Manifest) -> None:
    """Raise ValueError for a source or shard that the data set has not, or a condition that means nothing."""
    if query.source and not any(query.source in shard.sources for shard in manifest.shards):
        known = sorted({source for shard in manifest.shards for source in shard.sources})
        raise ValueError(f"nothing is of the source {query.source!r}; there are {', '.join(known)}")
    if query.shard and all(query.shard != shard.name for shard in manifest.shards):
        raise ValueError(f"the data set has no shard {query.shard!r}; it has {len(manifest.shards)}")
    condition(query, manifest)


def condition(query: Query, manifest: Manifest) -> Expression | None:
    """What must be read of every sample to know whether it passes; None if nothing. Raises ValueError."""
    parts = [query.where] if query.where else []
    parts += [f"overlap >= {query.least!r}"] if query.least is not None else []
    parts += [f"overlap <= {query.most!r}"] if query.most is not None else []
    fields = fields_of(manifest)
    return all_of([parse(part, fields, "condition") for part in parts]) if parts else None


def spans_of(query: Query, manifest: Manifest, scenes: Scenes | None) -> tuple[Spans, bool]:
    """Where samples that pass the filters by shard, source and scene lie, and whether others lie there, too.

    True = every sample of the spans passes, as far as `scenes` is right. Conditions are not looked at.
    """
    chosen = _shard_spans(query, manifest)
    in_them = [shard for shard in manifest.shards if query.source in shard.sources and _named(query, shard.name)]
    mixed = any(len(shard.sources) > 1 for shard in in_them)
    if not (query.scene or mixed):
        return chosen, True
    found = None if scenes is None else _scene_spans(query, scenes)
    if found is None or not len(found):
        return chosen, False
    return common(chosen, found), True


def common(a: Spans, b: Spans) -> Spans:
    """The numbers that are in spans of both."""
    parts: list[tuple[int, int]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        start, stop = max(a[i, 0], b[j, 0]), min(a[i, 1], b[j, 1])
        if start < stop:
            parts.append((int(start), int(stop)))
        if a[i, 1] < b[j, 1]:
            i += 1
        else:
            j += 1
    return joined(parts)


def joined(parts: list[tuple[int, int]]) -> Spans:
    """Ascending spans, those that touch made one."""
    spans = np.array(parts, np.int64).reshape(-1, 2)
    if not len(spans):
        return spans
    begins = np.append(True, spans[1:, 0] != spans[:-1, 1])
    return np.stack([spans[begins, 0], spans[np.append(begins[1:], True), 1]], axis=1)


def size_of(spans: Spans) -> int:
    """How many samples the spans have."""
    return int((spans[:, 1] - spans[:, 0]).sum())


def numbers_at(spans: Spans, offset: int, limit: int) -> list[int]:
    """The numbers of the samples `offset` to `offset + limit` of the spans, as far as there are so many."""
    ends = np.cumsum(spans[:, 1] - spans[:, 0])
    places = np.arange(offset, max(offset, min(offset + limit, int(ends[-1]) if len(ends) else 0)))
    span = np.searchsorted(ends, places, side="right")
    return (spans[span, 1] - (ends[span] - places)).tolist()


def passes(query: Query, source: str, scene: str) -> bool:
    """True if a sample of this source and scene passes the filters by them."""
    return (not query.source or source == query.source) and (not query.scene or fnmatchcase(scene, query.scene))


def like(scenes: Scenes, source: str, text: str, limit: int) -> list[str]:
    """Scenes with `text` in their name, for suggestions, in their order."""
    found: dict[str, None] = {}
    for known, scene in zip(scenes.source, scenes.scene, strict=True):
        if (not source or known == source) and text.casefold() in scene.casefold():
            found[scene] = None
            if len(found) == limit:
                break
    return list(found)


def _named(query: Query, shard: str) -> bool:
    return not query.shard or shard == query.shard


def _shard_spans(query: Query, manifest: Manifest) -> Spans:
    """The shards with the name and source that are asked for."""
    parts, start = list[tuple[int, int]](), 0
    for shard in manifest.shards:
        if _named(query, shard.name) and (not query.source or query.source in shard.sources):
            parts.append((start, start + shard.samples))
        start += shard.samples
    return joined(parts)


def _scene_spans(query: Query, scenes: Scenes) -> Spans:
    """The scenes with the name and source that are asked for."""
    names = zip(scenes.source, scenes.scene, strict=True)
    at = [number for number, name in enumerate(names) if passes(query, *name)]
    starts = scenes.start[at]
    return joined(list(zip(starts.tolist(), (starts + scenes.count[at]).tolist(), strict=True)))
