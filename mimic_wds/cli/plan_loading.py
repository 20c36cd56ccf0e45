"""`mimic-shard plan` of a data set: what a run will read, printed."""

import dataclasses
import json

from mimic_wds.cli.console import say, table
from mimic_wds.loading.plan import LoadingPlan, Range, Setup, plan_loading
from mimic_wds.loading.quality import ShuffleQuality
from mimic_wds.storage.places import open_place, read_manifest_at


def show_loading_plan(where: str, setup: Setup, *, as_json: bool, endpoint: str = "") -> int:
    """Print the plan of reading the data set at a folder or URL; returns 0. Raises ValueError when it cannot be."""
    if setup.global_batch < 1:
        raise ValueError("how large a batch is must be said: give --batch-size, the samples of all processes together")
    plan = plan_loading(read_manifest_at(open_place(where, endpoint=endpoint)), setup)
    if as_json:
        print(json.dumps(dataclasses.asdict(plan), indent=1))
        return 0
    table(f"reading {where}", ["what", "is"], _rows(plan, setup))
    _show_quality(plan.quality)
    for remark in plan.remarks:
        say(f"note: {remark}")
    return 0


def _rows(plan: LoadingPlan, setup: Setup) -> list[list[object]]:
    """The figures, in the order in which they are asked for."""
    return [
        ["samples", plan.samples],
        ["shards", plan.shards],
        ["bytes", size(plan.bytes)],
        ["batch: samples", plan.global_batch],
        ["batch: samples per process", plan.per_rank],
        ["lanes", plan.lanes],
        ["window: shards per lane", plan.window],
        ["steps per epoch", plan.steps_per_epoch],
        [f"steps in {setup.epochs} epochs", plan.steps],
        ["samples left out per epoch", plan.left_out],
        ["padding of the last batch", plan.padding],
        ["shards that a process reads", _between(plan.shards_per_rank)],
        ["bytes that a process reads", _between(plan.bytes_per_rank, sizes=True)],
        ["bytes read per epoch", size(plan.read_bytes)],
        ["cache that a process needs", _between(plan.cache_bytes, sizes=True)],
        ["samples/s, all processes", f"{plan.samples_per_second:,.0f}"],
        ["MB/s, all processes", f"{plan.megabytes_per_second:,.1f}"],
        ["samples/s per worker", f"{plan.samples_per_thread:,.1f}"],
    ]


def _show_quality(quality: ShuffleQuality) -> None:
    """How well the order mixes, beside the ideal."""
    rows: list[list[object]] = [
        [f"steps between neighbours, {name}", value, quality.ideal_distance[name]]
        for name, value in quality.distance.items()
    ]
    with_mate = "samples of a batch with another of their scene"
    rows.append([with_mate, f"{quality.same_scene:.2%}", f"{quality.ideal_same_scene:.2%}"])
    title = f"shuffling (scenes of {quality.scene_samples:.1f} samples)"
    table(title, ["what", "is", "a permutation of all"], rows)


def _between(values: Range, sizes: bool = False) -> str:
    """Least and most, once if they are the same."""
    texts = [size(value) if sizes else f"{value:,}" for value in (values.least, values.most)]
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)


def size(num_bytes: int) -> str:
    """Bytes for people: 12.3 GB."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:,.1f} {unit}"
    return f"{num_bytes} bytes"
