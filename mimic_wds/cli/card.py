"""`mimic-shard card`: what a published data set says of itself."""

from pathlib import Path

import msgspec
import tyro

from mimic_wds.cli.console import say
from mimic_wds.storage.card import write_card


def card(folder: tyro.conf.Positional[Path], /, url: str = "", title: str = "", json: bool = False) -> int:
    """Write README.md (with the Hub's header), composition.svg, croissant.json and sizes.json from the manifest.

    Example: mimic-shard card shards/clips --title "Walks through Lund"

    Args:
        folder: Folder of the data set.
        url: Where it is published; goes into croissant.json.
        title: Headline; default: the data set's name.
        json: Print the paths of the files as a JSON list.

    Returns:
        0
    """
    paths = [str(path) for path in write_card(folder, url=url, title=title)]
    if json:
        print(msgspec.json.encode(paths).decode())
    for path in () if json else paths:
        say(path)
    return 0
