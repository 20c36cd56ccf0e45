"""The account of bad samples: each once, added up over threads and ranks, written as JSON; and how many are borne."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import make_sample

from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.faults import KEYS_KEPT, FaultCounts, FaultPolicy, write_faults
from mimic_wds.loading.pairs import PairLoader

#: No deadline: a shared machine may be slow.
SETTINGS = settings(deadline=None, max_examples=60)

FOUND = st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["torn", "odd"])), max_size=80)


def counted(found):
    faults = FaultCounts()
    for index, reason in found:
        faults.add(index, reason, f"key{index}")
    return faults


@SETTINGS
@given(FOUND, st.integers(1, 5))
def test_ranks_add_up_to_what_one_would_have_counted(found, num_ranks):
    first = {}
    for index, reason in found:
        first.setdefault(index, reason)
    found = list(first.items())
    shared = [found[rank::num_ranks] + found[:7] for rank in range(num_ranks)]  # some were met by several
    gathered = [json.loads(json.dumps(counted(part).as_plain())) for part in shared]
    total, whole = FaultCounts.from_plain(gathered), counted(found)
    assert total.reasons == whole.reasons == first
    assert total.counts == whole.counts
    for reason in ("torn", "odd"):
        smallest = sorted(index for index in first if first[index] == reason)[:KEYS_KEPT]
        assert {i: key for i, key in total.keys.items() if first[i] == reason} == {i: f"key{i}" for i in smallest}


def test_threads_count_together():
    faults = FaultCounts()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: faults.add(n % 500, "torn", str(n % 500)), range(4000)))
    assert faults.counts == {"torn": 500}
    assert len(faults.keys) == KEYS_KEPT


def test_the_account_as_json(tmp_path):
    faults = counted([(number, "torn") for number in range(20, 0, -1)] + [(30, "odd")])
    write_faults(tmp_path / "faults.json", faults, num_samples=1000)
    assert json.loads((tmp_path / "faults.json").read_text()) == {
        "samples": 1000,
        "unusable": 21,
        "reasons": {
            "odd": {"count": 1, "first_keys": ["key30"]},
            "torn": {"count": 20, "first_keys": [f"key{number}" for number in range(1, 11)]},
        },
    }


def test_budgets():
    assert FaultPolicy().budget(100) == 10
    assert FaultPolicy().budget(3_100_000) == 3100
    assert FaultPolicy(share=0, count=0).budget(10**6) == 0
    assert FaultPolicy(action="raise").budget(10**6) == 0
    with pytest.raises(ValueError, match="must be raise or skip, got 'ignore'"):
        FaultPolicy(action="ignore")
    with pytest.raises(ValueError, match=r"a share in \[0, 1\] and a count of 0 or more, got 2, 10"):
        FaultPolicy(share=2)


@pytest.fixture
def spoiled(packed):
    """12 pairs of which 2, 5 and 6 do not decode."""
    samples = [replace(make_sample(i), **({"image1_jpg": b"torn"} if i in (2, 5, 6) else {})) for i in range(12)]
    with PairDataset(packed(samples)) as dataset:
        yield dataset, samples


def test_a_run_that_bears_none_stops_at_the_first(spoiled):
    dataset, _ = spoiled
    loader = PairLoader(dataset, global_batch=12, policy=FaultPolicy(action="raise"))
    with pytest.raises(RuntimeError, match=r"more than 0 samples cannot be used \(\{'jpeg_does_not_decode': \d\}\)"):
        list(loader.epoch(0))


def test_ranks_write_one_account(spoiled, tmp_path):
    dataset, samples = spoiled
    gathered = []
    for rank in range(3):
        loader = PairLoader(dataset, global_batch=12, rank=rank, world_size=3)
        for epoch in range(4):
            list(loader.epoch(epoch))
        gathered.append(loader.fault_counts.as_plain())
    assert sum(len(part["reasons"]) for part in gathered) > 3, "several ranks met the same sample"
    loader.write_faults(tmp_path / "faults.json", gathered)
    assert json.loads((tmp_path / "faults.json").read_text()) == {
        "samples": 12,
        "unusable": 3,
        "reasons": {"jpeg_does_not_decode": {"count": 3, "first_keys": [samples[i].key for i in (2, 5, 6)]}},
    }
