"""Flow between two views: places by homographies, targets whose mean is the place, and the scripts."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from labelled import run_script
from samples import SIDE, make_data_set
from torch import nn

from mimic_wds.downstream.config import config_from
from mimic_wds.downstream.tasks.flow import bilinear, bring, centres, predict, read_pairs, true_places
from mimic_wds.downstream.tasks.registry import get_task
from mimic_wds.geometry.homography import project
from mimic_wds.loading.dataset import PairDataset

CPU = torch.device("cpu")
SIZE, PATCH = 64, 16


@given(seed=st.integers(0, 10**6))
def test_places_are_those_of_the_homography(seed):
    H = np.eye(3) + np.random.default_rng(seed).normal(size=(3, 3)) * [[0.2, 0.2, 20], [0.2, 0.2, 20], [5e-3, 5e-3, 0]]
    places, known = true_places(torch.from_numpy(H)[None], SIZE, PATCH)
    expected, in_front = project(H, centres(SIZE, PATCH).numpy())
    inside = in_front & ((expected >= -0.5) & (expected <= SIZE - 0.5)).all(-1)
    assert np.array_equal(known[0].numpy(), inside)
    assert np.allclose(places[0].numpy()[inside], expected[inside], atol=1e-2)


@given(x=st.floats(7.5, SIZE - 8.5), y=st.floats(7.5, SIZE - 8.5))
def test_the_mean_of_a_target_is_the_place(x, y):
    target = bilinear(torch.tensor([[[x, y]]]), SIZE, PATCH)
    assert target.sum().item() == pytest.approx(1, abs=1e-5)
    assert (target > 0).sum() <= 4
    assert (target @ centres(SIZE, PATCH))[0, 0].tolist() == pytest.approx([x, y], abs=1e-3)


class Knows(nn.Module):
    """Gives the true distributions of these homographies."""

    def __init__(self, H):
        super().__init__()
        self.target = bilinear(true_places(H, SIDE, 8)[0], SIDE, 8)

    def forward(self, image0, image1):
        return self.target.log()


def test_a_model_that_knows_has_errors_at_the_border_only(tmp_path):
    make_data_set(tmp_path / "pairs", per_scene=(3,))
    model = {"size": "tiny", "image_size": SIDE, "patch_size": 8}
    config = config_from({"task": "flow", "model": model, "run": {"steps": 1, "batch": 1}}, "test")
    with PairDataset(tmp_path / "pairs") as dataset:
        _, views, H = read_pairs(dataset, range(3), SIDE)
        rows = list(get_task("flow").rows(Knows(H), config, dataset, range(3), CPU))
        found = predict(Knows(H), views, SIDE, 8, CPU)
    true, known = true_places(H, SIDE, 8)
    inner = known & ((true >= 3.5) & (true <= SIDE - 4.5)).all(-1)
    assert inner.any()
    assert (found - true)[inner].norm(dim=-1).max() < 1e-3
    sums = np.stack([row[2]["standard"] for row in rows])
    assert sums[:, 0].tolist() == known.sum(1).tolist()
    errors = (found - true).norm(dim=-1).double()
    assert sums[:, 1] == pytest.approx(torch.where(known, errors, 0.0).sum(1).numpy(), rel=1e-4, abs=1e-4)
    assert sums[:, 3].sum() == sums[:, 0].sum()  # never farther than half a patch away


def test_a_view_is_brought_onto_the_other():
    view = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    moved = bring(view, centres(SIZE, PATCH) + torch.tensor([5.0, -3.0]))
    assert np.array_equal(moved[16:48, 16:48], view[13:45, 21:53])


def test_chain(monkeypatch, capsys, tmp_path):
    make_data_set(tmp_path / "pairs", per_scene=(6,))
    (tmp_path / "flow.toml").write_text(
        f'task = "flow"\nmodel = {{size = "tiny", depth = 1, image_size = {SIDE}, patch_size = 8}}\n'
        "optimizer = {lr = 1e-3}\nrun = {steps = 4, batch = 3, log_every = 1, shots = 5}\n"
    )
    run, data = tmp_path / "run", tmp_path / "pairs"
    arguments = [tmp_path / "flow.toml", "--data", data, "--val", data, "--init", "random", "--output", run]
    assert run_script(monkeypatch, "finetune", *arguments) == 0
    assert "on 5 samples of" in capsys.readouterr().out
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert run_script(monkeypatch, "evaluate", run, "--data", data, "--json", "--bootstrap", 5) == 0
    scores = json.loads(capsys.readouterr().out)["protocols"]["standard"]["scores"]
    assert scores["epe_px"] == lines[-1]["val_standard_epe_px"]
    assert 0 <= scores["within_half_patch"] <= scores["within_patch"] <= 1
    assert run_script(monkeypatch, "report", run, "--output", tmp_path / "report.md") == 0
    assert "The paper has no such task." in (tmp_path / "report.md").read_text()
    assert (run / "panels.png").is_file()
