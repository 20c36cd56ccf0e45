"""`mimic-shard reshard`: the same samples in other shards."""

from pathlib import Path
from typing import Literal

import tyro

from mimic_wds.cli.making import DEFAULT_SHARD_BYTES, make
from mimic_wds.storage.catalog import Wanted, check_seed
from mimic_wds.storage.rewrite import Request, Target
from mimic_wds.storage.selection import in_order


def reshard(
    folder: tyro.conf.Positional[Path],
    /,
    out: Path,
    order: Literal["keep", "key", "shuffle"] = "keep",
    seed: int = 0,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    samples_per_shard: int = 0,
    name: str = "",
    resume: bool = False,
    check: bool = True,
    workers: int = 0,
    json: bool = False,
) -> int:
    """Copy a data set into shards of another size, or in another order; samples are copied as they are.

    Example: mimic-shard reshard shards/clips --out shards/clips-64m --max-shard-bytes 67108864 --order shuffle

    Args:
        folder: Folder of the data set.
        out: Folder of the new data set; must be empty or new.
        order: Of the samples: keep it, sort them by key, or shuffle them.
        seed: Which shuffle; the same keys have the same order, however they were sharded.
        max_shard_bytes: Size that a shard does not pass; 0 = no limit.
        samples_per_shard: Samples that a shard does not pass; 0 = no limit.
        name: Of the new data set; default: the output folder's name.
        resume: Continue an interrupted run in the same folder.
        check: Hold the shards against their sha256 before samples are copied from them.
        workers: Threads; 0 = one per core.
        json: Print the new manifest as JSON instead.

    Returns:
        0 done; 3 when the data set has no samples.
    """
    check_seed(seed)
    request = Request(
        verb="reshard",
        sources=[folder],
        options={"order": order, **({"seed": seed} if order == "shuffle" else {})},
        wanted=Wanted(seed=seed if order == "shuffle" else None, keys=order == "key"),
    )
    target = Target(
        out=out,
        name=name,
        select=lambda catalog: in_order(catalog, order),
        max_shard_bytes=max_shard_bytes,
        samples_per_shard=samples_per_shard,
    )
    return make(request, [target], resume=resume, check=check, workers=workers, json=json)
