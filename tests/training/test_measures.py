"""Means of losses and measures over micro-batches, by source, against sums by hand."""

import math

import pytest
import torch

from mimic_wds.models.vit import ModelOutput
from mimic_wds.training.engine import build_accelerator
from mimic_wds.training.measures import Measures


def output(errors, mask):
    errors, mask = torch.tensor(errors), torch.tensor(mask)
    return ModelOutput(torch.zeros(()), torch.zeros(()), mask, errors)


FIRST = output([[1.0, 2.0, 8.0], [3.0, 5.0, 9.0]], [[True, True, False], [True, False, True]])
SECOND = output([[4.0, 6.0, 7.0], [1.0, 1.0, 1.0]], [[False, True, True], [True, True, False]])


def test_losses_are_those_of_hidden_patches_and_measures_those_of_visible_ones():
    assert FIRST.losses.tolist() == [1.5, 6.0]
    assert FIRST.measures["visible_loss"].item() == pytest.approx((8 + 5) / 2)


def test_means_by_source_and_by_name():
    accelerator = build_accelerator("no", cpu=True)
    measures = Measures(["clips", "rooms", "other"], torch.device("cpu"))
    measures.add(FIRST, torch.tensor([0, 1]))
    measures.add(SECOND, torch.tensor([0, 0]))
    read = measures.read(accelerator)
    assert read == {
        "loss/clips": pytest.approx((1.5 + 6.5 + 1.0) / 3),
        "loss/rooms": pytest.approx(6.0),
        "visible_loss": pytest.approx((6.5 + 2.5) / 2),
    }
    measures.add(SECOND, torch.tensor([0, 0]))
    assert measures.read(accelerator) == {"visible_loss": 2.5}, "one source: its loss is the loss"


def test_both_images_of_a_pair_have_its_source():
    measures = Measures(["clips", "rooms"], torch.device("cpu"))
    measures.add(
        output([[1.0, 0.0]] * 3 + [[5.0, 0.0]], [[True, False]] * 4), torch.tensor([0, 1])
    )  # 2 pairs, 4 images
    read = measures.read(build_accelerator("no", cpu=True))
    assert (read["loss/clips"], read["loss/rooms"]) == (1.0, 3.0)


def test_what_is_not_finite_stays_with_its_source():
    measures = Measures(["clips", "rooms"], torch.device("cpu"))
    measures.add(output([[math.nan, 1.0], [2.0, 1.0]], [[True, False]] * 2), torch.tensor([0, 1]))
    read = measures.read(build_accelerator("no", cpu=True))
    assert math.isnan(read["loss/clips"])
    assert read["loss/rooms"] == 2.0
