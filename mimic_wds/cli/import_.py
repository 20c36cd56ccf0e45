"""`mimic-shard import`: make a data set of pairs, or of single images, that others have published."""

import time
from pathlib import Path
from typing import Annotated

import tyro

from mimic_wds.cli.build import print_counts
from mimic_wds.cli.console import ProgressLine, say
from mimic_wds.executors.base import make_executor
from mimic_wds.importing.base import Format, Plan
from mimic_wds.importing.registry import make_format
from mimic_wds.importing.run import Target, Watcher, import_data_set
from mimic_wds.pairs import Counts, Kind
from mimic_wds.settings import parse_assignments
from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.staging import StagedScene

DEFAULT_SHARD_BYTES = 256 * 2**20

#: Units that were not read to their end and are named one by one.
MAX_NAMED = 20


def import_(
    format: tyro.conf.Positional[str],
    paths: tyro.conf.Positional[tuple[Path, ...]],
    /,
    out: Path,
    workers: int = 0,
    resume: bool = False,
    name: str = "",
    size: int = 0,
    patch_size: int = 16,
    recompute: bool = False,
    option: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["-o"]), tyro.conf.UseAppendAction] = (),
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> int:
    """Make a data set of pairs or single images that others have published; pictures are copied as they are.

    Example: mimic-shard import mimic3m downloads/Gibson.zip --out shards/gibson

    Args:
        format: mimic3m, croco-pairs, croco-crops, wds, image-folder or habitat-metadata; docs/import.md describes them.
        paths: Files or folders to read.
        out: Folder of the new data set; must be empty or new.
        workers: Processes that read; 0 = one per core.
        resume: Continue an interrupted import in the same folder.
        name: Of the data set; default: the output folder's name.
        size: Pixels, height and width of every view; 0 = as the format is published. Other views are counted as lost;
            single images are shrunk to this short side, 0 = copied as they are.
        patch_size: Pixels, height and width of a patch.
        recompute: Measure homography, correspondences and overlap of every pair; none is dropped for what they are.
        option: Option of the format, KEY=VALUE, repeatable, e.g. csv=MIMIC3M.csv.
        max_shard_bytes: Size that a shard does not pass.

    Returns:
        0 done; 3 when something could not be read to its end or nothing was kept.
    """
    options = parse_assignments(option, "--option")
    chosen = make_format(format, [str(path) for path in paths], options)
    target = Target(
        out=out,
        name=name or out.resolve().name,
        size=size or chosen.default_size,
        kind=chosen.kind,
        patch_size=patch_size,
        recompute=recompute,
        max_shard_bytes=max_shard_bytes,
    )
    say(f"importing {target.name!r} into {out}")
    return run_import(chosen, target, workers=workers, resume=resume)


def run_import(chosen: Format, target: Target, *, workers: int, resume: bool) -> int:
    """Import with local processes, show how it goes and what came of it; return the exit code."""
    executor = make_executor("local", workers=workers)
    with ProgressLine("units") as progress:
        watcher = _Shown(progress, target.kind)
        manifest = import_data_set(chosen, target, executor, resume=resume, watcher=watcher)
    return _report(manifest, target.out, watcher)


class _Shown(Watcher):
    """Shows how an import goes."""

    def __init__(self, progress: ProgressLine, kind: Kind):
        self._progress = progress
        self._kind = kind
        self._started = time.monotonic()
        self.counts = Counts()

    def planned(self, plan: Plan, done: int) -> None:
        """Say what was found."""
        for note in plan.notes:
            say(note)
        self._progress.start(len(plan.units), done)

    def unit(self, staged: StagedScene) -> None:
        """One step of the progress line."""
        self.counts += staged.counts
        kept = f"kept {self.counts.kept:,} of {self.counts.candidates:,} {self._kind}"
        self._progress.advance(f"{kept}, {self.rate:,.0f}/s")

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Pairs or images per second of this run."""
        return self.counts.candidates / self.seconds


def _report(manifest: Manifest, out: Path, watcher: _Shown) -> int:
    """Print what was kept, what was lost and why; return the exit code."""
    print_counts(manifest)
    num_bytes, kind = sum(shard.bytes for shard in manifest.shards), manifest.kind
    say(
        f"{manifest.num_samples:,} {kind} in {len(manifest.shards)} shard(s), {num_bytes / 1e6:.1f} MB, in {out}; "
        f"{watcher.counts.candidates:,} {kind} in {watcher.seconds:.1f} s = {watcher.rate:,.0f} {kind}/s"
    )
    for unit, message in list(manifest.failed_scenes.items())[:MAX_NAMED]:
        say(f"not read to its end: {unit}: {message}")
    if manifest.num_samples == 0:
        say("nothing was kept: see the reasons above; for wrong_size give the size of the views with --size")
    return 3 if manifest.failed_scenes or manifest.num_samples == 0 else 0
