"""Score a finetuned model on held-out images under both protocols, with error bars if asked for.

    python finetune/evaluate.py runs/depth-croco --data DIR --bootstrap 100
    accelerate launch --multi_gpu finetune/evaluate.py runs/depth-croco --data DIR

Writes to the run's folder (or --output): scores.json, statistics.npz (what every image adds, for later resampling) and
panels.png (picture, prediction, truth of some images). Every image counts once, however many processes there are.
Exit codes: 0 done, 1 failed, 2 wrong arguments or data.
"""

import argparse
import json
import sys
from pathlib import Path

try:
    import numpy as np
    from accelerate.utils import gather_object

    from mimic_wds.downstream.data import open_labelled, read_labelled
    from mimic_wds.downstream.evaluation import gathered, predict, scores_of, share, statistics_of, write_statistics
    from mimic_wds.downstream.model import load_run
    from mimic_wds.downstream.tasks.base import Scale
    from mimic_wds.downstream.tasks.registry import dense_task
    from mimic_wds.storage.files import atomic_write
    from mimic_wds.training.engine import build_accelerator
    from mimic_wds.training.pictures import contact_sheet, write_png
except ModuleNotFoundError as error:
    sys.exit(f"evaluate: {error.name} is missing; install what evaluation needs with: pip install 'mimic-wds[train]'")

DONE, FAILED, USAGE = 0, 1, 2


def main() -> int:
    """Evaluate; returns the exit code."""
    args = parse_arguments()
    try:
        evaluate(args)
    except ValueError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return USAGE
    except (OSError, RuntimeError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return FAILED
    return DONE


def evaluate(args: argparse.Namespace) -> None:
    """Predict, score, write."""
    # --- model and data
    model, config, step = load_run(args.run)
    task, scale = dense_task(config.task), Scale(config.shift, config.unit)
    dataset = open_labelled(args.data, task)
    if (outputs := task.outputs(dataset.manifest)) != config.model.outputs:
        raise ValueError(f"{args.data}: has {outputs} classes, the model was trained for {config.model.outputs}")
    accelerator = build_accelerator("no")
    model.to(accelerator.device)

    # --- what each image adds to the scores, each process having its share of the images
    options = {"size": config.model.image_size, "device": accelerator.device}
    own = share(len(dataset), accelerator.process_index, accelerator.num_processes)
    rows = list(statistics_of(model, task, scale, dataset, own, outputs=outputs, **options))
    every = gather_object(rows) if accelerator.num_processes > 1 else rows
    if not accelerator.is_main_process:
        return
    keys, statistics = gathered(every, len(dataset))

    # --- what is written
    output = args.output or args.run
    output.mkdir(parents=True, exist_ok=True)
    protocols = scores_of(task, statistics, resamples=args.bootstrap, seed=args.seed)
    account = {
        "task": config.task,
        "init": config.init,
        "frozen": config.model.frozen,
        "shots": config.run.shots,
        "seed": config.run.seed,
        "steps": step,
        "data": str(args.data),
        "images": len(dataset),
        "resamples": args.bootstrap,
        "protocols": protocols,
    }
    with atomic_write(output / "scores.json") as file:
        file.write((json.dumps(account, indent=1) + "\n").encode())
    write_statistics(output / "statistics.npz", keys, statistics)
    if args.panels:
        samples = [read_labelled(dataset, task, n)[1:] for n in range(min(args.panels, len(dataset)))]
        looked = predict(model, task, scale, samples, "centre", **options)
        columns = [
            ("input", np.stack([each.image for each in looked])),
            ("prediction", np.stack([task.picture(each.prediction) for each in looked])),
            ("truth", np.stack([task.picture(each.label) for each in looked])),
        ]
        write_png(output / "panels.png", contact_sheet(columns))
    print(json.dumps(account) if args.json else told(account))


def told(account: dict) -> str:
    """The scores for people."""
    lines = [f"{account['task']}, {account['images']} images of {account['data']}, init {account['init']}"]
    for name, protocol in account["protocols"].items():
        lines.append(f"{name}: {protocol['told']}")
        for score, value in protocol["scores"].items():
            spread = protocol["spread"].get(score)
            bars = f"  [{spread['min']:.4g}, {spread['max']:.4g}], std {spread['std']:.2g}" if spread else ""
            lines.append(f"  {score:<15}{value:.5g}{bars}")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output folder of finetune/finetune.py, or a checkpoint in it")
    parser.add_argument("--data", required=True, metavar="DIR|URL", help="labelled images to score on")
    parser.add_argument("--output", type=Path, help="folder to write to; default: the run's")
    parser.add_argument("--bootstrap", type=int, default=0, metavar="N", help="resampled test sets; 0 = no error bars")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument("--panels", type=int, default=6, metavar="N", help="images in panels.png; 0 = none")
    parser.add_argument("--json", action="store_true", help="print what scores.json holds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
