"""The scripts of finetune/ as a chain: learn, resume, score, report; and what they say when something is wrong."""

import json
import shutil
import sys

import numpy as np
import processes
import pytest
import torch
from labelled import ROOT, make_labelled, run_script
from samples import make_data_set

from mimic_wds.downstream.config import read_config
from mimic_wds.downstream.model import load_run
from mimic_wds.loading.dataset import PairDataset
from mimic_wds.loading.pairs import PairLoader
from mimic_wds.loading.transforms import normalize
from mimic_wds.training import checkpoint
from mimic_wds.training.attention import attention_agreement
from mimic_wds.training.batches import step_noise
from mimic_wds.training.config import config_from
from mimic_wds.training.optimizer import build_optimizer

CONFIG = """
task = "segmentation"
model = {size = "tiny", depth = 1, image_size = 64}
optimizer = {lr = 2e-3, layer_decay = 0.9, warmup = 0.1}
run = {steps = 6, batch = 4, checkpoint_every = 3, keep_checkpoints = 2, log_every = 1}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("chain")
    make_labelled(place / "train", num=8)
    make_labelled(place / "test", num=5, first=100)
    (place / "tiny.toml").write_text(CONFIG)
    return place


@pytest.fixture(scope="module")
def pretrained(place):
    """A pretraining run of MAE after no step."""
    model = {"objective": "mae", "size": "tiny", "depth": 1, "image_size": 64, "mask_ratio": 0.75}
    model |= {"decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}
    values = {"model": model, "data": {"global_batch": 2}, "optimizer": {}, "run": {"epochs": 1}}
    config = config_from(values, "test")
    torch.manual_seed(7)
    mae = checkpoint.build_model(config.model)
    state = checkpoint.TrainState(step=0, epoch=0.0, loader={}, config=config)
    checkpoint.save(place / "mae", state, mae, build_optimizer(mae, lr=0.0))
    return place / "mae", mae


def finetune(monkeypatch, place, output, *more, init="random"):
    given = ["--data", place / "train", "--init", init, "--output", place / output]
    return run_script(monkeypatch, "finetune", place / "tiny.toml", *given, *more)


def test_chain(monkeypatch, capsys, place, pretrained):
    folder, mae = pretrained
    assert finetune(monkeypatch, place, "run", init=folder) == 0
    printed = capsys.readouterr().out
    assert "16 tensors loaded" in printed
    assert "rates   0.00162 (first layer) to 0.002 (head)" in printed
    lines = [json.loads(line) for line in (place / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[0]["lr"] == 0
    assert lines[-1]["loss"] < lines[0]["loss"]

    model, config, step = load_run(place / "run")
    assert (step, config.model.outputs, config.init) == (6, 2, str(folder))
    fixed = mae.pos_embed[0, 1:].T.reshape(1, 192, 4, 4)
    assert torch.equal(model.encoder.pos_embed, fixed)
    difference = (model.encoder.blocks[0].attn.qkv.weight - mae.blocks[0].attn.qkv.weight).abs()
    assert 0 < difference.max() < 0.02  # it started from the pretrained one

    assert run_script(monkeypatch, "evaluate", place / "run", "--data", place / "test", "--bootstrap", 20) == 0
    account = json.loads((place / "run" / "scores.json").read_text())
    assert account["images"] == 5
    assert set(account["protocols"]) == {"paper", "standard"}
    assert account["protocols"]["paper"]["scores"] == account["protocols"]["standard"]["scores"]  # one size, one view
    statistics = np.load(place / "run" / "statistics.npz")
    assert statistics["paper"].shape == (5, 6)
    assert statistics["paper"][:, 4:].sum() == 5 * 64 * 64
    assert (place / "run" / "panels.png").is_file()

    looked = {"images": 5, "mask_ratio": 0.9, "masked_l2": 0.8123, "layer": "pool3"}
    (place / "run" / "reconstruction.json").write_text(json.dumps(looked))
    assert run_script(monkeypatch, "report", place / "run", "--output", place / "report.md") == 0
    page = (place / "report.md").read_text()
    assert f"| {place / 'run'} | 5 | 0.9 | 0.8123 | pool3 |" in page
    assert "| CroCo | fine-tuned | MIMIC-3M | 42.18 |" in page
    assert f"| {folder} | fine-tuned | all | 6 | {place / 'test'} (5) | 1 |" in page


def test_resumed_runs_end_with_the_same_weights(monkeypatch, capsys, place):
    assert finetune(monkeypatch, place, "whole") == 0
    shutil.copytree(place / "whole", place / "torn")
    shutil.rmtree(place / "torn" / "checkpoint-0000006")
    assert finetune(monkeypatch, place, "torn") == 2
    assert "add --resume" in capsys.readouterr().err
    assert finetune(monkeypatch, place, "torn", "--resume", "--set", "optimizer.lr=1e-3") == 2
    assert "other settings" in capsys.readouterr().err
    assert finetune(monkeypatch, place, "torn", "--resume") == 0
    for name in ("whole", "torn"):
        assert len((place / name / "log.jsonl").read_text().splitlines()) == 6
    one, other = (checkpoint.read_weights(place / name / "checkpoint-0000006") for name in ("whole", "torn"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_frozen_encoders_do_not_move_and_shots_are_few(monkeypatch, capsys, place, pretrained):
    folder, mae = pretrained
    more = ["--set", "model.frozen=true", "--set", "run.shots=2", "--set", "run.seed=3", "--set", "run.steps=2"]
    assert finetune(monkeypatch, place, "frozen", *more, init=folder) == 0
    printed = capsys.readouterr().out
    assert "on 2 samples of" in printed
    assert "steps of 2 samples, seed 3" in printed
    model, _, _ = load_run(place / "frozen")
    assert torch.equal(model.encoder.blocks[0].mlp.fc1.weight, mae.blocks[0].mlp.fc1.weight)


@pytest.mark.parametrize(
    ("more", "init", "message"),
    [
        (["--set", "task=depht"], "random", "did you mean 'depth'"),
        (["--set", "model.sice=3"], "random", "did you mean 'size'"),
        (["--set", "run.shots=99"], "random", "from 1 to 8"),
        (["--set", "optimizer.warmup=1.5"], "random", "warmup in"),
        ([], "nowhere", "no checkpoint there"),
        (["--set", "task=depth", "--set", "model.image_size=48"], "random", "multiple of 32 (two patches)"),
        (["--labels", "some.json"], "random", "labels in the shards"),
    ],
)
def test_mistakes_are_told(monkeypatch, capsys, place, more, init, message):
    assert finetune(monkeypatch, place, "wrong", *more, init=init) == 2
    assert message in capsys.readouterr().err


def test_encoders_of_another_size_are_refused_by_name(monkeypatch, capsys, place, pretrained):
    code = finetune(monkeypatch, place, "wrong", "--set", "model.depth=2", init=pretrained[0])
    assert code == 2
    assert "blocks.1.norm1.weight" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_reconstruction(monkeypatch, capsys, place, pretrained):
    class Features(torch.nn.Module):
        def forward(self, pictures):
            return torch.nn.functional.avg_pool2d(pictures.float(), 32).flatten(1)

    torch.jit.script(Features()).save(str(place / "features.pt"))
    arguments = ["--data", place / "train", "--images", 8, "--output", place / "filled", "--json"]
    code = run_script(
        monkeypatch,
        "reconstruction",
        pretrained[0],
        *arguments,
        "--extractor",
        place / "features.pt",
        "--layer",
        "mean",
    )
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (found["images"], found["features"], found["layer"], found["mask_ratio"]) == (8, 12, "mean", 0.75)
    assert 0.5 < found["masked_l2"] < 3  # of normalised patches, by a model that knows nothing
    assert found["fid"] > 0
    assert 5 < found["psnr_db"] < 50
    assert run_script(monkeypatch, "reconstruction", pretrained[0], *arguments[:2], "--images", 99) == 2
    assert "--images asks for 99" in capsys.readouterr().err


def test_reconstruction_of_croco_with_right_and_wrong_references(monkeypatch, capsys, tmp_path):
    make_data_set(tmp_path / "pairs", per_scene=(6,))
    model = {"objective": "croco", "size": "tiny", "depth": 1, "image_size": 32, "patch_size": 8, "mask_ratio": 0.75}
    model |= {"decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}
    config = config_from({"model": model, "data": {"global_batch": 2}, "optimizer": {}, "run": {"epochs": 1}}, "test")
    torch.manual_seed(0)
    croco = checkpoint.build_model(config.model)
    state = checkpoint.TrainState(step=0, epoch=0.0, loader={}, config=config)
    checkpoint.save(tmp_path / "croco", state, croco, build_optimizer(croco, lr=0.0))
    arguments = ["--data", tmp_path / "pairs", "--images", 6, "--output", tmp_path / "filled", "--json"]
    assert run_script(monkeypatch, "reconstruction", tmp_path / "croco", *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    with PairDataset(tmp_path / "pairs") as dataset:
        batch = next(iter(PairLoader(dataset, size=32, augmentation="none", global_batch=6).epoch(0)))
    views = [normalize(image, torch.device("cpu")) for image in (batch.image0, batch.image1)]
    noise = step_noise(0, 0, 6, 16)
    croco.eval()
    expected = attention_agreement(croco, *views, batch.corr_0to1, noise)
    assert found["attention"] == pytest.approx(expected.share)
    assert found["attention_same_place"] == pytest.approx(expected.same_place)
    with torch.no_grad():
        assert found["masked_l2"] == pytest.approx(croco(*views, noise).loss.item(), rel=1e-5)
        other = croco(views[0], views[1].roll(1, 0), noise).loss.item()
    assert found["masked_l2_other_reference"] == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("config", sorted((ROOT / "finetune" / "configs").glob("*.toml")), ids=lambda p: p.name)
def test_configs_begin_with_their_command(config):
    read_config(config)
    first = config.read_text().splitlines()[0]
    assert first.startswith("# accelerate launch finetune/finetune.py")
    assert config.name in first


def test_published_files_begin_a_finetuning(place, monkeypatch):
    """An encoder as MAE publishes it, and CroCo under naver's names."""
    from mimic_wds.downstream.model import pretrained_weights
    from mimic_wds.models.build import ModelConfig, build_model
    from mimic_wds.models.published import EXPORTS

    small = {"size": "tiny", "depth": 1, "image_size": 64, "mask_ratio": 0.75, "decoder_dim": 32, "decoder_heads": 2}
    for layout, options in (("timm", {"objective": "mae"}), ("croco", {"objective": "croco", "class_token": False})):
        weights = build_model(ModelConfig(**small, decoder_depth=1, **options)).state_dict()
        torch.save(EXPORTS[layout](weights), place / f"{layout}.pth")
        found = pretrained_weights(str(place / f"{layout}.pth"))
        assert torch.equal(found["blocks.0.mlp.fc1.weight"], weights["blocks.0.mlp.fc1.weight"])
        assert torch.equal(found["pos_embed"], weights["pos_embed"])
        source = ["--data", place / "train", "--init", place / f"{layout}.pth"]
        out = place / f"from-{layout}"
        assert run_script(monkeypatch, "finetune", place / "tiny.toml", *source, "--output", out) == 0
        assert checkpoint.latest(out) is not None


def test_the_best_checkpoint_is_kept_and_scored(monkeypatch, capsys, place):
    every = ["--val", place / "test", "--set", "run.evaluate_every=2", "--set", "optimizer.lr=1e-2"]
    assert finetune(monkeypatch, place, "chosen", *every) == 0
    lines = [json.loads(line) for line in (place / "chosen" / "log.jsonl").read_text().splitlines()]
    scored = {line["step"]: line["val_paper_miou"] for line in lines if "val_paper_miou" in line}
    assert sorted(scored) == [2, 4, 6]
    best = max(scored, key=scored.get)
    assert [folder.name for folder in (place / "chosen").glob("best-*")] == [f"best-{best:07d}"]
    assert run_script(monkeypatch, "evaluate", place / "chosen", "--data", place / "test", "--best", "--json") == 0
    account = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert account["steps"] == best
    assert account["protocols"]["paper"]["scores"]["miou"] == scored[best]
    assert list((place / "chosen" / "tensorboard").glob("events*"))
    assert finetune(monkeypatch, place, "unchosen") == 0  # looking at held-out images changes no weight
    one, other = (checkpoint.read_weights(place / name / "checkpoint-0000006") for name in ("chosen", "unchosen"))
    assert one.keys() == other.keys()
    assert run_script(monkeypatch, "evaluate", place / "unchosen", "--data", place / "test", "--best") == 2
    assert "no best checkpoint" in capsys.readouterr().err


def test_two_processes_score_every_image_once(monkeypatch, place):
    """Five images by two processes: the same numbers as by one."""
    assert finetune(monkeypatch, place, "alone", "--set", "run.steps=1") == 0
    arguments = [place / "alone", "--data", place / "test", "--panels", "0", "--output"]
    assert run_script(monkeypatch, "evaluate", *arguments, place / "one") == 0
    command = [sys.executable, ROOT / "finetune" / "evaluate.py", *arguments, place / "two"]
    assert [done.returncode for done in processes.run_ranks(2, command)] == [0, 0]
    one, two = (np.load(place / name / "statistics.npz") for name in ("one", "two"))
    assert one["keys"].tolist() == two["keys"].tolist()
    assert np.array_equal(one["paper"], two["paper"])
    assert (place / "one" / "scores.json").read_text() == (place / "two" / "scores.json").read_text()


def test_rotary_encoders_are_finetuned_at_any_size(monkeypatch, capsys, place):
    """CroCo v2: neither table nor tokens; patch for patch what the pretrained encoder computes."""
    from mimic_wds.downstream.dense import dense_encoder
    from mimic_wds.models.build import ModelConfig, build_model
    from mimic_wds.models.heads.encoder import rotary_weights
    from mimic_wds.models.published import EXPORTS

    small = {"size": "tiny", "depth": 1, "image_size": 96, "mask_ratio": 0.75, "decoder_dim": 32, "decoder_heads": 2}
    croco = build_model(ModelConfig(**small, decoder_depth=1, objective="croco", class_token=False, rotary=True))
    torch.save(EXPORTS["croco"](croco.state_dict()), place / "croco2.pth")
    assert finetune(monkeypatch, place, "rotary", init=place / "croco2.pth") == 0
    assert "tensors loaded" in capsys.readouterr().out
    model, config, _ = load_run(place / "rotary")
    assert config.model.rotary
    assert "encoder.pos_embed" not in model.state_dict()
    assert finetune(monkeypatch, place, "rotary", "--resume", init=place / "croco2.pth") == 0

    wide = read_config(place / "tiny.toml", ["model.image_size=96", "model.rotary=true"])
    encoder = dense_encoder(wide)
    encoder.load_state_dict(rotary_weights(croco.state_dict())[0])
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        (tokens,) = encoder.eval()(images, [0])
        expected = croco.encode(images)
        assert torch.allclose(croco.norm(tokens.flatten(2).transpose(1, 2)), expected, atol=1e-5)
        smaller = dense_encoder(read_config(place / "tiny.toml", ["model.rotary=true"]))  # made for 64 pixels
        smaller.load_state_dict(encoder.state_dict())
        assert torch.allclose(smaller.eval()(images, [0])[0], tokens, atol=1e-6)
