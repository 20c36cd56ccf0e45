"""A run as one frozen tree of plain values, read from a TOML file and from ``--set table.key=value``.

[model] what is trained, [data] what it sees in one step, [optimizer] how it learns, [run] how long, where and how often
something is written. The whole tree is stored in every checkpoint.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from mimic_wds.models.build import ModelConfig
from mimic_wds.models.dino_recipe import cosine
from mimic_wds.settings import from_mapping, merge, parse_assignments, read_toml
from mimic_wds.training.schedule import learning_rate, peak_learning_rate

#: The presets of `mimic_wds/loading/augment.py`.
Preset: TypeAlias = Literal["none", "mimic", "croco", "mae"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """[data]: what one optimizer step sees."""

    global_batch: int  #: samples per optimizer step over all devices: pairs for "croco", else images
    num_threads: int = 2  #: JPEG decoding threads per process
    augmentation: Preset = "mimic"  #: what is done to the views, by name: see mimic_wds/loading/augment.py
    lanes: int = 0  #: streams that the shards are dealt to, see mimic_wds/loading/order.py; 0 = up to 64
    window: int = 0  #: shards that are shuffled together in a lane; 0 = 1024 / lanes
    bad_samples: Literal["skip", "raise"] = "skip"  #: replace a sample that cannot be read, or stop at the first
    max_bad_share: float = 0.001  #: of the data set that may be bad, and never less than
    max_bad_count: int = 10  #: so many samples, before the run stops
    weights: dict[str, float] = field(default_factory=dict)  #: of several data sets by name; none = by their sizes
    temperature: float = 1.0  #: sizes to the power of 1 / temperature weigh them: 1 = in proportion, more = more evenly
    endpoint: str = ""  #: address of an S3-compatible service; "" = AWS_ENDPOINT_URL or the provider's own
    cache: str = ""  #: folder for fetched shards; "" = $MIMIC_WDS_CACHE or the user's, "none" = read by ranges instead
    cache_gb: float = 0.0  #: what it may take; 0 = half of what is free there
    verify_cache: bool = True  #: hash shards that are in the cache already when they are opened
    anonymous: bool = False  #: send no credentials, for public buckets

    def __post_init__(self) -> None:
        _at_least("data", self, global_batch=1, num_threads=1, lanes=0, window=0, max_bad_share=0, max_bad_count=0)
        _at_least("data", self, temperature=0, cache_gb=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """[optimizer]: AdamW and its learning rate; defaults are the recipe of MIMIC (arXiv 2306.15128), MAE and CroCo."""

    base_lr: float = 1.5e-4  #: for 256 samples per step; the peak is base_lr * data.global_batch / 256
    min_lr: float = 0.0
    warmup_epochs: float = 0.0  #: linear from 0
    schedule_epochs: float = 0.0  #: where the cosine reaches min_lr; 0 = run.epochs
    weight_decay: float = 0.05
    weight_decay_end: float = 0.0  #: reached along half a cosine at the end of the schedule (DINO); 0 = no change
    betas: tuple[float, float] = (0.9, 0.95)
    clip_grad_norm: float = 0.0  #: largest norm of the gradient; 0 = no limit
    clip_each_norm: float = 0.0  #: largest norm of the gradient of each tensor by itself (DINO); 0 = no limit

    def __post_init__(self) -> None:
        _at_least("optimizer", self, base_lr=0, min_lr=0, warmup_epochs=0, schedule_epochs=0)
        _at_least("optimizer", self, weight_decay=0, weight_decay_end=0, clip_grad_norm=0, clip_each_norm=0)
        if self.weight_decay_end and not self.weight_decay:
            raise ValueError("optimizer.weight_decay_end needs a weight_decay above 0 to start from")
        if self.clip_grad_norm and self.clip_each_norm:
            raise ValueError("optimizer.clip_grad_norm and clip_each_norm exclude each other: set one of them to 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas must lie in [0, 1), got {list(self.betas)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """[run]: how long, on what, and how often something is written."""

    epochs: int
    max_steps: int = 0  #: stop after this many optimizer steps, the schedule unchanged; 0 = all epochs
    seed: int = 0  #: of the initial weights, the order of the data and the masks
    precision: Literal["no", "tf32", "bf16", "fp16"] = "no"
    max_device_batch: int = 64  #: what fits on one device, in the unit of data.global_batch
    recompute: bool = False  #: keep no activations within blocks: a third slower, far less memory
    shard: bool = False  #: cut weights, gradients and AdamW's state up over all processes (FSDP2): for large models
    compile: bool = False  #: let torch compile the model: faster on GPUs, a minute or two at the start
    log_every: int = 20  #: optimizer steps
    checkpoint_every: int = 0  #: optimizer steps; 0 = at the end of every epoch
    keep_checkpoints: int = 3  #: the newest ones
    keep_every: int = 0  #: optimizer steps; checkpoints at multiples of it are never deleted; 0 = none
    look_every: int = 0  #: optimizer steps between two looks at what the model does (pictures/, attention agreement)
    max_skipped_steps: int = 10  #: stop after this many steps in a row without a finite loss and gradient
    trackers: tuple[str, ...] = ()  #: beside log.jsonl and TensorBoard, those that accelerate knows: "wandb", "mlflow"

    def __post_init__(self) -> None:
        _at_least(
            "run",
            self,
            epochs=1,
            max_steps=0,
            seed=0,
            max_device_batch=1,
            log_every=1,
            checkpoint_every=0,
            keep_checkpoints=1,
            keep_every=0,
            look_every=0,
            max_skipped_steps=1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything about a run that is not a path."""

    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig
    run: LoopConfig

    def __post_init__(self) -> None:
        if self.optimizer.warmup_epochs >= self.schedule_epochs:
            raise ValueError(
                f"optimizer.warmup_epochs = {self.optimizer.warmup_epochs:g} leaves nothing of a schedule of "
                f"{self.schedule_epochs:g} epochs; lower it, or raise run.epochs or optimizer.schedule_epochs"
            )
        if self.schedule_epochs < self.run.epochs:
            raise ValueError(
                f"optimizer.schedule_epochs = {self.schedule_epochs:g} ends before run.epochs = {self.run.epochs}; "
                "raise it, or leave it out to end with the run"
            )
        if self.run.shard and self.model.objective == "dino":
            raise ValueError(
                "run.shard cuts up MAE and CroCo; the teacher of DINO follows whole weights: set it to false"
            )
        if self.run.shard and self.run.precision == "fp16":
            raise ValueError('run.shard goes without the loss scale of fp16: set run.precision to "bf16" or "no"')
        for key, size in (
            ("data.global_batch", self.data.global_batch),
            ("run.max_device_batch", self.run.max_device_batch),
        ):
            if size % self.samples_per_pair:
                raise ValueError(f"{key} = {size} counts images, and both images of a pair are used: make it even")

    @property
    def schedule_epochs(self) -> float:
        """Where the cosine ends: its own key, or the end of the run."""
        return self.optimizer.schedule_epochs or float(self.run.epochs)

    @property
    def peak_lr(self) -> float:
        """Learning rate at the end of the warm-up."""
        return peak_learning_rate(self.optimizer.base_lr, self.data.global_batch)

    def learning_rate(self, epoch: float) -> float:
        """Learning rate at a fractional epoch."""
        return learning_rate(
            epoch,
            peak=self.peak_lr,
            warmup_epochs=self.optimizer.warmup_epochs,
            schedule_epochs=self.schedule_epochs,
            minimum=self.optimizer.min_lr,
        )

    def progress(self, epoch: float) -> float:
        """Share of the schedule that is done at a fractional epoch, 0 to 1."""
        return min(epoch / self.schedule_epochs, 1.0)

    def weight_decay(self, epoch: float) -> float:
        """Weight decay at a fractional epoch."""
        start, end = self.optimizer.weight_decay, self.optimizer.weight_decay_end
        return cosine(start, end, self.progress(epoch)) if end else start

    @property
    def samples_per_pair(self) -> int:
        """Samples that the model makes of one pair: CroCo takes it whole, MAE and DINO its two images one by one."""
        return 1 if self.model.objective == "croco" else 2

    @property
    def unit(self) -> str:
        """What samples are called."""
        return "pairs" if self.model.objective == "croco" else "images"


def read_config(path: Path, assignments: Iterable[str] = (), overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The run that `path` (TOML) describes, changed by `assignments` ("table.key=value") and then by `overrides`.

    Raises ValueError with one message: a missing or malformed file, an unknown key (with the nearest known one), a
    value of the wrong type or out of range, keys that contradict each other.
    """
    values = merge(read_toml(path), parse_assignments(assignments, "--set"))
    return config_from(merge(values, overrides or {}), str(path))


def config_from(values: Mapping[str, Any], where: str) -> RunConfig:
    """The run that plain nested tables describe; `where` names their origin. Raises ValueError like `read_config`."""
    return from_mapping(RunConfig, values, where)


def config_values(config: RunConfig) -> dict[str, Any]:
    """Plain nested tables, ready for JSON; `config_from` reads them back."""
    return dataclasses.asdict(config)


def changed_keys(old: RunConfig, new: RunConfig) -> list[str]:
    """Keys that may not change when a run is resumed and did, as "data.global_batch (256, now 512)"."""
    fixed = ("model", "data.global_batch", "data.augmentation", "data.lanes", "data.window", "run.seed")
    before, now = flatten(config_values(old)), flatten(config_values(new))
    return [
        f"{key} ({before.get(key)}, now {value})"
        for key, value in now.items()
        if before.get(key) != value and key.startswith(fixed)
    ]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return result


def _at_least(table: str, values: object, **least: float) -> None:
    for key, bound in least.items():
        if not getattr(values, key) >= bound:  # "not >=" also catches nan
            raise ValueError(f"{table}.{key} must be at least {bound:g}, got {getattr(values, key)}")
