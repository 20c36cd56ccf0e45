import math

import pytest
import torch

from mimic_wds.models.positions import sincos_2d


def table_by_loops(dim, rows, cols):
    """From the papers' words: x first, then y; in each half the sines, then the cosines, of dim/4 frequencies."""
    table = []
    for row in range(rows):
        for col in range(cols):
            entry = []
            for coordinate in (col, row):
                angles = [coordinate / 10000 ** (k / (dim / 4)) for k in range(dim // 4)]
                entry += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            table.append(entry)
    return torch.tensor(table, dtype=torch.float64)


@pytest.mark.parametrize(("dim", "rows", "cols"), [(768, 14, 14), (512, 14, 14), (128, 3, 5), (4, 1, 2)])
def test_table_is_that_of_the_papers(dim, rows, cols):
    table = sincos_2d(dim, rows, cols, class_token=False)
    assert table.dtype == torch.float32
    torch.testing.assert_close(table.double(), table_by_loops(dim, rows, cols), rtol=0, atol=1e-7)


def test_class_token_has_a_row_of_zeros_in_front():
    with_cls, without = sincos_2d(64, 2, 3, class_token=True), sincos_2d(64, 2, 3, class_token=False)
    assert with_cls.shape == (7, 64)
    assert not with_cls[0].any()
    assert torch.equal(with_cls[1:], without)


def test_width_must_be_a_multiple_of_four():
    with pytest.raises(ValueError, match="a width that 4 divides, got 66"):
        sincos_2d(66, 2, 2, class_token=True)
