"""`mimic-shard extend`: add the pairs of new sources to a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from mimic_wds.cli.build import reported, summary
from mimic_wds.cli.console import say
from mimic_wds.curation.extend import OnDuplicate, criteria_of
from mimic_wds.curation.extend import extend as extend_data_set
from mimic_wds.curation.recipe import DEFAULT_SHARD_BYTES, Recipe, make_recipe, read_tables
from mimic_wds.curation.report import Report
from mimic_wds.executors.base import make_executor
from mimic_wds.settings import parse_assignments
from mimic_wds.storage.manifest import Manifest, encode_manifest, read_manifest


def extend(
    folder: tyro.conf.Positional[Path],
    paths: tyro.conf.Positional[tuple[Path, ...]] = (),
    /,
    source: str = "",
    recipe: Path | None = None,
    on_duplicate: OnDuplicate = "refuse",
    workers: int = 0,
    option: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["-o"]), tyro.conf.UseAppendAction] = (),
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    executor: str = "local",
    ray_address: str = "",
    timeout_s: float = 7200,
    json: bool = False,
) -> int:
    """Add the pairs of new sources to a data set, in new shards: its next generation.

    The criteria are those of the data set. Scenes that it has are left out; those that had failed are run again. What
    is there does not change, and readers see the old data set until the new manifest is written. The same command goes
    on with what an interrupted one has left.

    Example: mimic-shard extend shards/clips more-clips/ --source video -o every_s=0.5

    Args:
        folder: Folder of the data set.
        paths: Files or folders to read.
        source: What the paths are: a name that `mimic-shard sources` lists.
        recipe: A recipe file (TOML) instead of paths, --source and options; only its sources count.
        on_duplicate: When a pair of a new scene is in the data set already: "refuse" the run, or "skip" and count it.
        workers: Processes that mine; 0 = one per core (with Ray: all that the cluster has).
        option: Option of the source, KEY=VALUE, repeatable.
        max_shard_bytes: Size that a new shard does not pass.
        executor: "local" (processes here), "ray" (a cluster) or "serial" (this process, for debugging).
        ray_address: Of a Ray cluster, e.g. auto; empty = start one here.
        timeout_s: Seconds after which a scene is given up; 0 = never.
        json: Print the new manifest as JSON.

    Returns:
        0 done; 3 when a scene failed.
    """
    base = read_manifest(folder)
    made = _recipe(folder, base, _tables(paths, source, recipe, option), max_shard_bytes, str(recipe or "command line"))
    engine = make_executor(executor, workers=workers, timeout_s=timeout_s, address=ray_address)
    settings = {"executor": executor, "workers": workers, "timeout_s": timeout_s}
    with reported(Report(settings), folder, quiet=json) as report:
        manifest = extend_data_set(made, engine, report, on_duplicate)
    if json:
        print(encode_manifest(manifest).decode())
        return 3 if manifest.failed_scenes else 0
    return _say(base, manifest, folder, report)


def _tables(
    paths: tuple[Path, ...], source: str, recipe: Path | None, option: Sequence[str]
) -> list[dict[str, object]]:
    """The sources that the command line describes or names. Raises ValueError when it does neither, or both."""
    if recipe is not None:
        if paths or source or option:
            raise ValueError("--recipe stands alone: put paths, source and options into the recipe file")
        return read_tables(recipe).sources
    if not source or not paths:
        raise ValueError("give DIR PATH... --source NAME, or DIR --recipe FILE; `mimic-shard extend --help` shows how")
    return [{"source": source, "paths": [str(path) for path in paths], **parse_assignments(option, "--option")}]


def _recipe(folder: Path, base: Manifest, sources: list[dict[str, object]], max_shard_bytes: int, where: str) -> Recipe:
    """The recipe of more pairs like those of the data set."""
    preset, criteria = criteria_of(base, folder)
    return make_recipe(
        name=base.name,
        out=folder,
        preset_name=preset,
        criteria=criteria,
        sources=sources,
        where=where,
        max_shard_bytes=max_shard_bytes,
    )


def _say(base: Manifest, manifest: Manifest, folder: Path, report: Report) -> int:
    """Print what was added; return the exit code."""
    if report.known:
        say(f"{report.known:,} scenes of the input are in the data set already and were left out")
    if manifest == base:
        say(f"{folder}: nothing to add; generation {base.generation} as before")
        return 3 if manifest.failed_scenes else 0
    code = summary(manifest, folder, report)
    new = [shard for shard in manifest.shards if shard.generation == manifest.generation]
    pairs = sum(shard.samples for shard in new)
    say(f"generation {manifest.generation}: {pairs:,} pairs more, in {len(new)} new shard(s); `mimic-shard card` anew")
    return code
