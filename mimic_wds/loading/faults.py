"""Samples that cannot be used: what to do about them, how many are borne, and an account that adds up over ranks."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self

from mimic_wds.storage.files import atomic_write

#: Keys that are kept of every reason, those of the samples with the smallest numbers.
KEYS_KEPT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPolicy:
    """What a loader does about bad samples: replace and count them up to a budget, or stop at the first."""

    action: Literal["raise", "skip"] = "skip"
    share: float = 0.001  #: of the samples of the data set that may be bad, in [0, 1]
    count: int = 10  #: bad samples that are borne however small the data set is

    def __post_init__(self) -> None:
        if self.action not in ("raise", "skip"):
            raise ValueError(f"what to do about bad samples must be raise or skip, got {self.action!r}")
        if not 0 <= self.share <= 1 or self.count < 0:
            raise ValueError(
                f"the budget for bad samples is a share in [0, 1] and a count of 0 or more, got {self.share}, "
                f"{self.count}"
            )

    def budget(self, num_samples: int) -> int:
        """Different bad samples that are borne in a data set of so many."""
        return 0 if self.action == "raise" else max(self.count, int(num_samples * self.share))


@dataclass(slots=True)
class FaultCounts:
    """Which samples were bad and why; each counts once, however often and by how many processes it was met.

    May be added to from any thread. As large as the budget at most.
    """

    reasons: dict[int, str] = field(default_factory=dict)  #: number of the sample -> what is wrong with it
    keys: dict[int, str] = field(default_factory=dict)  #: number -> key, of KEYS_KEPT samples per reason
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def add(self, index: int, reason: str, key: str) -> int:
        """Note a bad sample; returns how many there are now. The first reason that is given for a sample stays."""
        with self._lock:
            if index not in self.reasons:
                self.reasons[index] = reason
                self._keep(index, key)
            return len(self.reasons)

    @property
    def counts(self) -> Counter[str]:
        """Bad samples by reason."""
        with self._lock:
            return Counter(self.reasons.values())

    def as_plain(self) -> dict[str, Any]:
        """Plain JSON, for `from_plain` in another process and for `write_faults`."""
        with self._lock:
            return {
                "reasons": {str(index): self.reasons[index] for index in sorted(self.reasons)},
                "keys": {str(index): self.keys[index] for index in sorted(self.keys)},
            }

    @classmethod
    def from_plain(cls, plain: Iterable[Mapping[str, Any]]) -> Self:
        """The sum of what several processes counted; a sample that several of them met counts once."""
        total = cls()
        for part in plain:
            for index, reason in part["reasons"].items():
                total.add(int(index), reason, part["keys"].get(index, ""))
        return total

    def _keep(self, index: int, key: str) -> None:
        """Keep the key unless there are enough of smaller numbers with this reason."""
        if not key:
            return
        self.keys[index] = key
        same = [other for other in self.keys if self.reasons[other] == self.reasons[index]]
        if len(same) > KEYS_KEPT:
            del self.keys[max(same)]


def write_faults(path: Path, faults: FaultCounts, *, num_samples: int) -> None:
    """Write an account as JSON, atomically: samples of the data set, bad ones, per reason how many and first keys."""
    reasons = {}
    for reason, count in sorted(faults.counts.items()):
        keys = [key for index, key in sorted(faults.keys.items()) if faults.reasons[index] == reason]
        reasons[reason] = {"count": count, "first_keys": keys}
    plain = {"samples": num_samples, "unusable": len(faults.reasons), "reasons": reasons}
    with atomic_write(path) as file:
        file.write(json.dumps(plain, indent=1).encode() + b"\n")
