"""Build a data set: plan the scenes, run each to a staged file, pack the staged files in plan order, manifest last.

A scene is the unit of work and of resumption: one that is staged is not run again. The plan decides the order in the
shards, so neither the executor, the number of workers, the machines nor an interruption changes a byte.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.plan import PLAN_NAME, Plan, describe, every_scene, write_plan
from mimic_wds.curation.recipe import Recipe
from mimic_wds.curation.report import Report
from mimic_wds.curation.scene import Tally, curate
from mimic_wds.executors.base import Executor
from mimic_wds.pairs import Counts, Scene, SceneError
from mimic_wds.sources.base import Source
from mimic_wds.storage.files import remove_stale
from mimic_wds.storage.layout import STAGING_NAME, check_dataset_name
from mimic_wds.storage.manifest import Manifest, manifest_hash, read_manifest
from mimic_wds.storage.output import check_output, locked
from mimic_wds.storage.packing import pack
from mimic_wds.storage.staging import (
    SceneStage,
    clean_staged,
    read_staged,
    staged_numbers,
    take_staged,
)


@dataclass(frozen=True)
class Task:
    """One scene of a plan with all that a worker needs to run it."""

    number: int  #: place in the plan
    scene: Scene
    source: Source
    criteria: Criteria
    staging: Path

    def __str__(self) -> str:
        return f"{self.scene.source}/{self.scene.name}"


@dataclass(frozen=True, slots=True)
class Part:
    """Which scenes of a plan one of several machines runs: those whose number leaves `index` when divided by `of`."""

    index: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.of:
            raise ValueError(f"a part must be I/N with 0 <= I < N, got {self.index}/{self.of}")

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @property
    def is_whole(self) -> bool:
        """True if there is only one machine."""
        return self.of == 1


WHOLE = Part()


def build(recipe: Recipe, executor: Executor, report: Report, *, resume: bool = False) -> Manifest:
    """Build the data set of `recipe` in its output folder and return its manifest.

    Raises ValueError for an unusable recipe, input or output folder, OutputError when it cannot be written.
    """
    if check_output(recipe.out, resume) == "complete":
        return finished(recipe)
    with prepared(recipe, WHOLE) as plan:
        run_scenes(plan, recipe, executor, WHOLE, report)
        report.packing()
        return pack_plan(plan, recipe.out)


def build_part(recipe: Recipe, executor: Executor, report: Report, part: Part) -> None:
    """Run one machine's part of a build; `merge` makes the data set when all parts are there. Always resumes.

    Raises like `build`.
    """
    if check_output(recipe.out, resume=True) == "complete":
        raise ValueError(f"{recipe.out}: the parts are merged already; choose another --out")
    with prepared(recipe, part) as plan:
        run_scenes(plan, recipe, executor, part, report)


def merge(out: Path, others: tuple[Path, ...] = ()) -> Manifest:
    """Make the data set of a build whose parts were run apart, in `out` itself or also in `others`.

    Raises ValueError when a part belongs to another build or when scenes are missing, naming how many of which part.
    """
    staging = out / STAGING_NAME
    if not staging.is_dir():
        raise ValueError(f"{out}: no unfinished build here; run its parts with `build --shard-of I/N` first")
    with locked(staging), Plan(staging) as plan:
        for other in others:
            _take_part(plan, staging, other / STAGING_NAME)
        todo = unfinished(plan, staging, WHOLE)
        if len(todo):
            raise ValueError(
                f"{out}: {len(todo):,} of {len(plan):,} scenes are not done, the first is number {todo[0]} "
                f"({plan.scene(todo[0])[1].path}): run the parts that hold them again, then merge"
            )
        clean_staged(staging)
        return pack_plan(plan, out)


def _take_part(plan: Plan, staging: Path, other: Path) -> None:
    """Move all finished scenes of another folder's build here. Raises ValueError when it is another build."""
    with locked(other), Plan(other) as theirs:
        if theirs.digest() != plan.digest():
            raise ValueError(f"{other.parent}: was built with another recipe or other input than {staging.parent}")
        for number in list(staged_numbers(other)):
            take_staged(staging, other, number)


def pack_plan(plan: Plan, out: Path) -> Manifest:
    """Pack the scenes of a plan, all of them staged, and remove the staging folder."""
    recipe = plan.header["recipe"]
    description = {name: plan.header[name] for name in ("criteria", "versions", "licences", "maps", "truth")}
    remove_stale(out)
    manifest = pack(plan.folder, len(plan), out, recipe["name"], recipe["max_shard_bytes"], description)
    shutil.rmtree(plan.folder)
    return manifest


@contextmanager
def prepared(
    recipe: Recipe, part: Part, base: Manifest | None = None, wanted: Callable[[Scene], bool] = every_scene
) -> Iterator[Plan]:
    """The plan of a recipe in its output folder, which is locked against other builds of the same scenes.

    With `base`, a data set that is there, the plan lists the scenes that are to be added to it.
    """
    check_dataset_name(recipe.name)
    staging = recipe.out / STAGING_NAME
    staging.mkdir(parents=True, exist_ok=True)
    with locked(staging, part.index, part.of):
        if part.is_whole:
            clean_staged(staging)
        try:
            plan = write_plan(staging, recipe, base, wanted)
        except ValueError:
            _undo(staging)
            raise
        with plan:
            yield plan


def _undo(staging: Path) -> None:
    """Remove the folders of a build that could not be planned; no build that was begun is touched."""
    if not (staging / PLAN_NAME).exists():
        shutil.rmtree(staging)
        with suppress(OSError):  # it holds a recipe, say
            staging.parent.rmdir()


def run_scenes(plan: Plan, recipe: Recipe, executor: Executor, part: Part, report: Report) -> None:
    """Run all scenes of a part that are not done, the largest first."""
    staging = recipe.out / STAGING_NAME
    todo = unfinished(plan, staging, part)
    total = len(range(part.index, len(plan), part.of))
    report.start(total, total - len(todo))
    tasks = (
        Task(number, scene, recipe.sources[source], recipe.criteria, staging)
        for number in plan.largest_first(todo).tolist()
        for source, scene in [plan.scene(number)]
    )
    for task, failure in executor.run(run_scene, tasks):
        if failure is not None:
            with SceneStage(staging, task.number) as stage:
                stage.finish(task.scene, Counts(), failure.message)
        staged = read_staged(staging, task.number)
        assert staged is not None
        report.scene(staged)


def unfinished(plan: Plan, staging: Path, part: Part) -> NDArray[np.int64]:
    """The numbers of a part's scenes that are not staged, ascending."""
    is_todo = np.zeros(len(plan), bool)
    is_todo[part.index :: part.of] = True
    for number in staged_numbers(staging):
        is_todo[number] = False
    return np.flatnonzero(is_todo)


def run_scene(task: Task) -> None:
    """Curate one scene into its staged file. A scene that cannot be read is an outcome; a full disk is an error."""
    cv2.setNumThreads(1)  # the workers are the parallelism; OpenCV's own threads would only compete with them
    tally, error = Tally(), ""
    with SceneStage(task.staging, task.number) as stage:
        try:
            views, policy = task.source.views(task.scene), task.source.policy(task.scene)
            for sample in curate(task.scene, views, policy, task.criteria, tally):
                stage.add(sample)
        except (SceneError, cv2.error) as broken:
            error = str(broken)
        except MemoryError:
            error = f"{task.scene.path}: needs more memory than there is"
        stage.finish(task.scene, tally.counts(), error)


def finished(recipe: Recipe) -> Manifest:
    """The manifest of a build that is whole already. Raises ValueError when it was made with other criteria."""
    manifest = read_manifest(recipe.out)
    if manifest.criteria != describe(recipe)["criteria"]:
        raise ValueError(f"{recipe.out}: holds a data set made with other criteria; choose another --out")
    clear_left_over(recipe.out, manifest)
    return manifest


def clear_left_over(out: Path, manifest: Manifest) -> None:
    """Remove the staging folder of a run that was killed after it had written the manifest."""
    staging = out / STAGING_NAME
    if staging.exists() and _is_left_over(staging, manifest):
        with locked(staging):
            shutil.rmtree(staging)


def _is_left_over(staging: Path, manifest: Manifest) -> bool:
    """True unless it builds upon the data set that is there: then a run was killed between manifest and clean-up."""
    try:
        with Plan(staging) as plan:
            return bool(plan.header["base"] != manifest_hash(manifest))
    except ValueError:  # killed within the clean-up
        return True
