"""`mimic-shard sample`: some random samples of a data set."""

from pathlib import Path

import tyro

from mimic_wds.cli.making import DEFAULT_SHARD_BYTES, make
from mimic_wds.storage.catalog import Wanted, check_seed
from mimic_wds.storage.rewrite import Request, Target
from mimic_wds.storage.selection import drawn


def sample(
    folder: tyro.conf.Positional[Path],
    num: tyro.conf.Positional[int],
    /,
    out: Path,
    seed: int = 0,
    per_source: bool = False,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    name: str = "",
    resume: bool = False,
    check: bool = True,
    workers: int = 0,
    json: bool = False,
) -> int:
    """Make a data set of random samples of another one, each equally likely, none twice.

    Example: mimic-shard sample shards/clips 1000 --out shards/clips-1k --seed 7

    Which ones follows from their keys and the seed: 2,000 samples hold the 1,000 of the same seed.

    Args:
        folder: Folder of the data set.
        num: How many.
        out: Folder of the new data set; must be empty or new.
        seed: Another one gives other samples.
        per_source: So many of each source.
        max_shard_bytes: Size that a shard does not pass; 0 = no limit.
        name: Of the new data set; default: the output folder's name.
        resume: Continue an interrupted run in the same folder.
        check: Hold the shards against their sha256 before samples are copied from them.
        workers: Threads; 0 = one per core.
        json: Print the new manifest as JSON instead.

    Returns:
        0
    """
    check_seed(seed)
    if num < 1:
        raise ValueError(f"the number of samples must be 1 or more, got {num}")
    request = Request(
        verb="sample",
        sources=[folder],
        options={"num": num, "seed": seed, "per_source": per_source},
        wanted=Wanted(seed=seed),
    )
    target = Target(
        out=out,
        name=name,
        select=lambda catalog: drawn(catalog, num, per_source),
        reason="not_sampled",
        max_shard_bytes=max_shard_bytes,
    )
    return make(request, [target], resume=resume, check=check, workers=workers, json=json)
