"""`scenes.jsonl`: one line per scene of a data set, what became of it; the manifest's counts are their sums.

A later generation writes its lines to a file of its own, `scenes-000001.jsonl` and so on, which never changes either:
the line of a scene that has one in several files is that of the last. So the manifest alone decides which lines hold.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mimic_wds.pairs import Counts
from mimic_wds.storage.files import atomic_write
from mimic_wds.storage.layout import SCENES_NAME, scenes_name


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneOutcome:
    """A line: counts as in the manifest, and why the scene could not be read (to its end), or ""."""

    source: str
    scene: str
    kept: int
    dropped: dict[str, int]
    faults: dict[str, int]
    views: int
    error: str

    @property
    def counts(self) -> Counts:
        """The counts of the line."""
        return Counts(kept=self.kept, dropped=self.dropped, faults=self.faults, views=self.views)

    @property
    def name(self) -> str:
        """ "source/scene", as failed scenes are listed in the manifest."""
        return f"{self.source}/{self.scene}"


@dataclass(slots=True)
class Totals:
    """Sums over scenes, per source."""

    scenes: dict[str, int] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  #: "source/scene" -> why

    def add(self, outcome: SceneOutcome) -> None:
        """Count one scene."""
        source = outcome.source
        self.scenes[source] = self.scenes.get(source, 0) + 1
        self.counts[source] = self.counts.get(source, Counts()) + outcome.counts
        if outcome.error:
            self.failed[outcome.name] = outcome.error


def read_scenes(path: Path) -> Iterator[SceneOutcome]:
    """The lines of a `scenes.jsonl`. Raises ValueError naming file and line."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise ValueError(f"{path}: is missing") from None
    decoder = msgspec.json.Decoder(SceneOutcome)
    with file:
        for number, line in enumerate(file, start=1):
            try:
                yield decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise ValueError(f"{path}: line {number}: {error}") from None


def scene_lines(folder: Path, generation: int) -> Iterator[SceneOutcome]:
    """The lines that hold in a generation, each scene where it was first named. Memory: those of later generations.

    Raises ValueError naming file and line.
    """
    later: dict[str, SceneOutcome] = {}
    for number in range(1, generation + 1):
        later.update((outcome.name, outcome) for outcome in read_scenes(folder / scenes_name(number)))
    for outcome in read_scenes(folder / SCENES_NAME):
        yield later.pop(outcome.name, outcome)
    yield from later.values()


def totals_of(outcomes: Iterable[SceneOutcome]) -> Totals:
    """The sums of some lines."""
    totals = Totals()
    for outcome in outcomes:
        totals.add(outcome)
    return totals


def write_scenes(path: Path, outcomes: Iterable[SceneOutcome]) -> Totals:
    """Write the lines atomically and return their sums."""
    totals, encoder = Totals(), msgspec.json.Encoder(order="deterministic")
    with atomic_write(path) as file:
        for outcome in outcomes:
            totals.add(outcome)
            file.write(encoder.encode(outcome) + b"\n")
    return totals
