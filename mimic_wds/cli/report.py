"""`mimic-shard report`: one page about a data set: what is in it, what was dropped, what looks odd, and pictures."""

from pathlib import Path

import tyro

from mimic_wds.cli.console import ProgressLine, error, say
from mimic_wds.looking.report_page import report_page
from mimic_wds.storage.browse import open_browser
from mimic_wds.storage.files import atomic_write


def report(
    data_set: tyro.conf.Positional[str],
    /,
    out: Path = Path("report.html"),
    samples: int = 1000,
    num: int = 6,
    seed: int = 0,
    endpoint: str = "",
    anonymous: bool = False,
) -> int:
    """Write a page about a data set that needs nothing else: a browser opens it without a network.

    Example: mimic-shard report shards/demo --out report.html

    Args:
        data_set: Folder of the data set, or s3://, gs://, az://, https:// or hf://datasets/ URL.
        out: The page to write (.html); one that is there is replaced when the new one is whole.
        samples: Samples that are read for what the manifest does not say: brightness, sharpness, inliers, duplicates.
        num: Pictures in each part of the gallery.
        seed: Which samples are drawn.
        endpoint: Address of an S3-compatible service; default: AWS_ENDPOINT_URL, or the provider's own.
        anonymous: Send no credentials, for public buckets.

    Returns:
        0; 3 if the page is written, but samples could not be read
    """
    if samples < 1 or num < 0 or seed < 0:
        raise ValueError(f"--samples must be 1 or more, --num and --seed 0 or more; got {samples}, {num} and {seed}")
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise ValueError(f"{out}: expected the name of a page, ending in .html")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: there is no folder {out.parent}; make it first")
    browser = open_browser(data_set, endpoint=endpoint, anonymous=anonymous)
    wanted, read = min(samples, len(browser)), 0
    with ProgressLine("samples read") as line:
        line.start(wanted)

        def note() -> None:
            nonlocal read
            read += 1
            line.advance("")

        page = report_page(browser, samples=samples, num=num, seed=seed, note=note)
    with atomic_write(out) as file:
        file.write(page.encode())
    say(f"{out}: {len(page) / 1e6:.1f} MB, {read:,} of {len(browser):,} {browser.noun}s read")
    if read == wanted:
        return 0
    error(f"{wanted - read:,} of the {wanted:,} {browser.noun}s drawn could not be read: run mimic-shard verify")
    return 3
