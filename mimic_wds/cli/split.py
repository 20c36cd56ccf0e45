"""`mimic-shard split`: a data set in two, by scene."""

from pathlib import Path

import tyro

from mimic_wds.cli.making import DEFAULT_SHARD_BYTES, make
from mimic_wds.storage.catalog import check_seed
from mimic_wds.storage.rewrite import Request, Target
from mimic_wds.storage.selection import Scope, in_scope, make_split


def split(
    folder: tyro.conf.Positional[Path],
    /,
    out_train: Path,
    out_val: Path,
    val: float = 0.05,
    seed: int = 0,
    group: str = "",
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    resume: bool = False,
    check: bool = True,
    workers: int = 0,
    json: bool = False,
) -> int:
    """Split a data set by scene: all samples of a scene, and all that was dropped of it, are on one side.

    Example: mimic-shard split shards/scannet --out-train shards/train --out-val shards/val --group "^scene[0-9]+"

    Which side follows from the scene's name and the seed alone: scenes that are added later do not move others. For
    the same reason the shares are right on average only; few scenes may all be on one side.

    Args:
        folder: Folder of the data set.
        out_train: Folder of the larger new data set; must be empty or new.
        out_val: Folder of the smaller one.
        val: Share of the scenes (or of their groups) that go to the smaller one.
        seed: Another one gives another split.
        group: Regular expression: scenes in whose names it finds the same text stay together (its first parenthesis, if
            it has one), e.g. several scans of one room.
        max_shard_bytes: Size that a shard does not pass; 0 = no limit.
        resume: Continue an interrupted run in the same folders.
        check: Hold the shards against their sha256 before samples are copied from them.
        workers: Threads; 0 = one per core.
        json: Print both manifests as a JSON list instead.

    Returns:
        0 done; 3 when one side has no samples.
    """
    check_seed(seed)
    sides = make_split(val, seed, group)
    request = Request(verb="split", sources=[folder], options={"val": val, "seed": seed, "group": group})

    def target(out: Path, scope: Scope) -> Target:
        return Target(
            out=out,
            select=lambda catalog: in_scope(catalog, scope).nonzero()[0],
            scope=scope,
            max_shard_bytes=max_shard_bytes,
        )

    targets = [target(out_train, sides.is_train), target(out_val, sides.is_val)]
    return make(request, targets, resume=resume, check=check, workers=workers, json=json)
