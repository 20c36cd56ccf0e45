"""`mimic-shard build`: mine pairs from videos or photographs and write them as shards."""

import os
import time
from pathlib import Path
from typing import Annotated

import tyro

from mimic_wds.cli.console import ProgressLine, say, table
from mimic_wds.curation.build import build as build_data_set
from mimic_wds.curation.recipe import DEFAULT_SHARD_BYTES, Recipe, make_recipe, read_recipe
from mimic_wds.pairs import Counts
from mimic_wds.settings import parse_assignments
from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.staging import StagedScene


def build(
    paths: tyro.conf.Positional[tuple[Path, ...]] = (),
    /,
    source: str = "",
    out: Path | None = None,
    recipe: Path | None = None,
    workers: int = 0,
    resume: bool = False,
    name: str = "",
    preset: str = "default",
    option: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["-o"]), tyro.conf.UseAppendAction] = (),
    criterion: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["-c"]), tyro.conf.UseAppendAction] = (),
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> int:
    """Mine pairs of views and write them as shards with a manifest.

    Example: mimic-shard build --source video clips/ --out shards/clips -o every_s=0.5

    Args:
        paths: Files or folders to read.
        source: What the paths are: a name that `mimic-shard sources` lists.
        out: Folder of the new data set; must be empty or new.
        recipe: A recipe file (TOML) instead of paths, --source and options.
        workers: Processes that mine; 0 = one per core.
        resume: Continue an interrupted build in the same folder.
        name: Of the data set; default: the output folder's name.
        preset: "default" (exact votes) or "paper" (100 sampled points per patch, as published).
        option: Option of the source, KEY=VALUE, repeatable.
        criterion: Threshold to change, KEY=VALUE, repeatable, e.g. min_overlap=0.4.
        max_shard_bytes: Size that a shard does not pass.

    Returns:
        0 done; 3 when a scene could not be read or no pair was kept.
    """
    made = _recipe(paths, source, out, recipe, name, preset, option, criterion, max_shard_bytes)
    say(f"building {made.name!r} in {made.out}")
    started, counts, new_candidates = time.monotonic(), Counts(), 0
    with ProgressLine("scenes") as progress:

        def on_scene(staged: StagedScene, is_new: bool) -> None:
            nonlocal counts, new_candidates
            counts += staged.counts
            new_candidates += staged.counts.candidates if is_new else 0
            progress.advance(f"kept {counts.kept:,} of {counts.candidates:,} pairs")

        manifest = build_data_set(
            made, workers=workers or _cores(), resume=resume, on_start=progress.start, on_scene=on_scene
        )
    return report(manifest, made.out, new_candidates, time.monotonic() - started)


def _recipe(
    paths: tuple[Path, ...],
    source: str,
    out: Path | None,
    recipe: Path | None,
    name: str,
    preset: str,
    option: tuple[str, ...],
    criterion: tuple[str, ...],
    max_shard_bytes: int,
) -> Recipe:
    """The recipe that the command line describes or names. Raises ValueError when it does neither, or both."""
    if recipe is not None:
        if paths or source or option or criterion or name:
            raise ValueError(
                "--recipe stands alone: put paths, source, options, criteria and name into the recipe file"
            )
        return read_recipe(recipe, out)
    if not source or not paths or out is None:
        raise ValueError(
            "give --source NAME, PATH... and --out DIR, or --recipe FILE; `mimic-shard build --help` shows how"
        )
    table_ = {"source": source, "paths": [str(p) for p in paths], **parse_assignments(option, "--option")}
    return make_recipe(
        name=name,
        out=out,
        preset_name=preset,
        criteria=parse_assignments(criterion, "--criterion"),
        sources=[table_],
        where="command line",
        max_shard_bytes=max_shard_bytes,
    )


def report(manifest: Manifest, out: Path, new_candidates: int, seconds: float) -> int:
    """Print what was kept, what was dropped and why; return the exit code."""
    print_counts(manifest)
    num_bytes = sum(shard.bytes for shard in manifest.shards)
    say(
        f"{manifest.num_samples:,} pairs in {len(manifest.shards)} shard(s), {num_bytes / 1e6:.1f} MB, in {out}; "
        f"{new_candidates:,} candidates in {seconds:.1f} s = {new_candidates / seconds:.1f} pairs/s"
    )
    for scene, message in manifest.failed_scenes.items():
        say(f"scene not read to its end: {scene}: {message}")
    if manifest.num_samples == 0:
        say("no pair was kept: see the reasons above; frames closer together or further apart may help (every_s)")
    return 3 if manifest.failed_scenes or manifest.num_samples == 0 else 0


def print_counts(manifest: Manifest) -> None:
    """One row per outcome, one column per source."""
    names = sorted(manifest.candidates)
    reasons = sorted({reason for name in names for reason in manifest.dropped.get(name, {})})
    faults = sorted({reason for name in names for reason in manifest.faults.get(name, {})})
    rows: list[list[object]] = [
        ["scenes", *(manifest.scenes.get(n, 0) for n in names)],
        ["views read", *(manifest.views.get(n, 0) for n in names)],
        ["candidate pairs", *(manifest.candidates[n] for n in names)],
        ["kept", *(manifest.kept.get(n, 0) for n in names)],
        *([f"dropped: {r}", *(manifest.dropped.get(n, {}).get(r, 0) for n in names)] for r in reasons),
        *([f"fault: {r}", *(manifest.faults.get(n, {}).get(r, 0) for n in names)] for r in faults),
    ]
    table(f"pairs of {manifest.name}", ["", *names], rows)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
