"""Build a data set: plan the scenes, run each to a staged file, pack the staged files in plan order, manifest last.

A scene is the unit of work and of resumption: one whose staged file exists is not run again. The plan decides the
order in the shards, so neither the number of workers nor an interruption changes a byte.
"""

import fcntl
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mimic_wds import __version__
from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.executor import run_all
from mimic_wds.curation.recipe import Recipe
from mimic_wds.curation.scene import Tally, curate
from mimic_wds.pairs import Scene, SceneError
from mimic_wds.sources.base import Source
from mimic_wds.storage.files import atomic_write, remove_stale
from mimic_wds.storage.layout import MANIFEST_NAME, STAGING_NAME, check_dataset_name
from mimic_wds.storage.manifest import Manifest, read_manifest
from mimic_wds.storage.packing import pack
from mimic_wds.storage.staging import SceneStage, StagedScene, read_staged

PLAN_NAME = "plan.json"

#: What may lie in an output folder before a build.
MAY_BE_THERE = frozenset({"recipe.toml", ".gitignore", STAGING_NAME})


@dataclass(frozen=True)
class Task:
    """One scene of a plan with all that a worker needs to run it."""

    number: int  #: place in the plan
    scene: Scene
    source: Source
    criteria: Criteria
    staging: Path


def plan(recipe: Recipe, staging: Path) -> list[Task]:
    """All scenes of a recipe in their final order. Raises ValueError for missing input or equal scene names."""
    pairs = [(source, scene) for source in recipe.sources for scene in source.scenes()]
    (name, times) = max(Counter((scene.source, scene.name) for _, scene in pairs).items(), key=lambda item: item[1])
    if times > 1:
        raise ValueError(f"two [[sources]] of the recipe hold the {name[0]} scene {name[1]!r}; list it once")
    return [Task(n, scene, source, recipe.criteria, staging) for n, (source, scene) in enumerate(pairs)]


def build(
    recipe: Recipe,
    *,
    workers: int = 1,
    resume: bool = False,
    on_start: Callable[[int], None] = lambda total: None,
    on_scene: Callable[[StagedScene, bool], None] = lambda staged, is_new: None,
) -> Manifest:
    """Build the data set of `recipe` in its output folder and return its manifest.

    `on_start` is told the number of scenes, `on_scene` each finished one and whether this run did it.
    Raises ValueError for an unusable recipe, input or output folder, OutputError when it cannot be written.
    """
    check_dataset_name(recipe.name)
    out = recipe.out
    tasks = plan(recipe, out / STAGING_NAME)
    if check_output(out, resume) == "complete":
        return finished(recipe)
    out.mkdir(parents=True, exist_ok=True)
    staging = out / STAGING_NAME
    staging.mkdir(exist_ok=True)
    with only_one_build(staging):
        remember_plan(staging, recipe, tasks)
        remove_stale(staging)
        remove_stale(out)
        on_start(len(tasks))
        todo = []
        for task in tasks:
            staged = read_staged(staging, task.number)
            if staged is None:
                todo.append(task)
            else:
                on_scene(staged, False)
        for task in run_all(run_scene, todo, workers):
            staged = read_staged(staging, task.number)
            assert staged is not None
            on_scene(staged, True)
        manifest = pack(staging, len(tasks), out, recipe.name, recipe.max_shard_bytes, describe(recipe))
    shutil.rmtree(staging)
    return manifest


def finished(recipe: Recipe) -> Manifest:
    """The manifest of a build that is whole already. Raises ValueError when it was made with other criteria."""
    manifest = read_manifest(recipe.out)
    if manifest.criteria != describe(recipe)["criteria"]:
        raise ValueError(f"{recipe.out}: holds a data set made with other criteria; choose another --out")
    if (recipe.out / STAGING_NAME).exists():  # killed between the manifest and the clean-up
        shutil.rmtree(recipe.out / STAGING_NAME)
    return manifest


def run_scene(task: Task) -> None:
    """Curate one scene into its staged file. A scene that cannot be read is an outcome; a full disk is an error."""
    cv2.setNumThreads(1)  # the workers are the parallelism; OpenCV's own threads would only compete with them
    tally, error = Tally(), ""
    with SceneStage(task.staging, task.number) as stage:
        try:
            for sample in curate(
                task.scene, task.source.views(task.scene), task.source.policy(task.scene), task.criteria, tally
            ):
                stage.add(sample)
        except (SceneError, cv2.error) as broken:
            error = str(broken)
        stage.finish(task.scene, tally.counts(), error)


def check_output(out: Path, resume: bool) -> str:
    """ "new", "resume" or "complete". Raises ValueError when the folder holds something a build must not touch."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; the output must be a folder")
    names = {p.name for p in out.iterdir()} if out.is_dir() else set()
    if MANIFEST_NAME in names:
        if resume:
            return "complete"
        raise ValueError(f"{out}: already holds a data set (it has a {MANIFEST_NAME}); choose another --out")
    if STAGING_NAME in names:
        if resume:
            return "resume"
        raise ValueError(f"{out}: holds an unfinished build; continue it with --resume, or delete the folder")
    if names - MAY_BE_THERE:
        raise ValueError(f"{out}: is not empty ({sorted(names)[0]!r} is there); choose an empty or new folder")
    return "new"


def remember_plan(staging: Path, recipe: Recipe, tasks: list[Task]) -> None:
    """Write the plan, or on resuming check that it is still the same. Raises ValueError saying what changed."""
    now: dict[str, Any] = {"recipe": recipe.as_plain(), "scenes": [asdict(task.scene) for task in tasks]}
    path = staging / PLAN_NAME
    if not path.exists():
        with atomic_write(path) as file:
            file.write(json.dumps(now, indent=1).encode())
        return
    then = json.loads(path.read_text())
    if then["recipe"] != json.loads(json.dumps(now["recipe"])):
        raise ValueError(
            f"{staging.parent}: the unfinished build has another recipe; use the same one, or another --out"
        )
    if then["scenes"] != now["scenes"]:
        raise ValueError(
            f"{staging.parent}: the unfinished build lists {len(then['scenes'])} scenes, the input now {len(tasks)} "
            "or others; restore the input, or build in another --out"
        )


@contextmanager
def only_one_build(staging: Path) -> Iterator[None]:
    """Hold the staging folder's lock. Raises ValueError when another process builds here."""
    with (staging / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{staging.parent}: another build is running here; wait for it") from None
        yield


def describe(recipe: Recipe) -> dict[str, Any]:
    """What the manifest says about how the data set was made: no paths, no times, so a rebuild gives the same bytes."""
    return {
        "criteria": {"preset": recipe.preset, **asdict(recipe.criteria)},
        "versions": {"mimic_wds": __version__, "opencv": cv2.__version__, "numpy": np.__version__},
        "licences": licences(recipe),
    }


def licences(recipe: Recipe) -> dict[str, str]:
    """The licence note of each kind of source; several notes of one kind are joined."""
    notes: dict[str, list[str]] = {}
    for source in recipe.sources:
        known = notes.setdefault(source.name, [])
        if source.licence and source.licence not in known:
            known.append(source.licence)
    return {name: "; ".join(known) for name, known in notes.items()}
