"""Maps and values come through the loader of all samples, cut as the view beside them is."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
import torch
from samples import CRITERIA, SIDE, make_sample, stage

from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.parts import JPEG, JPEG1, Part, PartBatch, PartLoader
from mimic_wds.storage.maps import decode_depth, decode_map, decode_normal, encode_depth, encode_normal, encode_semseg
from mimic_wds.storage.packing import pack


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneBatch(PartBatch):
    """What some task wants."""

    image: torch.Tensor  # (B, H, W, 3) uint8
    depth: torch.Tensor  # (B, H, W) float32, metres
    normal: torch.Tensor  # (B, H, W, 3) float32
    classes: torch.Tensor  # (B, H, W) uint8
    other_depth: torch.Tensor  # of view 1
    number: torch.Tensor  # (B,) int64


def turn(normal):
    """A mirror turns normals' right to left."""
    return normal * np.array([-1, 1, 1], np.float32)


PARTS = {
    "image": JPEG,
    "depth": Part(member="0.depth.png", decode=decode_depth, is_picture=True),
    "normal": Part(member="0.normal.png", decode=decode_normal, is_picture=True, shape=(3,), mirror=turn),
    "classes": Part(
        member="0.semseg.png", decode=lambda data: decode_map("semseg", data), is_picture=True, dtype=np.uint8
    ),
    "other_depth": Part(member="1.depth.png", decode=decode_depth, is_picture=True),
    "number": Part(member="json", decode=lambda data: np.asarray(len(data)), dtype=np.int64),
}

Y, X = np.mgrid[0:SIDE, 0:SIDE]


def scene(number):
    """A pair whose colours, depth and classes all say where a pixel lies: red = 3 x, depth = 1 + x cm + y / 10 mm."""
    image = np.dstack([np.full_like(X, number), 3 * Y, 3 * X]).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    normal = np.dstack([X / SIDE - 0.5, Y / SIDE - 0.5, -np.ones_like(X, float)])
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    maps = {}
    for view in (0, 1):
        maps |= {
            f"{view}.depth.png": encode_depth((1 + X / 100 + view).astype(np.float32)),
            f"{view}.normal.png": encode_normal(normal),
            f"{view}.semseg.png": encode_semseg(Y + 1),
        }
    return make_sample(number, image0_jpg=jpeg, image1_jpg=jpeg, maps=maps)


def write(folder, samples):
    """A data set of these pairs."""
    stage(folder.parent / "staging", 0, samples)
    folder.mkdir()
    description = {"criteria": CRITERIA, "versions": {}, "licences": {}, "maps": ["depth", "normal", "semseg"]}
    names = [f"class{i}" for i in range(SIDE)]
    pack(folder.parent / "staging", 1, folder, "some", 10**9, {**description, "semseg_classes": names})


@pytest.fixture
def dataset(tmp_path):
    write(tmp_path / "set", [scene(number) for number in range(8)])
    with PairDataset(tmp_path / "set") as opened:
        yield opened


def load(dataset, parts=PARTS, make=SceneBatch, size=(SIDE, SIDE), **options):
    return PartLoader(dataset, parts=parts, make=make, size=size, global_batch=8, seed=3, **options)


def test_unchanged_pictures_are_what_is_stored(dataset):
    batch = next(load(dataset).epoch(0))
    assert (batch.image.shape, batch.depth.dtype, batch.number.dtype) == (
        (8, SIDE, SIDE, 3),
        torch.float32,
        torch.int64,
    )
    assert np.allclose(batch.depth, 1 + X / 100, atol=6e-4)
    assert np.allclose(batch.other_depth, 2 + X / 100, atol=6e-4)
    assert (batch.classes.numpy() == Y + 1).all()
    assert np.abs(batch.image[..., 0].numpy().astype(int) - 3 * X).max() <= 4


@pytest.mark.parametrize("preset", ["croco", "mae"])
@pytest.mark.parametrize("size", [(SIDE, SIDE), (40, 48)])
def test_maps_are_cut_as_the_colours_beside_them(dataset, preset, size):
    mirrored = set()
    for epoch in range(2):
        batch = next(load(dataset, size=size, augmentation=preset).epoch(epoch))
        columns = batch.image[..., 0].numpy() / 3
        rows = batch.image[..., 1].numpy() / 3
        inner = np.s_[:, 4:-4, 4:-4]
        # colours are smooth, maps take the nearest pixel
        assert np.abs((batch.depth.numpy() - 1) * 100 - columns)[inner].max() < 2.6
        assert np.abs(batch.classes.numpy() - 1 - rows)[inner].max() < 2.6
        stored = np.abs(batch.normal[..., 0].numpy()), np.abs(columns / SIDE - 0.5)
        assert np.corrcoef(stored[0].ravel(), stored[1].ravel())[0, 1] > 0.9
        for place in range(8):
            runs_back = columns[place, 10, 5] > columns[place, 10, -5]
            # right is right: in a mirrored view the normal that pointed to the right points to the left
            slope = np.polyfit(columns[place].ravel(), batch.normal[place, ..., 0].numpy().ravel(), 1)[0]
            assert (slope < 0) == runs_back
            mirrored.add(bool(runs_back))
    assert mirrored == ({False, True} if preset == "mae" else {False})


def test_no_value_arises_that_was_not_there(dataset):
    batch = next(load(dataset, augmentation="mae", size=(50, 50)).epoch(0))
    millimetres = np.rint(batch.depth.numpy() * 1000)
    assert set(np.unique(millimetres)) <= set(np.rint(1000 + 10 * np.arange(SIDE)))


def test_the_same_for_any_ranks_and_threads(dataset):
    def by_key(**options):
        batches = (batch for batch in load(dataset, augmentation="mae", **options).epoch(1))
        return {
            key: (batch.depth[i].numpy().tobytes(), batch.image[i].numpy().tobytes())
            for batch in batches
            for i, key in enumerate(batch.keys)
        }

    whole = by_key(num_threads=1)
    shares = [by_key(rank=rank, world_size=2, accumulation=2, num_threads=3) for rank in range(2)]
    assert shares[0] | shares[1] == whole
    assert len(whole) == 8


def test_members_that_samples_do_not_have_are_named(folder):
    with PairDataset(folder) as plain, pytest.raises(ValueError, match=r"its samples have no 0\.depth\.png, 0\.normal"):
        load(plain)


def test_a_broken_map_is_counted_by_its_name(tmp_path):
    samples = [scene(number) for number in range(8)]
    samples[2] = replace(samples[2], maps={**samples[2].maps, "0.depth.png": b"no picture"})
    small = encode_semseg(np.ones((8, 8), int))
    samples[5] = replace(samples[5], maps={**samples[5].maps, "0.semseg.png": small})
    write(tmp_path / "set", samples)
    with PairDataset(tmp_path / "set") as dataset:
        loader = load(dataset)
        batch = next(loader.epoch(0))
        assert loader.faults == {"depth_unreadable": 1, "picture_of_another_size": 1}
        assert not {samples[2].key, samples[5].key} & set(batch.keys)


def test_both_views_colours(dataset):
    @dataclass(frozen=True, slots=True, kw_only=True, eq=False)
    class Both(PartBatch):
        image0: torch.Tensor
        image1: torch.Tensor

    batch = next(load(dataset, parts={"image0": JPEG, "image1": JPEG1}, make=Both).epoch(0))
    assert len(batch) == 8
    assert torch.equal(batch.image0, batch.image1)
