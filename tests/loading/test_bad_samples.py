"""Samples that cannot be used: counted by reason, replaced, and too many of them stop the run."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from samples import SIDE, make_sample, shift_map

from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.faults import FaultPolicy
from mimic_wds.loading.order import swap_views
from mimic_wds.loading.pairs import PairLoader

NUM_SAMPLES = 20


def spoiled(num_bad, **changes):
    """20 samples, the first `num_bad` of them with these changes."""
    return [replace(make_sample(i), **(changes if i < num_bad else {})) for i in range(NUM_SAMPLES)]


def torn_jpeg():
    return make_sample(0).image0_jpg[:-300]


def larger_jpeg():
    return cv2.imencode(".jpg", np.zeros((SIDE, SIDE + 16, 3), np.uint8))[1].tobytes()


def corr_with(patch, target):
    corr = shift_map()
    corr[patch] = target
    return corr


REASONS = [
    ({"image1_jpg": b"no picture"}, "jpeg_does_not_decode"),
    ({"image0_jpg": b""}, "jpeg_does_not_decode"),
    ({"image0_jpg": torn_jpeg()}, "jpeg_does_not_decode"),
    ({"image1_jpg": larger_jpeg()}, "image_of_another_size"),
    ({"corr_0to1": np.arange(15, dtype=np.int16)}, "correspondences_of_another_shape"),
    ({"corr_0to1": corr_with(0, 16)}, "correspondences_not_one_to_one"),
    ({"corr_0to1": corr_with(0, 2)}, "correspondences_not_one_to_one"),
    ({"corr_0to1": corr_with(0, -2)}, "correspondences_not_one_to_one"),
    ({"corr_0to1": corr_with(0, 32767)}, "correspondences_not_one_to_one"),
]


@pytest.mark.parametrize(("changes", "reason"), REASONS)
def test_bad_samples_are_counted_once_and_replaced_by_the_next_good_one(packed, changes, reason):
    with PairDataset(packed(spoiled(3, **changes))) as dataset:
        loader = PairLoader(dataset, global_batch=NUM_SAMPLES)
        for epoch in range(2):
            (batch,) = loader.epoch(epoch)
            counts = {key: batch.keys.count(key) for key in batch.keys}
            assert counts.pop(make_sample(3).key) == 4  # itself, and in place of samples 0, 1 and 2
            assert set(counts.values()) == {1}
        assert loader.faults == {reason: 3}


def test_a_map_without_any_correspondence_is_a_good_one(packed):
    empty = np.full(16, -1, np.int16)
    with PairDataset(packed([make_sample(i, corr_0to1=empty) for i in range(4)])) as dataset:
        loader = PairLoader(dataset, global_batch=4)
        (batch,) = loader.epoch(0)
        assert (batch.corr_0to1 == -1).all()
        assert loader.faults == {}


def test_a_sample_whose_tar_header_was_overwritten_is_a_bad_one(packed):
    folder = packed(spoiled(0))
    (tar,) = folder.glob("*.tar")
    with PairDataset(folder) as dataset:
        offset, _ = dataset.shards[0].index.ranges(5)[1]
        with tar.open("r+b") as file:
            file.seek(offset - 512)
            file.write(b"x" * 8)
        loader = PairLoader(dataset, global_batch=NUM_SAMPLES)
        (batch,) = loader.epoch(0)
        assert batch.keys.count(make_sample(6).key) == 2
        assert loader.faults == {"not_where_the_index_says": 1}


def test_after_the_last_sample_comes_the_first(packed):
    samples = [make_sample(i) for i in range(4)]
    samples[3] = replace(samples[3], image0_jpg=b"")
    with PairDataset(packed(samples)) as dataset:
        (batch,) = PairLoader(dataset, global_batch=4).epoch(0)
        assert batch.keys.count(samples[0].key) == 2


def test_the_replacement_is_the_same_for_any_ranks_and_threads(packed):
    with PairDataset(packed(spoiled(7, image0_jpg=b"torn"))) as dataset:
        (whole,) = PairLoader(dataset, global_batch=NUM_SAMPLES, seed=4, num_threads=1).epoch(3)
        order = PairLoader(dataset, global_batch=NUM_SAMPLES, seed=4).order.batch(3, 0)
        assert whole.swapped.tolist() == swap_views(4, 3, order).tolist()
        keys = [""] * NUM_SAMPLES
        for rank in range(2):
            loader = PairLoader(
                dataset, global_batch=NUM_SAMPLES, seed=4, rank=rank, world_size=2, accumulation=5, num_threads=4
            )
            for batch in loader.epoch(3):
                for row, key in zip(batch.rows.tolist(), batch.keys, strict=True):
                    keys[row] = key
        assert tuple(keys) == whole.keys


def test_too_many_bad_samples_stop_the_run_by_name(packed):
    with PairDataset(packed(spoiled(3, image1_jpg=b"no picture"))) as dataset:
        loader = PairLoader(dataset, global_batch=NUM_SAMPLES, policy=FaultPolicy(share=0, count=2))
        bad = "|".join(make_sample(i).key for i in range(3))
        message = (
            r"more than 2 samples cannot be used \(\{'jpeg_does_not_decode': 3\}\), the last one is "
            rf"({bad}) in .*some-000000\.tar: run `mimic-shard verify"
        )
        with pytest.raises(RuntimeError, match=message):
            list(loader.epoch(0))


def test_by_default_ten_bad_samples_are_borne_and_eleven_are_not(packed):
    with PairDataset(packed(spoiled(11, image1_jpg=b""))) as dataset:
        assert PairLoader(dataset, global_batch=1).budget == 10
        with pytest.raises(RuntimeError, match="more than 10 samples"):
            list(PairLoader(dataset, global_batch=NUM_SAMPLES).epoch(0))
        loader = PairLoader(dataset, global_batch=NUM_SAMPLES, policy=FaultPolicy(count=11))
        list(loader.epoch(0))
        assert loader.faults.total() == 11


def test_a_data_set_of_bad_samples_only_ends(packed):
    with PairDataset(packed(spoiled(NUM_SAMPLES, image1_jpg=b""))) as dataset:
        loader = PairLoader(dataset, global_batch=NUM_SAMPLES, policy=FaultPolicy(count=1000))
        with pytest.raises(RuntimeError, match=r"100 samples in a row cannot be used, the first is video_.*tar"):
            list(loader.epoch(0))
