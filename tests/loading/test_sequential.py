"""Tars alone, read by webdataset: the same samples as through the index, or an error that names the file."""

import gzip

import numpy as np
import pytest
from samples import make_data_set

from mimic_wds.loading.sequential import read_tars


def test_tars_alone_give_the_same_bytes(folder, dataset):
    found = list(read_tars(sorted(folder.glob("*.tar"))))
    indexed = [shard.sample(i) for shard in dataset.shards for i in range(len(shard))]
    assert len(found) == 30
    for ours, theirs in zip(indexed, found, strict=True):
        assert (ours.key, ours.image0_jpg, ours.image1_jpg) == (theirs.key, theirs.image0_jpg, theirs.image1_jpg)
        assert np.array_equal(ours.corr_0to1, theirs.corr_0to1)
        assert np.array_equal(ours.H_0to1, theirs.H_0to1)


@pytest.fixture
def tar(tmp_path):
    """A tar of three samples."""
    make_data_set(tmp_path / "set", per_scene=(3,), max_shard_bytes=10**9)
    (path,) = (tmp_path / "set").glob("*.tar")
    return path


@pytest.mark.parametrize("name", ["a{1..2}.tar", "a#b.tar", "a?b.tar", "a%20b.tar", "a::b.tar", "pipe:false"])
def test_a_name_is_a_name_and_no_url_or_command(tar, monkeypatch, name):
    monkeypatch.chdir(tar.parent)
    tar.rename(tar.with_name(name))
    assert len(list(read_tars([name]))) == 3


def test_a_torn_tar_is_an_error_wherever_it_was_cut(tar):
    whole = tar.read_bytes()
    sizes = [*range(0, len(whole), 512), *range(100, len(whole), 700), len(whole) - 1]
    for size in sizes:
        tar.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=tar.name):
            list(read_tars([tar]))


def test_a_packed_tar_is_read_and_its_damage_is_an_error(tar):
    packed = tar.with_name("set.tar.gz")
    packed.write_bytes(gzip.compress(tar.read_bytes()))
    assert len(list(read_tars([packed]))) == 3
    packed.write_bytes(packed.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=packed.name):
        list(read_tars([packed]))


def test_a_missing_tar_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.tar: no such file"):
        list(read_tars([tmp_path / "nowhere.tar"]))


def test_a_consumer_may_stop_early(tar):
    samples = read_tars([tar, tar])
    assert next(samples).key.startswith("video_")
    samples.close()
