"""Extend a data set: the pairs of new scenes become its next generation; what is there never changes.

The steps are those of a build, and so are the promises. New shards are written beside the old ones and the manifest is
replaced last, so that readers see the old data set or the new one.
"""

import hashlib
import shutil
from array import array
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np

from mimic_wds.curation.build import WHOLE, clear_left_over, finished, prepared, run_scenes
from mimic_wds.curation.plan import PLAN_NAME, Plan, describe
from mimic_wds.curation.recipe import Recipe
from mimic_wds.curation.report import Report
from mimic_wds.executors.base import Executor
from mimic_wds.pairs import Scene
from mimic_wds.storage.files import remove_stale
from mimic_wds.storage.joining import joined_texts
from mimic_wds.storage.layout import STAGING_NAME, is_shard_name, prefix_of, scene_prefix
from mimic_wds.storage.manifest import Manifest, Plain, read_manifest
from mimic_wds.storage.packing import pack
from mimic_wds.storage.reader import Shard
from mimic_wds.storage.scenes import SceneOutcome, scene_lines
from mimic_wds.storage.staging import read_staged

#: What becomes of a pair whose key the data set has: the run is refused, or the pair dropped and counted.
OnDuplicate: TypeAlias = Literal["refuse", "skip"]


def extend(recipe: Recipe, executor: Executor, report: Report, on_duplicate: OnDuplicate = "refuse") -> Manifest:
    """Add the scenes of `recipe` that the data set in its output folder does not have; returns the manifest.

    A scene that failed before is run again; what it gave then stays. Always goes on with what an interrupted run has
    left. Raises ValueError for other criteria than the data set's, for keys that it has, and when another run has
    changed it meanwhile; OutputError when the folder cannot be written.
    """
    out = recipe.out
    base = read_manifest(out)
    _check_criteria(recipe, base)
    clear_left_over(out, base)
    if not (out / STAGING_NAME / PLAN_NAME).exists():
        _check_strangers(out, base)
    has = _Read(scene_lines(out, base.generation))
    with prepared(recipe, WHOLE, base, lambda scene: scene not in has) as plan:
        report.known = has.met
        if len(plan) == 0:
            shutil.rmtree(plan.folder)
            return base
        run_scenes(plan, recipe, executor, WHOLE, report)
        report.packing()
        return _add_generation(plan, out, base, on_duplicate)


def retry_failed(recipe: Recipe, executor: Executor, report: Report) -> Manifest:
    """Run the failed scenes of a finished build again; what they give is added as the data set's next generation.

    Raises as `extend` does, and when OpenCV is another version than that of the build.
    """
    base = finished(recipe)
    failed = base.failed_scenes
    if not failed:
        return base
    if base.versions["opencv"] != cv2.__version__:
        raise ValueError(
            f"{recipe.out}: was made with opencv {base.versions['opencv']}, this is {cv2.__version__}; keypoints may "
            "differ: retry with the same version"
        )
    with prepared(recipe, WHOLE, base, lambda scene: f"{scene.source}/{scene.name}" in failed) as plan:
        if len(plan) == 0:
            shutil.rmtree(plan.folder)
            raise ValueError(f"{recipe.out}: none of its {len(failed)} failed scenes is in the input now")
        run_scenes(plan, recipe, executor, WHOLE, report)
        report.packing()
        return _add_generation(plan, recipe.out, base, "skip")


class _Read:
    """The scenes that a data set has read to their end: `scene in read`; 8 bytes for each."""

    def __init__(self, outcomes: Iterable[SceneOutcome]):
        digests = array("Q", (_digest(outcome.name) for outcome in outcomes if not outcome.error))
        self._digests = np.sort(np.array(digests, np.uint64))
        self.met = 0  #: how many of those asked for are there

    def __contains__(self, scene: Scene) -> bool:
        digest = _digest(f"{scene.source}/{scene.name}")
        at = int(np.searchsorted(self._digests, np.uint64(digest)))
        is_there = at < len(self._digests) and int(self._digests[at]) == digest
        self.met += is_there
        return is_there


def _digest(name: str) -> int:
    """64 bits: of ten million names, two are taken for one with a chance of 3 in a million."""
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def criteria_of(base: Manifest, where: Path) -> tuple[str, dict[str, Plain]]:
    """Preset and criteria that a data set was built with. Raises ValueError when it was not built."""
    criteria = dict(base.criteria)
    preset = str(criteria.pop("preset", ""))
    if base.kind != "pairs" or preset not in ("default", "paper"):
        raise ValueError(
            f"{where}: was not built from sources but made of other data ({preset or base.kind}), so that no criteria "
            "hold for all of it: build or import the new pairs into a folder of their own and join them with "
            "`mimic-shard merge A B --out C`"
        )
    return preset, criteria


def _check_criteria(recipe: Recipe, base: Manifest) -> None:
    """Raise ValueError unless the pairs of a recipe are like those of the data set."""
    criteria_of(base, recipe.out)
    now = describe(recipe)["criteria"]
    for name, value in base.criteria.items():
        if name not in now or now[name] != value:
            raise ValueError(
                f"{recipe.out}: was built with {name} = {value}, the recipe says {now.get(name)}; leave the criteria "
                "out to use those of the data set"
            )


def _check_strangers(out: Path, base: Manifest) -> None:
    """Raise ValueError for shards that the manifest does not list: new ones would get their names."""
    listed = {shard.name for shard in base.shards}
    for path in sorted(out.iterdir()):
        if is_shard_name(base.name, path.name) and path.name not in listed:
            raise ValueError(
                f"{path}: does not belong to the data set; it was left by a run that was given up, say: move it and "
                "its .idx away"
            )


def _add_generation(plan: Plan, out: Path, base: Manifest, on_duplicate: OnDuplicate) -> Manifest:
    """Pack the scenes of a plan, all of them staged, behind the shards of `base`; remove the staging folder."""
    known = _known_keys(plan, out, base)
    if on_duplicate == "refuse":
        _refuse_duplicates(plan, known, base)
    recipe, header = plan.header["recipe"], plan.header
    description = {
        "criteria": base.criteria,
        "versions": joined_texts([base.versions, header["versions"]], ", "),
        "licences": joined_texts([base.licences, header["licences"]], "; "),
        "maps": base.maps,
        "truth": base.truth,
    }
    remove_stale(out)
    limit = recipe["max_shard_bytes"]
    manifest = pack(plan.folder, len(plan), out, base.name, limit, description, base=base, known=known)
    shutil.rmtree(plan.folder)
    return manifest


def _known_keys(plan: Plan, out: Path, base: Manifest) -> Set[str]:
    """Keys that the scenes of a plan have in the shards of `base` already; shards are only read if there may be any."""
    scenes = (plan.scene(number)[1] for number in range(len(plan)))
    new = {scene_prefix(scene.source, scene.name) for scene in scenes}
    met, told = set[str](), 0
    for line in scene_lines(out, base.generation):
        told += line.kept
        if line.kept and (prefix := scene_prefix(line.source, line.scene)) in new:
            met.add(prefix)
    if told != base.num_samples:  # the lines are not all there: then every scene may be
        met = new
    keys: set[str] = set()
    for info in base.shards if met else ():
        with Shard(out / info.name) as shard:
            keys.update(key for key in map(shard.key, range(len(shard))) if prefix_of(key) in met)
    return keys


def _refuse_duplicates(plan: Plan, known: Set[str], base: Manifest) -> None:
    """Raise ValueError for the first new scene with a key that the data set has."""
    for number in range(len(plan)) if known else ():
        staged = read_staged(plan.folder, number)
        assert staged is not None
        name = f"{staged.scene.source}/{staged.scene.name}"
        twice = [key for key in staged.keys if key in known]
        if twice and name not in base.failed_scenes:
            raise ValueError(
                f"{plan.folder.parent}: {len(twice)} pair(s) of the new scene {name} are in the data set already, the "
                f"first is {twice[0]}; --on-duplicate skip leaves such pairs out"
            )
