"""Metrics against independent implementations: torchmetrics, scikit-image, scipy, or numpy by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_wds.downstream.metrics import classification, depth, frechet, normals, pictures, segmentation
from mimic_wds.downstream.metrics.bootstrap import batch_averaged, bootstrap, draw_counts, pooled


def random_depths(rng, shape=(40, 50)):
    truth = rng.uniform(0.5, 12, shape)
    prediction = truth * rng.lognormal(0, 0.2, shape)
    return prediction, truth, rng.random(shape) < 0.8


def test_paper_depth_scores_pool_pixels():
    rng = np.random.default_rng(0)
    images = [random_depths(rng) for _ in range(4)]
    rows = np.stack([depth.paper_statistics(*image) for image in images])
    p, g = (np.concatenate([image[i][image[2]] for image in images]) for i in (0, 1))
    found = pooled(rows, depth.paper_scores)
    worst = np.maximum(p / g, g / p)
    assert found["delta1"] == pytest.approx((worst < 1.25).mean())
    assert found["delta3"] == pytest.approx((worst < 1.25**3).mean())
    assert found["rel"] == pytest.approx((abs(p - g) / g).mean())
    assert found["sq_rel_m"] == pytest.approx(((p - g) ** 2 / g).mean())
    assert found["rmse_m"] == pytest.approx(math.sqrt(((p - g) ** 2).mean()))
    assert found["rmse_ln"] == pytest.approx(math.sqrt((np.log(p / g) ** 2).mean()))


def test_paper_depth_scores_average_batches_without_weights():
    rng = np.random.default_rng(1)
    rows = np.stack([depth.paper_statistics(*random_depths(rng)) for _ in range(5)])
    found = batch_averaged(rows, depth.paper_scores, 2)
    parts = [pooled(rows[i : i + 2], depth.paper_scores) for i in (0, 2, 4)]
    assert found["rmse_m"] == pytest.approx(np.mean([part["rmse_m"] for part in parts]))
    assert found["rmse_m"] != pytest.approx(pooled(rows, depth.paper_scores)["rmse_m"], rel=1e-9)


def test_depth_predictions_of_zero_or_less_are_wrong_not_nan():
    row = depth.paper_statistics(np.array([[0.0, -3.0, 2.0]]), np.array([[1.0, 1.0, 2.0]]), np.ones((1, 3), bool))
    found = {k: float(v) for k, v in depth.paper_scores(row).items()}
    assert found["delta3"] == pytest.approx(1 / 3)
    assert np.isfinite(list(found.values())).all()


def test_standard_depth_scores_average_images():
    rng = np.random.default_rng(2)
    images = [random_depths(rng) for _ in range(3)]
    rows = np.stack([depth.standard_statistics(*image) for image in images])
    found = pooled(rows, depth.standard_scores)
    expected = []
    for p, g, valid in images:
        use = valid & (g <= 10) & (g >= 1e-3)
        q = np.clip(p[use], 1e-3, 10)
        log10 = abs(np.log10(q) - np.log10(g[use])).mean()
        expected.append((math.sqrt(((q - g[use]) ** 2).mean()), log10, (abs(q - g[use]) / g[use]).mean()))
    rmse, log10, rel = np.mean(expected, axis=0)
    assert (found["rmse_m"], found["log10"], found["abs_rel"]) == pytest.approx((rmse, log10, rel))


def test_eigen_crop_of_nyu_pictures_only():
    mask = depth.eigen_mask(480, 640)
    assert mask.sum() == 426 * 560
    assert (mask[45, 41], mask[470, 600], mask[44, 41], mask[471, 600], mask[45, 601]) == (1, 1, 0, 0, 0)
    assert depth.eigen_mask(256, 256).all()


def test_images_without_valid_pixels_weigh_nothing():
    rng = np.random.default_rng(3)
    p, g, valid = random_depths(rng)
    rows = np.stack([depth.standard_statistics(p, g, valid), depth.standard_statistics(p, g, np.zeros_like(valid))])
    assert pooled(rows, depth.standard_scores) == pooled(rows[:1], depth.standard_scores)
    assert math.isnan(pooled(rows[1:], depth.standard_scores)["delta1"])


def unit(rng, shape):
    vectors = rng.normal(size=(*shape, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_normals_l1_is_in_stored_units_times_1000():
    rng = np.random.default_rng(4)
    p, g, valid = rng.random((20, 20, 3)), (unit(rng, (20, 20)) + 1) / 2, rng.random((20, 20)) < 0.5
    found = pooled(normals.paper_statistics(p, g, valid)[None], normals.paper_scores)
    assert found["l1_x1000"] == pytest.approx(1000 * abs(p - g)[valid].mean())


def test_angles_of_normals():
    rng = np.random.default_rng(5)
    n, m = unit(rng, (60, 60)), unit(rng, (60, 60))
    mixed = n + 0.4 * m
    mixed /= np.linalg.norm(mixed, axis=-1, keepdims=True)
    valid = rng.random((60, 60)) < 0.9
    expected = np.degrees(np.arccos(np.clip((n * mixed).sum(-1), -1, 1)))[valid]
    # A prediction's length does not matter.
    rows = normals.standard_statistics((3 * mixed + 1) / 2, (n + 1) / 2, valid)[None]
    found = pooled(rows, normals.standard_scores)
    assert found["mean_deg"] == pytest.approx(expected.mean())
    assert found["median_deg"] == pytest.approx(np.median(expected), abs=0.05)
    assert found["within_11.25"] == pytest.approx((expected < 11.25).mean())
    assert found["within_30"] == pytest.approx((expected < 30).mean())


def test_small_angles_are_exact():
    tilted = np.array([np.sin(1e-6), 0, np.cos(1e-6)])
    found = normals.angles_deg((tilted + 1) / 2, (np.array([0, 0, 1.0]) + 1) / 2)
    assert found == pytest.approx(math.degrees(1e-6), rel=1e-6)


def test_segmentation_against_torchmetrics():
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

    rng = np.random.default_rng(6)
    truth = rng.integers(0, 6, (3, 30, 30))
    truth[0, :5] = 255
    prediction = np.where(rng.random(truth.shape) < 0.6, np.minimum(truth, 5), rng.integers(0, 6, truth.shape))
    rows = np.stack([segmentation.statistics(p, g, 6) for p, g in zip(prediction, truth, strict=True)])
    found = pooled(rows, segmentation.scores)
    p, g = torch.tensor(prediction), torch.tensor(truth)
    for name, metric in {
        "miou": MulticlassJaccardIndex(6, ignore_index=255, average="macro"),
        "mean_accuracy": MulticlassAccuracy(6, ignore_index=255, average="macro"),
        "pixel_accuracy": MulticlassAccuracy(6, ignore_index=255, average="micro"),
    }.items():
        assert found[name] == pytest.approx(float(metric(p, g)), rel=1e-5), name


def test_absent_classes_do_not_lower_the_mean():
    truth = np.array([[0, 0, 1, 1]])
    rows = segmentation.statistics(np.array([[0, 0, 1, 0]]), truth, 10)[None]
    found = pooled(rows, segmentation.scores)
    assert found["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert np.isnan(segmentation.class_iou(rows.sum(0))[2:]).all()


def test_top1_and_top5():
    logits = np.array([[0.0, 3, 2, 1, 5, 4, 6], [0, 0, 0, 0, 0, 0, 0], [9, 0, 0, 0, 0, 0, 0]])
    labels = np.array([2, 4, 0])  # of the first, 2 is fifth; of equal logits the first class wins
    rows = classification.statistics(logits, labels)
    assert rows.tolist() == [[1, 0, 1], [1, 0, 1], [1, 1, 1]]
    assert pooled(rows, classification.scores) == pytest.approx({"top1": 1 / 3, "top5": 1.0})


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 30), st.integers(0, 1000))
def test_bootstrap_is_what_repeated_images_give(num, seed):
    rng = np.random.default_rng(seed)
    rows = np.stack([depth.paper_statistics(*random_depths(rng, (4, 5))) for _ in range(num)])
    counts = draw_counts(num, 3, seed)
    assert (counts.sum(1) == num).all()
    literal = [pooled(np.repeat(rows, row.astype(int), axis=0), depth.paper_scores)["rmse_m"] for row in counts]
    found = bootstrap(rows, depth.paper_scores, resamples=3, seed=seed)["rmse_m"]
    assert found.minimum == pytest.approx(min(literal), nan_ok=True)
    assert found.maximum == pytest.approx(max(literal), nan_ok=True)
    assert found.mean == pytest.approx(np.mean(literal), nan_ok=True)
    assert found.std == pytest.approx(np.std(literal, ddof=1), abs=1e-9, nan_ok=True)


def test_bootstrap_deviation_is_that_of_a_mean():
    rows = np.stack([np.ones(400), np.random.default_rng(0).normal(size=400) > 0, np.ones(400)], axis=1).astype(float)
    found = bootstrap(rows, classification.scores, resamples=2000)["top1"]
    share = rows[:, 1].mean()
    assert found.std == pytest.approx(math.sqrt(share * (1 - share) / 400), rel=0.06)


def test_psnr_and_ssim_against_scikit_image():
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    rng = np.random.default_rng(7)
    first = rng.integers(0, 256, (40, 50, 3), np.uint8)
    second = np.clip(first + rng.normal(0, 30, first.shape), 0, 255).astype(np.uint8)
    assert pictures.psnr_db(first, second) == pytest.approx(peak_signal_noise_ratio(first, second))
    expected = structural_similarity(
        first, second, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert pictures.ssim(first, second) == pytest.approx(expected, abs=1e-9)
    assert (pictures.ssim(first, first), pictures.psnr_db(first, first)) == (pytest.approx(1.0), math.inf)


@pytest.mark.parametrize(("n", "m", "d"), [(20, 25, 64), (200, 150, 16), (12, 300, 40)])
def test_frechet_distance_against_the_matrix_root(n, m, d):
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d)) * np.linspace(0.5, 2, d) + 0.1
    cx, cy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.trace(sqrtm(cx @ cy).real)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx) + np.trace(cy) - 2 * root
    assert frechet.frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_by_hand_and_unbiased():
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 1

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    within = [np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert frechet.kernel_distance(x, y) == pytest.approx(sum(within) - 2 * across)
    same = [frechet.kernel_distance(*rng.normal(size=(2, 50, 4))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(200)
    mean, std = frechet.kernel_distance_of_subsets(x, y, size=5, subsets=3)
    assert np.isfinite([mean, std]).all()
