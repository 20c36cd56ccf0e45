import dataclasses
import json

import pytest
import torch

from mimic_wds.models.build import ModelConfig, build_model
from mimic_wds.models.croco import CroCo
from mimic_wds.models.mae import MAE
from mimic_wds.settings import from_mapping


@pytest.mark.parametrize(
    ("values", "patches", "size"),
    [
        ({"objective": "mae", "mask_ratio": 0.75}, 196, (768, 12, 12)),
        ({"objective": "croco", "mask_ratio": 0.9, "size": "large"}, 196, (1024, 24, 16)),
        ({"objective": "croco", "mask_ratio": 0.9, "size": "small", "patch_size": 14}, 256, (384, 12, 6)),
        ({"objective": "mae", "mask_ratio": 0.5, "size": "tiny", "depth": 4, "image_size": [64, 96]}, 24, (192, 4, 3)),
    ],
)
def test_a_table_becomes_a_config_that_survives_json(values, patches, size):
    config = from_mapping(ModelConfig, values, "run.toml")
    assert config.num_patches == patches
    assert (config.decoder_dim, config.decoder_depth, config.decoder_heads) == (512, 8, 16)
    assert from_mapping(ModelConfig, json.loads(json.dumps(dataclasses.asdict(config))), "checkpoint") == config
    with torch.device("meta"):
        model = build_model(config)
    assert (model.norm.normalized_shape[0], len(model.blocks), model.blocks[0].attn.num_heads) == size


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 220}, "model.image_size = 220 is no multiple of model.patch_size = 16"),
        ({"image_size": (224, 230)}, r"model.image_size = \(224, 230\)"),
        ({"image_size": 0}, "model.image_size = 0"),
        ({"patch_size": 0}, "model.patch_size = 0"),
        ({"mask_ratio": 1.0}, "model.mask_ratio = 1.0"),
        ({"mask_ratio": -0.1}, "model.mask_ratio = -0.1"),
        ({"image_size": 32, "mask_ratio": 0.9}, "model.mask_ratio = 0.9 leaves 0 of 4 patches visible"),
        (
            {"objective": "croco", "class_token": False, "mask_ratio": 0.005},
            "model.mask_ratio = 0.005 leaves 196 of 196 patches visible",
        ),
        ({"decoder_heads": 7}, "model.decoder_dim = 512 must be a multiple of 4 and of model.decoder_heads = 7"),
        ({"decoder_dim": 130, "decoder_heads": 10}, "model.decoder_dim = 130"),
        ({"decoder_depth": 0}, "decoder_depth and decoder_heads must be 1 or more"),
        ({"depth": -1}, "model.depth 0 or more"),
        ({"class_token": False}, "model.class_token = false is CroCo v1's"),
        ({"objective": "jepa"}, "model.objective = 'jepa' is unknown; known: mae, croco, dino"),
        ({"objective": "dino"}, "model.mask_ratio = 0.75 means nothing to DINO"),
        (
            {"objective": "dino", "mask_ratio": 0.0, "patch_size": 14},
            "model.dino.local_size = 96 is no multiple of model.patch_size = 14",
        ),
        ({"size": "giant"}, "model.size = 'giant' is unknown; known: tiny, small, base, large"),
    ],
)
def test_mistakes_name_the_field(values, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**({"objective": "mae", "mask_ratio": 0.75} | values))


def test_mistakes_in_a_file_name_the_file_and_the_field():
    values = {"objective": "mae", "mask_ratio": 0.75}
    with pytest.raises(ValueError, match=r"run\.toml: model\.image_size = 220"):
        from_mapping(ModelConfig, values | {"image_size": 220}, "run.toml")
    with pytest.raises(ValueError, match=r"run\.toml: unknown key 'patchsize'; did you mean 'patch_size'"):
        from_mapping(ModelConfig, values | {"patchsize": 16}, "run.toml")


def test_the_objective_picks_the_model(tiny_config):
    assert type(build_model(tiny_config("mae"))) is MAE
    assert type(build_model(tiny_config("croco"))) is CroCo


@pytest.mark.parametrize(
    ("objective", "values", "visible"),
    [("mae", {"mask_ratio": 0.75}, 49), ("croco", {}, 19), ("croco", {"class_token": False}, 20)],
)
def test_models_keep_the_published_number_of_patches(tiny_config, objective, values, visible):
    config = tiny_config(objective, **({"image_size": 224, "mask_ratio": 0.9} | values))
    assert build_model(config).keep == visible
