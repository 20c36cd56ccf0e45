"""`mimic-shard pull`: copy a published data set to a local folder."""

from pathlib import Path

import tyro

from mimic_wds.cli.transferring import FileLines, check_workers, show
from mimic_wds.storage.places import open_place
from mimic_wds.storage.pulling import pull as pull_data_set
from mimic_wds.storage.transfer import WORKERS, How


def pull(
    url: tyro.conf.Positional[str],
    folder: tyro.conf.Positional[Path],
    /,
    endpoint: str = "",
    anonymous: bool = False,
    workers: int = WORKERS,
    check: bool = False,
    replace: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Copy a data set from a bucket or web server: only what is missing here, every shard verified, the manifest last.

    Example: mimic-shard pull s3://bucket/clips shards/clips

    Args:
        url: s3://bucket/path, gs://bucket/path, az://container/path, https://server/path,
            hf://datasets/owner/name, or a folder.
        folder: Where it goes; an empty or new folder, or one with an older generation of it.
        endpoint: Address of an S3-compatible service; default: AWS_ENDPOINT_URL, or the provider's own.
        anonymous: Send no credentials, for public buckets.
        workers: Files at once.
        check: Hash the shards that are here already, instead of believing the manifest here.
        replace: Take the place of another data set, if its shards have other names.
        dry_run: Only say what would be copied.
        json: Print what was copied as JSON instead.

    Returns:
        0
    """
    check_workers(workers)
    place = open_place(url, endpoint=endpoint, anonymous=anonymous)
    with FileLines(quiet=json or dry_run) as lines:
        how = How(workers=workers, replace=replace, check=check, dry_run=dry_run, progress=lines.step)
        report = pull_data_set(place, folder, how)
    show(report, report.url, str(folder), json)
    return 0
