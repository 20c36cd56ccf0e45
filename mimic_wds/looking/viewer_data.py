"""What the viewer shows of a data set, read when it is asked for: pages of samples, one sample, its members."""

import threading
from collections import OrderedDict
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from mimic_wds.looking.viewer_outline import outline
from mimic_wds.looking.viewer_queries import (
    Query,
    Scenes,
    check_query,
    condition,
    like,
    numbers_at,
    passes,
    size_of,
    spans_of,
)
from mimic_wds.looking.viewer_scan import Scans
from mimic_wds.pairs import PairSample
from mimic_wds.storage.browse import REQUESTS, Browser
from mimic_wds.storage.layout import is_key, scenes_name
from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.places import Place
from mimic_wds.storage.sample import decode, decode_image
from mimic_wds.storage.threads import in_threads

#: Samples that stay in memory: those of some pages.
CACHED = 512

#: Names of shards that the page suggests.
SHARDS = 1000

#: Names of scenes that it suggests at a time.
SUGGESTED = 50


class NotThere(LookupError):
    """A sample or member that the data set does not have; `near` are keys that it has."""

    def __init__(self, message: str, near: list[str] | None = None):
        super().__init__(message)
        self.near = near or []


class _Line(msgspec.Struct):
    """What is read of a line of `scenes.jsonl`."""

    source: str
    scene: str
    kept: int


class Viewed:
    """A data set that is looked at. Methods may be used by any thread; they raise as those of `Browser` do."""

    def __init__(self, browser: Browser):
        self.browser, self.scans = browser, Scans()
        self.is_ordered = True  #: False once a sample was met that is not where `scenes.jsonl` says
        self._samples: OrderedDict[int, tuple[str, dict[str, bytes]]] = OrderedDict()
        self._lock = threading.Lock()

    def data_set(self) -> dict[str, object]:
        """What the manifest says."""
        manifest, histogram = self.browser.manifest, self.browser.manifest.overlap_histogram
        return {
            "name": manifest.name,
            "url": self.browser.place.url,
            "kind": manifest.kind,
            "samples": len(self.browser),
            "generation": manifest.generation,
            "bytes": sum(shard.bytes for shard in manifest.shards),
            "sources": _per_source(manifest),
            "num_shards": len(manifest.shards),
            "shards": [shard.name for shard in manifest.shards[:SHARDS]],
            "histogram": {"edges": histogram.edges, "counts": histogram.counts},
        }

    def scenes(self, source: str, text: str) -> list[str]:
        """Some scenes with this text in their name; none if `scenes.jsonl` does not tell."""
        return [] if self._scenes is None else like(self._scenes, source, text, SUGGESTED)

    def checked(self, query: Query) -> Query:
        """A query that means something here. Raises ValueError for any other."""
        check_query(query, self.browser.manifest)
        return query

    def page(self, query: Query, offset: int, limit: int, again: bool = False) -> dict[str, object]:
        """Samples `offset` and following of those that pass, what is known of their number, and how far a search is.

        The query must be `checked`.
        """
        manifest = self.browser.manifest
        spans, is_exact = spans_of(query, manifest, None)
        if not is_exact:
            spans, is_exact = spans_of(query, manifest, self._scenes)
        if is_exact and condition(query, manifest) is None:
            rows = self._rows(numbers_at(spans, offset, limit))
            if all(passes(query, row["source"], row["scene"]) for row in rows):
                count = size_of(spans)
                return {"rows": rows, "count": count, "state": "done", "seen": count, "total": count, "error": ""}
            self.is_ordered = False
            spans, _ = spans_of(query, manifest, None)
        scan = self.scans.get(self.browser, query, spans, again)
        state, seen, error = scan.state, scan.seen, scan.error  # before `found`, which only grows
        rows = self._rows(scan.found[offset : offset + limit].tolist())
        return {
            "rows": rows, "count": len(scan.found), "state": state, "seen": seen, "total": scan.total, "error": error
        }  # fmt: skip

    def number_of(self, key: str, hint: int | None) -> int:
        """The number of the sample with a key, which may be `hint`. Raises NotThere with keys that are near."""
        if hint is not None and 0 <= hint < len(self.browser) and self.read(hint)[0] == key:
            return hint
        try:
            return self.browser.find(key)
        except ValueError as error:
            if "has the key" not in str(error):
                raise
            message, _, near = str(error).partition("; near are ")
            kind = self.browser.manifest.kind
            raise NotThere(message, [other for other in near.split(", ") if is_key(other, kind)]) from None

    def sample(self, number: int) -> dict[str, object]:
        """All that is known of a sample but its pictures. Raises NotThere for a number that no sample has."""
        key, members = self.read(number)
        shard, place = self.browser.locate(number)
        is_pair = self.browser.manifest.kind == "pairs"
        sample = decode(key, members) if is_pair else decode_image(key, members)
        found: dict[str, object] = {
            "key": key,
            "number": number,
            "shard": self.browser.manifest.shards[shard].name,
            "place": place,
            "size": sample.size,
            "facts": msgspec.json.decode(members["json"]),
            "members": {name: len(data) for name, data in members.items()},
        }
        return {**found, **_geometry(sample)} if isinstance(sample, PairSample) else found

    def read(self, number: int) -> tuple[str, dict[str, bytes]]:
        """Key and members of a sample; read once while it is among the last CACHED. Raises NotThere."""
        if not 0 <= number < len(self.browser):
            raise NotThere(f"there is no number {number}; they go from 0 to {len(self.browser) - 1}")
        with self._lock:
            if number in self._samples:
                self._samples.move_to_end(number)
                return self._samples[number]
        sample = self.browser.read(number)
        with self._lock:
            self._samples[number] = sample
            while len(self._samples) > CACHED:
                self._samples.popitem(last=False)
        return sample

    def member(self, number: int, name: str) -> tuple[str, bytes]:
        """Key of a sample and one of its members. Raises NotThere."""
        if name not in self.browser.manifest.members:
            raise NotThere(f"no member {name!r}; there are {', '.join(self.browser.manifest.members)}")
        key, members = self.read(number)
        return key, members[name]

    def etag(self, number: int, name: str) -> str:
        """What stands for the bytes of a member, known without reading it. Raises NotThere."""
        if name not in self.browser.manifest.members or not 0 <= number < len(self.browser):
            raise NotThere(f"there is no member {name!r} of a number {number}")
        shard, place = self.browser.locate(number)
        return f'"{self.browser.manifest.shards[shard].sha256[:32]}-{place}-{name}"'

    def _rows(self, numbers: list[int]) -> list[dict[str, Any]]:
        """Samples as a list shows them, read side by side."""
        shards = sorted({self.browser.locate(number)[0] for number in numbers})
        for _ in in_threads(self.browser.index, shards, min(REQUESTS, len(shards))):
            pass  # each once, before many samples ask for the same
        return list(in_threads(self._row, numbers, min(REQUESTS, len(numbers))))

    def _row(self, number: int) -> dict[str, Any]:
        key, members = self.read(number)
        facts = msgspec.json.decode(members["json"])
        shard = self.browser.manifest.shards[self.browser.locate(number)[0]].name
        row = {"number": number, "key": key, "shard": shard, "source": facts["source"], "scene": facts["scene"]}
        return {**row, "overlap": facts["overlap"]} if self.browser.manifest.kind == "pairs" else row

    @property
    def _scenes(self) -> Scenes | None:
        return self._listed if self.is_ordered else None

    @cached_property
    def _listed(self) -> Scenes | None:
        if self.browser.manifest.kind != "pairs" or self.browser.manifest.criteria.get("preset") == "import":
            return None  # the samples of an import have scenes of other names than its lines
        return read_scene_table(self.browser.place, self.browser.manifest)


def read_scene_table(place: Place, manifest: Manifest) -> Scenes | None:
    """The scenes of a data set in the order of their samples; None if the lines are missing or do not add up.

    Raises OSError when the place fails.
    """
    sources, names, counts, before = list[str](), list[str](), list[int](), dict[tuple[str, str], int]()
    decoder = msgspec.json.Decoder(_Line)
    for generation in range(manifest.generation + 1):
        first = len(counts)
        try:
            lines = [decoder.decode(line) for line in place.read(scenes_name(generation)).splitlines()]
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        for line in lines:
            new = line.kept
            if manifest.generation:  # a scene that is run again counts what it had before, too
                name = (line.source, line.scene)
                new, before[name] = line.kept - before.get(name, 0), line.kept
            if new > 0:
                sources.append(line.source)
                names.append(line.scene)
                counts.append(new)
        if sum(counts[first:]) != sum(shard.samples for shard in manifest.shards if shard.generation == generation):
            return None
    count = np.array(counts, np.int64)
    return Scenes(sources, names, np.cumsum(count) - count, count)


def _per_source(manifest: Manifest) -> dict[str, int]:
    """Samples in the shards, per source, sorted by name."""
    found: dict[str, int] = {}
    for shard in manifest.shards:
        for source, samples in shard.sources.items():
            found[source] = found.get(source, 0) + samples
    return dict(sorted(found.items()))


def _geometry(sample: PairSample) -> dict[str, object]:
    """How the views of a pair correspond, for drawing; the homography as 9 numbers, row by row."""
    known = bool(np.isfinite(sample.H_0to1).all() and abs(np.linalg.det(sample.H_0to1)) > 0)
    return {
        "corr": sample.corr_0to1.tolist(),
        "patch_size": sample.patch_size,
        "homography": sample.H_0to1.ravel().tolist() if known else None,
        "outline0": outline(np.linalg.inv(sample.H_0to1).astype(np.float64), sample.size) if known else [],
        "outline1": outline(sample.H_0to1, sample.size) if known else [],
    }
