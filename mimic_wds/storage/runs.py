"""Where the samples of a scene should lie: their numbers follow from `scenes.jsonl` and its later generations.

A build packs its scenes in the order of their lines, the samples of a scene in a row, and each generation follows the
others; verbs that keep the order keep that. It need not hold (after a shuffle it does not), so it is a guess to check.
"""

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from mimic_wds.storage.layout import scene_prefix, scenes_name
from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.places import Place

#: Scenes among which those of a similar name are looked for.
NAMES = 10_000


class _Line(msgspec.Struct):
    """What is read of a line."""

    source: str
    scene: str
    kept: int


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """The scenes of a data set that have samples, S of them; 24 bytes for each."""

    digest: NDArray[np.uint64]  #: (S,) of what the keys of its samples begin with
    start: NDArray[np.int64]  #: (S,) number of its first sample
    count: NDArray[np.int64]  #: (S,) of its samples
    names: list[str]  #: what the keys of the first NAMES scenes begin with

    def of(self, prefix: str) -> list[tuple[int, int]]:
        """(first sample, how many) of the scenes whose keys begin so."""
        at = np.flatnonzero(self.digest == _digest(prefix))
        return list(zip(self.start[at].tolist(), self.count[at].tolist(), strict=True))

    def like(self, prefix: str, number: int) -> list[int]:
        """The first samples of scenes whose keys begin almost so, the most similar first."""
        close = difflib.get_close_matches(prefix, self.names, number)
        return [int(self.start[self.names.index(name)]) for name in close]


def read_runs(place: Place, manifest: Manifest) -> Runs | None:
    """Where scenes should lie; None when the lines are missing, or do not add up to the manifest."""
    digests, counts, names, before = list[int](), list[int](), list[str](), dict[int, int]()
    for generation in range(manifest.generation + 1):
        first = len(counts)
        for line in _lines(place, generation):
            new = line.kept
            if manifest.generation:  # a scene that is run again counts what it had before, too
                name = _digest(f"{line.source}/{line.scene}")
                new, before[name] = line.kept - before.get(name, 0), line.kept
            if new > 0:
                prefix = scene_prefix(line.source, line.scene)
                digests.append(_digest(prefix))
                counts.append(new)
                names += [prefix] if len(names) < NAMES else []
        if sum(counts[first:]) != sum(s.samples for s in manifest.shards if s.generation == generation):
            return None
    numbers = np.array(counts, np.int64)
    return Runs(np.array(digests, np.uint64), np.cumsum(numbers) - numbers, numbers, names)


def _lines(place: Place, generation: int) -> Iterator[_Line]:
    """The lines of a generation; none if they are not there or damaged."""
    decoder = msgspec.json.Decoder(_Line)
    try:
        for line in place.read(scenes_name(generation)).splitlines():
            yield decoder.decode(line)
    except (FileNotFoundError, msgspec.MsgspecError):
        return


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
