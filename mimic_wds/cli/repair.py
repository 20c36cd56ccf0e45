"""`mimic-shard repair`: make a damaged data set whole again."""

from dataclasses import asdict
from pathlib import Path

import msgspec
import tyro

from mimic_wds.cli.console import say
from mimic_wds.storage.places import open_place
from mimic_wds.storage.repair import repair as repair_data_set


def repair(
    folder: tyro.conf.Positional[Path],
    /,
    mirror: str = "",
    endpoint: str = "",
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Make indexes again, fetch damaged shards from a mirror, save what is whole of the others; delete nothing.

    Example: mimic-shard repair shards/clips --mirror s3://bucket/clips

    Args:
        folder: Folder of the data set.
        mirror: Folder or URL of the same data set, or of a later or earlier generation of it.
        endpoint: Of the mirror: address of an S3-compatible service; default: AWS_ENDPOINT_URL, or the provider's own.
        dry_run: Only say what would be done.
        json: Print what was done as JSON.

    Returns:
        0 done; 3 when samples are lost.
    """
    report = repair_data_set(folder, open_place(mirror, endpoint=endpoint) if mirror else None, dry_run=dry_run)
    if json:
        print(msgspec.json.encode(asdict(report)).decode())
    else:
        for line in report.done:
            say(line)
        if report.salvaged or report.lost:
            say(f"{report.salvaged:,} samples saved from damaged shards, {report.lost:,} lost")
        if not report.done:
            say(f"{folder}: nothing to repair")
    return 3 if report.lost else 0
