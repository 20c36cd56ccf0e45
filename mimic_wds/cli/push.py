"""`mimic-shard push`: publish a data set in a bucket or another folder."""

from pathlib import Path

import tyro

from mimic_wds.cli.transferring import FileLines, check_workers, show
from mimic_wds.storage.places import open_target
from mimic_wds.storage.pushing import push as push_data_set
from mimic_wds.storage.transfer import WORKERS, How


def push(
    folder: tyro.conf.Positional[Path],
    url: tyro.conf.Positional[str],
    /,
    endpoint: str = "",
    workers: int = WORKERS,
    check: bool = False,
    replace: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Copy a data set to a bucket: only what is missing there, the manifest last.

    Example: mimic-shard push shards/clips s3://bucket/clips

    Args:
        folder: Folder of the data set.
        url: s3://bucket/path, gs://bucket/path, az://container/path, hf://datasets/owner/name, or a folder.
        endpoint: Address of an S3-compatible service; default: AWS_ENDPOINT_URL, or the provider's own.
        workers: Files at once.
        check: Read back what is there already and compare its sha256, instead of its size and the hash noted with it.
        replace: Take the place of another data set, or of another push that began there and will not go on.
        dry_run: Only say what would be copied.
        json: Print what was copied as JSON instead.

    Returns:
        0
    """
    check_workers(workers)
    with FileLines(quiet=json or dry_run) as lines:
        if url.startswith("hf://"):
            from mimic_wds.storage.hub import push_hub

            report = push_hub(folder, url, dry_run=dry_run, workers=workers, replace=replace, progress=lines.step)
        else:
            place = open_target(url, endpoint=endpoint, make=not dry_run)
            how = How(workers=workers, replace=replace, check=check, dry_run=dry_run, progress=lines.step)
            report = push_data_set(folder, place, how)
    show(report, str(folder), report.url, json)
    return 0
