"""Checkpoints: whole or absent, complete enough to rebuild the model, and strict about what they fit."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mimic_wds.models.build import build_model
from mimic_wds.training import checkpoint
from mimic_wds.training.checkpoint import TrainState, find, latest, load_model, restore, save
from mimic_wds.training.optimizer import build_optimizer


@pytest.fixture
def trained(tiny):
    """(config, model, optimizer) after two steps."""
    config = tiny()
    torch.manual_seed(1)
    model = build_model(config.model)
    optimizer = build_optimizer(model, lr=1e-3)
    for _ in range(2):
        images = torch.randn(2, 2, 3, 64, 64)
        optimizer.zero_grad()
        model(*images, torch.rand(2, 16))[0].backward()
        optimizer.step()
    return config, model, optimizer


def state(config, step=2):
    loader = {"manifest": "abc", "seed": 0, "global_batch": 8, "epoch": 0, "step": step}
    return TrainState(step=step, epoch=step / 3, loader=loader, config=config)


def test_everything_comes_back_exactly(trained, tmp_path):
    config, model, optimizer = trained
    folder = save(tmp_path, state(config), model, optimizer)
    torch.manual_seed(2)
    other = build_model(config.model)
    second = build_optimizer(other, lr=1.0)
    assert restore(folder, other, second) == state(config)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), atol=0, rtol=0)
    torch.testing.assert_close(second.state_dict()["state"], optimizer.state_dict()["state"], atol=0, rtol=0)


def test_a_model_is_rebuilt_from_the_folder_alone(trained, tmp_path):
    config, model, optimizer = trained
    folder = save(tmp_path, state(config), model, optimizer)
    images, noise = torch.randn(2, 2, 3, 64, 64), torch.rand(2, 16)
    for place in (folder, tmp_path):
        torch.testing.assert_close(load_model(place)(*images, noise)[1], model(*images, noise)[1], atol=0, rtol=0)
    with pytest.raises(ValueError, match=r"not a checkpoint, it has no state\.json"):
        load_model(tmp_path / "elsewhere")


def test_the_files_are_plain_and_say_what_wrote_them(trained, tmp_path):
    config, model, optimizer = trained
    folder = save(tmp_path, state(config), model, optimizer)
    assert set(load_file(folder / "model.safetensors")) == set(model.state_dict())
    torch.load(folder / "optimizer.pt", weights_only=True)
    values = json.loads((folder / "state.json").read_text())
    assert values["config"]["model"]["decoder_dim"] == 32
    assert values["versions"]["torch"] == torch.__version__
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        (folder / "state.json").stat().st_mode & 0o777
    }


def test_the_last_ones_are_kept_and_numbers_are_compared_as_numbers(trained, tmp_path):
    config, model, optimizer = trained
    for step in (9, 10, 100, 2_000_000_000):
        save(tmp_path, state(config, step), model, optimizer, keep=2)
    assert [folder.name for folder in checkpoint.checkpoints(tmp_path)] == [
        "checkpoint-0000100",
        "checkpoint-2000000000",
    ]
    assert latest(tmp_path).name == "checkpoint-2000000000"
    assert len(list(tmp_path.iterdir())) == 2


def test_an_error_while_saving_leaves_the_older_one(trained, tmp_path, monkeypatch):
    config, model, optimizer = trained
    older = save(tmp_path, state(config, 1), model, optimizer)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space"):
            save(tmp_path, state(config, 2), model, optimizer)
    assert latest(tmp_path) == older
    newer = save(tmp_path, state(config, 2), model, optimizer)
    assert sorted(tmp_path.iterdir()) == [older, newer]  # nothing half-written is left


def test_weights_that_do_not_fit_are_named(trained, tmp_path, tiny):
    config, model, optimizer = trained
    folder = save(tmp_path, state(config), model, optimizer)
    weights = load_file(folder / "model.safetensors")
    weights["discriminator_block.0.weight"] = weights.pop("mask_token")
    weights["norm.bias"] = torch.zeros(3)
    save_file(weights, folder / "model.safetensors")
    expected = (
        r"model\.safetensors does not fit the model: 1 missing: mask_token; "
        r"1 unexpected: discriminator_block\.0\.weight; 1 of another shape: norm\.bias \(3,\) for \(192,\)"
    )
    with pytest.raises(ValueError, match=expected):
        restore(folder, model, optimizer)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "state.json"])
@pytest.mark.parametrize("damage", ["torn", "missing"])
def test_damaged_files_are_named(trained, tmp_path, name, damage):
    config, model, optimizer = trained
    folder = save(tmp_path, state(config), model, optimizer)
    path = folder / name
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
    with pytest.raises(ValueError, match=name):
        restore(folder, model, optimizer)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "state.json"])
@pytest.mark.parametrize("damage", ["torn", "missing"])
def test_a_damaged_newest_one_is_passed_over(trained, tmp_path, capsys, name, damage):
    config, model, optimizer = trained
    older = save(tmp_path, state(config), model, optimizer)
    newest = save(tmp_path, state(config, 3), model, optimizer)
    path = newest / name
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
    assert find(tmp_path, config, resume=True) == (older, state(config))
    assert "checkpoint-0000003 is passed over: " in capsys.readouterr().err
    shutil.rmtree(older)
    with pytest.raises(ValueError, match=name):
        find(tmp_path, config, resume=True)


def test_every_nth_one_is_kept_for_good(trained, tmp_path):
    config, model, optimizer = trained
    for step in range(1, 11):
        save(tmp_path, state(config, step), model, optimizer, keep=2, keep_every=4)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == [f"checkpoint-{n:07d}" for n in (4, 8, 9, 10)]


def test_a_run_is_only_continued_on_purpose_and_with_the_same_settings(trained, tmp_path, tiny):
    config, model, optimizer = trained
    assert find(tmp_path, config, resume=True) is None
    folder = save(tmp_path, state(config), model, optimizer)
    assert find(tmp_path, config, resume=True) == (folder, state(config))
    with pytest.raises(ValueError, match=r"holds a run already \(checkpoint-0000002\): add --resume"):
        find(tmp_path, config, resume=False)
    with pytest.raises(ValueError, match=r"other settings: data\.global_batch \(8, now 16\)"):
        find(tmp_path, tiny(data={"global_batch": 16}), resume=True)
