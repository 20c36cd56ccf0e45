"""Import a data set: list the units of a foreign format, stage each, pack them in order, manifest last.

The same steps as a build, on pairs that are there already, and with the same promises: a unit that is staged is not
read again, neither the number of workers nor an interruption changes a byte, and every pair is kept or counted with a
reason.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mimic_wds import __version__
from mimic_wds.executors.base import Executor
from mimic_wds.geometry import features, homography, overlap
from mimic_wds.importing.base import DUPLICATE_KEY, UNREADABLE, Format, Lost, Plan, RawPair, Unit
from mimic_wds.importing.samples import make_sample
from mimic_wds.pairs import Counts, Kind, PairSample, Sample, SceneError
from mimic_wds.storage.files import atomic_write, remove_stale
from mimic_wds.storage.layout import STAGING_NAME, check_dataset_name
from mimic_wds.storage.manifest import Manifest, Plain, read_manifest
from mimic_wds.storage.output import check_output, locked
from mimic_wds.storage.packing import pack
from mimic_wds.storage.staging import SceneStage, StagedScene, read_staged

#: The plan's name is that of a build's, so that neither takes the other's staging folder for its own.
PLAN_NAME = "plan.jsonl"


@dataclass(frozen=True, kw_only=True)
class Target:
    """The data set that an import makes."""

    out: Path
    name: str
    size: int  #: pixels, height and width of every view; larger images are shrunk to this short side, 0 = none is
    kind: Kind = "pairs"
    patch_size: int = 16  #: pixels
    recompute: bool = False  #: measure homography, correspondences and overlap anew
    max_shard_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        check_dataset_name(self.name)
        if self.kind == "images":
            if self.size < 0 or self.recompute:
                raise ValueError("of images the size is 0 (as they are) or more, and there is no overlap to measure")
            return
        if self.size <= 0 or self.patch_size <= 0 or self.size % self.patch_size:
            raise ValueError(f"views of {self.size} pixels have no whole patches of {self.patch_size}")
        if (self.size // self.patch_size) ** 2 > np.iinfo(np.int16).max:
            raise ValueError(f"{self.size} pixels have too many patches of {self.patch_size}")


@dataclass(frozen=True)
class Task:
    """One unit with all that a worker needs to read it."""

    number: int  #: place in the plan
    unit: Unit
    format: Format
    target: Target

    def __str__(self) -> str:
        return f"{self.unit.scene.source}/{self.unit.scene.name}"


class Watcher:
    """Is told how an import goes; the command line shows it."""

    def planned(self, plan: Plan, done: int) -> None:
        """The units are known, `done` of which were read before."""

    def unit(self, staged: StagedScene) -> None:
        """This run has read a unit."""

    def packing(self) -> None:
        """All units are read; their samples are being packed."""


def import_data_set(
    format: Format, target: Target, executor: Executor, *, resume: bool = False, watcher: Watcher | None = None
) -> Manifest:
    """Import all of `format` as the data set `target` and return its manifest.

    Raises ValueError for unusable input or output, OutputError when the output cannot be written.
    """
    watcher = watcher or Watcher()
    if check_output(target.out, resume) == "complete":
        return _finished(target)
    plan = format.plan(target)
    staging = target.out / STAGING_NAME
    staging.mkdir(parents=True, exist_ok=True)
    with locked(staging):
        _remember(staging, format, target, plan)
        remove_stale(target.out)
        for folder in [staging, *(path for path in staging.iterdir() if path.is_dir())]:
            remove_stale(folder)
        todo = [number for number in range(len(plan.units)) if read_staged(staging, number) is None]
        watcher.planned(plan, len(plan.units) - len(todo))
        tasks = (Task(number, plan.units[number], format, target) for number in todo)
        for task, failure in executor.run(import_unit, tasks):
            if failure is not None:
                _give_up(task, failure.message)
            staged = read_staged(staging, task.number)
            assert staged is not None
            watcher.unit(staged)
        watcher.packing()
        description = _describe(format, target, plan)
        manifest = pack(staging, len(plan.units), target.out, target.name, target.max_shard_bytes, description)
    shutil.rmtree(staging)
    return manifest


def import_unit(task: Task) -> None:
    """Read one unit into its staged file. A unit that cannot be read to its end is an outcome; a full disk an error."""
    cv2.setNumThreads(1)  # the workers are the parallelism
    tally, error = Tally(task.unit), ""
    with SceneStage(task.target.out / STAGING_NAME, task.number) as stage:
        try:
            for sample in _samples(task, tally):
                stage.add(sample)
        except SceneError as broken:
            error = str(broken)
        stage.finish(task.unit.scene, tally.counts(error), error)


class Tally:
    """Counts what becomes of the pairs of a unit."""

    def __init__(self, unit: Unit):
        self._num_pairs = unit.num_pairs
        self._seen = self.kept = self.views = 0
        self._dropped = Counter(unit.dropped)
        self._faults: Counter[str] = Counter()

    def drop(self, reason: str) -> None:
        """One pair is lost."""
        self._seen += 1
        self._dropped[reason] += 1

    def keep(self, sample: Sample, faults: Iterable[str]) -> None:
        """One pair or image is kept, for what could be read of it."""
        self._seen += 1
        self.kept += 1
        self.views += 2 if isinstance(sample, PairSample) else 1
        self._faults.update(faults)

    def counts(self, error: str = "") -> Counts:
        """The counts so far; after an error the pairs that are still missing count as unreadable."""
        dropped = Counter(self._dropped)
        if error:
            dropped[UNREADABLE] += max(0, self._num_pairs - self._seen)
        return Counts(kept=self.kept, dropped=dict(+dropped), faults=dict(self._faults), views=self.views)


def _samples(task: Task, tally: Tally) -> Iterator[Sample]:
    """The kept samples of a unit."""
    keys: set[str] = set()
    for found in task.format.pairs(task.unit, task.target):
        made = make_sample(found, task.target) if isinstance(found, RawPair) else found
        if isinstance(made, Lost):
            tally.drop(made.reason)
        elif made.sample.key in keys:
            tally.drop(DUPLICATE_KEY)
        else:
            keys.add(made.sample.key)
            tally.keep(made.sample, made.faults)
            yield made.sample


def _give_up(task: Task, message: str) -> None:
    """Stage a unit that an executor gave up."""
    with SceneStage(task.target.out / STAGING_NAME, task.number) as stage:
        stage.finish(task.unit.scene, Tally(task.unit).counts(message), message)


def _finished(target: Target) -> Manifest:
    """The manifest of an import that is whole already. Raises ValueError when it was made otherwise."""
    manifest = read_manifest(target.out)
    if manifest.criteria != criteria(target):
        raise ValueError(f"{target.out}: holds a data set made in another way; choose another --out")
    shutil.rmtree(target.out / STAGING_NAME, ignore_errors=True)  # there if the run was killed between the two
    return manifest


def _remember(staging: Path, format: Format, target: Target, plan: Plan) -> None:
    """Write the plan, or on resuming check that it is still the same. Raises ValueError when it is not."""
    now = [{"recipe": {"import": format.name, **_plain(format), **_plain(target)}, "versions": _versions()}] + [
        [0, unit.scene.source, unit.scene.name, hashlib.sha256(unit.payload).hexdigest()[:16], dict(unit.dropped)]
        for unit in plan.units
    ]
    lines = [json.dumps(line, sort_keys=True).encode() + b"\n" for line in now]
    path = staging / PLAN_NAME
    if not path.exists():
        with atomic_write(path) as file:
            file.writelines(lines)
        return
    then = path.read_bytes().splitlines(keepends=True)
    if then[:1] != lines[:1]:
        raise ValueError(f"{staging.parent}: the unfinished import has other options; use the same, or another --out")
    if then != lines:
        raise ValueError(f"{staging.parent}: the input has changed since the import began; restore it, or start anew")


def _plain(options: Any) -> dict[str, str]:
    """The options of a format or target, as text; where the output lies is no part of what it is."""
    return {name: str(value) for name, value in asdict(options).items() if name != "out"}


def criteria(target: Target) -> dict[str, Plain]:
    """What the manifest says about how pairs were chosen: not by overlap; how it was measured, if it was."""
    if target.kind == "images":
        return {"preset": "import", "size": target.size}
    known: dict[str, Plain] = {"preset": "import", "size": target.size, "patch_size": target.patch_size}
    if target.recompute:
        known |= {
            "points_per_patch": 0,
            "lowe_ratio": features.LOWE_RATIO,
            "min_matches": overlap.MIN_MATCHES,
            "ransac_px": homography.RANSAC_PX,
        }
    return known


def _describe(format: Format, target: Target, plan: Plan) -> dict[str, Any]:
    """No paths, no times: importing the same pairs again gives the same bytes."""
    sources = dict.fromkeys(unit.scene.source for unit in plan.units)
    return {
        "criteria": criteria(target),
        "versions": _versions(),
        "licences": dict.fromkeys(sources, format.licence),
        "kind": target.kind,
        "classes": plan.classes,
        "maps": plan.maps,
        "semseg_classes": plan.semseg_classes,
        "truth": plan.truth,
    }


def _versions() -> dict[str, str]:
    return {"mimic_wds": __version__, "opencv": cv2.__version__, "numpy": np.__version__}
