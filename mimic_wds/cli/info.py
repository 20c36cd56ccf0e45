"""`mimic-shard info`: what a data set holds, from its manifest alone."""

from pathlib import Path

import tyro

from mimic_wds.cli.build import print_counts
from mimic_wds.cli.console import say, table
from mimic_wds.storage.browse import open_browser
from mimic_wds.storage.manifest import Manifest, encode_manifest, read_manifest


def info(
    data_set: tyro.conf.Positional[str], /, endpoint: str = "", anonymous: bool = False, json: bool = False
) -> int:
    """Say what a data set holds: pairs or images, shards, criteria, overlaps, licences.

    Example: mimic-shard info shards/demo

    Args:
        data_set: Folder of the data set, or s3://, gs://, az://, https:// or hf://datasets/ URL.
        endpoint: Address of an S3-compatible service; default: AWS_ENDPOINT_URL, or the provider's own.
        anonymous: Send no credentials, for public buckets.
        json: Print the manifest as JSON instead.

    Returns:
        0
    """
    if "://" in str(data_set):
        manifest = open_browser(data_set, endpoint=endpoint, anonymous=anonymous).manifest
    else:
        manifest = read_manifest(Path(data_set))
    if json:
        print(encode_manifest(manifest).decode())
        return 0
    print_counts(manifest)
    _print_shards(manifest)
    _print_overlaps(manifest)
    if manifest.kind == "images":
        say(f"single images, {len(manifest.classes)} classes")
    say("criteria: " + ", ".join(f"{key} {value}" for key, value in manifest.criteria.items()))
    say("made with: " + ", ".join(f"{key} {value}" for key, value in manifest.versions.items()))
    for source, licence in sorted(manifest.licences.items()):
        say(f"licence of {source}: {licence or 'not stated'}")
    return 0


def _print_shards(manifest: Manifest) -> None:
    rows = [[s.name, s.samples, s.bytes, s.sha256[:16], s.generation] for s in manifest.shards]
    table("shards", ["name", "samples", "bytes", "sha256", "generation"], rows)


def _print_overlaps(manifest: Manifest) -> None:
    edges, counts = manifest.overlap_histogram.edges, manifest.overlap_histogram.counts
    most = max([*counts, 1])
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            say(f"overlap {low:.2f}-{high:.2f}  {'#' * round(40 * count / most):<40} {int(count):,}")
