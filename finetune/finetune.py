"""Finetune an encoder on a dense task, or train a head on a frozen one: the run, to be read from top to bottom.

    python finetune/finetune.py finetune/configs/depth.toml --data DIR --init runs/croco --output runs/depth-croco
    accelerate launch --multi_gpu finetune/finetune.py finetune/configs/depth.toml --data DIR --init random

DIR is a data set of single images with the task's labels, as `mimic-shard render-labels` makes them. `--init` is
"random", a checkpoint, or the output of train/pretrain.py; what was loaded is printed. Writes checkpoint-STEP/ and
log.jsonl; finetune/evaluate.py scores the result.
Exit codes: 0 done, 1 failed, 2 wrong arguments, config or data, 130 interrupted (a checkpoint is saved; use --resume).
"""

import argparse
import json
import sys
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

try:
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs

    from mimic_wds.downstream.config import FinetuneConfig, read_config
    from mimic_wds.downstream.data import choose, first_labels, forever, make_loader, open_labelled
    from mimic_wds.downstream.fewshot import batch_for
    from mimic_wds.downstream.model import (
        Learner,
        build_model,
        load_encoder,
        read_loader_state,
        read_run,
        restore,
    )
    from mimic_wds.downstream.optimizer import build_adamw, rate_table
    from mimic_wds.downstream.tasks.base import Scale
    from mimic_wds.downstream.tasks.registry import dense_task
    from mimic_wds.loading.transforms import normalize
    from mimic_wds.training import checkpoint
    from mimic_wds.training.batches import plan_batches
    from mimic_wds.training.engine import SkipGuard, TrainingDiverged, build_accelerator, optimizer_step
    from mimic_wds.training.schedule import set_learning_rate
    from mimic_wds.training.signals import StopSignal
except ModuleNotFoundError as error:
    sys.exit(f"finetune: {error.name} is missing; install what training needs with: pip install 'mimic-wds[train]'")

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main() -> int:
    """Arguments and config; then train. Returns the exit code."""
    args = parse_arguments()
    try:
        config = read_config(args.config, args.set)
        dense_task(config.task)
        accelerator = build_accelerator(config.run.precision)
        # DPT holds a residual unit that the published models never use either: no gradient will come for it.
        accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        if checkpoint.checkpoints(args.output) and not args.resume:
            raise ValueError(f"{args.output} holds a run already: add --resume to go on, or change --output")
    except (ValueError, OSError) as error:
        return complain(error, USAGE)
    try:
        return train(args, config, accelerator)
    except ValueError as error:
        return complain(error, USAGE)
    except (TrainingDiverged, RuntimeError, OSError) as error:
        return complain(error, FAILED)
    finally:
        accelerator.end_training()


def train(args: argparse.Namespace, config: FinetuneConfig, accelerator: Accelerator) -> int:
    """The run itself. Returns the exit code."""
    # --- data: all of it, or the shots of this seed
    run, device, is_main = config.run, accelerator.device, accelerator.is_main_process
    task = dense_task(config.task)
    chosen = choose(open_labelled(args.data, task), run.shots, run.seed)
    plan = plan_batches(batch_for(len(chosen), run.batch), accelerator.num_processes, run.max_device_batch)
    loader = make_loader(
        chosen,
        task,
        size=config.model.image_size,
        augment=run.augment,
        seed=run.seed,
        global_batch=plan.global_batch,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        accumulation=plan.accumulation,
        num_threads=run.num_threads,
    )

    # --- model: the checkpoint of this run, or the pretrained encoder under a fresh head
    newest = checkpoint.latest(args.output)
    step = 0
    if newest:
        config, step = resumed(newest, config)
        loader.load_state(read_loader_state(newest))
    else:
        scale = task.fit(first_labels(chosen, task))
        outputs = task.outputs(chosen.manifest)
        config = replace(
            config, model=replace(config.model, outputs=outputs), init=args.init, shift=scale.shift, unit=scale.unit
        )
    torch.manual_seed(run.seed)
    bare = build_model(config)
    loaded = "this run's checkpoint" if newest else load_encoder(bare, args.init)
    bare.to(device)
    torch.manual_seed(run.seed + accelerator.process_index)  # stochastic depth
    optimizer = build_adamw(
        bare,
        depth=len(bare.encoder.blocks),
        lr=config.optimizer.lr,
        weight_decay=config.optimizer.weight_decay,
        layer_decay=config.optimizer.layer_decay,
    )
    if newest:
        restore(newest, bare, optimizer, accelerator.scaler)
    learner, optimizer = accelerator.prepare(Learner(bare, task, Scale(config.shift, config.unit)), optimizer)
    learner.train()
    if is_main:
        show_plan(config, args, len(chosen), loaded, bare, optimizer)

    # --- loop
    guard, stopped = SkipGuard(run.max_skipped_steps), False
    epoch, done = loader.position
    log = Log(args.output, step) if is_main else None
    with StopSignal() as signals, closing(forever(loader.epoch, epoch, done)) as batches:
        while step < run.steps and not stopped:
            set_learning_rate(optimizer, rate := config.learning_rate(step))
            inputs = (
                (normalize(batch.image, device, batch.jitter), batch.label.to(device))
                for batch in islice(batches, plan.accumulation)
            )
            result = optimizer_step(
                accelerator,
                learner,
                optimizer,
                inputs,
                plan.accumulation,
                clip_grad_norm=config.optimizer.clip_grad_norm,
                stop=signals.requested,
            )
            step, stopped = step + 1, result.stop
            if warning := guard.observe(result, bare, step=step, lr=rate, precision=run.precision):
                accelerator.print(warning, file=sys.stderr, flush=True)
            if log and (step in (1, run.steps) or step % run.log_every == 0):
                log.write(step=step, loss=result.loss, lr=rate, grad_norm=result.grad_norm, epoch=loader.position[0])
            due = run.checkpoint_every and step % run.checkpoint_every == 0
            if is_main and (stopped or due or step == run.steps):
                state = checkpoint.TrainState(
                    step=step, epoch=float(loader.position[0]), loader=loader.state(), config=config
                )
                checkpoint.save(args.output, state, bare, optimizer, accelerator.scaler, run.keep_checkpoints)
            accelerator.wait_for_everyone()
    if step < run.steps:
        accelerator.print(f"interrupted after step {step}; go on with --resume")
        return INTERRUPTED
    return DONE


class Log:
    """``log.jsonl``, and the same on the console. Lines behind the step that a run goes on from are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        self.path.write_text("".join(f"{line}\n" for line in kept))

    def write(self, **values: float) -> None:
        """One line."""
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")
        print("  ".join(f"{name} {value:.5g}" for name, value in values.items()), flush=True)


def resumed(newest: Path, config: FinetuneConfig) -> tuple[FinetuneConfig, int]:
    """The config of a run that goes on, and its steps. Raises ValueError when `config` asks for another run."""
    _, before, step = read_run(newest)
    asked = replace(
        config, model=replace(config.model, outputs=before.model.outputs), init=before.init, shift=before.shift,
        unit=before.unit,
    )  # fmt: skip
    if asked != before:
        raise ValueError(f"{newest} was written with other settings; resume with the same config")
    return before, step


def show_plan(config, args, num_images, loaded, model, optimizer) -> None:
    """What the run is about to do."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rates = {rate for _, rate, _ in rate_table(optimizer.param_groups, config.optimizer.lr)}
    print(
        f"task    {config.task} on {num_images} images of {args.data}\n"
        f"init    {loaded}\n"
        f"model   {config.model.size}, {trained:,} trained parameters{', encoder frozen' * config.model.frozen}\n"
        f"rates   {min(rates):.3g} (first layer) to {max(rates):.3g} (head), warm-up {config.optimizer.warmup:.0%}\n"
        f"run     {config.run.steps} steps of {batch_for(num_images, config.run.batch)} images, seed {config.run.seed}",
        flush=True,
    )


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="TOML file, see finetune/configs")
    parser.add_argument("--data", required=True, metavar="DIR|URL", help="labelled images to learn from")
    parser.add_argument("--init", required=True, metavar="random|DIR", help="where the encoder's weights come from")
    parser.add_argument("--output", type=Path, help="folder to write to; default: runs/NAME-OF-THE-CONFIG")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the output folder")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change any config key")
    args = parser.parse_args()
    args.output = args.output or Path("runs") / args.config.stem
    return args


def complain(error: object, code: int) -> int:
    """Say on one line what is wrong; returns `code`."""
    print(f"finetune: {error}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
