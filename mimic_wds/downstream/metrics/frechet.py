"""How alike two sets of pictures are: Frechet and kernel distance of their features (N, d).

Which network gives the features decides the numbers; so does the number of pictures, since a Frechet distance of few is
far too large (two samples of 500 of one distribution in 2048 dimensions are not 0 apart). Print network, layer and N.
"""

import numpy as np
from numpy.typing import NDArray

from mimic_wds.downstream.metrics.bootstrap import Floats


def frechet_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Squared Frechet distance of the Gaussians with the means and (n - 1) covariances of features (N, d), (M, d).

    Exact: the trace of the root of the product of both covariances is the sum of the singular values of A B^T, with A
    and B the centred features over the root of n - 1; so fewer pictures than dimensions cost less, not accuracy.
    Raises ValueError for fewer than two pictures or features of different widths.
    """
    if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"features of 2 pictures or more and one width are needed, got {first.shape}, {second.shape}")
    (mean0, a), (mean1, b) = _centred(first), _centred(second)
    traces = (a**2).sum() + (b**2).sum()
    # The smaller of the two problems: N x M, or d x d on triangular factors (A = Q R leaves the singular values).
    root = np.linalg.svd(_factor(a) @ _factor(b).T, compute_uv=False).sum()
    return float(((mean0 - mean1) ** 2).sum() + traces - 2 * root)


def kernel_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Unbiased squared mean discrepancy with KID's kernel (x . y / d + 1)^3 (arXiv 1801.01401); may be below 0."""
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    within = [_mean_off_diagonal(_kernel(z, z)) for z in (x, y)]
    return float(sum(within) - 2 * _kernel(x, y).mean())


def kernel_distance_of_subsets(
    first: NDArray[np.floating], second: NDArray[np.floating], *, size: int, subsets: int = 100, seed: int = 0
) -> tuple[float, float]:
    """Mean and standard deviation (n - 1) of the distance of random subsets of `size` pictures each, as KID is often
    reported. Raises ValueError when there are fewer pictures.
    """
    if size > min(len(first), len(second)):
        raise ValueError(f"subsets of {size} pictures of only {min(len(first), len(second))}")
    rng = np.random.default_rng(seed)
    found = [
        kernel_distance(
            first[rng.choice(len(first), size, replace=False)], second[rng.choice(len(second), size, replace=False)]
        )
        for _ in range(subsets)
    ]
    return float(np.mean(found)), float(np.std(found, ddof=1))


def _centred(features: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Mean (d,) and centred features over the root of n - 1, (N, d)."""
    exact = np.asarray(features, np.float64)
    mean = exact.mean(axis=0)
    return mean, (exact - mean) / np.sqrt(len(exact) - 1)


def _factor(a: Floats) -> Floats:
    """A matrix with the same A^T A and at most as many rows as columns."""
    return np.asarray(np.linalg.qr(a, mode="r")) if len(a) > a.shape[1] else a


def _kernel(x: Floats, y: Floats) -> Floats:
    kernel: Floats = (x @ y.T / x.shape[1] + 1) ** 3
    return kernel


def _mean_off_diagonal(kernel: Floats) -> float:
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))
