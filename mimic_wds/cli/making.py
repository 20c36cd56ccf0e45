"""What the verbs share that make a data set from others: options that become a request, progress, what came out."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mimic_wds.cli.build import print_counts
from mimic_wds.cli.console import ProgressLine, say
from mimic_wds.storage.manifest import Manifest, encode_manifest
from mimic_wds.storage.rewrite import How, Request, Target, rewrite

DEFAULT_SHARD_BYTES = 256 * 2**20


def make(request: Request, targets: Sequence[Target], *, resume: bool, check: bool, workers: int, json: bool) -> int:
    """Run a request, show how it goes and what came out; return the exit code."""
    with StageLines(quiet=json) as lines:
        how = How(resume=resume, check=check, workers=threads(workers), progress=lines.step)
        manifests = rewrite(request, targets, how)
    if json:
        made = [msgspec.Raw(encode_manifest(manifest)) for manifest in manifests]
        print(msgspec.json.encode(made if len(made) > 1 else made[0]).decode())
    else:
        for manifest, target in zip(manifests, targets, strict=True):
            report(manifest, target.out)
    return 3 if any(manifest.num_samples == 0 for manifest in manifests) else 0


def report(manifest: Manifest, out: Path) -> None:
    """Print what a new data set holds."""
    print_counts(manifest)
    num_bytes = sum(shard.bytes for shard in manifest.shards)
    scenes = sum(manifest.scenes.values())
    say(
        f"{manifest.num_samples:,} {manifest.kind} of {scenes:,} scenes in {len(manifest.shards)} shard(s), "
        f"{num_bytes / 1e6:.1f} MB, in {out}"
    )
    if manifest.num_samples == 0:
        say("nothing was taken: the conditions leave no sample, or the data set is too small for them")


def threads(workers: int) -> int:
    """How many threads --workers asks for; 0 = one per core. Raises ValueError for less."""
    if workers < 0:
        raise ValueError(f"--workers must be 0 (one per core) or more, got {workers}")
    return workers or os.cpu_count() or 1


class StageLines:
    """Progress of work in stages: reading shards, writing shards."""

    def __init__(self, quiet: bool = False):
        self._quiet = quiet
        self._stage = ""
        self._line: ProgressLine | None = None

    def __enter__(self) -> "StageLines":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def step(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` shards are through a stage."""
        if self._quiet:
            return
        if stage != self._stage or done <= 1:
            self._end()
            self._stage, self._line = stage, ProgressLine("shards")
            self._line.__enter__()
            self._line.start(total)
        assert self._line is not None
        self._line.advance(stage)

    def _end(self) -> None:
        if self._line is not None:
            self._line.__exit__()
        self._line = None
