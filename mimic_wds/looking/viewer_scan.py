"""Looking through a data set in the background for what passes a condition: with progress, and it can be stopped."""

import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

import msgspec

from mimic_wds.looking.viewer_queries import Query, Spans, condition, passes, size_of
from mimic_wds.storage.browse import Browser
from mimic_wds.storage.facts import facts_type

#: Searches that are kept, running or ended: 8 bytes for each sample that was found.
KEPT = 8

#: Searches that run at once; an older one is stopped.
RUNNING = 2


class Scan:
    """One search; what it has found so far may be read at any time, from any thread."""

    def __init__(self, browser: Browser, query: Query, spans: Spans):
        self.browser, self.query, self.spans = browser, query, spans
        self.found = array("q")  #: numbers of samples that pass, ascending
        self.seen, self.total = 0, size_of(spans)
        self.state = "running"  #: then "done", "stopped" or "failed"
        self.error = ""
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="scan", daemon=True).start()

    def stop(self) -> None:
        """End it; what was found stays."""
        self._stop.set()
        if self.state == "running":
            self.state = "stopped"

    def _run(self) -> None:
        try:
            self._look()
        except (ValueError, OSError) as error:
            self.error, self.state = str(error), "failed"
        else:
            self.state = "stopped" if self._stop.is_set() else "done"

    def _look(self) -> None:
        expression = condition(self.query, self.browser.manifest)
        decoder = msgspec.json.Decoder(facts_type(self.browser.manifest, everything=expression is not None))
        for shard, first, stop in self._parts():
            for number, key, data in islice(self.browser.facts(shard), first, stop):
                if self._stop.is_set():
                    return
                try:
                    facts = decoder.decode(data)
                except (msgspec.MsgspecError, RecursionError) as error:
                    raise ValueError(f"{key}.json: {error}; `mimic-shard verify` tells more") from None
                holds = expression is None or expression.holds(key, facts)
                if holds and passes(self.query, facts.source, facts.scene):
                    self.found.append(number)
                self.seen += 1

    def _parts(self) -> Iterator[tuple[int, int, int]]:
        """Shards with samples in the spans, and which of theirs: from the first, up to and without the last."""
        for start, stop in self.spans.tolist():
            while start < stop:
                shard, place = self.browser.locate(start)
                count = min(stop - start, self.browser.manifest.shards[shard].samples - place)
                yield shard, place, place + count
                start += count


class Scans:
    """The searches of a viewer; asking again for one that is known gives the same."""

    def __init__(self) -> None:
        self._known: OrderedDict[Query, Scan] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, browser: Browser, query: Query, spans: Spans, again: bool = False) -> Scan:
        """The search for a query, begun if it is new, or with `again` if it was stopped or failed."""
        with self._lock:
            scan = self._known.pop(query, None)
            if scan is None or (again and scan.state in ("stopped", "failed")):
                scan = Scan(browser, query, spans)
            self._known[query] = scan
            running = [other for other in self._known.values() if other.state == "running"]
            for other in running[:-RUNNING]:
                other.stop()
            while len(self._known) > KEPT:
                self._known.popitem(last=False)[1].stop()
            return scan

    def stop(self, query: Query) -> bool:
        """Stop the search for a query; False if there is none."""
        with self._lock:
            scan = self._known.get(query)
        if scan is not None:
            scan.stop()
        return scan is not None

    def stop_all(self) -> None:
        """Stop all searches."""
        with self._lock:
            for scan in self._known.values():
                scan.stop()
