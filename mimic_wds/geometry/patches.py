"""The patch grid of an image, and the points of a patch that vote for where it lies in the other view.

Patches are numbered in raster order from the top left, from 0. Points are (x, y) pixel corners: the pixel in column c
and row r is the point (c, r), without a half-pixel shift (MIMIC, arXiv 2306.15128, appendix C).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

#: A grid with fewer rows and columns than this is labelled by table: a byte holds each of them, and one more is left.
MAX_TABLE_SIDE = 255


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

    def label(self, points: NDArray[np.float32]) -> NDArray[np.int32]:
        """Patch index of each point (..., 2); L ("out") for a point outside the image. Coordinates are truncated."""
        with np.errstate(invalid="ignore"):  # what no int32 holds lies outside, whatever it is cast to
            pixels = np.floor(points, order="C").astype(np.int32).view(np.uint32)
        np.minimum(pixels, max(self.height, self.width), out=pixels)  # negative ones are huge as unsigned ones
        pixels //= self.patch_size
        if max(self.rows, self.cols) < MAX_TABLE_SIDE:
            cells = pixels.astype(np.uint8).view(np.uint16)[..., 0]
            return np.asarray(_label_table(self.rows, self.cols).take(cells))
        col, row = pixels[..., 0].astype(np.int32), pixels[..., 1].astype(np.int32)
        return np.where((col < self.cols) & (row < self.rows), row * self.cols + col, self.num_patches)


@lru_cache(maxsize=16)
def _label_table(rows: int, cols: int) -> NDArray[np.int32]:
    """Patch index of every (column, row) that two bytes hold, L for those outside: (65536,), by both bytes as one."""
    row, col = np.divmod(np.arange(2**16), 2**8)
    codes = np.stack([col, row], axis=-1).astype(np.uint8).view(np.uint16)[:, 0]
    table = np.empty(2**16, np.int32)
    table[codes] = np.where((col < cols) & (row < rows), row * cols + col, rows * cols)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=4)
def all_points(grid: PatchGrid) -> NDArray[np.float32]:
    """Every pixel of every patch, raster order inside the patch: (L, patch_size**2, 2), read-only."""
    y, x = np.divmod(np.arange(grid.patch_size**2), grid.patch_size)
    offsets = np.stack([x, y], axis=1)
    points = np.asarray(grid.origins()[:, None] + offsets[None], np.float32)
    points.flags.writeable = False
    return points


def sampled_points(grid: PatchGrid, num_points: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """`num_points` random pixels of every patch, drawn with replacement: (L, num_points, 2)."""
    per_patch = grid.patch_size**2
    dtype = np.min_scalar_type(per_patch - 1)  # small numbers are drawn and split faster
    pixels = rng.integers(0, per_patch, size=(grid.num_patches, num_points), dtype=dtype)
    rows = pixels // dtype.type(grid.patch_size)
    cols = pixels - rows * dtype.type(grid.patch_size)
    origins = all_points(grid)[:, :1]
    points = np.empty((*pixels.shape, 2), np.float32)
    np.add(cols, origins[..., 0], out=points[..., 0])
    np.add(rows, origins[..., 1], out=points[..., 1])
    return points
