"""Score a finetuned model on held-out images under both protocols, with error bars if asked for.

    python finetune/evaluate.py runs/depth-croco --data DIR --bootstrap 100
    accelerate launch --multi_gpu finetune/evaluate.py runs/depth-croco --data DIR

Writes to the run's folder (or --output): scores.json, statistics.npz (what every image adds, for later resampling; of
pose COCO's result files instead) and panels.png (picture, prediction, truth of some images). Every image counts once,
however many processes there are.
Exit codes: 0 done, 1 failed, 2 wrong arguments or data.
"""

import argparse
import json
import sys
from pathlib import Path

try:
    from mimic_wds.downstream.evaluation import evaluate
    from mimic_wds.downstream.model import load_run
    from mimic_wds.downstream.tasks.registry import get_task
    from mimic_wds.storage.files import atomic_write
    from mimic_wds.training.engine import build_accelerator
    from mimic_wds.training.pictures import contact_sheet, write_png
except ModuleNotFoundError as error:
    sys.exit(f"evaluate: {error.name} is missing; install what evaluation needs with: pip install 'mimic-wds[train]'")

DONE, FAILED, USAGE = 0, 1, 2

LABELS_HELP = "labels beside the data set: pose has COCO's annotations and, if you have one, a detector's boxes"


def main() -> int:
    """Evaluate; returns the exit code."""
    args = parse_arguments()
    try:
        score(args)
    except ValueError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return USAGE
    except (OSError, RuntimeError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return FAILED
    return DONE


def score(args: argparse.Namespace) -> None:
    """Predict, score, write."""
    # --- model and data; each process has its share of the images
    model, config, step = load_run(args.run, best=args.best)
    task = get_task(config.task)
    dataset = task.open(args.data, args.labels)
    accelerator = build_accelerator("no")
    model.to(accelerator.device)
    rows = evaluate(task, model, config, dataset, accelerator)
    if not accelerator.is_main_process:
        return

    # --- what is written
    output = args.output or args.run
    output.mkdir(parents=True, exist_ok=True)
    account = {
        "task": config.task,
        "init": config.init,
        "frozen": config.model.frozen,
        "head": config.model.head,
        "shots": config.run.shots,
        "seed": config.run.seed,
        "steps": step,
        "data": str(args.data),
        "images": len(dataset),
        "resamples": args.bootstrap,
        "protocols": task.scores(dataset, rows, resamples=args.bootstrap, seed=args.seed),
    }
    task.write(output, rows)
    if args.panels and (columns := task.panels(model, config, dataset, args.panels, accelerator.device)):
        write_png(output / "panels.png", contact_sheet(columns))
    with atomic_write(output / "scores.json") as file:  # last: fewshot.py takes it as the sign that all is done
        file.write((json.dumps(account, indent=1) + "\n").encode())
    print(json.dumps(account) if args.json else told(account))


def told(account: dict) -> str:
    """The scores for people."""
    lines = [f"{account['task']}, {account['images']} images of {account['data']}, init {account['init']}"]
    for name, protocol in account["protocols"].items():
        lines.append(f"{name}: {protocol['told']}")
        for score, value in protocol["scores"].items():
            spread = protocol["spread"].get(score)
            bars = f"  [{spread['min']:.4g}, {spread['max']:.4g}], std {spread['std']:.2g}" if spread else ""
            lines.append(f"  {score:<20}{value:.5g}{bars}")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output folder of finetune/finetune.py, or a checkpoint in it")
    parser.add_argument("--data", required=True, metavar="DIR|URL", help="what to score on, with its labels")
    parser.add_argument("--labels", type=Path, nargs="+", default=[], metavar="FILE", help=LABELS_HELP)
    parser.add_argument(
        "--best", action="store_true", help="score the best checkpoint (finetune.py --val), not the newest"
    )
    parser.add_argument("--output", type=Path, help="folder to write to; default: the run's")
    parser.add_argument("--bootstrap", type=int, default=0, metavar="N", help="resampled test sets; 0 = no error bars")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument("--panels", type=int, default=6, metavar="N", help="images in panels.png; 0 = none")
    parser.add_argument("--json", action="store_true", help="print what scores.json holds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
