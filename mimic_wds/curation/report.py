"""How a build goes and went: counts, rates, failed scenes; `build-report.json` keeps them for later."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from mimic_wds.pairs import Counts
from mimic_wds.storage.files import atomic_write
from mimic_wds.storage.layout import REPORT_NAME
from mimic_wds.storage.staging import StagedScene


@dataclass(slots=True)
class Report:
    """What this run of a build has done. Give it to `build`; it calls `changed` after every step."""

    settings: dict[str, Any]  #: executor, workers, ... as they were chosen
    changed: Callable[["Report"], None] = lambda report: None
    state: str = "planning"  #: then "mining", "packing", and at last "done", "interrupted" or "stopped: why"
    scenes: int = 0  #: to see to
    scenes_before: int = 0  #: of them finished before this run
    scenes_now: int = 0  #: of them finished by this run
    known: int = 0  #: scenes of the input that a data set to be extended has already
    counts: Counts = field(default_factory=Counts)  #: of the scenes of this run
    failed: dict[str, str] = field(default_factory=dict)  #: "source/scene" -> why, of this run
    started: float = field(default_factory=time.monotonic)
    started_at: str = field(default_factory=lambda: _now())

    def start(self, total: int, done: int) -> None:
        """There are `total` scenes to see to, `done` of which were finished before."""
        self.scenes, self.scenes_before, self.state = total, done, "mining"
        self.started = time.monotonic()
        self.changed(self)

    def scene(self, staged: StagedScene) -> None:
        """A scene is finished."""
        self.scenes_now += 1
        self.counts += staged.counts
        if staged.error:
            self.failed[f"{staged.scene.source}/{staged.scene.name}"] = staged.error
        self.changed(self)

    def packing(self) -> None:
        """All scenes are finished; their samples are being packed."""
        self.state = "packing"
        self.changed(self)

    @property
    def seconds(self) -> float:
        """Since the first scene was started."""
        return time.monotonic() - self.started

    @property
    def pairs_per_s(self) -> float:
        """Candidate pairs judged per second."""
        return self.counts.candidates / max(self.seconds, 1e-9)

    @property
    def most_dropped(self) -> str:
        """The drop reasons of this run with their counts, most frequent first, for one line."""
        return ", ".join(f"{reason} {count:,}" for reason, count in Counter(self.counts.dropped).most_common(3))

    def write(self, out: Path) -> None:
        """Write `build-report.json` in the output folder."""
        plain = {
            "state": self.state,
            "started": self.started_at,
            "ended": _now(),
            "seconds": round(self.seconds, 3),
            "settings": self.settings,
            "scenes": {
                "all": self.scenes,
                "finished_before": self.scenes_before,
                "finished_now": self.scenes_now,
                "failed_now": len(self.failed),
            },
            "views": self.counts.views,
            "candidates": self.counts.candidates,
            "kept": self.counts.kept,
            "dropped": dict(self.counts.dropped),
            "faults": dict(self.counts.faults),
            "pairs_per_s": round(self.pairs_per_s, 3),
            "failed_scenes": self.failed,
        }
        with atomic_write(out / REPORT_NAME) as file:
            file.write(msgspec.json.format(msgspec.json.encode(plain), indent=1) + b"\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
