"""Run configs: what is read, what is refused, and what the message says."""

import json

import pytest

from mimic_wds.training.config import changed_keys, config_from, config_values, read_config


def test_file_then_assignments_then_flags(config_file):
    config = read_config(
        config_file(), ["optimizer.base_lr=1e-3", "run.precision=bf16", "run.epochs=5"], {"run": {"epochs": 7}}
    )
    assert (config.optimizer.base_lr, config.run.precision, config.run.epochs) == (1e-3, "bf16", 7)
    assert config.model.decoder_dim == 32
    assert config.optimizer.betas == (0.9, 0.95)


def test_json_and_back(tiny):
    for config in (tiny(), tiny(model={"objective": "mae", "image_size": [64, 32]}, optimizer={"betas": [0.8, 0.9]})):
        assert config_from(json.loads(json.dumps(config_values(config))), "json") == config


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("data.globl_batch=8", r"\[data\]: unknown key 'globl_batch'; did you mean 'global_batch'"),
        ("optimiser.base_lr=1", r"unknown key 'optimiser'; did you mean 'optimizer'"),
        ("data.global_batch=0", r"data\.global_batch must be at least 1, got 0"),
        ("data.global_batch=eight", r"Expected `int`, got `str` - at `\$\.data\.global_batch`"),
        ("optimizer.base_lr=nan", r"optimizer\.base_lr must be at least 0, got nan"),
        ("optimizer.betas=[0.9, 1.0]", r"optimizer\.betas must lie in \[0, 1\)"),
        ("run.precision=fp8", r"fp8"),
        ("optimizer.warmup_epochs=3", r"optimizer\.warmup_epochs = 3 leaves nothing of a schedule of 3 epochs"),
        ("optimizer.schedule_epochs=2", r"optimizer\.schedule_epochs = 2 ends before run\.epochs = 3"),
        ("data.augmentation=crop", r"Invalid enum value 'crop' - at `\$\.data\.augmentation`"),
        ("model.mask_ratio=1.5", r"model\.mask_ratio"),
    ],
)
def test_mistakes_are_named(config_file, assignment, message):
    with pytest.raises(ValueError, match=message):
        read_config(config_file(), [assignment])


def test_mae_counts_images(tiny):
    assert tiny(model={"objective": "mae"}).samples_per_pair == 2
    for table, key in (("data", "global_batch"), ("run", "max_device_batch")):
        with pytest.raises(ValueError, match=rf"{table}\.{key} = 7 counts images.*even"):
            tiny(model={"objective": "mae"}, **{table: {key: 7}})


def test_the_peak_rate_follows_the_global_batch(tiny):
    config = tiny(data={"global_batch": 4096}, optimizer={"base_lr": 1.5e-4})
    assert config.peak_lr == pytest.approx(2.4e-3)
    assert config.learning_rate(0.25) == pytest.approx(1.2e-3)
    assert config.learning_rate(3) == pytest.approx(0, abs=1e-12)


def test_what_may_change_between_two_parts_of_a_run(tiny):
    free = tiny(run={"epochs": 9, "max_device_batch": 2, "precision": "bf16"}, data={"num_threads": 5})
    assert changed_keys(tiny(), free) == []
    other = tiny(model={"decoder_dim": 64}, data={"global_batch": 4}, run={"seed": 1})
    assert changed_keys(tiny(), other) == [
        "model.decoder_dim (32, now 64)",
        "data.global_batch (8, now 4)",
        "run.seed (0, now 1)",
    ]
