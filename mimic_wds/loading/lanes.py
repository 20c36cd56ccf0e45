"""A permutation of all samples that is known place by place, and that a part of the machines can read a part of.

In every epoch the shards are permuted and laid end to end, and that line is cut, at sample level, into lanes as long as
each other (or one longer). A lane is cut into windows of some shards' worth of samples, and each window is shuffled. So
a sample is found without the rest being laid out: memory grows with the number of shards and the length of a window,
not with the number of samples, and who reads a lane needs the shards of that lane only, those of one window at a time.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

#: Lanes reach the end of a window at different times, so that shards are needed one after the other, not all at once.
#: Multiples of the golden ratio spread any run of neighbouring lanes evenly (Knuth, TAOCP 3, section 6.4).
GOLDEN = (5**0.5 - 1) / 2

#: Epochs whose line of shards is kept: around the end of one the next is asked for as well.
_LINES = 2


class Lanes:
    """The samples of some shards, permuted anew in every epoch: a pure function of what it is made with."""

    def __init__(self, shard_samples: Sequence[int] | NDArray[np.int64], *, seed: int, lanes: int, window: int):
        """`shard_samples` are the samples of each shard, `window` is in shards of average length.

        Raises ValueError for a negative seed, lanes or windows below 1, and more lanes than samples.
        """
        self.shard_samples = np.asarray(shard_samples, np.int64)
        self.num_samples = int(self.shard_samples.sum())
        self.seed, self.lanes, self.window = seed, lanes, window
        _check(self)
        self._starts = np.cumsum(self.shard_samples) - self.shard_samples
        mean = -(-self.num_samples // len(self.shard_samples))
        self.window_samples = window * mean  #: samples of a window, at most
        self._line = lru_cache(_LINES)(self._make_line)
        self._starts_of_lanes = lru_cache(_LINES)(self._make_starts)
        self._edges = lru_cache(2 * lanes)(self._make_edges)
        self._shuffled = lru_cache(2 * lanes)(self._make_shuffled)

    def before(self, epoch: int, lane: int) -> int:
        """Samples of a lane in all epochs before `epoch`: an even share to the sample, so no lane runs ahead.

        (Over all lanes they are epoch * num_samples, by Hermite's identity.)
        """
        return (epoch * self.num_samples + lane) // self.lanes

    def epoch_at(self, lane: int, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The epochs in which a lane gives its (n,) `numbers`th samples, counted over all epochs."""
        return ((numbers + 1) * self.lanes - 1 - lane) // self.num_samples

    def sizes(self, epoch: int) -> NDArray[np.int64]:
        """Samples of each lane in an epoch: (lanes,), as many or one more than the lanes would share out evenly."""
        return np.diff(self._starts_of_lanes(epoch))

    def edges(self, epoch: int, lane: int) -> NDArray[np.int64]:
        """Where the windows of a lane begin, and the end of the last: (windows + 1,) places."""
        return self._edges(int(self.sizes(epoch)[lane]), lane)

    def positions(self, epoch: int, lane: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in the line the samples at (n,) `places` of a lane are, 0 <= place < its size."""
        edges = self.edges(epoch, lane)
        numbers = np.searchsorted(edges, places, side="right") - 1
        out = np.empty(len(places), np.int64)
        for number in np.unique(numbers).tolist():
            here = numbers == number
            out[here] = self._shuffled(epoch, lane, number)[places[here] - edges[number]] + edges[number]
        return out + self._starts_of_lanes(epoch)[lane]

    def samples(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the samples at (n,) positions of the line."""
        shards, ends = self._line(epoch)
        places = np.searchsorted(ends, positions, side="right")
        found = shards[places]
        return positions - ends[places] + self.shard_samples[found] + self._starts[found]

    def places(self, epoch: int, samples: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lane and place in it of (n,) samples: the inverse of the above."""
        shards, ends = self._line(epoch)
        of_samples = np.searchsorted(self._starts, samples, side="right") - 1
        begins = np.empty(len(shards), np.int64)
        begins[shards] = ends - self.shard_samples[shards]
        positions = begins[of_samples] + samples - self._starts[of_samples]
        first = self._starts_of_lanes(epoch)
        lanes = np.searchsorted(first, positions, side="right") - 1
        out = np.empty(len(samples), np.int64)
        for lane in np.unique(lanes).tolist():
            here = lanes == lane
            out[here] = self._unshuffled(epoch, lane, positions[here] - first[lane])
        return lanes, out

    def shards(self, epoch: int, lane: int, start: int, stop: int) -> NDArray[np.int64]:
        """Numbers of the shards that hold the places [start, stop) of a lane before windows are shuffled.

        At the edges of windows these are the shards of the windows.
        """
        shards, ends = self._line(epoch)
        begin = self._starts_of_lanes(epoch)[lane]
        first, last = np.searchsorted(ends, [begin + start, begin + stop - 1], side="right")
        return shards[first : last + 1]

    def shards_of(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the shards that hold (n,) positions of the line, each once, in the order of their first ones."""
        shards, ends = self._line(epoch)
        found, first = np.unique(np.searchsorted(ends, positions, side="right"), return_index=True)
        return shards[found[np.argsort(first)]]

    def _unshuffled(self, epoch: int, lane: int, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places at which the samples come that are (n,) offsets behind the lane's beginning in the line."""
        edges = self.edges(epoch, lane)
        numbers = np.searchsorted(edges, offsets, side="right") - 1
        out = np.empty(len(offsets), np.int64)
        for number in np.unique(numbers).tolist():
            here = numbers == number
            inverse = np.argsort(self._shuffled(epoch, lane, number))
            out[here] = inverse[offsets[here] - edges[number]] + edges[number]
        return out

    def _make_line(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shards in the order of an epoch, and where in the line each ends."""
        shards = _random(self.seed, epoch).permutation(len(self.shard_samples))
        return shards, np.cumsum(self.shard_samples[shards])

    def _make_starts(self, epoch: int) -> NDArray[np.int64]:
        """Where in the line of an epoch each lane begins, and its end: (lanes + 1,)."""
        sizes = [self.before(epoch + 1, lane) - self.before(epoch, lane) for lane in range(self.lanes)]
        return np.cumsum([0, *sizes])

    def _make_edges(self, size: int, lane: int) -> NDArray[np.int64]:
        windows = -(-size // self.window_samples)
        if windows == 1:
            return np.array([0, size])
        begun = lane * GOLDEN % 1  # so much of the first window is left out here, and comes at the end
        inner = np.floor((np.arange(1, windows + 1) - begun) * (size / windows)).astype(np.int64)
        return np.unique(np.concatenate([[0], inner, [size]]))

    def _make_shuffled(self, epoch: int, lane: int, number: int) -> NDArray[np.uint32]:
        """The places of a window, shuffled: values are relative to its edge."""
        edges = self.edges(epoch, lane)
        places = np.arange(edges[number + 1] - edges[number], dtype=np.uint32)
        return _random(self.seed, epoch, 1 + lane, number).permutation(places)


def _random(seed: int, epoch: int, purpose: int = 0, number: int = 0) -> np.random.Generator:
    """Random numbers of their own for every purpose: 0 is the shards', 1 and above those of the lanes' windows."""
    return np.random.Generator(np.random.PCG64((seed, epoch, purpose, number)))


def _check(lanes: Lanes) -> None:
    if lanes.seed < 0:
        raise ValueError(f"the seed of the order must be 0 or more, got {lanes.seed}")
    if lanes.window < 1:
        raise ValueError(f"samples are shuffled in windows of 1 shard or more, got window = {lanes.window}")
    if not 1 <= lanes.lanes <= lanes.num_samples:
        raise ValueError(
            f"{lanes.num_samples} samples cannot be laid out in {lanes.lanes} lanes: give 1 up to the number of samples"
        )
    assert lanes.shard_samples.min() > 0, "a shard without samples"
