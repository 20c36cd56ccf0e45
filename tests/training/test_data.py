"""What a run may be given as its data: several sets that are mixed, sets on a server, sets that have grown."""

import json
import shutil

import pytest
from samples import make_data_set
from servers_for_transfer import WebServer

from mimic_wds.training.checkpoint import latest, read_state
from mimic_wds.training.trackers import read_log


def losses(output):
    return [line["loss"] for line in read_log(output / "log.jsonl")]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """16 and 8 pairs."""
    folder = tmp_path_factory.mktemp("several")
    make_data_set(folder / "many", per_scene=(9, 7), name="many")
    make_data_set(folder / "few", per_scene=(8,), name="few")
    return [str(folder / "many"), str(folder / "few")]


def test_several_data_sets_are_mixed_by_weight_and_resume_exactly(pretrain, config_file, sets, tmp_path, capsys):
    config = config_file(data={"weights": {"many": 1.0, "few": 3.0}, "global_batch": 8}, run={"epochs": 2})
    assert pretrain(config, "--output", tmp_path / "whole", data=sets) == 0
    seen = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("seen: "))
    steps = len(losses(tmp_path / "whole"))
    assert seen == f"seen: {2 * steps} of many, {6 * steps} of few"
    assert pretrain(config, "--output", tmp_path / "parts", "--steps", "3", data=sets) == 0
    assert pretrain(config, "--output", tmp_path / "parts", "--resume", data=sets) == 0
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)


def test_names_of_ones_own_and_weights_that_name_nothing(pretrain, config_file, sets, tmp_path, capsys):
    config = config_file(data={"weights": {"many": 1.0, "other": 3.0}})
    assert pretrain(config, "--output", tmp_path, data=sets) == 2
    assert "other" in capsys.readouterr().err
    assert pretrain(config_file(), "--output", tmp_path, data=[sets[0], sets[0]]) == 2
    assert "two data sets are named 'many'" in capsys.readouterr().err
    assert pretrain(config, "--output", tmp_path, data=sets[:1]) == 2
    assert "weigh several data sets" in capsys.readouterr().err
    assert pretrain(config, "--output", tmp_path, "--steps", "1", data=[sets[0], f"other={sets[1]}"]) == 0


@pytest.mark.parametrize("cache", ["cache", "none"])
def test_from_a_web_server(pretrain, config_file, pairs, tmp_path, cache):
    config = config_file(data={"cache": cache if cache == "none" else str(tmp_path / cache)})
    with WebServer(pairs) as server:
        assert pretrain(config, "--output", tmp_path / "far", "--steps", "3", data=server.url) == 0
    assert pretrain(config_file(), "--output", tmp_path / "here", "--steps", "3") == 0
    assert losses(tmp_path / "far") == losses(tmp_path / "here")


def test_a_run_may_go_on_with_more_data(pretrain, config_file, pairs, tmp_path, capsys):
    """A data set that was extended: refused without --adapt; with it the begun epoch ends, the next has every pair."""
    config, output, grown = config_file(), tmp_path / "run", tmp_path / "pairs"
    shutil.copytree(pairs, grown)
    assert pretrain(config, "--output", output, "--steps", "4", data=grown) == 0
    shutil.rmtree(grown)
    make_data_set(grown, per_scene=(9, 9, 6, 8), name=json.loads((pairs / "manifest.json").read_text())["name"])
    assert pretrain(config, "--output", output, "--resume", data=grown) == 2
    assert "another manifest" in capsys.readouterr().err
    assert pretrain(config, "--output", output, "--resume", "--adapt", "--steps", "9", data=grown) == 0
    assert "epoch 1 ends after its 1 steps" in capsys.readouterr().err
    assert len(losses(output)) == 9
    state = read_state(latest(output))
    assert (state.step, state.loader["epoch"], state.loader["step"]) == (9, 3, 1)


def test_looks_are_pictures_and_attention_on_held_out_pairs(pretrain, config_file, sets, tmp_path, capsys):
    config = config_file(run={"look_every": 2, "log_every": 100})
    options = ["--output", tmp_path, "--steps", "4", "--look-at", sets[1]]
    assert pretrain(config, *options, data=sets[0]) == 0
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["0000002.png", "0000004.png"]
    logged = {line["step"]: line["attention"] for line in read_log(tmp_path / "log.jsonl")}
    assert set(logged) == {1, 2, 4}
    assert logged[1] is None
    said = capsys.readouterr().out
    # The weights did not change after the last step.
    assert f"attention agreement {logged[4]:.1%} (looking at the same place " in said
    assert 0 <= logged[2] <= 1
    last = read_log(tmp_path / "log.jsonl")[-1]
    assert 0 < last["look_loss"] < 2
    assert last["look_loss_other_reference"] != last["look_loss"]
    assert 0 < last["attention_same_place"] <= 1


@pytest.mark.parametrize("augmentation", ["none", "mimic", "croco", "mae"])
def test_every_augmentation_trains_at_any_size_of_the_model(pretrain, config_file, pairs, tmp_path, augmentation):
    """Views of 64 pixels are given as 32: a quarter of the patches; resumed, the steps are the same."""
    config = config_file(model={"image_size": 32, "mask_ratio": 0.5}, data={"augmentation": augmentation})
    assert pretrain(config, "--output", tmp_path / "whole", "--steps", "4") == 0
    assert pretrain(config, "--output", tmp_path / "parts", "--steps", "2") == 0
    assert pretrain(config, "--output", tmp_path / "parts", "--resume", "--steps", "4") == 0
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)
    assert len(set(losses(tmp_path / "whole"))) == 4
