"""`mimic-shard merge`: join the parts of a build, or whole data sets."""

from pathlib import Path
from typing import Literal

import tyro

from mimic_wds.cli.build import summary
from mimic_wds.cli.making import DEFAULT_SHARD_BYTES, make
from mimic_wds.curation import build as building
from mimic_wds.pairs import DropReason
from mimic_wds.storage.catalog import Wanted
from mimic_wds.storage.rewrite import Request, Target
from mimic_wds.storage.selection import without_duplicates


def merge(
    first: tyro.conf.Positional[Path],
    others: tyro.conf.Positional[tuple[Path, ...]] = (),
    /,
    out: Path | None = None,
    allow_different_criteria: bool = False,
    on_duplicate: Literal["refuse", "skip"] = "refuse",
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    name: str = "",
    resume: bool = False,
    check: bool = True,
    workers: int = 0,
    json: bool = False,
) -> int:
    """With --out: join data sets in a new one. Without: make the data set of a build run with `build --shard-of I/N`.

    Example: mimic-shard merge shards/clips shards/scans --out shards/all

    Args:
        first: A data set; without --out the folder of the build.
        others: More data sets; without --out other folders that hold parts of the build, if the machines shared no disk
            (what they finished is moved).
        out: Folder of the new data set; must be empty or new.
        allow_different_criteria: Join data sets that were made with different criteria; only what holds for all is
            kept in the manifest, what each had is in build-report.json.
        on_duplicate: What to do with samples whose key another one has: refuse, or skip all but the first.
        max_shard_bytes: Size that a shard does not pass; 0 = no limit.
        name: Of the new data set; default: the output folder's name.
        resume: Continue an interrupted run in the same folder.
        check: Hold the shards against their sha256 before samples are copied from them.
        workers: Threads; 0 = one per core.
        json: Print the new manifest as JSON instead.

    Returns:
        0 done; 3 when nothing was kept, or a scene of the build failed.
    """
    if out is None:
        changed = allow_different_criteria or on_duplicate != "refuse" or max_shard_bytes != DEFAULT_SHARD_BYTES
        if changed or name or resume or json or workers or not check:
            raise ValueError(
                "these options are for joining data sets: give --out DIR, the folder of the new one; the parts of a "
                "build (`mimic-shard merge OUT [PARTS]`) are joined as the build was begun"
            )
        return summary(building.merge(first, others), first, None)
    request = Request(
        verb="merge",
        sources=[first, *others],
        options={"on_duplicate": on_duplicate},
        wanted=Wanted(seed=0),
        allow_different_criteria=allow_different_criteria,
    )
    target = Target(
        out=out,
        name=name,
        select=lambda catalog: without_duplicates(catalog, on_duplicate == "skip"),
        reason=DropReason.DUPLICATE_KEY.value,
        max_shard_bytes=max_shard_bytes,
    )
    return make(request, [target], resume=resume, check=check, workers=workers, json=json)
