"""`mimic-shard filter`: the samples of a data set that meet some conditions."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from mimic_wds.cli.making import DEFAULT_SHARD_BYTES, make
from mimic_wds.settings import nearest
from mimic_wds.storage.catalog import Catalog, Wanted
from mimic_wds.storage.expression import Expression, all_of, parse
from mimic_wds.storage.facts import fields_of
from mimic_wds.storage.manifest import Manifest, read_manifest
from mimic_wds.storage.rewrite import Request, Target, digest_of
from mimic_wds.storage.selection import KeyList, Numbers, SceneList, Scope, in_scope, read_keys, read_scene_list


def filter_(
    folder: tyro.conf.Positional[Path],
    /,
    out: Path,
    source: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    min_overlap: float | None = None,
    max_overlap: float | None = None,
    keys: Path | None = None,
    scenes: Path | None = None,
    exclude: bool = False,
    where: str = "",
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    name: str = "",
    resume: bool = False,
    check: bool = True,
    workers: int = 0,
    json: bool = False,
) -> int:
    """Make a data set of those samples of another one that meet all conditions; samples are copied as they are.

    Example: mimic-shard filter shards/clips --out shards/wide --where "overlap < 0.6 and abs(time1_s - time0_s) > 2"

    Args:
        folder: Folder of the data set.
        out: Folder of the new data set; must be empty or new.
        source: Samples of this source, repeatable.
        min_overlap: Samples with this overlap or more; those whose overlap is not known are left out.
        max_overlap: Samples with this overlap or less; those whose overlap is not known are left out.
        keys: A file of keys, one a line: these samples.
        scenes: A file of scenes, one a line, as "source/scene" or "scene": their samples.
        exclude: --keys and --scenes list what is left out instead.
        where: A condition on the fields of KEY.json and on key: comparisons, and, or, not, in, + - * / // %, abs, len,
            min, max, [number] of a list, e.g. homography[8].
        max_shard_bytes: Size that a shard does not pass; 0 = no limit.
        name: Of the new data set; default: the output folder's name.
        resume: Continue an interrupted run in the same folder.
        check: Hold the shards against their sha256 before samples are copied from them.
        workers: Threads; 0 = one per core.
        json: Print the new manifest as JSON instead.

    Returns:
        0 done; 3 when no sample meets the conditions.
    """
    manifest = read_manifest(folder)
    condition = _condition(manifest, min_overlap, max_overlap, where)
    key_list = read_keys(keys) if keys else None
    scene_list = read_scene_list(scenes) if scenes else None
    if not (source or condition or key_list or scene_list):
        raise ValueError("give a condition: --source, --min-overlap, --max-overlap, --keys, --scenes or --where")
    scope = _scope(manifest, source, scene_list, exclude)
    request = Request(
        verb="filter",
        sources=[folder],
        options={
            "source": sorted(set(source)),
            "where": condition.text if condition else "",
            "keys": digest_of(keys) if keys else "",
            "scenes": digest_of(scenes) if scenes else "",
            "exclude": exclude,
        },
        wanted=Wanted(keys=keys is not None, where=condition),
    )
    target = Target(
        out=out,
        name=name,
        select=_select(scope, key_list, scene_list, exclude),
        scope=scope,
        max_shard_bytes=max_shard_bytes,
    )
    return make(request, [target], resume=resume, check=check, workers=workers, json=json)


def _condition(
    manifest: Manifest, min_overlap: float | None, max_overlap: float | None, where: str
) -> Expression | None:
    """The conditions on fields as one. Raises ValueError."""
    fields, conditions = fields_of(manifest), []
    if min_overlap is not None or max_overlap is not None:
        low, high = min_overlap if min_overlap is not None else 0.0, max_overlap if max_overlap is not None else 1.0
        if not (math.isfinite(low) and math.isfinite(high) and 0 <= low <= high):
            raise ValueError(f"need 0 <= --min-overlap <= --max-overlap, got {low} and {high}")
        conditions.append(parse(f"{low!r} <= overlap <= {high!r}", fields, "--min-overlap, --max-overlap"))
    if where:
        conditions.append(parse(where, fields))
    return all_of(conditions) if conditions else None


def _scope(manifest: Manifest, sources: tuple[str, ...], scenes: SceneList | None, exclude: bool) -> Scope:
    """The scenes that the new data set speaks of. Raises ValueError for a source that is not there."""
    for source in sources:
        if source not in manifest.kept:
            raise ValueError(
                f"--source: there is no source {source!r} in the data set{nearest(source, [*manifest.kept])}"
            )

    def scope(source: str, scene: str) -> bool:
        listed = scenes is None or scenes.scope(source, scene) is not exclude
        return listed and (not sources or source in sources)

    return scope


def _select(
    scope: Scope, keys: KeyList | None, scenes: SceneList | None, exclude: bool
) -> Callable[[Catalog], Numbers]:
    """The samples that meet all conditions."""

    def select(catalog: Catalog) -> Numbers:
        if scenes is not None:
            scenes.check(catalog)
        kept = in_scope(catalog, scope)
        if keys is not None:
            kept &= keys.members(catalog) ^ exclude
        if len(catalog.passed):
            kept &= catalog.passed
        return np.flatnonzero(kept)

    return select
