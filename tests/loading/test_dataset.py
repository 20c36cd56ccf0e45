"""Opening a data set: what is wrong with it is said at once; reading any sample of it."""

import shutil

import numpy as np
import pytest
from samples import make_sample

from mimic_wds.loading.dataset import PairDataset
from mimic_wds.storage.layout import MEMBERS


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_samples_are_numbered_through_the_shards(dataset):
    assert len(dataset.shards) >= 3
    in_order = [(shard.key(i), shard.read(i)) for shard in dataset.shards for i in range(len(shard))]
    assert len(in_order) == len(dataset) == 30
    for index in np.random.default_rng(0).permutation(30).tolist():
        assert dataset.read(index) == in_order[index]
        assert tuple(dataset.read(index)[1]) == MEMBERS["pairs"]
    assert (dataset.size, dataset.patch_size, dataset.num_patches) == (64, 16, 16)


def test_a_folder_without_a_data_set(tmp_path):
    with pytest.raises(ValueError, match="no such data set"):
        PairDataset(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no manifest\.json here"):
        PairDataset(tmp_path)


@pytest.mark.parametrize("cut", [1, 512, 1024, 5000])
def test_a_torn_shard_is_refused_by_its_size(copy, cut):
    shard = sorted(copy.glob("*.tar"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-cut])
    message = rf"{shard.name}: has {len(whole) - cut} bytes, its index describes {len(whole)}"
    with pytest.raises(ValueError, match=message):
        PairDataset(copy)


def test_a_shard_of_another_data_set_is_refused(copy):
    first, *_, last = sorted(copy.glob("*.tar"))
    assert first.stat().st_size != last.stat().st_size
    shutil.copy(first, last)
    shutil.copy(first.with_suffix(".idx"), last.with_suffix(".idx"))
    with pytest.raises(ValueError, match=rf"{last.name}: holds .* the manifest says"):
        PairDataset(copy)


@pytest.mark.parametrize(
    ("suffix", "message"), [(".tar", "the shard is missing"), (".idx", "the shard's index is missing")]
)
def test_a_missing_file_is_named(copy, suffix, message):
    file = sorted(copy.glob(f"*{suffix}"))[2]
    file.unlink()
    with pytest.raises(ValueError, match=rf"{file.name}: {message}"):
        PairDataset(copy)


def test_a_data_set_without_pairs_is_refused(packed):
    with pytest.raises(ValueError, match="holds no pairs"):
        PairDataset(packed([]))


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        ({"patch_size": 16}, r"criteria\.size in its manifest should be a number of pixels, is None"),
        ({"size": "64", "patch_size": 16}, r"criteria\.size .* is '64'"),
        ({"size": 64, "patch_size": 0}, r"criteria\.patch_size .* is 0"),
        ({"size": 64, "patch_size": 15}, "views of 64 pixels have no whole patches of 15"),
    ],
)
def test_sizes_that_the_manifest_must_give(packed, criteria, message):
    with pytest.raises(ValueError, match=message):
        PairDataset(packed([make_sample()], criteria))
