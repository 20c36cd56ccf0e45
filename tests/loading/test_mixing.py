"""Mixtures by their properties: exact shares, every source whole before it comes again, and the same for any ranks."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import make_data_set

from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.joined import JoinedDataset, sources_of_shards
from mimic_wds.loading.mixing import CYCLE, Mixture, units, weights_by_size
from mimic_wds.loading.order import rank_rows
from mimic_wds.loading.pairs import PairLoader

#: No deadline: a shared machine may be slow.
SETTINGS = settings(deadline=None, max_examples=60)


@st.composite
def mixtures(draw):
    """Any mixture of up to four sources, their shards in any order."""
    lanes = draw(st.sampled_from([1, 2, 4, 8]))
    counts = draw(st.lists(st.integers(lanes, 40), min_size=1, max_size=12))
    number = draw(st.integers(1, min(4, len(counts))))
    owners = draw(st.permutations([shard % number for shard in range(len(counts))]))
    sources = {f"s{n}": [shard for shard, owner in enumerate(owners) if owner == n] for n in range(number)}
    weight = st.one_of(st.integers(1, 9), st.integers(5, 99).map(lambda number: number / 100))
    weights = {name: draw(weight) for name in sources}
    batch = lanes * draw(st.integers(1, 6))
    epoch = draw(st.sampled_from(["", *sources]))
    seed, window = draw(st.integers(0, 2**40)), draw(st.integers(1, 6))
    return Mixture(counts, sources, weights, batch, seed, lanes=lanes, window=window, epoch=epoch), counts, sources


def of_source(counts, shards):
    """The samples of some shards."""
    starts = np.cumsum([0, *counts])
    return {sample for shard in shards for sample in range(starts[shard], starts[shard + 1])}


def given_by(mixture, epochs):
    """Per source all samples that some epochs give, in order, and the shares of their batches."""
    found, batches = {name: [] for name in mixture.names}, []
    for epoch in range(epochs):
        for step in range(mixture.steps_per_epoch):
            names = mixture.source_of(epoch, step)
            for name, sample in zip(names, mixture.batch(epoch, step).tolist(), strict=True):
                found[name].append(sample)
            batches.append(Counter(names))
    return found, batches


@SETTINGS
@given(mixtures())
def test_shares_are_exact_and_no_sample_is_ahead_of_another_of_its_source(made):
    mixture, counts, sources = made
    found, batches = given_by(mixture, 2)
    shares = {name: number / sum(mixture.units.values()) for name, number in mixture.units.items()}
    rows = len(batches) * mixture.global_batch
    for name, samples in found.items():
        own = of_source(counts, sources[name])
        assert set(samples) <= own
        times = [Counter(samples)[sample] for sample in own]
        assert max(times) - min(times) <= 2  # lanes may end an epoch of the source some steps apart
        assert abs(len(samples) - rows * shares[name]) <= mixture.lanes * (1 + shares[name] * len(found))
        most = 1 + shares[name] * len(found)
        assert all(abs(batch[name] - mixture.global_batch * shares[name]) <= most for batch in batches)
    assert mixture.seen(2, 0) == {name: len(samples) for name, samples in found.items()}
    assert mixture.valid(0, 0).all()


@SETTINGS
@given(mixtures())
def test_an_epoch_of_a_source_gives_every_sample_once(made):
    """What lanes give of a source's epoch, wherever in the run, is a permutation of the source."""
    mixture, counts, sources = made
    for name, source in zip(mixture.names, mixture._sources, strict=True):
        for visit in (0, 3):
            given_there = []
            for lane in range(mixture.lanes):
                numbers = np.arange(source.lanes.before(visit, lane), source.lanes.before(visit + 1, lane))
                given_there += source.samples(np.full(len(numbers), lane), numbers).tolist()
            assert sorted(given_there) == sorted(of_source(counts, sources[name]))


@SETTINGS
@given(mixtures(), st.integers(0, 3), st.data())
def test_a_mixture_is_the_same_for_any_ranks_and_known_anywhere(made, epoch, data):
    mixture, _, _ = made
    step = data.draw(st.integers(0, mixture.steps_per_epoch - 1))
    whole = mixture.batch(epoch, step)
    for world_size in (n for n in range(1, 65) if mixture.global_batch % n == 0):
        rows = [rank_rows(mixture.global_batch, world_size, rank, 1).ravel() for rank in range(world_size)]
        assert np.concatenate([mixture.at(epoch, step, own) for own in rows]).tolist() == whole.tolist()


@SETTINGS
@given(mixtures(), st.integers(0, 2), st.data())
def test_shards_of_mixtures_are_named_before_they_are_needed(made, epoch, data):
    mixture, counts, _ = made
    begin = data.draw(st.integers(0, mixture.steps_per_epoch - 1))
    world_size = data.draw(st.sampled_from([n for n in (1, 2, 4) if mixture.lanes % n == 0]))
    rows = rank_rows(mixture.global_batch, world_size, 0, 1).ravel()
    named = {shard for group in mixture.shards_ahead(epoch, begin, rows) for shard in group}
    ends = np.cumsum(counts)
    for step in range(begin, mixture.steps_per_epoch):
        assert set(np.searchsorted(ends, mixture.at(epoch, step, rows), side="right").tolist()) <= named


def test_epochs_are_as_long_as_all_or_as_a_named_source():
    counts, sources = [600, 300, 100], {"a": [0], "b": [1, 2]}
    sizes = weights_by_size({"a": 600, "b": 400})
    assert Mixture(counts, sources, sizes, 50).steps_per_epoch == 20
    assert Mixture(counts, sources, {"a": 1, "b": 1}, 50, epoch="a").seen(1, 0) == {"a": 600, "b": 600}
    assert Mixture(counts, sources, {"a": 3, "b": 1}, 40, epoch="b").seen(1, 0) == {"a": 1200, "b": 400}
    mixture = Mixture(counts, sources, sizes, 50)
    epoch = np.concatenate([mixture.batch(0, step) for step in range(20)])
    assert sorted(epoch.tolist()) == list(range(1000))


def test_weights():
    assert units({"a": 0.25, "b": 0.75}) == {"a": 1, "b": 3}
    assert units({"a": 3, "b": 1.5}) == {"a": 2, "b": 1}
    odd = units({"a": 2**0.5, "b": 1})
    assert odd["a"] / sum(odd.values()) == pytest.approx(2**0.5 / (1 + 2**0.5), abs=1 / CYCLE)
    assert weights_by_size({"a": 900, "b": 100}) == {"a": 0.9, "b": 0.1}
    assert weights_by_size({"a": 900, "b": 100}, temperature=2) == pytest.approx({"a": 0.75, "b": 0.25})
    assert weights_by_size({"a": 900, "b": 100}, temperature=float("inf")) == {"a": 0.5, "b": 0.5}
    with pytest.raises(ValueError, match="temperature of a mixture must be above 0, got 0"):
        weights_by_size({"a": 1}, temperature=0)


def test_weights_of_no_short_cycle_are_kept_over_a_long_run():
    mixture = Mixture([500, 300], {"a": [0], "b": [1]}, {"a": 2**0.5, "b": 1}, 16)
    seen = mixture.seen(10**6, 3)
    assert sum(seen.values()) == (10**6 * mixture.steps_per_epoch + 3) * 16
    assert seen["a"] / sum(seen.values()) == pytest.approx(2**0.5 / (1 + 2**0.5), abs=1 / CYCLE)
    assert Counter(mixture.source_of(10**6, 3))["a"] in (9, 10)


@pytest.mark.parametrize(
    ("sources", "weights", "message"),
    [
        ({}, {}, "at least one source"),
        ({"a": [0]}, {"b": 1}, "weights are given for b, but the sources are a"),
        ({"a": [0], "b": [1]}, {"a": 1, "b": 0}, "weight of source 'b' must be above 0, got 0"),
        ({"a": [0], "b": []}, {"a": 1, "b": 1}, "source 'b' has no shards"),
        ({"a": [0], "b": [1]}, {"a": 1, "b": float("nan")}, "must be above 0, got nan"),
    ],
)
def test_mixtures_that_cannot_be_are_refused(sources, weights, message):
    with pytest.raises(ValueError, match=message):
        Mixture([20, 20], sources, weights, 4)


def test_a_source_with_fewer_samples_than_lanes_is_named():
    with pytest.raises(ValueError, match="source 'b': 3 samples cannot be laid out in 4 lanes"):
        Mixture([20, 3], {"a": [0], "b": [1]}, {"a": 1, "b": 1}, 8, lanes=4)
    assert Mixture([20, 3], {"a": [0], "b": [1]}, {"a": 1, "b": 1}, 8).lanes == 2
    with pytest.raises(ValueError, match="an epoch cannot be counted by 'c': the sources are a"):
        Mixture([20], {"a": [0]}, {"a": 1}, 8, epoch="c")


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """Two data sets of 24 and 8 pairs, with their numbers in the pairs' keys."""
    place = tmp_path_factory.mktemp("joined")
    make_data_set(place / "many", per_scene=(9, 9, 6))
    make_data_set(place / "few", per_scene=(8,), name="few")
    with PairDataset(place / "many") as many, PairDataset(place / "few") as few:
        yield JoinedDataset({"many": many, "few": few})


def test_several_data_sets_are_read_as_one(joined):
    many, few = joined.parts
    assert (len(joined), len(many), len(few), joined.kind, joined.size) == (32, 24, 8, "pairs", many.size)
    assert [joined.read(index) for index in range(32)] == [
        part.read(i) for part in (many, few) for i in range(len(part))
    ]
    assert joined.locate(24)[0].path == few.shards[0].path


def test_a_loader_mixes_data_sets_and_goes_on(joined):
    def loader(**share):
        order = joined.mixture(8, {"many": 1, "few": 3}, seed=2)
        return PairLoader(joined, global_batch=8, order=order, **share)

    first = loader()
    keys, states = [], []
    for epoch in range(2):
        for batch in first.epoch(epoch):
            keys.append(batch.keys)
            states.append((first.state(), first.seen()))
    state, seen = states[4]
    assert (state["mix"], seen) == ({"weights": {"many": 1, "few": 3}, "epoch": ""}, {"many": 10, "few": 30})
    rest = [[""] * 8 for _ in keys[5:]]
    for rank in range(2):
        other = loader(rank=rank, world_size=2, accumulation=2, num_threads=1)
        epoch, step = other.load_state(state)
        for number, batch in enumerate(other.epoch(epoch, step)):
            for row, key in zip(batch.rows.tolist(), batch.keys, strict=True):
                rest[number // 2][row] = key
    assert [tuple(part) for part in rest] == keys[5:]
    other = PairLoader(joined, global_batch=8, order=joined.mixture(8, {"many": 1, "few": 1}, seed=2))
    with pytest.raises(ValueError, match=r"another mix .*'few': 3"):
        other.load_state(state)


def test_shards_ahead_are_dealt_to_the_data_sets(joined, monkeypatch):
    told = {}
    for number, part in enumerate(joined.parts):
        monkeypatch.setattr(part, "expect", lambda groups, number=number: told.update({number: groups}), raising=False)
    order = joined.mixture(8, seed=1)
    joined.expect(order.shards_ahead(0, 0, np.arange(8)))
    few = [shard for group in told[1] for shard in group]
    many = [shard for group in islice(told[0], 1000) for shard in group]
    assert set(few) == set(range(len(joined.parts[1].shards)))
    assert set(many) == set(range(len(joined.parts[0].shards)))


def test_data_sets_that_do_not_fit_are_refused(joined):
    with pytest.raises(ValueError, match="give at least one"):
        JoinedDataset({})


def test_sources_within_a_data_set(dataset):
    found = sources_of_shards(dataset.manifest, dataset.folder)
    assert found == {"video": list(range(len(dataset.shards)))}
    dataset.manifest.shards[1].sources["scans"] = 2
    with pytest.raises(ValueError, match=r"tiny-000001\.tar holds samples of video, scans; .*mimic-shard filter"):
        sources_of_shards(dataset.manifest, dataset.folder)
