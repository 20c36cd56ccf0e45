"""Single images through the loader: the same crops for any threads, ranks and interruptions."""

import json

import cv2
import numpy as np
import pytest
import torch
from samples import make_image, make_image_set

from mimic_wds.loading.crops import central_box, crop_draws, cut, random_box
from mimic_wds.loading.dataset import ImageDataset, PairDataset, open_dataset
from mimic_wds.loading.images import ImageLoader
from mimic_wds.loading.order import Order

SIZE = (32, 48)
NUM_IMAGES = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("images") / "set"
    make_image_set(place, [make_image(number) for number in range(NUM_IMAGES)])
    return place


@pytest.fixture
def dataset(folder):
    with ImageDataset(folder) as opened:
        yield opened


def by_row(loader, epoch=0, start_step=0):
    """(step, row) -> key, label and pixels of an epoch."""
    found = {}
    for number, batch in enumerate(loader.epoch(epoch, start_step)):
        step = start_step + number // len(loader.rows)
        for place, row in enumerate(batch.rows.tolist()):
            found[step, row] = (batch.keys[place], int(batch.labels[place]), batch.image[place].numpy().tobytes())
    return found


def expected(dataset, seed, epoch, global_batch, augment=True):
    """The same from the definition, image by image."""
    found = {}
    for step, indices in enumerate(Order([len(shard) for shard in dataset.shards], global_batch, seed).epoch(epoch)):
        for row, index in enumerate(indices.tolist()):
            sample = make_image(index)
            bgr = cv2.imdecode(np.frombuffer(sample.image_jpg, np.uint8), cv2.IMREAD_COLOR)
            if augment:
                box = random_box(crop_draws(seed, epoch, np.array([index]))[0], *sample.size)
            else:
                box = central_box(*sample.size, (SIZE[1] / SIZE[0],) * 2)
            is_reduced = box.height >= 2 * SIZE[0] and box.width >= 2 * SIZE[1]  # decoded smaller
            found[step, row] = (sample.key, sample.label, cut(bgr, box, SIZE)[..., ::-1].tobytes(), is_reduced)
    return found


def assert_as_defined(found, defined):
    """The same samples and pixels, but for pictures that were decoded smaller: these are so on average."""
    assert found.keys() == defined.keys()
    for row, (key, label, pixels) in found.items():
        *same, their_pixels, is_reduced = defined[row]
        assert [key, label] == same
        if is_reduced:
            one, other = (np.frombuffer(data, np.uint8).astype(float) for data in (pixels, their_pixels))
            assert np.abs(one - other).mean() < 8
            assert np.corrcoef(one, other)[0, 1] > 0.97
        else:
            assert pixels == their_pixels


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_batches_hold_the_crops_that_are_defined(dataset, augment, num_threads):
    loader = ImageLoader(
        dataset, size=SIZE, augmentation="mae" if augment else "none", global_batch=6, seed=9, num_threads=num_threads
    )
    for epoch in (0, 2):
        assert_as_defined(by_row(loader, epoch), expected(dataset, 9, epoch, 6, augment))
    assert next(loader.epoch(0)).image.shape == (6, *SIZE, 3)


@pytest.mark.parametrize(("world_size", "accumulation"), [(2, 1), (3, 2), (1, 4)])
def test_ranks_and_micro_batches_change_nothing(dataset, world_size, accumulation):
    whole = by_row(ImageLoader(dataset, size=SIZE, global_batch=12, seed=1), epoch=3)
    parts = {}
    for rank in range(world_size):
        share = {"rank": rank, "world_size": world_size, "accumulation": accumulation, "num_threads": 1 + rank}
        part = by_row(ImageLoader(dataset, size=SIZE, global_batch=12, seed=1, **share), epoch=3)
        assert not set(parts) & set(part)
        parts |= part
    assert parts == whole


def test_going_on_gives_the_same_crops(dataset):
    first = ImageLoader(dataset, size=SIZE, global_batch=4, seed=2)
    whole = by_row(first, epoch=1)
    batches = first.epoch(1)
    next(batches)
    next(batches)
    state = json.loads(json.dumps(first.state()))
    batches.close()
    second = ImageLoader(dataset, size=SIZE, global_batch=4, seed=2, num_threads=3)
    epoch, step = second.load_state(state)
    assert (epoch, step) == (1, 2)
    assert by_row(second, epoch, step) == {place: found for place, found in whole.items() if place[0] >= 2}


def test_epochs_crop_anew(dataset):
    loader = ImageLoader(dataset, size=SIZE, global_batch=NUM_IMAGES)
    epochs = [{key: pixels for key, _, pixels in by_row(loader, epoch).values()} for epoch in (0, 1)]
    assert set(epochs[0]) == set(epochs[1])
    assert all(epochs[0][key] != epochs[1][key] for key in epochs[0])


def test_labels_number_the_classes(dataset):
    assert dataset.classes == ["cat", "dog"]
    for key, label, _ in by_row(ImageLoader(dataset, size=SIZE, global_batch=NUM_IMAGES)).values():
        assert f"_{dataset.classes[label]}_" in key


def test_a_bad_image_is_replaced_and_counted_the_same_way_everywhere(tmp_path):
    images = [make_image(number) for number in range(12)]
    images[4] = make_image(4, image_jpg=b"\xff\xd8torn")
    make_image_set(tmp_path / "set", images)
    with ImageDataset(tmp_path / "set") as dataset:
        found = []
        for num_threads in (1, 4):
            loader = ImageLoader(dataset, size=SIZE, global_batch=6, num_threads=num_threads)
            found.append(by_row(loader))
            assert loader.faults == {"jpeg_does_not_decode": 1}
        assert found[0] == found[1]
        keys = sorted(key for key, _, _ in found[0].values())
        assert keys == sorted(images[number].key for number in (0, 1, 2, 3, 5, 5, 6, 7, 8, 9, 10, 11))


def test_a_data_set_is_opened_as_what_it_is(folder, tmp_path, packed):
    with open_dataset(folder) as dataset:
        assert isinstance(dataset, ImageDataset)
    with pytest.raises(ValueError, match="the data set holds images, pairs are needed here"):
        PairDataset(folder)
    make_image_set(tmp_path / "none", [])
    with pytest.raises(ValueError, match="the data set holds no images"):
        open_dataset(tmp_path / "none")


def test_batches_are_not_overwritten(dataset):
    batches = list(ImageLoader(dataset, size=SIZE, global_batch=3, num_threads=2).epoch(0))
    copies = [batch.image.clone() for batch in ImageLoader(dataset, size=SIZE, global_batch=3).epoch(0)]
    assert all(torch.equal(batch.image, copy) for batch, copy in zip(batches, copies, strict=True))


def test_real_photographs(shared_data, tmp_path):
    from published import run_import

    root = shared_data / "labels" / "imagenet" / "train"
    manifest = run_import(tmp_path / "out", "image-folder", [root])
    with ImageDataset(tmp_path / "out") as dataset:
        loader = ImageLoader(dataset, size=(224, 224), global_batch=10)
        batches = [batch for epoch in range(3) for batch in loader.epoch(epoch)]
        assert not loader.faults
    assert manifest.num_samples == 30
    assert sum(len(batch) for batch in batches) == 90
    pixels = torch.cat([batch.image for batch in batches]).float()
    assert 0.1 < pixels.std() / 255 < 0.4
    # neighbouring pixels of photographs are alike, those of a torn or misplaced buffer are not
    assert (pixels[:, :, 1:] - pixels[:, :, :-1]).abs().mean() < 0.25 * pixels.std()
