"""`mimic-shard dedup`: samples that look the same, in one data set or in two."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import tyro

from mimic_wds.cli.console import say, table
from mimic_wds.cli.making import DEFAULT_SHARD_BYTES, StageLines, make, threads
from mimic_wds.pairs import DropReason
from mimic_wds.storage.catalog import Catalog, open_data_set, scan
from mimic_wds.storage.dedup import Found, find_duplicates, find_leaks, remaining
from mimic_wds.storage.files import atomic_write
from mimic_wds.storage.manifest import manifest_hash, read_manifest
from mimic_wds.storage.near import MAX_BITS
from mimic_wds.storage.rewrite import Request, Target
from mimic_wds.storage.selection import Numbers, Scope, everything

#: Matches and scenes that are named one by one.
MAX_NAMED = 20


def dedup(
    folder: tyro.conf.Positional[Path],
    against: tyro.conf.Positional[Path | None] = None,
    /,
    bits: int = 4,
    report: Path | None = None,
    drop: bool = False,
    out: Path | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    name: str = "",
    resume: bool = False,
    check: bool = True,
    workers: int = 0,
    json: bool = False,
) -> int:
    """Find samples that look nearly the same (both views, in either order); of two data sets also scenes in both.

    Example: mimic-shard dedup shards/train shards/val --report leaks.json

    Args:
        folder: Folder of the data set that is looked through.
        against: Another data set: look for what both hold (leakage between training and validation).
        bits: Bits of 64 by which the hashes of views may differ, 0 to 8; 4 finds pictures that were saved again or
            scaled.
        report: Write everything that was found to this JSON file.
        drop: Make a data set without what was found, in --out: of samples that look the same the first is kept;
            against another data set all that are in it go, and the scenes that it has.
        out: Folder of the new data set; must be empty or new.
        max_shard_bytes: Size that a shard does not pass; 0 = no limit.
        name: Of the new data set; default: the output folder's name.
        resume: Continue an interrupted run in the same folder.
        check: Hold the shards against their sha256 before they are read.
        workers: Threads; 0 = one per core.
        json: Print what was found as JSON; with --drop the new manifest.

    Returns:
        0; 3 when --drop leaves nothing.
    """
    if not 0 <= bits <= MAX_BITS:
        raise ValueError(f"--bits must lie in 0..{MAX_BITS}, got {bits}")
    if drop != (out is not None):
        raise ValueError("--drop and --out DIR go together: the folder of the data set without what was found")
    with StageLines(quiet=json) as lines:
        other = _scan(against, check, workers, lines) if against else None
        search = _Search(bits, other, threads(workers), lines, report, quiet=json or drop)
        if out is None:
            found = search.found(_scan(folder, check, workers, lines))
            if json:
                print(msgspec.json.encode(found.as_plain()).decode())
            return 0
    scope = _without_scenes(other) if other and read_manifest(folder).kind == "pairs" else everything
    request = Request(
        verb="dedup",
        sources=[folder],
        options={"bits": bits, "against": manifest_hash(read_manifest(against)) if against else ""},
    )
    target = Target(
        out=out,
        name=name,
        select=lambda catalog: search.remaining(catalog, scope),
        scope=scope,
        reason=DropReason.NEAR_DUPLICATE.value,
        max_shard_bytes=max_shard_bytes,
    )
    return make(request, [target], resume=resume, check=check, workers=workers, json=json)


@dataclass(frozen=True, slots=True)
class _Search:
    """What is looked for, and what becomes of the answer."""

    bits: int
    other: Catalog | None
    workers: int
    lines: StageLines
    report: Path | None
    quiet: bool

    def found(self, catalog: Catalog) -> Found:
        """Look through a data set, and report."""
        if self.other is None:
            found = find_duplicates(catalog, self.bits, self.workers, self.lines.step)
        else:
            found = find_leaks(catalog, self.other, self.bits, self.workers, self.lines.step)
        if self.report is not None:
            with atomic_write(self.report) as file:
                file.write(msgspec.json.format(msgspec.json.encode(found.as_plain()), indent=1) + b"\n")
        if not self.quiet:
            self._print(found, len(catalog))
        return found

    def remaining(self, catalog: Catalog, scope: Scope) -> Numbers:
        """The samples that are left when what was found is dropped."""
        return remaining(catalog, self.found(catalog), scope)

    def _print(self, found: Found, samples: int) -> None:
        """A table of the matches, and the sums."""
        rows = [[match.key, match.like, match.bits] for match in found.matches[:MAX_NAMED]]
        if rows:
            table("nearly identical", ["sample", "like", "bits"], rows)
        for scene in found.scenes[:MAX_NAMED]:
            say(f"scene in both: {scene}")
        if max(len(found.matches), len(found.scenes)) > MAX_NAMED:
            say(f"... the first {MAX_NAMED} of each; --report FILE lists all")
        say(f"{len(found.matches):,} of {samples:,} samples are nearly identical to another one")
        if self.other is not None:
            say(f"{len(found.scenes):,} scenes are in both data sets, with {found.samples_of_scenes:,} samples here")


def _scan(folder: Path, check: bool, workers: int, lines: StageLines) -> Catalog:
    return scan([open_data_set(folder)], check=check, workers=threads(workers), progress=lines.step)


def _without_scenes(other: Catalog) -> Scope:
    """The scenes that another data set does not have."""
    return lambda source, scene: (source, scene) not in other.scenes
