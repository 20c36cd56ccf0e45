"""Pictures of looks: the asked patch, the attention over the other view, the true place; pixels are checked."""

import numpy as np
import pytest
import torch

from mimic_wds.models.build import ModelConfig, build_model
from mimic_wds.training import pictures
from mimic_wds.training.pictures import ORANGE, WHITE, attention_pictures, heat_map, middle_patch, reconstructions

CONFIG = ModelConfig(
    objective="croco", size="tiny", depth=1, image_size=64, decoder_dim=32, decoder_depth=1, decoder_heads=2,
    mask_ratio=0.75,
)  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(CONFIG).eval()


@pytest.fixture
def views():
    return torch.randn(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_attention_is_framed_where_it_is_and_where_it_should_be(model, views, monkeypatch):
    corr = torch.full((2, 16), -1)
    corr[0, [5, 15]] = torch.tensor([7, 0])  # patch 5 is nearer to the middle: its place is patch 7, row 1, column 3
    weights = torch.full((2, 16, 16), 0.01)
    weights[0, 5, 8] = 1.0  # but the model looks at patch 8: row 2, column 0
    monkeypatch.setattr(pictures, "cross_attention", lambda *_: weights)
    (_, asked), (label, looked) = attention_pictures(model, views[0], views[1], corr, torch.rand(2, 16))
    assert "white: true" in label
    assert tuple(asked[0, 16, 16]) == tuple(asked[0, 31, 31]) == WHITE
    assert tuple(looked[0, 16, 48]) == WHITE
    assert tuple(looked[0, 32, 0]) == tuple(looked[0, 47, 15]) == ORANGE
    yellow = looked[0, 36:44, 4:12].astype(int).mean((0, 1))
    dark = looked[0, 4:12, 4:12].astype(int).mean((0, 1))
    assert yellow[0] > dark[0] + 80  # viridis: red rises
    assert np.array_equal(looked[1], pictures.to_uint8(views[1])[1])  # no correspondences: nothing is asked


def test_the_asked_patch_is_the_known_one_nearest_to_the_middle():
    corr = np.full(49, -1)
    assert middle_patch(corr, 7, 7) is None
    corr[[0, 17, 48]] = 1
    assert middle_patch(corr, 7, 7) == 17


def test_a_flat_heat_map_is_flat():
    image = np.full((8, 8, 3), 100, np.uint8)
    assert len(np.unique(heat_map(image, np.zeros((2, 2))).reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("normalised", [True, False])
def test_honest_and_oracle_stand_side_by_side_where_they_differ(views, normalised):
    config = ModelConfig(
        objective="mae", size="tiny", depth=1, image_size=64, decoder_dim=32, decoder_depth=1, decoder_heads=2,
        mask_ratio=0.75, norm_pix_loss=normalised,
    )  # fmt: skip
    columns = reconstructions(build_model(config).eval(), config, views[0], None, torch.rand(2, 16))
    labels = ["target", "masked", "prediction (honest)"] + ["prediction (oracle)"] * normalised
    assert [label for label, _ in columns] == labels
