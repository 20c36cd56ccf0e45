"""How fast a run goes, and whether it waits for its data."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Meter:
    """Pairs per second, and the share of the time spent waiting for data, since the last `read`."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything and start the clock."""
        self._start = time.perf_counter()
        self._waited = 0.0
        self._pairs = 0

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """`batches`, with the time that each of them took to arrive added up."""
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - start
            yield batch

    def add(self, pairs: int) -> None:
        """Count the pairs of one optimizer step."""
        self._pairs += pairs

    def read(self) -> tuple[float, float]:
        """(pairs per second, share of the time spent waiting), and start anew."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        values = (self._pairs / seconds, self._waited / seconds)
        self.restart()
        return values
