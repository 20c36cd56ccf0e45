"""The presets: their draws belong to a sample, and what is known of a pair follows its views."""

from functools import partial

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import PATCH, SIDE, make_image, make_image_set, make_sample

from mimic_wds.geometry.overlap import correspondences, vote_points
from mimic_wds.geometry.patches import PatchGrid
from mimic_wds.loading.augment import PRESETS, Augmentation, carry_homography, draw_for, view_box, view_matrix
from mimic_wds.loading.crops import NUM_DRAWS, Box
from mimic_wds.loading.dataset import ImageDataset, PairDataset
from mimic_wds.loading.decoding import decode_rgb
from mimic_wds.loading.images import ImageLoader
from mimic_wds.loading.pairs import PairLoader

GRID = PatchGrid(SIDE, SIDE, PATCH)


def known_pair(number):
    """A pair whose view 1 is view 0 under a known homography, both smooth enough that pixels can be compared."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image0 = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    angle, scale = rng.uniform(-0.2, 0.2), rng.uniform(0.85, 1.15)
    H = np.array([[scale * np.cos(angle), -np.sin(angle), rng.uniform(-8, 8)], [np.sin(angle), 1, 5], [2e-4, -3e-4, 1]])
    image1 = cv2.warpPerspective(image0, H, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    jpegs = [
        cv2.imencode(".jpg", i, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
        for i in (cv2.GaussianBlur(image0, (0, 0), 1), cv2.GaussianBlur(image1, (0, 0), 1))
    ]
    return make_sample(number, image0_jpg=jpegs[0], image1_jpg=jpegs[1], H_0to1=H)


@pytest.fixture
def known(packed):
    with PairDataset(packed([known_pair(number) for number in range(24)])) as opened:
        yield opened


def by_row(dataset, **options):
    """(step, row) -> all that a loader says of a pair."""
    loader = PairLoader(dataset, global_batch=12, seed=5, homographies=True, **options)
    found = {}
    for number, batch in enumerate(loader.epoch(1)):
        for place, row in enumerate(batch.rows.tolist()):
            parts = [batch.image0, batch.image1, batch.H_0to1, batch.jitter0, batch.jitter1]
            values = [b"" if part is None else part[place].numpy().tobytes() for part in parts]
            found[number // len(loader.rows), row] = (batch.keys[place], *values)
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_the_same_for_any_ranks_accumulation_and_threads(known, preset):
    whole = by_row(known, augmentation=preset)
    assert len(whole) == 24
    for world_size, accumulation, num_threads in ((1, 1, 3), (2, 3, 1), (4, 1, 2)):
        shares = [
            by_row(
                known,
                augmentation=preset,
                rank=rank,
                world_size=world_size,
                accumulation=accumulation,
                num_threads=num_threads,
            )
            for rank in range(world_size)
        ]
        assert {key: value for share in shares for key, value in share.items()} == whole


def test_presets_are_what_their_papers_say():
    samples = np.arange(4000)
    for name, preset in PRESETS.items():
        draws = draw_for(preset, 0, 0, samples)
        assert draws.swapped.mean() == pytest.approx(0 if name == "none" else 0.5, abs=0.04)
        boxes, others = (
            np.array([view_box(preset, draws, place, view, 256, 256) for place in range(4000)]) for view in (0, 1)
        )
        if name in ("none", "mimic"):
            assert (boxes == (0, 0, 256, 256, 0)).all()
        if name == "croco":
            assert (boxes[:, 2:] == (224, 224, 0)).all()
            assert set(boxes[:, 0]) == set(boxes[:, 1]) == set(range(33))
            assert abs(np.corrcoef(boxes[:, 0], others[:, 0])[0, 1]) < 5 / 4000**0.5
        if name == "mae":
            assert boxes[:, 4].mean() == pytest.approx(0.5, abs=0.04)
            assert np.array_equal(boxes[:, 4], others[:, 4])
            assert abs(np.corrcoef(boxes[:, 2], others[:, 2])[0, 1]) < 5 / 4000**0.5
        assert (draws.jitter is None) == (name != "croco")
        if draws.jitter is not None:
            factors, orders = draws.jitter[..., :3], draws.jitter[..., 3]
            assert (factors.min(), factors.max()) == pytest.approx((0.6, 1.4), abs=1e-3)
            assert np.bincount(orders.ravel().astype(int)) == pytest.approx(8000 / 6, abs=150)
            flat = np.concatenate([draws.jitter[0], draws.jitter[1], draws.crops[0], draws.crops[1]], axis=1)
            correlations = np.corrcoef(flat.T) - np.eye(flat.shape[1])
            assert np.abs(correlations).max() < 6 / 4000**0.5


boxes = st.builds(
    Box, st.integers(0, 100), st.integers(0, 100), st.integers(1, 300), st.integers(1, 300), mirror=st.booleans()
)
sizes = st.tuples(st.integers(1, 300), st.integers(1, 300))
matrices = st.lists(st.floats(-1, 1), min_size=8, max_size=8).map(
    lambda v: np.array([[1 + v[0] / 4, v[1] / 4, 90 * v[2]], [v[3] / 4, 1 + v[4] / 4, 90 * v[5]], [v[6] / 999, 0, 1]])
)


def moved(matrix, points):
    """(N, 2) points under a homography."""
    return cv2.perspectiveTransform(points[None].astype(np.float64), matrix)[0]


@given(box=boxes, size=sizes)
def test_the_edges_of_a_box_become_the_edges_of_the_view(box, size):
    left, top, right, bottom = box.x - 0.5, box.y - 0.5, box.x + box.width - 0.5, box.y + box.height - 0.5
    ends = [size[1] - 0.5, -0.5] if box.mirror else [-0.5, size[1] - 0.5]
    corners = moved(view_matrix(box, size), np.array([[left, top], [right, bottom]]))
    assert corners == pytest.approx(np.array([[ends[0], -0.5], [ends[1], size[0] - 0.5]]), abs=1e-8)


@given(H=matrices, box0=boxes, box1=boxes, size=sizes, swapped=st.booleans())
def test_points_that_correspond_still_do(H, box0, box1, size, swapped):
    rng = np.random.default_rng(0)
    points0 = rng.uniform(0, 200, (20, 2))
    points1 = moved(H, points0)
    first, second = (points1, points0) if swapped else (points0, points1)
    matrix0, matrix1 = view_matrix(box0, size), view_matrix(box1, size)
    carried = carry_homography(H, matrix0, matrix1, swapped=swapped)
    expected = moved(matrix1, second)
    assert moved(carried, moved(matrix0, first)) == pytest.approx(expected, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [SIDE, 80])
def test_the_homography_of_a_batch_turns_one_view_into_the_other(known, preset, size):
    """Against a dense warp of the pixels themselves."""
    num = 0
    for batch in PairLoader(known, global_batch=12, size=size, augmentation=preset, homographies=True).epoch(0):
        for image0, image1, H in zip(batch.image0.numpy(), batch.image1.numpy(), batch.H_0to1.numpy(), strict=True):
            options = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_CONSTANT}
            warped = cv2.warpPerspective(image0.astype(np.float32), H, (size, size), **options)
            inside = cv2.warpPerspective(np.ones((size, size), np.float32), H, (size, size), **options) == 1
            inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
            if inside.sum() < 150:  # crops of MAE may show hardly anything of each other
                continue
            difference = np.abs(warped - image1)[inside].mean()
            shifted = np.abs(warped - np.roll(image1, 6, axis=1).astype(np.float32))[inside].mean()
            assert difference < 5
            assert difference < shifted / 2
            num += 1
    assert num >= 15


def correspond(H):
    """What the data set was built with."""
    return correspondences(H, GRID, *vote_points(GRID))


def dense_vote(H):
    """Where most pixels of each patch lie, by warping a picture of patch numbers: (16,), -1 = outside."""
    numbers = np.kron(np.arange(16).reshape(4, 4) + 1, np.ones((PATCH, PATCH))).astype(np.uint8)
    here = cv2.warpPerspective(numbers, H, (SIDE, SIDE), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    patches = here.reshape(4, PATCH, 4, PATCH).swapaxes(1, 2).reshape(16, -1)
    return np.array([np.bincount(patch, minlength=17).argmax() - 1 for patch in patches])


@pytest.mark.parametrize("preset", ["croco", "mae"])
def test_moved_correspondences_are_found_anew_and_agree_with_a_dense_warp(known, preset):
    same = total = 0
    for batch in PairLoader(
        known, global_batch=12, augmentation=preset, homographies=True, correspond=correspond
    ).epoch(0):
        for corr, H in zip(batch.corr_0to1.numpy(), batch.H_0to1.numpy(), strict=True):
            assert (np.bincount(corr[corr >= 0], minlength=1) <= 1).all()
            dense = dense_vote(H)
            # two pixels are mapped with truncation there, with rounding here
            same += int((corr == dense)[corr >= 0].sum())
            total += int((corr >= 0).sum())
    assert total > 70
    assert same > 0.9 * total


@pytest.mark.parametrize("preset", ["croco", "mae"])
def test_moved_correspondences_are_dropped_unless_asked_for(known, preset):
    batch = next(PairLoader(known, global_batch=12, augmentation=preset).epoch(0))
    assert batch.corr_0to1 is None
    assert batch.H_0to1 is None


@pytest.mark.parametrize("size", [SIDE, 32, 96])
def test_another_size_keeps_correspondences_and_scales_homographies(known, size):
    samples = {sample.key: sample for sample in (known_pair(number) for number in range(24))}
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).reshape(-1, 2).astype(float)
    for batch in PairLoader(known, global_batch=12, size=size, augmentation="none", homographies=True).epoch(0):
        assert batch.image0.shape == (12, size, size, 3)
        for key, corr, H in zip(batch.keys, batch.corr_0to1.numpy(), batch.H_0to1.numpy(), strict=True):
            assert np.array_equal(corr, samples[key].corr_0to1)
            there = moved(samples[key].H_0to1, grid)
            expected = (there + 0.5) * size / SIDE - 0.5
            assert moved(H, (grid + 0.5) * size / SIDE - 0.5) == pytest.approx(expected, abs=1e-6)


def test_a_crop_of_pixels_that_need_no_resizing_is_an_exact_part(known):
    """As naver's 224 of 256 pixels: here 56 of 64."""
    samples = {sample.key: sample for sample in (known_pair(number) for number in range(24))}
    for batch in PairLoader(known, global_batch=12, size=56, augmentation="croco").epoch(0):
        for key, image0, swapped in zip(batch.keys, batch.image0.numpy(), batch.swapped.tolist(), strict=True):
            sample = samples[key]
            whole = decode_rgb(sample.image1_jpg if swapped else sample.image0_jpg)
            windows = np.lib.stride_tricks.sliding_window_view(whole, (56, 56, 3))[:, :, 0]
            assert (windows == image0).all((2, 3, 4)).any()


def test_both_views_of_a_pair_are_mirrored_alike(known):
    loader = PairLoader(known, global_batch=24, augmentation=Augmentation(flip=True))
    (batch,) = loader.epoch(0)
    samples = {sample.key: sample for sample in (known_pair(number) for number in range(24))}
    mirrored = 0
    for key, *images in zip(batch.keys, batch.image0.numpy(), batch.image1.numpy(), strict=True):
        wholes = [decode_rgb(data) for data in (samples[key].image0_jpg, samples[key].image1_jpg)]
        are = {np.array_equal(image, whole[:, ::-1]) for image, whole in zip(images, wholes, strict=True)}
        assert len(are) == 1
        mirrored += are.pop()
    assert 4 < mirrored < 20


def test_single_images_take_presets_too(tmp_path):
    make_image_set(tmp_path / "set", [make_image(number) for number in range(12)])
    with ImageDataset(tmp_path / "set") as dataset:
        make = partial(ImageLoader, dataset, size=(32, 32), global_batch=12)
        jitters = {name: next(make(augmentation=name).epoch(0)).jitter for name in PRESETS}
        assert [name for name, jitter in jitters.items() if jitter is not None] == ["croco"]
        assert jitters["croco"].shape == (12, 4)
        none, shifted = (next(make(augmentation=name).epoch(0)).image for name in ("none", "croco"))
        assert (shifted != none).any()


def test_an_unknown_preset_is_named(known):
    with pytest.raises(ValueError, match="no augmentation is called 'moco'; there are none, mimic, croco, mae"):
        PairLoader(known, global_batch=12, augmentation="moco")


def test_draws_of_views_differ():
    draws = draw_for(PRESETS["mae"], 0, 0, np.arange(50))
    assert draws.crops.shape == (2, 50, NUM_DRAWS)
    assert (draws.crops[0] != draws.crops[1]).all()
