"""A finetuning run as one frozen tree of plain values, from a TOML file and ``--set table.key=value``."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mimic_wds.downstream.schedules import cosine_rate, warmup_steps
from mimic_wds.models.build import SIZES
from mimic_wds.settings import from_mapping, merge, parse_assignments, read_toml


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """[model]: the encoder as it is finetuned; size, depth and patch size must be those of the pretrained one."""

    size: Literal["tiny", "small", "base", "large"] = "base"
    depth: int = 0  #: blocks; 0 = what `size` says
    patch_size: int = 16  #: pixels
    image_size: int = 256  #: pixels, height and width of what the model sees
    drop_path: float = 0.0
    frozen: bool = False  #: train the head only
    head: str = ""  #: which of the task's heads (pose: classic, simple; probe: class, mean); "" = the first
    head_scale: float = 1.0  #: widths of a dense head, as a share of the published: for small machines
    outputs: int = 0  #: channels of the head; 0 = what task and data set say
    class_token: bool = True  #: the encoder of the linear probe has one; filled in from the weights
    rotary: bool = False  #: the encoder's positions are rotary (CroCo v2), not a table; filled in from the weights

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"model.size = {self.size!r} is unknown; known: {', '.join(SIZES)}")
        if self.image_size % self.patch_size:
            raise ValueError(f"model.image_size = {self.image_size} must be a multiple of model.patch_size")
        if not 0 < self.head_scale <= 4:
            raise ValueError(f"model.head_scale must be above 0 and at most 4, got {self.head_scale}")
        if not 0 <= self.drop_path < 1 or self.depth < 0:
            raise ValueError("model.drop_path must lie in [0, 1) and model.depth must not be negative")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Width, depth, heads of the encoder."""
        dim, depth, heads = SIZES[self.size]
        return dim, self.depth or depth, heads


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """[optimizer]: AdamW with a rate per layer, warm-up as a share of the steps, then half a cosine to 0."""

    lr: float = 1e-4  #: of the head, at the end of the warm-up; not scaled with the batch
    layer_decay: float = 0.75  #: each layer's rate is this share of the next one's
    weight_decay: float = 0.05
    warmup: float = 0.05  #: share of all steps
    clip_grad_norm: float = 0.0  #: 0 = no limit
    drops: tuple[float, ...] = ()  #: shares of all steps at which the rate falls to a tenth (pose)

    def __post_init__(self) -> None:
        if not all(0 < share < 1 for share in self.drops):
            raise ValueError(f"optimizer.drops are shares of the steps between 0 and 1, got {self.drops}")
        if not self.lr > 0 or not 0 < self.layer_decay <= 1 or not 0 <= self.warmup < 1 or not self.weight_decay >= 0:
            raise ValueError(
                "optimizer.lr must be above 0, layer_decay in (0, 1], warmup in [0, 1), weight_decay not negative"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """[run]: how long and on what."""

    steps: int  #: optimizer steps, whatever the number of images
    batch: int  #: images per step over all devices; never more than there are
    max_device_batch: int = 64  #: images that fit on one device
    shots: int = 0  #: learn from so many images only; 0 = all
    seed: int = 0  #: of the head's weights, the order, the augmentation, and which images the shots are
    precision: Literal["no", "tf32", "bf16", "fp16"] = "no"
    augment: bool = True  #: as the task does
    num_threads: int = 2
    log_every: int = 20  #: steps
    checkpoint_every: int = 0  #: steps; 0 = at the end only
    evaluate_every: int = 0  #: steps between scores on --val, the best of which are kept; 0 = at the end only
    keep_checkpoints: int = 1
    max_skipped_steps: int = 10  #: steps in a row without a finite loss and gradient

    def __post_init__(self) -> None:
        least = {"steps": 1, "batch": 1, "max_device_batch": 1, "num_threads": 1, "log_every": 1, "keep_checkpoints": 1}
        for name, bound in {
            **least,
            "shots": 0,
            "checkpoint_every": 0,
            "evaluate_every": 0,
            "seed": 0,
            "max_skipped_steps": 1,
        }.items():
            if getattr(self, name) < bound:
                raise ValueError(f"run.{name} must be at least {bound}, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """Everything about a run that is not a path."""

    task: str
    run: LoopConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    init: str = ""  #: for people: where the encoder's weights came from
    shift: float = 0.0  #: the model learns (label - shift) / unit; filled in from the training images
    unit: float = 0.0  #: 0 = not filled in yet

    def learning_rate(self, step: int) -> float:
        """Of the head, at step `step` (from 0)."""
        warmup = warmup_steps(self.run.steps, self.optimizer.warmup)
        return cosine_rate(step, peak=self.optimizer.lr, warmup=warmup, total=self.run.steps)


def read_config(path: Path, assignments: Iterable[str] = ()) -> FinetuneConfig:
    """The run that `path` (TOML) describes, changed by `assignments`. Raises ValueError naming file and key."""
    return config_from(merge(read_toml(path), parse_assignments(assignments, "--set")), str(path))


def config_from(values: Mapping[str, Any], where: str) -> FinetuneConfig:
    """The run that plain nested tables describe. Raises ValueError for unknown keys and wrong values."""
    return from_mapping(FinetuneConfig, values, where)
