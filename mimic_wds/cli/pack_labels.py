"""`mimic-shard pack-labels`: a benchmark with labels, as it is published, into the shards that finetuning reads."""

from pathlib import Path
from typing import Annotated

import tyro

from mimic_wds.cli.console import say
from mimic_wds.cli.import_ import DEFAULT_SHARD_BYTES, run_import
from mimic_wds.importing.benchmarks import BENCHMARKS
from mimic_wds.importing.run import Target
from mimic_wds.settings import from_mapping, nearest, parse_assignments


def pack_labels(
    task: tyro.conf.Positional[str],
    paths: tyro.conf.Positional[tuple[Path, ...]],
    /,
    out: Path,
    workers: int = 0,
    resume: bool = False,
    name: str = "",
    option: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["-o"]), tyro.conf.UseAppendAction] = (),
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> int:
    """Pack a benchmark with labels as shards of images, with maps where every pixel has one.

    Example: mimic-shard pack-labels nyu-depth nyu_depth_v2_labeled.mat splits.mat --out shards/nyu-test -o split=test

    Args:
        task: nyu-depth, taskonomy-normals, ade20k, imagenet or coco-pose (joints stay in COCO's own file).
        paths: Where it lies, as it was downloaded and unpacked.
        out: Folder of the new data set; must be empty or new.
        workers: Processes that read; 0 = one per core.
        resume: Continue an interrupted run in the same folder.
        name: Of the data set; default: the output folder's name.
        option: KEY=VALUE, repeatable: split (train or another), licence, depth (nyu-depth), csv and first
            (taskonomy-normals).
        max_shard_bytes: Size that a shard does not pass.

    Returns:
        0 done; 3 when something could not be read or nothing was kept.
    """
    if task not in BENCHMARKS:
        raise ValueError(f"no labels of {task!r} can be packed{nearest(task, list(BENCHMARKS))}")
    options = {"paths": tuple(map(str, paths)), **parse_assignments(option, "--option")}
    chosen = from_mapping(BENCHMARKS[task], options, f"pack-labels {task}")
    target = Target(out=out, name=name or out.resolve().name, size=0, kind="images", max_shard_bytes=max_shard_bytes)
    say(f"packing {target.name!r} into {out}")
    return run_import(chosen, target, workers=workers, resume=resume)
