"""The order by its properties, over random shards, batches, lanes and windows; by the numbers, at a billion samples."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_wds.loading.lanes import Lanes
from mimic_wds.loading.order import SHARDS_MIXED, Order, default_lanes, default_window, rank_rows

#: No deadline: a shared machine may be slow.
SETTINGS = settings(deadline=None, max_examples=60)


@st.composite
def orders(draw, tails=("drop", "pad")):
    """Any order that can be, of up to a few hundred samples."""
    counts = draw(st.lists(st.integers(1, 40), min_size=1, max_size=20))
    total, tail = sum(counts), draw(st.sampled_from(tails))
    lanes = 2 ** draw(st.integers(0, 6).filter(lambda power: 2**power <= total))
    most = total // lanes if tail == "drop" else 8
    return Order(
        counts,
        lanes * draw(st.integers(1, max(1, most))),
        draw(st.integers(0, 2**63)),
        lanes=lanes,
        window=draw(st.integers(1, 8)),
        tail=tail,
    )


@SETTINGS
@given(orders(), st.integers(0, 1000))
def test_every_sample_comes_once_in_an_epoch(order, epoch):
    batches = order.epoch(epoch)
    valid = np.stack([order.valid(epoch, step) for step in range(order.steps_per_epoch)])
    seen = np.sort(batches[valid])
    assert batches.shape == (order.steps_per_epoch, order.global_batch)
    assert (np.diff(seen) > 0).all()
    assert 0 <= seen[0] <= seen[-1] < order.num_samples
    assert (~valid).sum() == order.padding
    if order.tail == "pad":
        assert len(seen) == order.num_samples
        assert valid[:-1].all()
        assert set(batches.ravel().tolist()) == set(range(order.num_samples))
    else:
        assert valid.all()
        assert order.num_samples - len(seen) == order.num_samples % order.global_batch


@SETTINGS
@given(orders(), st.integers(0, 5), st.data())
def test_any_row_of_any_batch_is_known_without_the_others(order, epoch, data):
    whole = order.epoch(epoch)
    again = Order(
        order.permutation.shard_samples.tolist(),
        order.global_batch,
        order.seed,
        lanes=order.lanes,
        window=order.window,
        tail=order.tail,
    )
    for step in data.draw(st.lists(st.integers(0, order.steps_per_epoch - 1), min_size=1, max_size=4)):
        rows = np.array(data.draw(st.lists(st.integers(0, order.global_batch - 1), min_size=1, max_size=9)))
        assert again.at(epoch, step, rows).tolist() == whole[step, rows].tolist()


@SETTINGS
@given(orders(tails=("pad",)), st.integers(0, 5))
def test_the_place_of_a_sample_is_known_too(order, epoch):
    lanes, places = order.permutation.places(epoch, np.arange(order.num_samples))
    assert np.bincount(lanes, minlength=order.lanes).tolist() == order.permutation.sizes(epoch).tolist()
    for lane in range(order.lanes):
        own = np.flatnonzero(lanes == lane)
        found = order.permutation.samples(epoch, order.permutation.positions(epoch, lane, places[own]))
        assert found.tolist() == own.tolist()


@SETTINGS
@given(orders(), st.integers(0, 5), st.data())
def test_all_world_sizes_and_splits_read_the_same_batches(order, epoch, data):
    step = data.draw(st.integers(0, order.steps_per_epoch - 1))
    whole = order.batch(epoch, step)
    for world_size in (n for n in range(1, 65) if order.global_batch % n == 0):
        divisors = [n for n in range(1, 9) if order.global_batch % (n * world_size) == 0]
        accumulation = data.draw(st.sampled_from(divisors))
        rows = [rank_rows(order.global_batch, world_size, rank, accumulation) for rank in range(world_size)]
        assert np.concatenate([order.at(epoch, step, own.ravel()) for own in rows]).tolist() == whole.tolist()
        if order.lanes % world_size == 0:
            per_lane, per_rank = order.global_batch // order.lanes, order.lanes // world_size
            for rank, own in enumerate(rows):
                assert set((own // per_lane).ravel().tolist()) == set(range(rank * per_rank, (rank + 1) * per_rank))


@SETTINGS
@given(orders(), st.integers(0, 5), st.data())
def test_shards_are_named_before_they_are_needed_and_no_others(order, epoch, data):
    begin = data.draw(st.integers(0, order.steps_per_epoch - 1))
    world_size = data.draw(st.sampled_from([n for n in (1, 2, 4, 8) if order.lanes % n == 0]))
    rows = rank_rows(order.global_batch, world_size, data.draw(st.integers(0, world_size - 1)), 1).ravel()
    ends = np.cumsum(order.permutation.shard_samples)
    groups = list(order.shards_ahead(epoch, begin, rows))
    needed = [
        set(np.searchsorted(ends, order.at(epoch, step, rows), side="right").tolist())
        for step in range(begin, order.steps_per_epoch)
    ]
    assert set().union(*needed) <= {shard for group in groups for shard in group}
    named = {shard: number for number, group in reversed(list(enumerate(groups))) for shard in group}
    first_use = [min((named[shard] for shard in step), default=0) for step in needed]
    assert first_use[0] <= len(np.unique(rows // (order.global_batch // order.lanes)))
    lanes_of_rank = sum(order.permutation.sizes(epoch)[np.unique(rows * order.lanes // order.global_batch)])
    assert len({shard for group in groups for shard in group}) <= lanes_of_rank


def test_a_rank_fetches_the_shards_of_its_own_lanes_once():
    order = Order([100] * 64, 64, 3, lanes=16, window=2)
    touched = []
    for rank in range(8):
        groups = order.shards_ahead(0, 0, rank_rows(64, 8, rank, 2).ravel())
        touched.append({shard for group in groups for shard in group})
    assert [len(shards) for shards in touched] == [8] * 8
    assert len(set().union(*touched)) == 64


def test_the_shards_of_the_first_windows_come_as_they_are_needed():
    order = Order([50] * 40, 4, 1, lanes=4, window=8)
    groups = list(order.shards_ahead(1, 30, np.arange(4)))[:4]
    for lane, group in enumerate(groups):
        left = [int(order.at(1, step, np.array([lane]))[0]) // 50 for step in range(30, order.steps_per_epoch)]
        met = list(dict.fromkeys(left))
        assert group == met[: len(group)]


def test_what_was_consumed_is_not_named_again():
    order = Order([50] * 40, 40, 1, lanes=4, window=3)
    ends, rows = np.cumsum([50] * 40), np.arange(40)
    last = order.steps_per_epoch - 1
    named = {shard for group in order.shards_ahead(2, last, rows) for shard in group}
    assert named == set(np.searchsorted(ends, order.batch(2, last), side="right").tolist())


@SETTINGS
@given(orders(tails=("pad",)))
def test_epochs_and_seeds_differ(order):
    if order.num_samples < 60 or order.steps_per_epoch < 3:
        return
    other = Order(
        order.permutation.shard_samples, order.global_batch, order.seed + 1, lanes=order.lanes, window=order.window
    )
    first = order.epoch(0)[: other.steps_per_epoch]
    assert first.tolist() != order.epoch(1)[: other.steps_per_epoch].tolist()
    assert first.tolist() != other.epoch(0).tolist()


def test_what_is_left_out_is_another_part_in_every_epoch():
    order = Order([30], 8, 0)
    left_out = [set(range(30)) - set(order.epoch(epoch).ravel().tolist()) for epoch in range(60)]
    assert all(len(part) == 6 for part in left_out)
    counts = np.bincount([sample for part in left_out for sample in part], minlength=30)
    assert (counts > 0).all()
    assert counts.max() <= 30  # 12 are expected


@SETTINGS
@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.integers(1, 16), st.integers(0, 400))
def test_lanes_stay_level_over_epochs(counts, lanes, number):
    permutation = Lanes(counts, seed=0, lanes=min(lanes, sum(counts)), window=2)
    for lane in range(permutation.lanes):
        epoch = int(permutation.epoch_at(lane, np.array([number]))[0])
        assert permutation.before(epoch, lane) <= number < permutation.before(epoch + 1, lane)
    assert sum(permutation.before(7, lane) for lane in range(permutation.lanes)) == 7 * sum(counts)


def test_the_order_is_the_one_that_saved_states_refer_to():
    order = Order([4, 6], 4, seed=1)
    assert (order.lanes, order.window) == (4, 256)
    assert [order.batch(2, step).tolist() for step in range(2)] == order.epoch(2).tolist()
    assert order.epoch(2).tolist() == [[5, 6, 9, 1], [4, 7, 0, 3]]


def test_a_billion_samples_need_little_memory():
    counts = np.random.default_rng(0).integers(500, 1501, 10**6)
    order = Order(counts, 4096, 5)
    tracemalloc.start()
    last = order.steps_per_epoch - 1
    batches = [order.batch(epoch, step) for epoch in (0, 7) for step in (0, last // 2, last)]
    groups = order.shards_ahead(7, last // 2, np.arange(256))
    assert len(next(groups)) <= order.window + 2
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6  # the line of 10^6 shards is 16 MB an epoch, all windows of 64 lanes are 4 MB
    assert all(len(np.unique(batch)) == 4096 and batch.max() < order.num_samples for batch in batches)
    assert np.ptp(batches[0]) > 0.99 * order.num_samples


def test_lanes_and_windows_unless_others_are_asked_for():
    assert [default_lanes(batch, 10**6) for batch in (4096, 96, 30, 7, 1)] == [64, 32, 2, 1, 1]
    assert default_lanes(64, 5) == 4
    assert [default_window(lanes) for lanes in (64, 32, 1)] == [16, 32, SHARDS_MIXED]


def test_every_permutation_is_as_likely():
    """All 24 permutations of 4 samples come, each about as often: chi squared of 23 degrees of freedom."""
    found = [tuple(Order([1, 3], 1, seed).epoch(0).ravel().tolist()) for seed in range(4800)]
    counts = np.unique(found, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - 200) ** 2 / 200).sum() < 49.7  # 0.1 %


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_batch": 31}, "a global batch of 31 cannot be made from 30 samples"),
        ({"global_batch": 0}, "a global batch of 0 cannot be made"),
        ({"seed": -1}, "seed of the order must be 0 or more, got -1"),
        ({"lanes": 3}, "a global batch of 10 cannot take the same number of samples from 3 lanes"),
        ({"lanes": 0}, "cannot take the same number of samples from 0 lanes"),
        ({"lanes": 40, "global_batch": 80, "tail": "pad"}, "30 samples cannot be laid out in 40 lanes"),
        ({"window": 0}, "got window = 0"),
    ],
)
def test_orders_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Order([20, 10], **{"global_batch": 10, **options})


@SETTINGS
@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 5))
def test_ranks_and_micro_batches_cover_the_same_global_batch(world_size, accumulation, rows):
    size = world_size * accumulation * rows
    shares = [rank_rows(size, world_size, rank, accumulation) for rank in range(world_size)]
    assert all(share.shape == (accumulation, rows) for share in shares)
    assert np.concatenate([share.ravel() for share in shares]).tolist() == list(range(size))


def test_batches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="10 cannot be shared evenly by 3 processes in 1 micro-batches"):
        rank_rows(10, 3, 0, 1)
    with pytest.raises(ValueError, match="rank < world_size"):
        rank_rows(10, 2, 2, 1)
