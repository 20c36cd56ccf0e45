"""F20-F27, F29: who reads what and in which order, over ranks, workers, epochs and restarts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from base import PER_SHARD, Case, Outcome, whole_set

from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.order import Order, rank_rows
from mimic_wds.loading.pairs import PairLoader

#: Shards of the data set that 2 ranks cannot share evenly.
UNEVEN = [40] * 6 + [9]


def given(order: Order, epoch: int, world_size: int, accumulation: int = 1, first_step: int = 0) -> list[np.ndarray]:
    """Sample numbers that each rank gets in an epoch."""
    rows = [rank_rows(order.global_batch, world_size, rank, accumulation).ravel() for rank in range(world_size)]
    steps = range(first_step, order.steps_per_epoch)
    return [np.concatenate([order.at(epoch, step, own) for step in steps]) for own in rows]


def plain_shards(folder: Path, counts: list[int]) -> list[str]:
    """Tars of samples that are only numbers, for webdataset."""
    import webdataset as wds

    paths, number = [], 0
    for shard, count in enumerate(counts):
        paths.append(str(folder / f"x-{shard:06d}.tar"))
        with wds.TarWriter(paths[-1]) as writer:
            for _ in range(count):
                writer.write({"__key__": f"k{number:06d}", "cls": number})
                number += 1
    return paths


def numbers(data) -> list[int]:
    """What a pipeline of `plain_shards` gives."""
    return [int(item["cls"]) for item in data]


def uneven_ours(_: Path) -> Outcome:
    order = Order(UNEVEN, 16, seed=0, lanes=2, window=8, tail="pad")
    ranks = given(order, 0, 2)
    sizes = {len(rank) // 8 for rank in ranks}
    seen = np.unique(np.concatenate(ranks))
    padded = sum(map(len, ranks)) - sum(UNEVEN)
    what = (
        f"{sizes.pop()} batches on both ranks; {len(seen)} of {sum(UNEVEN)} samples seen, {padded} repeated to fill up"
    )
    return Outcome(len(sizes) == 0 and len(seen) == sum(UNEVEN), what)


def uneven_theirs(folder: Path) -> Outcome:
    import webdataset as wds

    paths = plain_shards(folder, UNEVEN)
    counts = []
    for rank in range(2):
        os.environ.update(RANK=str(rank), WORLD_SIZE="2")
        data = wds.WebDataset(paths, shardshuffle=False, nodesplitter=wds.split_by_node).batched(8, partial=True)
        counts.append(sum(1 for _ in data))
    return Outcome(
        counts[0] == counts[1], f"{counts[0]} and {counts[1]} batches: the ranks wait for each other for ever"
    )


def few_ours(folder: Path) -> Outcome:
    whole_set(folder / "set")
    with PairDataset(folder / "set") as data_set:
        keys = []
        for rank in range(5):
            loader = PairLoader(data_set, global_batch=10, rank=rank, world_size=5, num_threads=4)
            keys += [key for batch in loader.epoch(0) for key in batch.keys]
    return Outcome(len(set(keys)) == len(keys) == PER_SHARD, "1 shard, 5 ranks of 4 threads: every sample once")


def few_theirs(folder: Path) -> Outcome:
    import webdataset as wds
    from torch.utils.data import DataLoader

    paths = plain_shards(folder, [10])
    try:
        got = len(numbers(DataLoader(wds.WebDataset(paths, shardshuffle=False), num_workers=4, batch_size=None)))
    except ValueError as error:
        return Outcome(False, f"ValueError at the first batch: {' '.join(str(error).split())[-90:]}")
    return Outcome(got == 10, f"{got} of 10 samples")


def epochs_ours(_: Path) -> Outcome:
    order, again = (Order([20] * 12, 24, seed=0, lanes=2, window=30) for _ in range(2))
    epochs = [np.sort(given(order, epoch, 1)[0].reshape(-1, 24)) for epoch in (0, 1)]
    by_rank = np.sort(np.concatenate([part.reshape(-1, 6) for part in given(order, 1, 4)], axis=1))
    same_again = np.array_equal(given(order, 1, 1)[0], given(again, 1, 1)[0])
    right = same_again and not np.array_equal(*epochs) and np.array_equal(epochs[1], by_rank)
    return Outcome(right, "another order each epoch, the same on every rank and in every run with that seed")


def shard_order(paths: list[str], epochs: int, **options: object) -> list[list[int]]:
    """First samples of each shard in the order of several epochs of one webdataset pipeline."""
    import webdataset as wds

    data = wds.WebDataset(paths, **options)
    return [[number // 20 for number in numbers(data) if number % 20 == 0] for _ in range(epochs)]


def epochs_theirs(folder: Path) -> Outcome:
    first, second = shard_order(plain_shards(folder, [20] * 12), 2, shardshuffle=100)
    return Outcome(first != second, "the same order of shards in every epoch" if first == second else "another order")


def workers_ours(folder: Path) -> Outcome:
    whole_set(folder / "set", shards=3)
    with PairDataset(folder / "set") as data_set:
        orders = []
        for threads in (1, 4):
            loader = PairLoader(data_set, global_batch=6, num_threads=threads)
            orders.append([[key for batch in loader.epoch(epoch) for key in batch.keys] for epoch in (0, 1)])
    right = orders[0] == orders[1] and orders[0][0] != orders[0][1]
    return Outcome(right, "another order each epoch, whatever number of threads, started anew for every epoch")


def workers_theirs(folder: Path) -> Outcome:
    import webdataset as wds
    from torch.utils.data import DataLoader

    data = wds.WebDataset(plain_shards(folder, [20] * 12), shardshuffle=100, detshuffle=True, seed=0)
    loader = DataLoader(data, num_workers=2, batch_size=None)
    first, second = numbers(loader), numbers(loader)
    return Outcome(first != second, "the same order in every epoch" if first == second else "another order each epoch")


@contextmanager
def seed_of_webdataset() -> Iterator[None]:
    """Its environment variable, set for a while."""
    os.environ["WDS_SEED"] = "7"
    try:
        yield
    finally:
        del os.environ["WDS_SEED"]


def seed_ours(_: Path) -> Outcome:
    with seed_of_webdataset():
        one, other = (given(Order([20] * 12, 24, seed=seed), 0, 1)[0] for seed in (0, 1))
    return Outcome(
        not np.array_equal(one, other), "the seed is an argument, an integer; the environment does not count"
    )


def seed_theirs(folder: Path) -> Outcome:
    try:
        with seed_of_webdataset():
            shard_order(plain_shards(folder, [20] * 12), 1, shardshuffle=100, detshuffle=True)
    except TypeError as error:
        return Outcome(False, f"TypeError: {error}")
    return Outcome(True, "works")


def length_ours(_: Path) -> Outcome:
    order = Order([10] * 5, 10, seed=0)
    seen = [given(order, epoch, 2) for epoch in range(2)]
    together = [np.concatenate(ranks) for ranks in seen]
    whole = all(np.array_equal(np.sort(samples), np.arange(50)) for samples in together)
    what = f"an epoch of 50 samples on 2 ranks gives {len(set(together[0]))}, the next all of them in another order"
    return Outcome(whole and not np.array_equal(*together), what)


def length_theirs(folder: Path) -> Outcome:
    import webdataset as wds
    from torch.utils.data import DataLoader

    data = wds.WebDataset(plain_shards(folder, [10] * 10), shardshuffle=False).with_epoch(25)
    loader = DataLoader(data, num_workers=2, batch_size=None)
    first, second = numbers(loader), numbers(loader)
    then = "the same" if first == second else "others"
    what = f"`with_epoch(25)`, 2 workers: {len(first)} samples, in the next epoch {then}"
    return Outcome(len(first) == 25 and first != second, what)


def all_ours(_: Path) -> Outcome:
    order = Order([20] * 12, 24, seed=0)
    share = len(np.unique(given(order, 0, 1)[0])) / 240
    return Outcome(share == 1, f"{share:.0%} of the samples in an epoch")


def all_theirs(folder: Path) -> Outcome:
    import webdataset as wds

    data = wds.WebDataset(plain_shards(folder, [20] * 12), resampled=True, seed=3).with_epoch(240)
    share = len(set(numbers(data))) / 240
    return Outcome(share == 1, f"`resampled=True`: {share:.0%} of the samples in one nominal epoch")


def resumed_ours(folder: Path) -> Outcome:
    whole_set(folder / "set", shards=3)
    with PairDataset(folder / "set") as data_set:

        def keys(world_size: int, state: dict[str, object] | None, steps: range) -> dict[int, list[str]]:
            found: dict[int, list[str]] = {step: [""] * 6 for step in steps}
            for rank in range(world_size):
                loader = PairLoader(data_set, global_batch=6, rank=rank, world_size=world_size, num_threads=rank + 1)
                start = loader.load_state(state)[1] if state else 0
                for step, batch in zip(range(start, steps.stop), loader.epoch(0, start), strict=False):
                    for row, key in zip(batch.rows.tolist(), batch.keys, strict=True):
                        found[step][row] = key
            return found

        whole = keys(1, None, range(5))
        loader = PairLoader(data_set, global_batch=6, world_size=2)
        batches = loader.epoch(0)
        next(batches), next(batches)
        state = loader.state()
        batches.close()
        rest = [keys(world_size, state, range(2, 5)) for world_size in (1, 3, 6)]
    right = all(other == {step: whole[step] for step in (2, 3, 4)} for other in rest)
    return Outcome(right, "stopped on 2 ranks, resumed on 1, 3 and 6 with other threads: exactly the remaining batches")


class CountingDataset(PairDataset):
    """Counts the samples that are read."""

    reads = 0

    def read(self, index: int):
        self.reads += 1
        return super().read(index)


def own_share(folder: Path) -> Outcome:
    whole_set(folder / "set", shards=4)
    reads = []
    for rank in range(2):
        with CountingDataset(folder / "set") as data_set:
            for _ in PairLoader(data_set, global_batch=8, rank=rank, world_size=2, num_threads=1).epoch(0):
                pass
            reads.append(data_set.reads)
    return Outcome(reads == [20, 20], f"the ranks read {reads[0]} and {reads[1]} of 40 samples: each its own share")


def own_share_theirs(folder: Path) -> Outcome:
    import torch
    import webdataset as wds
    from accelerate.data_loader import DataLoaderDispatcher, IterableDatasetShard, prepare_data_loader
    from torch.utils.data import DataLoader

    data = wds.WebDataset(plain_shards(folder, [10] * 4), shardshuffle=False)
    default = prepare_data_loader(
        DataLoader(data, batch_size=4), torch.device("cpu"), num_processes=2, process_index=0, put_on_device=True
    )
    read: list[int] = []
    counted = data.map(lambda item: read.append(1) or int(item["cls"]))
    kept = len(list(IterableDatasetShard(counted, batch_size=4, num_processes=2, process_index=1)))
    dispatches = "rank 0 reads everything and sends it" if isinstance(default, DataLoaderDispatcher) else "no dispatch"
    what = (
        f"`prepare()`: {dispatches}; with `dispatch_batches=False` each rank reads {len(read)} of 40 and keeps {kept}"
    )
    return Outcome(len(read) == kept, what)


CASES = [
    Case("F20", "7 shards (40 x 6 + 9) on 2 ranks", uneven_ours, uneven_theirs),
    Case("F21", "fewer shards than workers", few_ours, few_theirs),
    Case("F22", "the second epoch, shards shuffled", epochs_ours, epochs_theirs),
    Case("F23", "the second epoch, workers started anew", workers_ours, workers_theirs),
    Case("F24", "a seed in the environment", seed_ours, seed_theirs),
    Case("F25", "how long an epoch is", length_ours, length_theirs),
    Case("F26", "what an epoch leaves out", all_ours, all_theirs),
    Case("F27", "resumed with another number of ranks and workers", resumed_ours),
    Case("F29", "two ranks under Accelerate", own_share, own_share_theirs),
]
