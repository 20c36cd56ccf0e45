import sys

import dino_processes
import pytest
import torch
from processes import Program


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    """Weights of student and teacher, and the centre, which is that of all images of a step."""
    words = [sys.executable, dino_processes.__file__]
    parts = [Program([*words, rank, 2, tmp_path / "meet", tmp_path / "two.pt"]) for rank in (0, 1)]
    try:
        dino_processes.main(0, 1, "", str(tmp_path / "one.pt"))
        assert [part.wait(timeout=120) for part in parts] == [0, 0]
    finally:
        for part in parts:
            part.kill()
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    assert one["centre"].abs().max() > 0.01
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=2e-5, msg=name)
