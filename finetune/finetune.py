"""Finetune an encoder on a task, or train a head on a frozen one: the run, to be read from top to bottom.

    python finetune/finetune.py finetune/configs/depth.toml --data DIR --init runs/croco --output runs/depth-croco
    accelerate launch --multi_gpu finetune/finetune.py finetune/configs/depth.toml --data DIR --init random

DIR is a data set with the task's labels, as `mimic-shard pack-labels` and `mimic-shard render-labels` make them.
`--init` is "random", a checkpoint, or the output of train/pretrain.py; what was loaded is printed. Writes
checkpoint-STEP/, log.jsonl and tensorboard/ and, with --val, best-STEP/; finetune/evaluate.py scores the result.
Exit codes: 0 done, 1 failed, 2 wrong arguments, config or data, 130 interrupted (a checkpoint is saved; use --resume).
"""

import argparse
import sys
import time
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

try:
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs

    from mimic_wds.downstream.config import FinetuneConfig, read_config
    from mimic_wds.downstream.data import choose, forever
    from mimic_wds.downstream.evaluation import evaluate
    from mimic_wds.downstream.fewshot import batch_for
    from mimic_wds.downstream.model import Learner, load_encoder, pretrained_weights, read_state
    from mimic_wds.downstream.optimizer import rate_table
    from mimic_wds.downstream.running import Log, headlines, is_better, told_plan
    from mimic_wds.downstream.tasks.registry import get_task
    from mimic_wds.training import checkpoint
    from mimic_wds.training.batches import plan_batches
    from mimic_wds.training.engine import SkipGuard, TrainingDiverged, build_accelerator, optimizer_step
    from mimic_wds.training.schedule import set_learning_rate
    from mimic_wds.training.signals import StopSignal
except ModuleNotFoundError as error:
    sys.exit(f"finetune: {error.name} is missing; install what training needs with: pip install 'mimic-wds[train]'")

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

LABELS_HELP = "labels beside the data set: pose has COCO's annotations and, to score, a detector's boxes"


def main() -> int:
    """Arguments and config; then train. Returns the exit code."""
    args = parse_arguments()
    try:
        config = replace(read_config(args.config, args.set), init=args.init)
        get_task(config.task)
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
    task = get_task(config.task)
    samples = task.samples(choose(task.open(args.data, args.labels), run.shots, run.seed))
    held_out = task.open(args.val, args.val_labels) if args.val else None
    plan = plan_batches(batch_for(len(samples), run.batch), accelerator.num_processes, run.max_device_batch)

    # --- model: the checkpoint of this run, or the pretrained encoder under a fresh head
    newest, step = None, 0
    if found := checkpoint.checkpoints(args.output):
        newest, state = checkpoint.newest_whole(found, read_state)
        config, step = same_run(newest, state.config, config), state.step
    else:
        weights = pretrained_weights(args.init)
        config = task.fill_in(config, samples, weights)
    torch.manual_seed(run.seed)
    bare = task.build(config)
    loaded = "this run's checkpoint" if newest else load_encoder(task, bare, weights, args.init)
    bare.to(device)
    torch.manual_seed(run.seed + accelerator.process_index)  # stochastic depth
    optimizer = task.optimizer(bare, config)
    loader = task.loader(
        samples,
        config,
        global_batch=plan.global_batch,
        seed=run.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        accumulation=plan.accumulation,
        num_threads=run.num_threads,
    )
    if newest:
        loader.load_state(dict(state.loader))
        checkpoint.restore_tensors(newest, bare, optimizer, accelerator.scaler)
    learner, optimizer = accelerator.prepare(Learner(bare, task, config), optimizer)
    learner.train()
    if is_main:
        rates = [rate for _, rate, _ in rate_table(optimizer.param_groups, config.optimizer.lr)]
        trained = sum(p.numel() for p in bare.parameters() if p.requires_grad)
        batch, extremes = plan.global_batch, (min(rates), max(rates))
        print(told_plan(config, where=args.data, samples=len(samples), loaded=loaded, trained=trained, batch=batch,
                        rates=extremes), flush=True)  # fmt: skip

    # --- loop
    guard, stopped = SkipGuard(run.max_skipped_steps), False
    epoch, done = loader.position
    log = Log(args.output, step, run.steps) if is_main else None
    since, logged = time.monotonic(), step
    with StopSignal() as signals, closing(forever(loader.epoch, epoch, done)) as batches:
        while step < run.steps and not stopped:
            set_learning_rate(optimizer, rate := task.rate(config, step))
            inputs = (task.inputs(batch, device) for batch in islice(batches, plan.accumulation))
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
            values = {}
            if step in (1, run.steps) or step % run.log_every == 0:
                speed = (step - logged) * plan.global_batch / (time.monotonic() - since)
                values = {"loss": result.loss, "lr": rate, "grad_norm": result.grad_norm, "samples_per_s": speed}
                values["epoch"] = loader.position[0]
                since, logged = time.monotonic(), step
            state = checkpoint.TrainState(
                step=step, epoch=float(loader.position[0]), loader=loader.state(), config=config
            )
            if held_out and (step == run.steps or (run.evaluate_every and step % run.evaluate_every == 0)):
                rows = evaluate(task, bare, config, held_out, accelerator)
                if log:
                    values |= keep_if_best(
                        args.output, log, state, bare, task, headlines(task, task.scores(held_out, rows))
                    )
            if log and values:
                log.write(step, values)
            due = run.checkpoint_every and step % run.checkpoint_every == 0
            if is_main and (stopped or due or step == run.steps):
                checkpoint.save(args.output, state, bare, optimizer, accelerator.scaler, run.keep_checkpoints)
            accelerator.wait_for_everyone()
    if log:
        log.close()
    if step < run.steps:
        accelerator.print(f"interrupted after step {step}; go on with --resume")
        return INTERRUPTED
    return DONE


def keep_if_best(output, log, state, model, task, values) -> dict[str, float]:
    """Save the weights if the first of the scores `values` beats those before; returns `values`."""
    name, value = next(iter(values.items()))
    higher = task.protocols[0].higher_is_better
    if is_better(value, log.best(name, higher_is_better=higher), higher_is_better=higher):
        checkpoint.save_best(output, state, model)
    return values


def same_run(newest: Path, before: FinetuneConfig, config: FinetuneConfig) -> FinetuneConfig:
    """The config of a run that goes on, as it was filled in. Raises ValueError when `config` asks for another run."""
    model = before.model
    filled = replace(config.model, outputs=model.outputs, class_token=model.class_token, rotary=model.rotary)
    if replace(config, model=filled, init=before.init, shift=before.shift, unit=before.unit) != before:
        raise ValueError(f"{newest} was written with other settings; resume with the same config")
    return before


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="TOML file, see finetune/configs")
    parser.add_argument("--data", required=True, metavar="DIR|URL", help="what to learn from, with its labels")
    parser.add_argument("--labels", type=Path, nargs="+", default=[], metavar="FILE", help=LABELS_HELP)
    parser.add_argument("--val", metavar="DIR|URL", help="held-out samples that choose the best checkpoint")
    parser.add_argument("--val-labels", type=Path, nargs="+", default=[], metavar="FILE", help="those of --val")
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
