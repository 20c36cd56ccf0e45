"""The model of a dense task, its initial encoder, and finetuning runs as they lie on disk."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from mimic_wds.downstream.config import FinetuneConfig, config_from
from mimic_wds.downstream.tasks.base import DenseTask, Scale
from mimic_wds.downstream.tasks.registry import dense_task
from mimic_wds.models.heads.dense import DenseModel
from mimic_wds.models.heads.encoder import DenseEncoder, dense_weights
from mimic_wds.models.published import read_published, to_ours
from mimic_wds.training import checkpoint

#: `--init` that leaves the encoder as it is drawn.
RANDOM = "random"


class Learner(nn.Module):
    """A model with its task's loss, as `training.engine.optimizer_step` calls it."""

    def __init__(self, model: DenseModel, task: DenseTask, scale: Scale) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.scale = scale

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor]:
        """(loss (),) of normalised images (B, 3, H, W) and labels (B, H, W, ...)."""
        return (self.task.loss(self.model(images), labels, self.scale),)


def build_model(config: FinetuneConfig) -> DenseModel:
    """A freshly drawn model from torch's global generator; `config.model.outputs` must be filled in."""
    assert config.model.outputs > 0
    dim, depth, heads = config.model.shape
    encoder = DenseEncoder(
        image_size=config.model.image_size,
        patch_size=config.model.patch_size,
        dim=dim,
        depth=depth,
        heads=heads,
        drop_path=config.model.drop_path,
    )
    initialise(encoder)
    head = dense_task(config.task).head(config.model.outputs, dim, config.model.patch_size)
    return DenseModel(encoder, head, frozen=config.model.frozen)  # type: ignore[arg-type]


def initialise(encoder: DenseEncoder) -> None:
    """Linear layers and the patch projection Xavier-uniform with zero biases, the token normal(0, 0.02), as in MAE."""
    for module in encoder.blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(encoder.patch_embed.proj.weight.view(encoder.patch_embed.proj.weight.shape[0], -1))
    nn.init.normal_(encoder.global_token, std=0.02)


def load_encoder(model: DenseModel, init: str) -> str:
    """Fill the encoder from `init`, "random" or a pretraining run or checkpoint of this package; says what was loaded.

    Layouts of others come through one function, `pretrained_weights`. Raises ValueError when the weights do not fit.
    """
    if init == RANDOM:
        return "random: nothing loaded"
    rows, cols = model.encoder.pos_embed.shape[-2:]
    weights, left = dense_weights(pretrained_weights(init), rows, cols)
    checkpoint.load_weights(model.encoder, weights, init)
    groups = sorted({name.split(".")[0] for name in left})
    return f"{init}: {len(weights)} tensors loaded, {len(left)} left ({', '.join(groups) or 'none'})"


def pretrained_weights(where: str) -> dict[str, Tensor]:
    """Weights with timm's names of a pretrained encoder: a checkpoint, the newest one in the folder of a run, or a
    published file (.pth, .pt, .bin, .safetensors; `models/published.py` says which).

    Raises ValueError when there is none.
    """
    folder = Path(where)
    if folder.is_file():
        weights, _ = to_ours(read_published(folder))
        return weights
    found = folder if (folder / checkpoint.MODEL_NAME).is_file() else checkpoint.latest(folder)
    if found is None:
        raise ValueError(f"--init {where}: no checkpoint there; give a folder of train/pretrain.py, or {RANDOM!r}")
    return checkpoint.read_weights(found)


def read_run(folder: Path) -> tuple[Path, FinetuneConfig, int]:
    """Newest checkpoint of a finetuning run, its config, and the steps done. Raises ValueError when there is none."""
    found = folder if (folder / checkpoint.STATE_NAME).is_file() else checkpoint.latest(folder)
    if found is None:
        raise ValueError(f"{folder}: no checkpoint of a finetuning run here; make one with finetune/finetune.py")
    path = found / checkpoint.STATE_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return found, config_from(values["config"], f"{path}: config"), int(values["step"])
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the state of a finetuning run ({error!r})") from None


def read_loader_state(folder: Path) -> dict[str, object]:
    """What the loader of a checkpoint needs to go on. Raises ValueError when it is missing."""
    try:
        state: dict[str, object] = json.loads((folder / checkpoint.STATE_NAME).read_text(encoding="utf-8"))["loader"]
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{folder}: its state cannot be read ({error!r})") from None
    return state


def load_run(folder: Path) -> tuple[DenseModel, FinetuneConfig, int]:
    """The finetuned model, on the CPU in eval mode, its config, and the steps done. Raises ValueError as `read_run`."""
    found, config, step = read_run(folder)
    model = build_model(config)
    checkpoint.load_weights(model, checkpoint.read_weights(found), str(found / checkpoint.MODEL_NAME))
    return model.eval(), config, step


def restore(
    found: Path, model: DenseModel, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None
) -> None:
    """Weights, the optimizer's state and fp16's loss scale of a checkpoint. Raises ValueError when they do not fit."""
    checkpoint.load_weights(model, checkpoint.read_weights(found), str(found / checkpoint.MODEL_NAME))
    saved = torch.load(found / checkpoint.OPTIMIZER_NAME, map_location="cpu", weights_only=True)
    optimizer.load_state_dict(saved["optimizer"])
    if scaler is not None and saved["scaler"] is not None:
        scaler.load_state_dict(saved["scaler"])
