"""Fixed position tables of ViT encoders and decoders."""

import torch
from torch import Tensor


def sincos_2d(dim: int, rows: int, cols: int, *, class_token: bool) -> Tensor:
    """2-D sin-cos table, (L, dim) float32 or (1 + L, dim) with a zero row for the class token; L = rows * cols.

    The first half of the channels encodes the column, the second half the row; each half is [sin | cos] over dim / 4
    frequencies 10000 ** (-k / (dim / 4)) (MAE, CroCo, MIMIC: the same table in all three).
    """
    if dim % 4:
        raise ValueError(f"a 2-D sin-cos table needs a width that 4 divides, got {dim}")
    quarter = dim // 4
    frequencies = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    halves = []
    for coordinate in (col, row):
        angles = coordinate.reshape(-1, 1).double() * frequencies
        halves += [angles.sin(), angles.cos()]
    table = torch.cat(halves, dim=1)
    if class_token:
        table = torch.cat([torch.zeros(1, dim, dtype=table.dtype), table])
    return table.float()
