"""Several sources in one order, each with its share of every batch; as exact and resumable as the order of one.

Sources take turns in one endless sequence, in which each is as often as its weight says and as evenly spread as can be.
The lanes of the global batch go through that sequence, lane l being l steps ahead, so a global batch is a run of it:
the shares of every batch are exact to a few rows, and these never add up. Every source has a permutation of its own
(`lanes.py`), from which it gives the next sample whenever it is its turn; when all were given its next epoch begins.

An epoch of the mixture is a number of steps: as many as all sources together have samples for, or until a named source
was seen once. Sources that weigh more than their size are then seen more than once in it, others in part, and go on
from there in the next.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import takewhile
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimic_wds.loading.lanes import Lanes
from mimic_wds.loading.order import check_lanes, default_lanes, default_window, windows_ahead

#: Length of the cycle in which sources take turns, at most: shares are exact to so small a part, and wholly exact where
#: the weights are fractions of a smaller number, as 3 : 1 or 0.25 : 0.75.
CYCLE = 2**20


class Mixture:
    """The order of a mixture; to a loader the same as `Order`."""

    def __init__(
        self,
        shard_samples: Sequence[int] | NDArray[np.int64],
        sources: Mapping[str, Sequence[int]],
        weights: Mapping[str, float],
        global_batch: int,
        seed: int = 0,
        *,
        lanes: int | None = None,
        window: int | None = None,
        epoch: str = "",
    ):
        """`sources` are the shards (numbers) of each, `weights` of any sum; `window` is in shards of all sources.

        `epoch` names the source that is seen once in an epoch, "" makes epochs as long as all samples.
        Raises ValueError for weights that do not fit the sources, a source without shards or with fewer samples than
        lanes, and batches as `Order` does.
        """
        _check_sources(sources, weights, epoch)
        counts = np.asarray(shard_samples, np.int64)
        smallest = min(int(counts[list(shards)].sum()) for shards in sources.values())
        self.names = list(sources)
        self.global_batch, self.seed = global_batch, seed
        self.lanes = default_lanes(global_batch, smallest) if lanes is None else lanes
        check_lanes(global_batch, self.lanes)
        self.window = default_window(self.lanes) if window is None else window
        self._per_lane = global_batch // self.lanes
        self.units = units({name: weights[name] for name in self.names})
        self._turns, self._turns_of = _take_turns(list(self.units.values()))
        self._sources = [
            _Source(counts, sources[name], self._lanes_of(number, name, counts[list(sources[name])]))
            for number, name in enumerate(self.names)
        ]
        self.epoch_of = epoch
        self.steps_per_epoch = self._steps(epoch)  #: global batches in an epoch
        self.padding = 0  #: rows that repeat a sample to fill up a batch: none, since sources simply go on

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Sample indices of global batch `step` of `epoch`: (global_batch,), 0 <= step < steps_per_epoch."""
        return self.at(epoch, step, np.arange(self.global_batch))

    def at(self, epoch: int, step: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sample indices of (n,) rows of a global batch."""
        sources, lanes, numbers = self._turns_at(self._time(epoch, step), rows)
        out = np.empty(len(rows), np.int64)
        for source in np.unique(sources).tolist():
            here = sources == source
            out[here] = self._sources[source].samples(lanes[here], numbers[here])
        return out

    def source_of(self, epoch: int, step: int) -> list[str]:
        """The source of each row of a global batch."""
        sources, _, _ = self._turns_at(self._time(epoch, step), np.arange(self.global_batch))
        return [self.names[source] for source in sources]

    def valid(self, epoch: int, step: int) -> NDArray[np.bool_]:
        """Rows of a global batch that are no padding: all, (global_batch,)."""
        assert 0 <= step < self.steps_per_epoch
        return np.ones(self.global_batch, np.bool_)

    def seen(self, epoch: int, step: int) -> dict[str, int]:
        """Samples of every source that were read before a position, over all ranks."""
        begin = np.arange(self.lanes) * self._per_lane
        end = begin + (epoch * self.steps_per_epoch + step) * self._per_lane
        counts = [int((self._count(s, end) - self._count(s, begin)).sum()) for s in range(len(self.names))]
        return dict(zip(self.names, counts, strict=True))

    def shards_ahead(self, epoch: int, step: int, rows: NDArray[np.int64]) -> Iterator[list[int]]:
        """Groups of shards in the order in which (n,) rows need them, from `step` to the end of the epoch.

        A group is what one window of one lane of one source holds that is not consumed yet.
        """
        begin, end = self._time(epoch, step), (epoch + 1) * self.steps_per_epoch
        groups = [
            takewhile(lambda item: item[0] < end, self._windows_ahead(source, lane, begin))
            for lane in np.unique(rows // self._per_lane).tolist()
            for source in range(len(self.names))
        ]
        for _, group in heapq.merge(*groups, key=lambda item: item[0]):
            yield group

    def state(self) -> dict[str, Any]:
        """What tells this order from others of the same data. Plain JSON."""
        own = {"seed": self.seed, "global_batch": self.global_batch, "lanes": self.lanes, "window": self.window}
        return {**own, "mix": {"weights": self.units, "epoch": self.epoch_of}}

    def _lanes_of(self, number: int, name: str, counts: NDArray[np.int64]) -> Lanes:
        """The permutation of a source: its window is its share of the mixture's."""
        share = self.units[name] / sum(self.units.values())
        seed = int(np.random.SeedSequence((self.seed, number)).generate_state(1, np.uint64)[0])
        try:
            return Lanes(counts, seed=seed, lanes=self.lanes, window=max(1, round(self.window * share)))
        except ValueError as error:
            raise ValueError(f"source {name!r}: {error}") from None

    def _steps(self, epoch: str) -> int:
        """Steps of an epoch that lasts until source `epoch` was seen once, or as long as all samples."""
        sizes = [source.lanes.num_samples for source in self._sources]
        if not epoch:
            return max(1, sum(sizes) // self.global_batch)
        rows = Fraction(sizes[self.names.index(epoch)] * sum(self.units.values()), self.units[epoch])
        return max(1, -(-rows // self.global_batch))

    def _time(self, epoch: int, step: int) -> int:
        """Steps since the beginning of the first epoch."""
        assert 0 <= step < self.steps_per_epoch
        return epoch * self.steps_per_epoch + step

    def _turns_at(
        self, time: int, rows: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
        """Of some rows the source, the lane, and how many samples this source gave this lane before: (n,) each."""
        lanes = rows // self._per_lane
        turns = (time + lanes) * self._per_lane + rows % self._per_lane
        sources = self._turns[turns % len(self._turns)]
        numbers = np.empty(len(rows), np.int64)
        for source in np.unique(sources).tolist():
            here = sources == source
            numbers[here] = self._count(source, turns[here]) - self._count(source, lanes[here] * self._per_lane)
        return sources, lanes, numbers

    def _count(self, source: int, turns: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of the first (n,) turns are those of a source."""
        own = self._turns_of[source]
        return turns // len(self._turns) * len(own) + np.searchsorted(own, turns % len(self._turns))

    def _windows_ahead(self, source: int, lane: int, time: int) -> Iterator[tuple[int, list[int]]]:
        """What is left of the windows of a lane of a source: (time from which it is needed, shards), endless."""
        own, part = self._turns_of[source], self._sources[source]
        before = int(self._count(source, np.array([lane * self._per_lane]))[0])
        given = int(self._count(source, np.array([(time + lane) * self._per_lane]))[0]) - before
        visit = int(part.lanes.epoch_at(lane, np.array([given]))[0])
        place = given - part.lanes.before(visit, lane)
        while True:
            for start, shards in windows_ahead(part.lanes, visit, lane, place):
                cycles, turn = divmod(before + part.lanes.before(visit, lane) + start, len(own))
                when = (cycles * len(self._turns) + int(own[turn])) // self._per_lane - lane
                yield when, part.numbers[shards].tolist()
            visit, place = visit + 1, 0


class _Source:
    """The samples of some of the shards, in an order of their own."""

    def __init__(self, counts: NDArray[np.int64], shards: Sequence[int], lanes: Lanes):
        self.lanes = lanes
        self.numbers = np.asarray(shards, np.int64)  #: of its shards in the data set
        self._own_starts = np.cumsum(lanes.shard_samples) - lanes.shard_samples
        self._starts = (np.cumsum(counts) - counts)[self.numbers]

    def samples(self, lanes: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Samples (of the data set) that this source gives lanes as their (n,) `numbers`th ones of all epochs."""
        out = np.empty(len(numbers), np.int64)
        for lane in np.unique(lanes).tolist():
            in_lane = lanes == lane
            visits = self.lanes.epoch_at(lane, numbers[in_lane])
            found = np.empty(len(visits), np.int64)
            for visit in np.unique(visits).tolist():
                here = visits == visit
                places = numbers[in_lane][here] - self.lanes.before(visit, lane)
                found[here] = self.lanes.samples(visit, self.lanes.positions(visit, lane, places))
            out[in_lane] = found
        shards = np.searchsorted(self._own_starts, out, side="right") - 1
        return out - self._own_starts[shards] + self._starts[shards]


def weights_by_size(samples: Mapping[str, int], temperature: float = 1.0) -> dict[str, float]:
    """Weights that grow with the samples n of a source as n ** (1 / temperature), of sum 1.

    1 takes all samples equally often, larger temperatures give small sources more, infinity takes all sources equally
    often (Arivazhagan et al., arXiv 1907.05019, section 3). Raises ValueError for temperatures of 0 or less.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature of a mixture must be above 0, got {temperature}")
    powers = {name: count ** (1 / temperature) for name, count in samples.items()}
    return {name: power / sum(powers.values()) for name, power in powers.items()}


def units(weights: Mapping[str, float]) -> dict[str, int]:
    """Weights as whole numbers of turns in a cycle: exact if a cycle of CYCLE turns or fewer can be, else nearly so."""
    exact = {name: Fraction(str(weight)) for name, weight in weights.items()}
    total = sum(exact.values())
    shares = {name: weight / total for name, weight in exact.items()}
    length = lcm(*(share.denominator for share in shares.values()))
    if length <= CYCLE:
        return {name: int(share * length) for name, share in shares.items()}
    return {name: max(1, round(share * CYCLE)) for name, share in shares.items()}


def _take_turns(turns: Sequence[int]) -> tuple[NDArray[np.uint16], list[NDArray[np.int64]]]:
    """A cycle in which source s has turns[s] turns: whose each one is, and which ones are those of each.

    Whoever is furthest behind its share has the next turn (the method of Webster and Sainte-Lague). One of n
    sources, with the share w, is at most 1/2 + w n / 2 turns from its due: the roundings of all shift a turn by n / 2.
    """
    sources = np.repeat(np.arange(len(turns), dtype=np.uint16), turns)
    due = np.concatenate([(np.arange(number) + 0.5) / number for number in turns])
    cycle = sources[np.argsort(due, kind="stable")]
    return cycle, [np.flatnonzero(cycle == source) for source in range(len(turns))]


def _check_sources(sources: Mapping[str, Sequence[int]], weights: Mapping[str, float], epoch: str) -> None:
    known = ", ".join(sources)
    if not sources:
        raise ValueError("a mixture needs at least one source")
    if set(weights) != set(sources):
        raise ValueError(f"weights are given for {', '.join(weights)}, but the sources are {known}: give one for each")
    for name, weight in weights.items():
        if not 0 < weight < float("inf"):
            raise ValueError(f"the weight of source {name!r} must be above 0, got {weight}; leave out what has none")
        if not len(sources[name]):
            raise ValueError(f"source {name!r} has no shards")
    if epoch and epoch not in sources:
        raise ValueError(f"an epoch cannot be counted by {epoch!r}: the sources are {known}")
