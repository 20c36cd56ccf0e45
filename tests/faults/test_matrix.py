"""Ours is right about every fault of the matrix; `tools/fault_matrix.py` shows the same beside webdataset."""

import damaged
import ordering
import pytest
import remote
import writing

CASES = [*damaged.CASES, *writing.CASES, *remote.CASES, *ordering.CASES]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.number} {case.fault}" for case in CASES])
def test_ours_is_right(case, tmp_path, capfd):
    outcome = case.ours(tmp_path)
    assert outcome.right, outcome.what


def test_every_fault_is_there():
    assert sorted(int(case.number[1:]) for case in CASES) == list(range(1, 30))
