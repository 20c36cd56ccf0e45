"""Position tables for other numbers of patches."""

import torch.nn.functional as F
from torch import Tensor


def resize_table(table: Tensor, rows: int, cols: int) -> Tensor:
    """A table (1, D, h, w) for rows x cols patches: bicubic, corners not aligned, no antialias, as in MAE and MultiMAE.

    timm's own resampling filters first, even where it enlarges, which gives other tables. The table itself comes back
    when it has the size already.
    """
    if table.shape[-2:] == (rows, cols):
        return table
    return F.interpolate(table, size=(rows, cols), mode="bicubic", align_corners=False, antialias=False)
