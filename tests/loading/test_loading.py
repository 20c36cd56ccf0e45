"""Order, batches and resumption: every number is checked against the data set read by hand."""

import json
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import PATCH, SIDE, make_data_set, make_sample

from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.order import swap_views
from mimic_wds.loading.pairs import PairLoader
from mimic_wds.loading.transforms import normalize
from mimic_wds.pairs import invert_correspondences


def by_hand(folder):
    """Key -> (image0, image1, corr) decoded without the loader."""
    found = {}
    with PairDataset(folder) as dataset:
        for shard in dataset.shards:
            for i in range(len(shard)):
                sample = shard.sample(i)
                images = [
                    cv2.cvtColor(cv2.imdecode(np.frombuffer(d, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
                    for d in (sample.image0_jpg, sample.image1_jpg)
                ]
                found[sample.key] = (*images, sample.corr_0to1)
    return found


def test_the_swapped_views_are_those_that_saved_states_refer_to():
    assert np.nonzero(swap_views(1, 2, np.arange(16)))[0].tolist() == [1, 4, 5, 7, 8, 10, 11, 12, 13, 14]


def test_half_of_the_views_are_swapped_whoever_asks():
    samples = np.arange(10_000)
    swapped = swap_views(0, 0, samples)
    assert abs(swapped.mean() - 0.5) < 0.02
    assert np.array_equal(swap_views(0, 0, samples[5000:5010]), swapped[5000:5010])
    for seed, epoch in ((0, 1), (1, 0)):
        assert abs((swap_views(seed, epoch, samples) == swapped).mean() - 0.5) < 0.02


@given(st.lists(st.integers(-1, 15), min_size=16, max_size=16))
def test_inverting_a_map_twice_gives_it_back(targets):
    corr = np.full(16, -1, np.int16)
    for patch, target in enumerate(targets):
        if target not in corr:
            corr[patch] = target
    inverted = invert_correspondences(corr)
    assert np.array_equal(invert_correspondences(inverted), corr)
    assert all(inverted[corr[p]] == p for p in range(16) if corr[p] >= 0)


def test_normalize_is_imagenets_for_every_value_of_every_channel():
    pixels = np.random.default_rng(0).permuted(np.tile(np.arange(256, dtype=np.uint8), (3, 1)), axis=1).T
    pixels = pixels.reshape(2, 8, 16, 3)
    expected = ((pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(0, 3, 1, 2)
    result = normalize(torch.from_numpy(pixels), "cpu")
    assert result.dtype == torch.float32
    assert result.shape == (2, 3, 8, 16)
    assert np.abs(result.numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("num_threads", [1, 4])
def test_batches_hold_exactly_what_the_shards_hold(folder, dataset, num_threads):
    truth = by_hand(folder)
    loader = PairLoader(dataset, global_batch=8, seed=3, num_threads=num_threads)
    order = loader.order.epoch(1)
    keys = list(truth)
    seen = 0
    for step, batch in enumerate(loader.epoch(1)):
        assert batch.keys == tuple(keys[i] for i in order[step])
        assert batch.rows.tolist() == list(range(8))
        for place, key in enumerate(batch.keys):
            image0, image1, corr = truth[key]
            if batch.swapped[place]:
                image0, image1, corr = image1, image0, invert_correspondences(corr)
            assert np.array_equal(batch.image0[place], image0)
            assert np.array_equal(batch.image1[place], image1)
            assert np.array_equal(batch.corr_0to1[place], corr)
            seen += 1
    assert seen == 24
    assert loader.faults == {}


def test_correspondences_name_the_same_pixels_whether_swapped_or_not(packed):
    samples = []
    for number in range(12):  # view 1 shows view 0 shifted to the right by one patch
        wide = np.random.default_rng(number).integers(0, 256, (SIDE // 8, (SIDE + PATCH) // 8, 3), dtype=np.uint8)
        wide = cv2.resize(wide, (SIDE + PATCH, SIDE), interpolation=cv2.INTER_NEAREST)
        jpegs = [cv2.imencode(".jpg", view)[1].tobytes() for view in (wide[:, PATCH:], wide[:, :-PATCH])]
        samples.append(make_sample(number, image0_jpg=jpegs[0], image1_jpg=jpegs[1]))
    with PairDataset(packed(samples)) as dataset:
        (batch,) = PairLoader(dataset, global_batch=12).epoch(0)
    assert 0 < batch.swapped.sum() < 12
    same, others = [], []
    for image0, image1, corr in zip(batch.image0.numpy(), batch.image1.numpy(), batch.corr_0to1.numpy(), strict=True):
        patches0, patches1 = patches_of(image0), patches_of(image1)
        assert (corr >= 0).sum() == 12
        for patch, target in enumerate(corr):
            distances = np.abs(patches1 - patches0[patch]).mean(axis=(1, 2, 3))
            same += [distances[target]] if target >= 0 else []
            others += np.delete(distances, target).tolist() if target >= 0 else distances.tolist()
    assert len(same) == 144
    assert max(same) < 10 < min(others)


def patches_of(image):
    """(16, PATCH, PATCH, 3) of a square image, raster order."""
    rows = image.astype(float).reshape(SIDE // PATCH, PATCH, SIDE // PATCH, PATCH, 3)
    return rows.swapaxes(1, 2).reshape(-1, PATCH, PATCH, 3)


def test_without_swapping_no_view_is_exchanged(dataset):
    assert not any(batch.swapped.any() for batch in PairLoader(dataset, global_batch=8, augmentation="none").epoch(0))


def keys_of(dataset, start=0, **options):
    loader = PairLoader(dataset, global_batch=12, seed=5, **options)
    return [(batch.keys, batch.rows.tolist()) for batch in loader.epoch(0, start)]


def test_ranks_read_disjoint_parts_of_the_same_global_batches(dataset):
    whole = [key for keys, _ in keys_of(dataset) for key in keys]
    for world_size, accumulation in ((2, 1), (3, 2), (1, 4), (4, 3)):
        batches = np.full((2, 12), "", dtype=object)
        for rank in range(world_size):
            share = keys_of(dataset, rank=rank, world_size=world_size, accumulation=accumulation)
            for number, (keys, rows) in enumerate(share):
                assert (batches[number // accumulation, rows] == "").all()
                batches[number // accumulation, rows] = keys
        assert batches.ravel().tolist() == whole


RANK = """
import sys
sys.path[:0] = {path!r}
from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.pairs import PairLoader
rank, folder = int(sys.argv[1]), sys.argv[2]
loader = PairLoader(PairDataset(folder), global_batch=12, seed=5, rank=rank, world_size=2)
for batch in loader.epoch(0):
    print(" ".join(batch.keys))
"""


def test_two_real_processes_share_the_batches_of_one(folder, dataset):
    code = RANK.format(path=sys.path)
    shares = [
        subprocess.run([sys.executable, "-c", code, str(rank), folder], capture_output=True, text=True, check=True)
        for rank in range(2)
    ]
    lines = [share.stdout.splitlines() for share in shares]
    both = [f"{a} {b}".split() for a, b in zip(*lines, strict=True)]
    assert both == [list(keys) for keys, _ in keys_of(dataset)]


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_a_resumed_loader_gives_exactly_the_rest(dataset, world_size, accumulation):
    first = PairLoader(dataset, global_batch=6, seed=1)
    batches = first.epoch(2)
    whole = [key for batch in PairLoader(dataset, global_batch=6, seed=1).epoch(2) for key in batch.keys]
    for _ in range(3):
        next(batches)
    state = json.loads(json.dumps(first.state()))
    batches.close()
    assert (state["epoch"], state["step"]) == (2, 3)
    rest = np.full((2, 6), "", dtype=object)
    for rank in range(world_size):
        loader = PairLoader(
            dataset, global_batch=6, seed=1, rank=rank, world_size=world_size, accumulation=accumulation
        )
        for number, batch in enumerate(loader.epoch(*loader.load_state(state))):
            rest[number // accumulation, batch.rows.numpy()] = batch.keys
    assert rest.ravel().tolist() == whole[18:]


def test_the_position_counts_whole_steps_and_turns_over_at_the_end(dataset):
    loader = PairLoader(dataset, global_batch=10, accumulation=2)
    positions = [(loader.state()["epoch"], loader.state()["step"]) for _ in loader.epoch(0)]
    assert positions == [(0, 0), (0, 1), (0, 1), (0, 2), (0, 2), (1, 0)]


def test_a_state_of_another_run_is_refused(dataset, tmp_path):
    state = PairLoader(dataset, global_batch=6).state()
    make_data_set(tmp_path / "other", per_scene=(8,))
    with PairDataset(tmp_path / "other") as other, pytest.raises(ValueError, match="another manifest"):
        PairLoader(other, global_batch=6).load_state(state)
    with pytest.raises(ValueError, match=r"another seed \(0\) than the one given now \(1\)"):
        PairLoader(dataset, global_batch=6, seed=1).load_state(state)
    with pytest.raises(ValueError, match="another global_batch"):
        PairLoader(dataset, global_batch=5).load_state(state)


@pytest.mark.parametrize(
    "wrong", [{"epoch": -1}, {"step": -1}, {"step": 5}, {"step": "1"}, {"step": None}, {"epoch": 0.5}]
)
def test_a_state_that_names_no_position_is_refused(dataset, wrong):
    loader = PairLoader(dataset, global_batch=6)
    with pytest.raises(ValueError, match=r"no state of this loader: .* an epoch has 5 steps"):
        loader.load_state({**loader.state(), **wrong})
    assert loader.load_state({**loader.state(), "step": 4}) == (0, 4)


def test_steps_and_threads_that_cannot_be_are_refused(dataset):
    loader = PairLoader(dataset, global_batch=6)
    for epoch, step in ((0, -1), (0, 5), (-1, 0)):
        with pytest.raises(ValueError, match=f"no step {step} of epoch {epoch}: an epoch has 5 steps"):
            loader.epoch(epoch, step)
    with pytest.raises(ValueError, match="got num_threads = 0"):
        PairLoader(dataset, global_batch=6, num_threads=0)
    with pytest.raises(ValueError, match="a global batch of 31 cannot be made from 30 samples"):
        PairLoader(dataset, global_batch=31)


def decoders():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_threads_end_when_the_consumer_stops_early(dataset):
    batches = PairLoader(dataset, global_batch=2, num_threads=3).epoch(0)
    next(batches)
    assert decoders()
    batches.close()
    assert not decoders()


def test_threads_end_when_the_consumer_fails(dataset):
    def consume():
        for _ in PairLoader(dataset, global_batch=2, num_threads=3).epoch(0):
            assert decoders()
            raise KeyError("the model's fault")

    with pytest.raises(KeyError):
        consume()
    assert not decoders()


def test_a_dropped_generator_takes_its_threads_along(dataset):
    batches = PairLoader(dataset, global_batch=2).epoch(0)
    next(batches)
    del batches
    assert not decoders()


def test_batches_are_not_overwritten_later(dataset):
    batches = list(PairLoader(dataset, global_batch=4, num_threads=4).epoch(0))
    copies = [(b.keys, b.image0.clone()) for b in PairLoader(dataset, global_batch=4).epoch(0)]
    assert all(b.keys == k and torch.equal(b.image0, i) for b, (k, i) in zip(batches, copies, strict=True))
