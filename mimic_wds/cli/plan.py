"""`mimic-shard plan`: what of a recipe's input is there, what is missing and where to get it."""

from collections.abc import Iterator
from pathlib import Path

import tyro

from mimic_wds.cli.console import say, table
from mimic_wds.curation.inventory import State, Stock, take_stock, totals
from mimic_wds.curation.recipe import make_criteria, make_entry, read_tables
from mimic_wds.sources.registry import ORIGINS


def plan(recipe: tyro.conf.Positional[Path], /) -> int:
    """Say what of a recipe's input is there, what is missing and where to get it. Lists files, reads no pictures.

    Example: mimic-shard plan shards/mimic-1m/recipe.toml

    Args:
        recipe: The recipe file.

    Returns:
        0 when all is there; 3 when something is missing or cannot be used.
    """
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
