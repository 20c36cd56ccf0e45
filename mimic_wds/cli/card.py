"""`mimic-shard card`: what a published data set says of itself."""

from pathlib import Path

import tyro

from mimic_wds.cli.console import say
from mimic_wds.storage.card import write_card


def card(folder: tyro.conf.Positional[Path], /, url: str = "", title: str = "") -> int:
    """Write README.md (with the Hub's header), composition.svg, croissant.json and sizes.json from the manifest.

    Example: mimic-shard card shards/clips --title "Walks through Lund"

    Args:
        folder: Folder of the data set.
        url: Where it is published; goes into croissant.json.
        title: Headline; default: the data set's name.

    Returns:
        0
    """
    for path in write_card(folder, url=url, title=title):
        say(str(path))
    return 0
