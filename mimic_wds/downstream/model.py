"""The model of a task, its initial encoder, and finetuning runs as they lie on disk."""

from pathlib import Path

from torch import Tensor, nn

from mimic_wds.downstream.config import FinetuneConfig, config_from
from mimic_wds.downstream.task import Task, Weights
from mimic_wds.downstream.tasks.registry import get_task
from mimic_wds.models.published import read_published, to_ours
from mimic_wds.training import checkpoint
from mimic_wds.training.checkpoint import TrainState

#: `--init` that leaves the encoder as it is drawn.
RANDOM = "random"


class Learner(nn.Module):
    """A model with its task's loss, as `training.engine.optimizer_step` calls it."""

    def __init__(self, model: nn.Module, task: Task, config: FinetuneConfig) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.config = config

    def forward(self, *inputs: Tensor) -> tuple[Tensor]:
        """(loss (),) of what `task.inputs` gives."""
        return (self.task.loss(self.model, self.config, *inputs),)


def load_encoder(task: Task, model: nn.Module, weights: Weights, init: str) -> str:
    """Fill the encoder from `weights`, of `init`; says what was loaded. Raises ValueError when they do not fit."""
    if init == RANDOM:
        return "random: nothing loaded"
    found, left = task.encoder_weights(model, weights)
    encoder = model.encoder
    assert isinstance(encoder, nn.Module)
    checkpoint.load_weights(encoder, found, init)
    groups = sorted({name.split(".")[0] for name in left})
    return f"{init}: {len(found)} tensors loaded, {len(left)} left ({', '.join(groups) or 'none'})"


def pretrained_weights(where: str) -> dict[str, Tensor]:
    """Weights with timm's names of a pretrained encoder: a checkpoint, the newest one in the folder of a run, or a
    published file (.pth, .pt, .bin, .safetensors; `models/published.py` says which). None of "random".

    Raises ValueError when there is nothing.
    """
    if where == RANDOM:
        return {}
    folder = Path(where)
    if folder.is_file():
        weights, _ = to_ours(read_published(folder))
        return weights
    found = folder if (folder / checkpoint.MODEL_NAME).is_file() else checkpoint.latest(folder)
    if found is None:
        raise ValueError(f"--init {where}: no checkpoint there; give a folder of train/pretrain.py, or {RANDOM!r}")
    return checkpoint.read_weights(found)


def read_state(folder: Path) -> TrainState[FinetuneConfig]:
    """What the ``state.json`` of a finetuning checkpoint says. Raises ValueError naming the file when it cannot."""
    return checkpoint.read_state_as(folder, config_from)


def load_run(folder: Path, *, best: bool = False) -> tuple[nn.Module, FinetuneConfig, int]:
    """The finetuned model, on the CPU in eval mode, its config, and the steps done.

    `folder` is a checkpoint, or a run: of that the newest one is taken, or the `best`. Raises ValueError when there is
    none.
    """
    found = folder if (folder / checkpoint.STATE_NAME).is_file() else None
    found = found or (checkpoint.best(folder) if best else checkpoint.latest(folder))
    if found is None:
        how = "one is kept by finetune/finetune.py --val DIR" if best else "make one with finetune/finetune.py"
        raise ValueError(f"{folder}: no {'best ' * best}checkpoint of a finetuning run here; {how}")
    state = read_state(found)
    model = get_task(state.config.task).build(state.config)
    checkpoint.load_weights(model, checkpoint.read_weights(found), str(found / checkpoint.MODEL_NAME))
    return model.eval(), state.config, state.step
