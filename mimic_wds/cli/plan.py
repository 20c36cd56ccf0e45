"""`mimic-shard plan`: what of a recipe's input is there, what is missing and where to get it; who reads a data set."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import tyro

from mimic_wds.cli.console import say, table
from mimic_wds.cli.plan_loading import show_loading_plan
from mimic_wds.curation.inventory import State, Stock, take_stock, totals
from mimic_wds.curation.recipe import make_criteria, make_entry, read_tables
from mimic_wds.loading.plan import Setup
from mimic_wds.sources.registry import ORIGINS


def plan(
    what: tyro.conf.Positional[str],
    /,
    world_size: int = 1,
    workers: int = 2,
    batch_size: int = 0,
    lanes: int | None = None,
    window: int | None = None,
    tail: Literal["drop", "pad"] = "drop",
    epochs: int = 1,
    samples_per_second: float = 0.0,
    endpoint: str = "",
    json: bool = False,
) -> int:
    """Say what a build or a run will need: of a recipe what input is there, of a data set who will read what.

    Example: mimic-shard plan shards/mimic-1m/recipe.toml
    Example: mimic-shard plan s3://bucket/mimic-1m --world-size 8 --workers 8 --batch-size 4096

    Args:
        what: The recipe file, or the folder or URL of a data set; the rest is for data sets.
        world_size: Processes, one per device.
        workers: Decoding threads of each process.
        batch_size: Samples per optimizer step, of all processes together.
        lanes: Parts of the order that are read side by side; default: up to 64.
        window: Shards of a lane that are shuffled together; default: 1024 by the number of lanes.
        tail: What is done with samples that fill no whole batch.
        epochs: How often all is read.
        samples_per_second: What all devices together consume; default: 65 each.
        endpoint: Address of an S3-compatible service.
        json: Print the plan of a data set as JSON.

    Returns:
        0 when all is there; 3 when something of a recipe's input is missing or cannot be used.
    """
    if "://" not in what and not Path(what).is_dir():
        return plan_build(Path(what))
    setup = Setup(
        global_batch=batch_size,
        world_size=world_size,
        workers=workers,
        lanes=lanes,
        window=window,
        tail=tail,
        epochs=epochs,
        samples_per_second=samples_per_second,
    )
    return show_loading_plan(what, setup, as_json=json, endpoint=endpoint)


def plan_build(recipe: Path) -> int:
    """Say what of a recipe's input is there, what is missing and where to get it. Lists files, reads no pictures."""
    tables = read_tables(recipe)
    make_criteria(tables.preset, tables.criteria, str(recipe))
    stocks = [
        take_stock(entry) for entry in [make_entry(table, str(recipe), tables.preset) for table in tables.sources]
    ]
    table(f"input of {recipe}", ["source", "is", "scenes", "bytes", "expected pairs"], _rows(stocks))
    for stock in stocks:
        for line in remarks(stock):
            say(line)
    return 0 if all(stock.state == State.PRESENT for stock in stocks) else 3


def _rows(stocks: list[Stock]) -> list[list[object]]:
    """One row per source, and the totals."""
    total = totals(stocks)
    here = f"{sum(stock.state == State.PRESENT for stock in stocks)} of {len(stocks)} present"
    rows: list[list[object]] = [_row(stock) for stock in stocks]
    rows.append(["all", here, total.scenes, total.num_bytes, total.expected_pairs or "-"])
    if total.expected_pairs:
        rows.append(["of those present", "", "", "", total.expected_here])
    return rows


def _row(stock: Stock) -> list[object]:
    """What is there of one source."""
    entry = stock.entry
    return [entry.source, str(stock.state), stock.scenes, stock.num_bytes, entry.expected_pairs or "-"]


def remarks(stock: Stock) -> Iterator[str]:
    """What to do about a source that is not wholly there."""
    entry = stock.entry
    without = "a build leaves it out" if entry.optional else "a build stops there"
    if stock.problem:
        yield f"unusable: {entry.source}: {stock.problem}"
    if stock.missing:
        yield f"missing: {entry.source}: {', '.join(stock.missing)}; {without}"
        if origin := ORIGINS.get(entry.source):
            yield f"    get it: {origin.url} ({origin.terms})"
