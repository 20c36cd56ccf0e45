"""Where samples come from: by their keys in one data set, by the mixture's turns in several."""

import numpy as np
import torch
from samples import make_data_set

from mimic_wds.loading.joined import open_data
from mimic_wds.loading.order import Order
from mimic_wds.loading.origin import OTHER, Origin


def test_by_keys_in_one_data_set(tmp_path):
    make_data_set(tmp_path / "one", per_scene=(4,))
    with open_data([str(tmp_path / "one")]) as dataset:
        origin = Origin(dataset, Order([4], 2, 0))
        keys = [dataset.read(0)[0], "nobody_scene_0_1"]
    assert origin.names[-1] == OTHER
    numbers = origin.numbers(keys, torch.arange(2), 0, 0).tolist()
    assert [origin.names[number] for number in numbers] == [keys[0].split("_")[0], OTHER]


def test_by_turns_in_a_mixture(tmp_path):
    for name in ("clips", "rooms"):
        make_data_set(tmp_path / name, per_scene=(6,), name=name)
    dataset = open_data([str(tmp_path / name) for name in ("clips", "rooms")])
    order = dataset.mixture(4, {"clips": 3.0, "rooms": 1.0}, seed=0)
    origin = Origin(dataset, order)
    for step in range(order.steps_per_epoch):
        numbers = origin.numbers(["a", "b"], torch.tensor([3, 1]), 0, step).tolist()
        indices = order.at(0, step, np.array([3, 1]))
        assert [origin.names[n] for n in numbers] == ["clips" if index < 6 else "rooms" for index in indices]
    dataset.close()
