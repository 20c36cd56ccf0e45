"""Which samples look nearly the same: difference hashes of their views, and an exact search among millions of them.

A view is 64 bits: whether each cell of an 8 x 8 grid over it is darker than its right neighbour. It hardly changes when
a picture is saved again, scaled, brightened. Two samples are near when each view of one differs in at most `bits` bits
from its own view of the other, in either order of the views.

The search is exact, by bands: cut in bits + 1 bands, two hashes within `bits` bits have one band in common. A pair
needs that in both views, so only samples with an equal (band of view 0, band of view 1) are compared: (bits + 1)**2
sorts of 2 N numbers, and as many comparisons as there are such samples: N**2 / 2**(128 / (bits + 1)) for each sort if
hashes were random, N**2 if all were alike (equal ones are searched as one).
"""

from collections.abc import Iterator
from itertools import pairwise, product

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.storage.pictures import decode_jpeg

#: Side of the grid of a difference hash.
HASH_SIDE = 8

#: More bits make bands so short that too many samples share one.
MAX_BITS = 8

_HASH_BITS = HASH_SIDE * HASH_SIDE

_BITS_OF_BYTE = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def jpeg_hash(data: bytes) -> int:
    """The difference hash of a JPEG file; large ones are decoded at an eighth of their size, which is as good.

    Raises ValueError when it does not decode.
    """
    gray = _gray(data, cv2.IMREAD_REDUCED_GRAYSCALE_8)
    if min(gray.shape) < 2 * HASH_SIDE:
        gray = _gray(data, cv2.IMREAD_GRAYSCALE)
    small = cv2.resize(gray, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def _gray(data: bytes, mode: int) -> NDArray[np.uint8]:
    """A JPEG file as grey pixels (H, W)."""
    gray = decode_jpeg(data, mode)
    if gray is None:
        raise ValueError("does not decode")
    return gray


def distances(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """(n,) bits by which hashes (n, V) of samples differ: of the worse view, in the better order of the views."""
    straight: NDArray[np.uint8] = count_bits(a ^ b).max(axis=1)
    if a.shape[1] == 1:
        return straight
    crossed: NDArray[np.uint8] = count_bits(a ^ b[:, ::-1]).max(axis=1)
    return np.minimum(straight, crossed)


def count_bits(numbers: NDArray[np.uint64], fast: bool = hasattr(np, "bitwise_count")) -> NDArray[np.uint8]:
    """How many bits of each number are set; `fast` is numpy's own, which it has from version 2 on."""
    if fast:
        return np.asarray(np.bitwise_count(numbers), np.uint8)
    parts = np.ascontiguousarray(numbers).view(np.uint8).reshape(*numbers.shape, 8)
    return np.asarray(_BITS_OF_BYTE[parts].sum(axis=-1, dtype=np.uint8))


def near_pairs(
    hashes: NDArray[np.uint64], bits: int, groups: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All (i, j), i < j, of hashes (N, V), V = 1 or 2, that are within `bits`, sorted by j, then i.

    groups: (N,) sets of samples as bits: only pairs are wanted of which one is in set 1 and the other in set 2.
    """
    assert 0 <= bits <= MAX_BITS
    found = np.empty(0, np.int64)
    for keys in _tables(hashes, bits):
        i, j = _within(hashes, keys, bits, groups)
        found = np.unique(np.concatenate([found, j * len(hashes) + i]))
    return found % max(1, len(hashes)), found // max(1, len(hashes))


def _tables(hashes: NDArray[np.uint64], bits: int) -> Iterator[NDArray[np.uint64]]:
    """For each choice of bands (N,) or, of two views, (2 N,) numbers: of the samples, and with their views swapped."""
    edges = [_HASH_BITS * band // (bits + 1) for band in range(bits + 2)]
    bands = [
        (hashes >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1) if high - low < _HASH_BITS else hashes
        for low, high in pairwise(edges)
    ]
    if hashes.shape[1] == 1:
        yield from (band[:, 0] for band in bands)
        return
    for first, second in product(bands, bands):
        yield np.concatenate([_mixed(first[:, 0], second[:, 1]), _mixed(first[:, 1], second[:, 0])])


def _mixed(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One number of two bands; two choices of bands may share one, which costs a comparison and changes nothing."""
    return (a * np.uint64(0x9E3779B97F4A7C15)) ^ b


def _within(
    hashes: NDArray[np.uint64], keys: NDArray[np.uint64], bits: int, groups: NDArray[np.uint8] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The near pairs (i, j), i < j, among entries with equal keys; entry N + k is sample k with its views swapped."""
    size = len(hashes)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    found_i, found_j = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    at = np.arange(len(keys) - 1) if len(keys) else np.empty(0, np.int64)
    step = 1
    while len(at):
        at = at[at + step < len(keys)]
        at = at[keys[at] == keys[at + step]]
        a, b = order[at], order[at + step]
        is_new = ((a < size) | (b < size)) & (a % size != b % size)  # both swapped is the same as neither
        a, b = a[is_new] % size, b[is_new] % size
        if groups is not None:
            wanted = ((groups[a] & 1) & (groups[b] >> 1)) | ((groups[b] & 1) & (groups[a] >> 1))
            a, b = a[wanted > 0], b[wanted > 0]
        near = distances(hashes[a], hashes[b]) <= bits
        found_i.append(np.minimum(a[near], b[near]))
        found_j.append(np.maximum(a[near], b[near]))
        step += 1
    return np.concatenate(found_i), np.concatenate(found_j)


def first_alike(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(N,) the first sample with the same hashes, in either order of the views."""
    ordered = np.sort(hashes, axis=1)
    order = np.lexsort((np.arange(len(hashes)), *ordered.T))
    is_first = np.ones(len(hashes), bool)
    is_first[1:] = (ordered[order][1:] != ordered[order][:-1]).any(axis=1)
    firsts = np.empty(len(hashes), np.int64)
    firsts[order] = order[is_first][np.cumsum(is_first) - 1]
    return firsts


def duplicates(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    """(N,) for each sample the first one before it that is kept and near it, or -1: then it is kept itself.

    So no two that are kept are near each other, and all others are near one that is kept.
    """
    firsts = first_alike(hashes)
    unique = np.unique(firsts)
    near_to = np.full(len(unique), -1, np.int64)
    for i, j in zip(*(side.tolist() for side in near_pairs(hashes[unique], bits)), strict=True):
        if near_to[j] < 0 and near_to[i] < 0:
            near_to[j] = i
    place = np.searchsorted(unique, firsts)
    of_first = near_to[place]
    near = np.where(of_first >= 0, unique[of_first], np.where(firsts == np.arange(len(firsts)), -1, firsts))
    return near.astype(np.int64)


def leaks(hashes: NDArray[np.uint64], others: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    """(N,) for each sample the first of the others that is near it, or -1."""
    both = np.concatenate([hashes, others])
    firsts = first_alike(both)
    unique, place = np.unique(firsts, return_inverse=True)
    groups = np.zeros(len(unique), np.uint8)
    groups[place[: len(hashes)]] |= 1
    groups[place[len(hashes) :]] |= 2
    nothing = len(others)
    first_other = np.full(len(unique), nothing, np.int64)
    np.minimum.at(first_other, place[len(hashes) :], np.arange(len(others)))
    best = first_other.copy()
    i, j = near_pairs(both[unique], bits, groups)
    np.minimum.at(best, i, first_other[j])
    np.minimum.at(best, j, first_other[i])
    found = best[place[: len(hashes)]]
    return np.where(found == nothing, -1, found)
