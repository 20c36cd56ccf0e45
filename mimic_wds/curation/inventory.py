"""What of a recipe's input is there: its sources are listed, no picture is read."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from mimic_wds.curation.recipe import Entry


class State(StrEnum):
    """What of one [[sources]] table is there."""

    PRESENT = "present"
    PARTLY = "partly there"  #: some of its paths are missing
    MISSING = "missing"  #: all of them are
    UNUSABLE = "unusable"  #: they are there, but cannot be listed as scenes of the source


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """One [[sources]] table and what of it is there."""

    entry: Entry
    state: State
    scenes: int = 0
    num_bytes: int = 0  #: of the scenes, as far as their source knows
    missing: tuple[str, ...] = ()  #: its paths that do not exist
    problem: str = ""  #: why it is unusable


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums over the sources of a recipe."""

    scenes: int
    num_bytes: int
    expected_pairs: int  #: of all sources
    expected_here: int  #: of those that are there, wholly


def take_stock(entry: Entry) -> Stock:
    """List the scenes of a source in those of its paths that exist."""
    missing = entry.missing
    here = [path for path in entry.paths if path not in missing]
    if not here:
        return Stock(entry=entry, state=State.MISSING, missing=missing)
    try:
        scenes = entry.make(here).scenes()
    except (ValueError, OSError) as error:
        return Stock(entry=entry, state=State.UNUSABLE, missing=missing, problem=str(error))
    return Stock(
        entry=entry,
        state=State.PARTLY if missing else State.PRESENT,
        scenes=len(scenes),
        num_bytes=sum(scene.num_bytes for scene in scenes),
        missing=missing,
    )


def totals(stocks: Iterable[Stock]) -> Totals:
    """The sums over all stocks."""
    held = list(stocks)
    return Totals(
        scenes=sum(stock.scenes for stock in held),
        num_bytes=sum(stock.num_bytes for stock in held),
        expected_pairs=sum(stock.entry.expected_pairs for stock in held),
        expected_here=sum(stock.entry.expected_pairs for stock in held if stock.state == State.PRESENT),
    )
