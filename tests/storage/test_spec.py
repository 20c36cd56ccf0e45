"""The reader in docs/shard-format.md is whole: it reads what this package writes, to the byte."""

import re
from pathlib import Path

import numpy as np
import pytest
from samples import make_data_set

from mimic_wds.storage.manifest import read_manifest
from mimic_wds.storage.reader import open_shards

PAGE = Path(__file__).parents[2] / "docs" / "shard-format.md"


@pytest.fixture
def read():
    """The function that the page defines."""
    (code,) = re.findall(r"<!-- tested by .*?-->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names["read"]


def test_the_reader_of_the_page_gives_the_same_samples(tmp_path, read):
    make_data_set(tmp_path)
    theirs = list(read(tmp_path))
    ours = [shard.sample(i) for shard in open_shards(tmp_path, read_manifest(tmp_path)) for i in range(len(shard))]
    assert len(theirs) == len(ours) == 7
    for (key, jpg0, jpg1, corr, facts), sample in zip(theirs, ours, strict=True):
        assert (key, jpg0, jpg1) == (sample.key, sample.image0_jpg, sample.image1_jpg)
        assert np.array_equal(corr, sample.corr_0to1)
        assert (facts["overlap"], facts["scene"]) == (sample.overlap, sample.scene)
        assert np.array_equal(np.reshape(facts["homography"], (3, 3)), sample.H_0to1)


def test_it_notices_a_flipped_bit_and_a_cut(tmp_path, read):
    manifest = make_data_set(tmp_path)
    path = tmp_path / manifest.shards[0].name
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(AssertionError):
        list(read(tmp_path))
    assert len(list(read(tmp_path, check=False))) == 7
    path.write_bytes(data[:-1024])
    with pytest.raises(AssertionError):
        list(read(tmp_path, check=False))
