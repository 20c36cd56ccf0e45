"""`mimic-shard sources`: what can be mined, and with which options."""

import dataclasses

from mimic_wds.cli.console import say
from mimic_wds.sources.registry import SOURCES


def sources() -> int:
    """List the sources: what each expects on disk, and its options with their defaults.

    Example: mimic-shard sources

    Returns:
        0
    """
    for name, source in SOURCES.items():
        say(f"{name}: {source.reads}")
        for option in dataclasses.fields(source):  # type: ignore[arg-type]
            if option.name != "paths":
                say(f"    -o {option.name}={option.default!r}")
        say(f"    example: mimic-shard build --source {name} PATH --out shards/my-data")
    return 0
