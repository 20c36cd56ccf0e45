"""Pretrain MAE, CroCo or DINO on shards of image pairs or single images: the run, to be read from top to bottom.

    python train/pretrain.py train/configs/demo.toml --data shards/demo                            (one device)
    accelerate launch --multi_gpu train/pretrain.py train/configs/croco_vitb16.toml --data DIR     (all GPUs)

Writes to the output folder: checkpoint-STEP/, log.jsonl, tensorboard/, skipped.jsonl (steps without a finite loss or
gradient, and what they saw), pictures/STEP.png every run.look_every steps and, at the end, reconstructions.png.
Exit codes: 0 done, 1 failed, 2 wrong arguments, config or data, 130 interrupted (a checkpoint is saved; use --resume).
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import TypeAlias, Unpack

try:
    import torch
    from accelerate import Accelerator
    from accelerate.utils import gather_object
    from torch import Tensor

    from mimic_wds.loading.batch import ImageBatch, PairBatch
    from mimic_wds.loading.dataset import ImageDataset, PairDataset
    from mimic_wds.loading.faults import FaultPolicy
    from mimic_wds.loading.images import ImageLoader
    from mimic_wds.loading.joined import JoinedDataset, open_data
    from mimic_wds.loading.loader import Share
    from mimic_wds.loading.origin import Origin
    from mimic_wds.loading.pairs import PairLoader
    from mimic_wds.loading.remote import Remote
    from mimic_wds.loading.transforms import normalize
    from mimic_wds.models.build import PretrainingModel, build_model
    from mimic_wds.models.published import load_published
    from mimic_wds.models.vit import recompute_activations
    from mimic_wds.training import checkpoint
    from mimic_wds.training.banner import banner
    from mimic_wds.training.batches import BatchPlan, plan_batches, step_noise
    from mimic_wds.training.config import Preset, RunConfig, config_values, flatten, read_config
    from mimic_wds.training.engine import SkipGuard, TrainingDiverged, build_accelerator, optimizer_step, slow_precision
    from mimic_wds.training.inputs import model_inputs, step_draws
    from mimic_wds.training.looks import Look
    from mimic_wds.training.measures import Measures
    from mimic_wds.training.meters import Meter
    from mimic_wds.training.optimizer import build_optimizer
    from mimic_wds.training.schedule import set_learning_rate, set_weight_decay
    from mimic_wds.training.sharding import blocks, is_sharded, shard, whole
    from mimic_wds.training.signals import StopSignal
    from mimic_wds.training.trackers import LOG_NAME, LogRecord, Report, Trackers, loss_summary, other_trackers
except ModuleNotFoundError as error:
    sys.exit(f"pretrain: {error.name} is missing; install what training needs with: pip install 'mimic-wds[train]'")

FAULTS_NAME = "faults.json"  #: samples that could not be used, by reason, of all processes

#: Samples that the numbers of a look are taken over.
LOOKED_AT = 64

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

AnyDataset: TypeAlias = PairDataset | ImageDataset | JoinedDataset
AnyLoader: TypeAlias = PairLoader | ImageLoader


class DataError(RuntimeError):
    """The loader gave up."""


def main() -> int:
    """Arguments, config, devices, data; then train. Returns the exit code."""
    args = parse_arguments()
    try:
        config = read_config(args.config, args.set, {"run": flags(args)})
        accelerator = build_accelerator(config.run.precision)
        if config.run.shard and accelerator.num_processes == 1:
            raise ValueError("run.shard = true cuts the model up over several processes, and there is one")
        plan, loader = open_loader(args.data, config, accelerator)
        look_at = open_data([args.look_at], remote_of(config)) if args.look_at else None
        if look_at is not None:
            check_fit(look_at, config)
        found = checkpoint.find(args.output, config, resume=args.resume)
        if found:
            loader.load_state(dict(found[1].loader), adapt=args.adapt)
        bare = start(config, None if found else args.init)
        report = other_trackers(accelerator, config.run.trackers, args.output, flatten(config_values(config)))
    except (ValueError, OSError) as error:
        return complain(error, USAGE)
    try:
        return train(args.output, config, accelerator, bare, plan, loader, look_at, found[0] if found else None, report)
    except torch.OutOfMemoryError as error:
        return complain(f"out of memory; lower run.max_device_batch ({config.run.max_device_batch}): {error}", FAILED)
    except (DataError, TrainingDiverged, ValueError, OSError) as error:
        return complain(error, FAILED)
    finally:
        accelerator.end_training()


def train(
    output: Path,
    config: RunConfig,
    accelerator: Accelerator,
    bare: PretrainingModel,
    plan: BatchPlan,
    loader: AnyLoader,
    look_at: AnyDataset | None,
    newest: Path | None,
    report: Report | None,
) -> int:
    """The run itself, from the beginning or from the checkpoint `newest`. Returns the exit code."""
    run, device, is_main = config.run, accelerator.device, accelerator.is_main_process
    per_epoch = loader.steps_per_epoch
    last_step = min(run.epochs * per_epoch, run.max_steps or sys.maxsize)

    # The loader is never given to `prepare`: rank 0 would read everything and hand it out.
    bare.to(device)
    recompute_activations(bare, run.recompute)
    if run.compile:
        for part in blocks(bare) if run.shard else [bare]:
            part.compile()  # in place: names of weights stay
    if run.shard:
        shard(bare, device, accelerator.num_processes)
    optimizer = build_optimizer(
        bare, lr=config.peak_lr, weight_decay=config.optimizer.weight_decay, betas=config.optimizer.betas
    )
    # What is cut up averages its gradients itself: "evaluation" keeps accelerate from wrapping it for that.
    model = accelerator.prepare_model(bare, evaluation_mode=run.shard)
    optimizer = accelerator.prepare_optimizer(optimizer)
    step = checkpoint.restore(newest, bare, optimizer, accelerator.scaler).step if newest else 0
    if is_main:
        show_plan(output, config, plan, loader, accelerator, bare, step + 1, last_step)

    epoch, done = loader.position
    guard, meter, stopped = SkipGuard(run.max_skipped_steps), Meter(), False
    origin = Origin(loader.dataset, loader.order)
    measures = Measures(origin.names, device)
    look = make_look(config, look_at or loader.dataset, device) if is_main else None
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignal())
        trackers = stack.enter_context(Trackers(output, step, last_step, report)) if is_main else None

        while step < last_step and not stopped:
            batches = stack.enter_context(closing(read(loader, epoch, done)))
            arriving = meter.watch(batches)

            first, last = step + 1, min(last_step, step + per_epoch - done)
            for step in range(first, last + 1):
                at = (step - 1) / per_epoch  # epochs, fractional
                set_learning_rate(optimizer, lr := config.learning_rate(at))
                set_weight_decay(optimizer, config.weight_decay(at))
                bare.begin_step(at)
                notes = Notes(origin, epoch, done + step - first)
                inputs = feed(islice(arriving, plan.accumulation), config, step_draws(config, step - 1), device, notes)
                result = optimizer_step(
                    accelerator,
                    model,
                    optimizer,
                    inputs,
                    plan.accumulation,
                    clip_grad_norm=config.optimizer.clip_grad_norm,
                    clip_each_norm=config.optimizer.clip_each_norm,
                    stop=signals.requested,
                    observe=lambda output, notes=notes: measures.add(output, notes.sources),
                )
                if not result.skipped:
                    bare.finish_step(config.progress(at))
                meter.add(loader.order.global_batch)
                warning = guard.observe(result, bare, step=step, lr=lr, precision=run.precision)
                stopped = result.stop

                all_keys = gather_object(notes.keys) if warning else []
                looking = run.look_every and step % run.look_every == 0
                logged = step in (1, last_step) or step % run.log_every == 0 or warning or looking
                measured = measures.read(accelerator) if logged else {}
                shown = to_show(bare, config, device, is_main) if looking else bare
                if trackers:
                    trackers.step(step)
                if trackers and logged:
                    looked = look if looking else None
                    seen = looked.attention(shown) if looked else None
                    measured |= looked.losses(shown) if looked else {}
                    record = LogRecord.of(
                        result,
                        step=step,
                        steps_per_epoch=per_epoch,
                        lr=lr,
                        speed=meter.read(),
                        attention=seen.share if seen else None,
                        measures=measured | ({"attention_same_place": seen.same_place} if seen else {}),
                    )
                    trackers.log(record)
                    if looked:
                        looked.picture(shown, output / "pictures" / f"{step:07d}.png")
                    if warning:
                        print(warning, file=sys.stderr, flush=True)
                        trackers.skipped(step, result.skipped, all_keys)
                if stopped or step == last_step or step % (run.checkpoint_every or per_epoch) == 0:
                    tensors = whole(bare, bare, keep=is_main), whole(optimizer, bare, keep=is_main)
                    if is_main:
                        state = checkpoint.TrainState(
                            step=step, epoch=step / per_epoch, loader=loader.state(), config=config
                        )
                        checkpoint.save(
                            output, state, *tensors, accelerator.scaler, run.keep_checkpoints, run.keep_every
                        )
                    accelerator.wait_for_everyone()
                if stopped:
                    break
            epoch, done = epoch + 1, 0

    faults = gather_object([loader.fault_counts.as_plain()])
    if is_main and any(each["reasons"] for each in faults):
        loader.write_faults(output / FAULTS_NAME, faults)
        print(f"pretrain: some samples could not be used, see {output / FAULTS_NAME}", file=sys.stderr)
    if step < last_step:
        accelerator.print(f"interrupted after step {step}; go on with --resume")
        return INTERRUPTED
    shown = to_show(bare, config, device, is_main)
    if look:
        look.picture(shown, output / "reconstructions.png")
        if (agreement := look.attention(shown)) is not None:
            print(
                f"attention agreement {agreement.share:.1%} (looking at the same place {agreement.same_place:.1%}, "
                f"anywhere {agreement.chance:.1%})"
            )
    if is_main:
        if len(seen := loader.seen()) > 1:
            print("seen: " + ", ".join(f"{count:,} of {name}" for name, count in seen.items()))
        print(f"{loss_summary(output / LOG_NAME)}  ({step} steps; {output})")
    return DONE


def parse_arguments() -> argparse.Namespace:
    """The command line: the config, and what changes from machine to machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="TOML file, see train/configs")
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="[NAME=]DIR|URL",
        help="a data set; several are mixed (data.weights, data.temperature)",
    )
    parser.add_argument("--look-at", metavar="DIR|URL", help="held-out samples for pictures; default: some of --data")
    parser.add_argument(
        "--init", type=Path, metavar="FILE|RUN", help="weights to start from: a published file, or a run of this script"
    )
    parser.add_argument("--output", type=Path, help="folder to write to; default: runs/NAME-OF-THE-CONFIG")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the output folder")
    parser.add_argument("--adapt", action="store_true", help="with --resume: go on although the data set has changed")
    parser.add_argument("--epochs", type=int, help="instead of run.epochs (the schedule follows)")
    parser.add_argument("--steps", type=int, help="stop after so many optimizer steps (the schedule is unchanged)")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change any config key")
    args = parser.parse_args()
    args.output = args.output or Path("runs") / args.config.stem
    return args


def flags(args: argparse.Namespace) -> dict[str, int]:
    """Keys of [run] that have a flag of their own."""
    given = {"epochs": args.epochs, "max_steps": args.steps}
    return {key: value for key, value in given.items() if value is not None}


def start(config: RunConfig, init: Path | None) -> PretrainingModel:
    """The model with fresh weights, or those of `init` where it has them. Raises ValueError when they do not fit."""
    torch.manual_seed(config.run.seed)
    bare = build_model(config.model)
    if init:
        folder = latest_of(init)
        report = load_published(bare, folder / checkpoint.MODEL_NAME if folder else init)
        bare.weights_were_loaded()
        if os.environ.get("RANK", "0") == "0":
            print(f"init    {init}")
            for what, count, names in report.rows():
                print(f"        {count:4} {what:<12}{names}")
    return bare


def latest_of(init: Path) -> Path | None:
    """The checkpoint that a folder is or has; None for a file."""
    return init if (init / checkpoint.STATE_NAME).is_file() else checkpoint.latest(init)


def open_loader(addresses: list[str], config: RunConfig, accelerator: Accelerator) -> tuple[BatchPlan, AnyLoader]:
    """This process's share of the data. Raises ValueError when data set, model and batch do not fit together."""
    data, dataset = config.data, open_data(addresses, remote_of(config))
    check_fit(dataset, config)
    per_record = config.samples_per_pair if dataset.kind == "pairs" else 1
    available = len(dataset) * per_record
    if data.global_batch > available:
        raise ValueError(
            f"data.global_batch = {data.global_batch} is more than the {available} {config.unit} in {dataset.folder}; "
            "lower it or build a larger data set"
        )
    num_processes = accelerator.num_processes
    plan = plan_batches(data.global_batch, num_processes, config.run.max_device_batch, per_record)
    loader = make_loader(
        dataset,
        config,
        augmentation=data.augmentation,
        global_batch=plan.records,
        seed=config.run.seed,
        rank=accelerator.process_index,
        world_size=num_processes,
        accumulation=plan.accumulation,
        num_threads=data.num_threads,
        **order_of(dataset, config, plan.records),
        policy=FaultPolicy(action=data.bad_samples, share=data.max_bad_share, count=data.max_bad_count),
        pin_memory=accelerator.device.type == "cuda",
    )
    return plan, loader


def remote_of(config: RunConfig) -> Remote:
    """How data sets that do not lie here are read."""
    data = config.data
    return Remote(
        endpoint=data.endpoint,
        anonymous=data.anonymous,
        cache=data.cache,
        cache_bytes=int(data.cache_gb * 1e9),
        verify=data.verify_cache,
    )


def order_of(dataset: AnyDataset, config: RunConfig, records: int) -> Share:
    """What makes the order of the samples: lanes and window, or the mixture of several data sets."""
    data = config.data
    if isinstance(dataset, JoinedDataset):
        mixture = dataset.mixture(records, data.weights or None, temperature=data.temperature, seed=config.run.seed)
        return {"order": mixture}
    if data.weights:
        raise ValueError(f"data.weights = {data.weights} weigh several data sets; only {dataset.folder} is given")
    return {"lanes": data.lanes or None, "window": data.window or None}


def check_fit(dataset: AnyDataset, config: RunConfig) -> None:
    """Raise ValueError when the model cannot be trained on such samples."""
    folder, size = dataset.folder, config.model.image_size
    if dataset.kind == "images":
        if config.model.objective == "croco":
            raise ValueError(
                f'{folder} holds single images, but model.objective = "croco" needs pairs: set it to "mae" or "dino", '
                "or give a data set of pairs"
            )
    elif config.model.image_shape[0] != config.model.image_shape[1]:
        raise ValueError(
            f"{folder} holds pairs of {dataset.size}x{dataset.size} pixels, which are given as squares, but "
            f"model.image_size = {size}; set it to one number"
        )


def make_loader(dataset: AnyDataset, config: RunConfig, *, augmentation: Preset, **share: Unpack[Share]) -> AnyLoader:
    """The loader of pairs, or of single images: those it crops itself, since they have any sizes."""
    if dataset.kind == "pairs":
        return PairLoader(dataset, augmentation=augmentation, size=config.model.image_shape[0], **share)
    return ImageLoader(dataset, augmentation=augmentation, size=config.model.image_shape, **share)


def normalized(batch: PairBatch | ImageBatch, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor]:
    """What `model_inputs` takes of a batch: image 0, image 1 (None of single images) and rows."""
    if isinstance(batch, ImageBatch):
        return normalize(batch.image, device, batch.jitter), None, batch.rows
    image0, image1 = normalize(batch.image0, device, batch.jitter0), normalize(batch.image1, device, batch.jitter1)
    return image0, image1, batch.rows


class Notes:
    """What a step of an epoch has seen."""

    def __init__(self, origin: Origin, epoch: int, step: int) -> None:
        self.origin, self.epoch, self.step = origin, epoch, step
        self.keys: list[str] = []
        self.sources = torch.empty(0)  #: (B,) of the micro-batch that was given last

    def take(self, batch: PairBatch | ImageBatch) -> None:
        """Note a micro-batch."""
        self.keys.extend(batch.keys)
        self.sources = self.origin.numbers(batch.keys, batch.rows, self.epoch, self.step)


def feed(
    batches: Iterable[PairBatch | ImageBatch], config: RunConfig, draws: Tensor, device: torch.device, notes: Notes
) -> Iterator[tuple[Tensor, ...]]:
    """What the model is called with, one micro-batch at a time."""
    for batch in batches:
        notes.take(batch)
        yield model_inputs(config, *normalized(batch, device), draws)


def read(loader: AnyLoader, epoch: int, first_step: int) -> Iterator[PairBatch | ImageBatch]:
    """The loader's micro-batches of an epoch, with its giving up told from other errors."""
    try:
        yield from loader.epoch(epoch, first_step)
    except RuntimeError as error:
        raise DataError(str(error)) from error


def show_plan(
    output: Path,
    config: RunConfig,
    plan: BatchPlan,
    loader: AnyLoader,
    accelerator: Accelerator,
    model: torch.nn.Module,
    first_step: int,
    last_step: int,
) -> None:
    """Say what is going to happen."""
    text = banner(
        config,
        plan,
        parameters=sum(p.numel() for p in model.parameters()),
        device=accelerator.device,
        data=str(loader.dataset.folder),
        kind=loader.dataset.kind,
        num_records=len(loader.dataset),
        steps_per_epoch=loader.steps_per_epoch,
        first_step=first_step,
        last_step=last_step,
        output=str(output),
    )
    print(text, flush=True)
    if warning := slow_precision(config.run.precision, accelerator.device):
        print(f"pretrain: {warning}", file=sys.stderr, flush=True)


def to_show(bare: PretrainingModel, config: RunConfig, device: torch.device, is_main: bool) -> PretrainingModel:
    """The model as one process can call it alone: of one that is cut up, a whole copy on the main process."""
    if not is_sharded(bare):
        return bare
    weights = whole(bare, bare, keep=is_main).state_dict()
    if not is_main:
        return bare
    copy = build_model(config.model)
    copy.load_state_dict(weights)
    return copy.to(device)


def make_look(config: RunConfig, dataset: AnyDataset, device: torch.device) -> Look | None:
    """A few samples to look at (of the first data set), the same ones for the same data and seed; DINO paints none."""
    if config.model.objective == "dino":
        return None
    if isinstance(dataset, JoinedDataset):
        dataset = dataset.parts[0]
    num = min(LOOKED_AT, len(dataset))
    loader = make_loader(dataset, config, augmentation="none", global_batch=num, seed=config.run.seed)
    with closing(read(loader, 0, 0)) as batches:
        batch = next(batches)
    noise = step_noise(config.run.seed, 0, num, config.model.num_patches).to(device)
    image0, image1, _ = normalized(batch, device)
    # Correspondences are of the patches that are stored: as many as the model's, whatever their size in pixels.
    same = isinstance(batch, PairBatch) and batch.corr_0to1.shape[1] == config.model.num_patches
    corr = batch.corr_0to1.to(device) if same else None
    return Look(config, image0, image1, corr, noise)


def complain(error: object, code: int) -> int:
    """Say on one line what is wrong (wrong settings once, however many processes there are); returns `code`."""
    if code == FAILED or os.environ.get("RANK", "0") == "0":
        print(f"pretrain: {error}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
