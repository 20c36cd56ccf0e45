"""Data sets that the tests of loading share, made by the real writer."""

from pathlib import Path

import pytest
from samples import CRITERIA, make_data_set, stage

from mimic_wds.loading.dataset import PairDataset
from mimic_wds.storage.packing import pack


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """30 pairs in several shards. Not to be written to."""
    place = tmp_path_factory.mktemp("data") / "tiny"
    make_data_set(place, per_scene=(9, 0, 9, 6, 6), max_shard_bytes=60_000)
    return place


@pytest.fixture
def dataset(folder):
    with PairDataset(folder) as opened:
        yield opened


@pytest.fixture
def packed(tmp_path):
    """A function from samples to the folder of a data set that holds them in one shard."""

    def write(samples, criteria=CRITERIA) -> Path:
        stage(tmp_path / "staging", 0, samples)
        (tmp_path / "set").mkdir()
        pack(
            tmp_path / "staging",
            1,
            tmp_path / "set",
            "some",
            10**9,
            {"criteria": criteria, "versions": {}, "licences": {}},
        )
        return tmp_path / "set"

    return write
