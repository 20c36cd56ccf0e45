"""What a run will read, said before it is started: steps, who reads how many shards, cache, MB/s, how well it mixes."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mimic_wds.loading.order import Order, Tail, rank_rows
from mimic_wds.loading.quality import ShuffleQuality, shuffle_quality
from mimic_wds.storage.manifest import Manifest

#: Pairs per second that one device is taken to consume unless told: 3.1 million pairs, 100 minutes an epoch, 8 devices
#: (MIMIC, arXiv 2306.15128, appendix B).
DEVICE_RATE = 65.0

#: Pairs per second that one thread decodes: two JPEGs of 256 pixels each, measured with OpenCV 5 on one core.
THREAD_RATE = 1100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a run is to read a data set."""

    global_batch: int  #: samples per optimizer step, over all processes
    world_size: int = 1  #: processes, one device each
    workers: int = 2  #: decoding threads of each process
    lanes: int | None = None  #: None = the order's default, and below
    window: int | None = None  #: shards
    tail: Tail = "drop"
    epochs: int = 1
    seed: int = 0
    samples_per_second: float = 0.0  #: over all processes; 0 = DEVICE_RATE for each


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Smallest and largest of what the ranks have."""

    least: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadingPlan:
    """The figures of a run; those of ranks and shards are of its first epoch, the others differ by chance only."""

    samples: int
    shards: int
    bytes: int  #: of all shards
    global_batch: int
    per_rank: int  #: samples per step and rank
    lanes: int
    window: int  #: shards
    steps_per_epoch: int
    steps: int  #: of all epochs
    left_out: int  #: samples that an epoch does without; other ones in every epoch
    padding: int  #: rows of the last batch that repeat a sample
    shards_per_rank: Range  #: that a rank reads from, at least in part
    bytes_per_rank: Range  #: of these shards
    read_bytes: int  #: by all ranks in one epoch, whole shards
    cache_bytes: Range  #: per rank: the windows it reads at a time and the next one
    samples_per_second: float
    megabytes_per_second: float  #: of all ranks
    samples_per_thread: float  #: per second
    quality: ShuffleQuality
    remarks: list[str]


def plan_loading(manifest: Manifest, setup: Setup) -> LoadingPlan:
    """The plan of a run. Raises ValueError saying what to change when it cannot be."""
    order = make_order(manifest, setup)
    sizes = np.array([shard.bytes for shard in manifest.shards], np.int64)
    shares = [_shards_of_rank(order, lanes) for lanes in _lanes_of_ranks(order, setup.world_size)]
    num_shards = [len(share) for share in shares]
    num_bytes = [int(sizes[share].sum()) for share in shares]
    rate = setup.samples_per_second or DEVICE_RATE * setup.world_size
    return LoadingPlan(
        samples=order.num_samples,
        shards=len(sizes),
        bytes=int(sizes.sum()),
        global_batch=order.global_batch,
        per_rank=order.global_batch // setup.world_size,
        lanes=order.lanes,
        window=order.window,
        steps_per_epoch=order.steps_per_epoch,
        steps=order.steps_per_epoch * setup.epochs,
        left_out=max(0, order.num_samples - order.steps_per_epoch * order.global_batch),
        padding=order.padding,
        shards_per_rank=_range(num_shards),
        bytes_per_rank=_range(num_bytes),
        read_bytes=sum(num_bytes),
        cache_bytes=_range(_cache_bytes(order, sizes, num_bytes, setup.world_size)),
        samples_per_second=rate,
        megabytes_per_second=round(rate * float(sizes.sum()) / order.num_samples / 1e6, 2),
        samples_per_thread=round(rate / (setup.world_size * setup.workers), 1),
        quality=shuffle_quality(order, scene_samples=scene_samples(manifest)),
        remarks=_remarks(order, setup, len(sizes), rate),
    )


def make_order(manifest: Manifest, setup: Setup) -> Order:
    """The order that a loader of this set-up has. Raises ValueError saying what to change when there can be none."""
    if min(setup.world_size, setup.workers, setup.epochs) < 1:
        raise ValueError(
            "a run has 1 process, worker and epoch or more, got "
            f"{setup.world_size} processes, {setup.workers} workers, {setup.epochs} epochs"
        )
    if not manifest.num_samples:
        raise ValueError(f"the data set holds no {manifest.kind}; nothing can be read")
    if setup.global_batch % setup.world_size:
        below = setup.global_batch - setup.global_batch % setup.world_size
        near = " or ".join(str(size) for size in (below, below + setup.world_size) if size)
        raise ValueError(
            f"a batch of {setup.global_batch} samples cannot be shared evenly by {setup.world_size} processes: "
            f"make it {near}, or change the number of processes"
        )
    counts = [shard.samples for shard in manifest.shards]
    return Order(counts, setup.global_batch, setup.seed, lanes=setup.lanes, window=setup.window, tail=setup.tail)


def scene_samples(manifest: Manifest) -> float:
    """Samples of a scene, on average over all that were looked through."""
    return max(1.0, manifest.num_samples / max(1, sum(manifest.scenes.values())))


def _lanes_of_ranks(order: Order, world_size: int) -> list[NDArray[np.int64]]:
    """The lanes that each rank reads from."""
    per_lane = order.global_batch // order.lanes
    return [np.unique(rank_rows(order.global_batch, world_size, r, 1) // per_lane) for r in range(world_size)]


def _shards_of_rank(order: Order, lanes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The shards of some lanes in the first epoch, each once."""
    sizes = order.permutation.sizes(0).tolist()
    return np.unique(np.concatenate([order.permutation.shards(0, lane, 0, sizes[lane]) for lane in lanes.tolist()]))


def _cache_bytes(order: Order, sizes: NDArray[np.int64], num_bytes: list[int], world_size: int) -> list[int]:
    """What each rank has to keep so that no shard is fetched twice in an epoch, but no more than all it reads."""
    largest = np.array([_largest_window(order, lane, sizes) for lane in range(order.lanes)])
    lanes = _lanes_of_ranks(order, world_size)
    return [min(int(largest[own].sum() + largest[own].max()), most) for own, most in zip(lanes, num_bytes, strict=True)]


def _largest_window(order: Order, lane: int, sizes: NDArray[np.int64]) -> int:
    """Bytes of the shards of the window of a lane that has the most, in the first epoch."""
    edges = order.permutation.edges(0, lane).tolist()
    return max(int(sizes[order.permutation.shards(0, lane, start, stop)].sum()) for start, stop in pairwise(edges))


def _remarks(order: Order, setup: Setup, num_shards: int, rate: float) -> list[str]:
    """What could be better."""
    found = []
    if order.lanes % setup.world_size:
        found.append(
            f"{setup.world_size} processes do not divide the {order.lanes} lanes: some lanes are read by two of them"
        )
    if num_shards < setup.world_size:
        found.append(f"{num_shards} shards for {setup.world_size} processes: each shard is read by several of them")
    threads = setup.world_size * setup.workers
    if rate > THREAD_RATE * threads:
        found.append(
            f"{threads} threads decode about {THREAD_RATE * threads:.0f} samples/s of the {rate:.0f} asked for: "
            f"give {-(-rate // (THREAD_RATE * setup.world_size)):.0f} workers to each process"
        )
    return found


def _range(values: list[int]) -> Range:
    return Range(least=min(values), most=max(values))
