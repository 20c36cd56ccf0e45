"""The patch grid of an image, and the points of a patch that vote for where it lies in the other view.

Patches are numbered in raster order from the top left, from 0. Points are (x, y) pixel corners: the pixel in column c
and row r is the point (c, r), without a half-pixel shift (MIMIC, arXiv 2306.15128, appendix C).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """An image of `height` x `width` pixels cut in square patches of `patch_size` pixels."""

    height: int
    width: int
    patch_size: int

    def __post_init__(self) -> None:
        if self.patch_size <= 0:
            raise ValueError(f"patch_size must be above 0, got {self.patch_size}")
        for name, side in (("height", self.height), ("width", self.width)):
            if side <= 0 or side % self.patch_size:
                raise ValueError(f"{name} {side} is not a positive multiple of the patch size {self.patch_size}")

    @property
    def rows(self) -> int:
        """Rows of patches."""
        return self.height // self.patch_size

    @property
    def cols(self) -> int:
        """Columns of patches."""
        return self.width // self.patch_size

    @property
    def num_patches(self) -> int:
        """L, the number of patches: 196 at 224 pixels and patch size 16."""
        return self.rows * self.cols

    def origins(self) -> NDArray[np.int64]:
        """Top left pixel of every patch, (L, 2) as (x, y)."""
        rows, cols = np.divmod(np.arange(self.num_patches), self.cols)
        return np.stack([cols, rows], axis=1) * self.patch_size

    def label(self, points: NDArray[np.float32]) -> NDArray[np.int64]:
        """Patch index of each point (..., 2); L ("out") for a point outside the image. Coordinates are truncated."""
        x, y = points[..., 0], points[..., 1]
        inside = (x >= 0) & (y >= 0) & (x < self.width) & (y < self.height)
        col = np.where(inside, x, 0).astype(np.int64) // self.patch_size
        row = np.where(inside, y, 0).astype(np.int64) // self.patch_size
        return np.where(inside, row * self.cols + col, self.num_patches)


def all_points(grid: PatchGrid) -> NDArray[np.float32]:
    """Every pixel of every patch, raster order inside the patch: (L, patch_size**2, 2)."""
    y, x = np.divmod(np.arange(grid.patch_size**2), grid.patch_size)
    offsets = np.stack([x, y], axis=1)
    return np.asarray(grid.origins()[:, None] + offsets[None], np.float32)


def sampled_points(grid: PatchGrid, num_points: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """`num_points` random pixels of every patch, drawn with replacement: (L, num_points, 2)."""
    offsets = rng.integers(0, grid.patch_size, size=(grid.num_patches, num_points, 2))
    return np.asarray(grid.origins()[:, None] + offsets, np.float32)
