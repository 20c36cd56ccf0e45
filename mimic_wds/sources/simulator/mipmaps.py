"""Textures and their mip chains in one flat array, the form in which the rasteriser's loops read them."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

#: Textures are scaled down to at most this side.
MAX_SIDE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class MipMaps:
    """All levels of all textures. Level l + 1 of a texture is level l averaged over 2 x 2 texels; the last is 1 x 1."""

    texels: NDArray[np.uint8]  #: flat: RGB of every texel, row by row, level by level, texture by texture
    sizes: NDArray[np.int64]  #: (N, 2) as (width, height) of level 0, powers of two
    offsets: NDArray[np.int64]  #: (N, levels) where a level begins in `texels`; past the last level, the last again


def build(textures: Sequence[NDArray[np.uint8]]) -> MipMaps:
    """The mip chains of `textures`, each (h, w, 3) uint8. Sides that are no powers of two are resampled to the nearest.

    Raises ValueError when there is no texture, or one of another shape or type.
    """
    chains = [mip_chain(power_of_two(_checked(texture, i))) for i, texture in enumerate(textures)]
    if not chains:
        raise ValueError("a mesh needs at least one texture")
    levels = max(len(chain) for chain in chains)
    offsets = np.empty((len(chains), levels), np.int64)
    start = 0
    for row, chain in zip(offsets, chains, strict=True):
        begins = start + np.cumsum([0, *(level.size for level in chain)])
        row[:] = begins[np.minimum(np.arange(levels), len(chain) - 1)]
        start = int(begins[-1])
    return MipMaps(
        texels=np.concatenate([level.ravel() for chain in chains for level in chain]),
        sizes=np.array([chain[0].shape[1::-1] for chain in chains], np.int64),
        offsets=offsets,
    )


def power_of_two(texture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The texture with sides that are powers of two: unchanged if they are, else resampled to the nearest ones."""
    height, width = (min(MAX_SIDE, 2 ** round(np.log2(side))) for side in texture.shape[:2])
    if (height, width) == texture.shape[:2]:
        return texture
    shrinks = height * width < texture.shape[0] * texture.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(texture, (width, height), interpolation=how), np.uint8)


def mip_chain(texture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Level 0 is the texture (h, w, 3), sides powers of two; then 2 x 2 means, rounded to nearest, down to 1 x 1."""
    levels = [texture]
    exact = texture.astype(np.float32)
    half = np.float32(0.5)
    while max(exact.shape[:2]) > 1:
        exact = (exact[0::2] + exact[1::2]) * half if exact.shape[0] > 1 else exact
        exact = (exact[:, 0::2] + exact[:, 1::2]) * half if exact.shape[1] > 1 else exact
        levels.append(np.rint(exact).astype(np.uint8))
    return levels


def _checked(texture: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    if texture.ndim != 3 or texture.shape[2] != 3 or texture.dtype != np.uint8 or texture.size == 0:
        raise ValueError(
            f"texture {number} is {texture.dtype} with shape {texture.shape}; expected uint8 (height, width, 3)"
        )
    return np.ascontiguousarray(texture)
