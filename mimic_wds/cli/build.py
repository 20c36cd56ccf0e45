"""`mimic-shard build`: mine pairs of views and write them as shards."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import tyro

from mimic_wds.cli.console import ProgressLine, say, table
from mimic_wds.curation import build as building
from mimic_wds.curation import extend as extending
from mimic_wds.curation.recipe import DEFAULT_SHARD_BYTES, Recipe, make_recipe, read_recipe
from mimic_wds.curation.report import Report
from mimic_wds.executors.base import make_executor
from mimic_wds.settings import parse_assignments
from mimic_wds.storage.manifest import Manifest

#: Failed scenes that are named one by one at the end; build-report.json and scenes.jsonl list all.
MAX_NAMED = 20


def build(
    paths: tyro.conf.Positional[tuple[Path, ...]] = (),
    /,
    source: str = "",
    out: Path | None = None,
    recipe: Path | None = None,
    workers: int = 0,
    resume: bool = False,
    retry_failed: bool = False,
    name: str = "",
    preset: str = "default",
    option: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["-o"]), tyro.conf.UseAppendAction] = (),
    criterion: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["-c"]), tyro.conf.UseAppendAction] = (),
    blur_faces: bool = False,
    habitat_python: str = "",
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    executor: str = "local",
    ray_address: str = "",
    timeout_s: float = 7200,
    shard_of: str = "",
) -> int:
    """Mine pairs of views and write them as shards with a manifest.

    Example: mimic-shard build --source video clips/ --out shards/clips -o every_s=0.5

    Args:
        paths: Files or folders to read.
        source: What the paths are: a name that `mimic-shard sources` lists.
        out: Folder of the new data set; must be empty or new.
        recipe: A recipe file (TOML) instead of paths, --source and options.
        workers: Processes that mine; 0 = one per core (with Ray: all that the cluster has).
        resume: Continue an interrupted build in the same folder.
        retry_failed: Run the failed scenes of a finished build again; new pairs go into new shards.
        name: Of the data set; default: the output folder's name.
        preset: "default" (exact votes) or "paper" (100 sampled points per patch, as published).
        option: Option of the source, KEY=VALUE, repeatable.
        criterion: Threshold to change, KEY=VALUE, repeatable, e.g. min_overlap=0.4.
        blur_faces: Blur faces before anything else; the same as -c blur_faces=true.
        habitat_python: Render 3D scenes with habitat-sim, which is installed for this Python (docs/simulators.md).
        max_shard_bytes: Size that a shard does not pass.
        executor: "local" (processes here), "ray" (a cluster) or "serial" (this process, for debugging).
        ray_address: Of a Ray cluster, e.g. auto; empty = start one here.
        timeout_s: Seconds after which a scene is given up; 0 = never.
        shard_of: I/N: run only the I-th of N parts of the scenes (0 <= I < N); `mimic-shard merge` joins them.

    Returns:
        0 done; 3 when a scene failed or no pair was kept.
    """
    if habitat_python:
        option = (*option, "backend=habitat", f"habitat_python={habitat_python}")
    made = _recipe(paths, source, out, recipe, name, preset, option, criterion, blur_faces, max_shard_bytes)
    engine = make_executor(executor, workers=workers, timeout_s=timeout_s, address=ray_address)
    settings = {"executor": executor, "workers": workers, "timeout_s": timeout_s, "shard_of": shard_of}
    say(f"building {made.name!r} in {made.out}")
    for left_out in made.skipped:
        say(f"left out: {left_out}")
    with reported(Report(settings), made.out) as report:
        if shard_of:
            building.build_part(made, engine, report, _part(shard_of))
            return _part_done(report, made.out)
        if retry_failed:
            manifest = extending.retry_failed(made, engine, report)
        else:
            manifest = building.build(made, engine, report, resume=resume)
    return summary(manifest, made.out, report)


@contextmanager
def reported(report: Report, out: Path, quiet: bool = False) -> Iterator[Report]:
    """Show how the build goes, and leave its report behind however it ends."""
    with ProgressLine("scenes") as progress:
        if not quiet:
            report.changed = lambda report: _show(report, progress)
        try:
            yield report
            report.state = "done"
        except BaseException as error:
            report.state = "interrupted" if isinstance(error, KeyboardInterrupt) else f"stopped: {error}"
            raise
        finally:
            if report.scenes:  # otherwise nothing was begun
                with suppress(OSError):  # the disk may be full
                    report.write(out)


def _show(report: Report, progress: ProgressLine) -> None:
    """One step of the progress line."""
    if report.state == "packing":
        say("packing")
    elif report.scenes_now == 0:
        progress.start(report.scenes, report.scenes_before)
    else:
        failed = f", {len(report.failed):,} failed" if report.failed else ""
        dropped = f"; dropped: {report.most_dropped}" if report.counts.dropped else ""
        counts = report.counts
        progress.advance(
            f"kept {counts.kept:,} of {counts.candidates:,} pairs, {report.pairs_per_s:.1f}/s{failed}{dropped}"
        )


def _part(text: str) -> building.Part:
    """Parse "I/N"."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match:
        raise ValueError(f"--shard-of must be I/N, e.g. 3/16, got {text!r}")
    return building.Part(int(match[1]), int(match[2]))


def _part_done(report: Report, out: Path) -> int:
    """Print what a part has done; return the exit code."""
    say(f"{report.scenes_now:,} scenes done now, {report.scenes_before:,} before; when all parts are: ")
    say(f"    mimic-shard merge {out}")
    _name_failed(report.failed)
    return 3 if report.failed else 0


def _recipe(
    paths: tuple[Path, ...],
    source: str,
    out: Path | None,
    recipe: Path | None,
    name: str,
    preset: str,
    option: tuple[str, ...],
    criterion: tuple[str, ...],
    blur_faces: bool,
    max_shard_bytes: int,
) -> Recipe:
    """The recipe that the command line describes or names. Raises ValueError when it does neither, or both."""
    if recipe is not None:
        changed = preset != "default" or max_shard_bytes != DEFAULT_SHARD_BYTES
        if paths or source or option or criterion or name or blur_faces or changed:
            raise ValueError(
                "--recipe stands alone: put paths, source, options, preset, criteria, name and max_shard_bytes into "
                "the recipe file"
            )
        return read_recipe(recipe, out)
    if not source or not paths or out is None:
        raise ValueError(
            "give --source NAME, PATH... and --out DIR, or --recipe FILE; `mimic-shard build --help` shows how"
        )
    table_ = {"source": source, "paths": [str(p) for p in paths], **parse_assignments(option, "--option")}
    criteria = parse_assignments(criterion, "--criterion")
    return make_recipe(
        name=name,
        out=out,
        preset_name=preset,
        criteria={**criteria, "blur_faces": True} if blur_faces else criteria,
        sources=[table_],
        where="command line",
        max_shard_bytes=max_shard_bytes,
    )


def summary(manifest: Manifest, out: Path, report: Report | None) -> int:
    """Print what was kept, what was dropped and why; return the exit code."""
    print_counts(manifest)
    num_bytes = sum(shard.bytes for shard in manifest.shards)
    rate = ""
    if report is not None:
        rate = f"; {report.counts.candidates:,} candidates in {report.seconds:.1f} s = {report.pairs_per_s:.1f} pairs/s"
    say(f"{manifest.num_samples:,} pairs in {len(manifest.shards)} shard(s), {num_bytes / 1e6:.1f} MB, in {out}{rate}")
    _name_failed(manifest.failed_scenes)
    if manifest.num_samples == 0:
        say("no pair was kept: see the reasons above; frames closer together or further apart may help (every_s)")
    return 3 if manifest.failed_scenes or manifest.num_samples == 0 else 0


def _name_failed(failed: dict[str, str]) -> None:
    """Name the scenes that failed, and what to do."""
    for scene, message in list(failed.items())[:MAX_NAMED]:
        say(f"failed: {scene}: {message}")
    if len(failed) > MAX_NAMED:
        say(f"... and {len(failed) - MAX_NAMED:,} more: scenes.jsonl and build-report.json list them")
    if failed:
        say("`build` with --retry-failed, or the same `extend`, tries those scenes again")


def print_counts(manifest: Manifest) -> None:
    """One row per outcome, one column per source."""
    names = sorted(manifest.candidates)
    reasons = sorted({reason for name in names for reason in manifest.dropped.get(name, {})})
    faults = sorted({reason for name in names for reason in manifest.faults.get(name, {})})
    rows: list[list[object]] = [
        ["scenes", *(manifest.scenes.get(n, 0) for n in names)],
        ["views read", *(manifest.views.get(n, 0) for n in names)],
        [f"candidate {manifest.kind}", *(manifest.candidates[n] for n in names)],
        ["kept", *(manifest.kept.get(n, 0) for n in names)],
        *([f"dropped: {r}", *(manifest.dropped.get(n, {}).get(r, 0) for n in names)] for r in reasons),
        *([f"fault: {r}", *(manifest.faults.get(n, {}).get(r, 0) for n in names)] for r in faults),
    ]
    table(f"{manifest.kind} of {manifest.name}", ["", *names], rows)
