"""Learn from few images, again and again: for every number of images several seeds, each a run of its own.

    python finetune/fewshot.py finetune/configs/depth.toml --data TRAIN --test TEST --init runs/croco --output runs/few

The encoder is frozen (--finetuned: not), every run has the same number of steps (run.steps), and the images of fewer
shots are among those of more (with one seed). Runs lie in OUTPUT/shots-K/seed-S; a run that is scored is not done
again, one that was interrupted goes on. finetune/report.py OUTPUT draws the curves.
Exit codes: 0 done, 1 a run failed, 2 wrong arguments, 130 interrupted.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from mimic_wds.downstream.config import read_config
from mimic_wds.downstream.fewshot import DEFAULT_SHOTS, MIN_SEEDS, plan_runs
from mimic_wds.downstream.report import curves, read_runs
from mimic_wds.downstream.tasks.registry import get_task

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
HERE = Path(__file__).resolve().parent


def main() -> int:
    """Plan, run, summarise. Returns the exit code."""
    args = parse_arguments()
    try:
        task = get_task(read_config(args.config, args.set).task)
        with task.open(args.data, args.labels) as dataset:
            runs = plan_runs(len(dataset), args.shots, range(args.seeds))
    except (ValueError, OSError) as error:
        print(f"fewshot: {error}", file=sys.stderr)
        return USAGE
    try:
        for shots, seed in runs:
            if code := run_one(args, shots, seed):
                return code
    except KeyboardInterrupt:
        return INTERRUPTED
    for protocol in (protocol.name for protocol in task.protocols):
        for (_, init, name), points in curves(read_runs([args.output]), protocol).items():
            for shots, mean, deviation, seeds in points:
                print(f"{protocol}  {name}  {init}  {shots} images: {mean:.5g} ± {deviation:.2g} ({seeds} seeds)")
    return DONE


def run_one(args: argparse.Namespace, shots: int, seed: int) -> int:
    """Train and score one run, unless it is scored already; returns the exit code of what failed, or 0."""
    output = args.output / f"shots-{shots}" / f"seed-{seed}"
    if (output / "scores.json").is_file():
        return DONE
    frozen = "false" if args.finetuned else "true"
    settings = [*args.set, f"run.shots={shots}", f"run.seed={seed}", f"model.frozen={frozen}"]
    train = [
        HERE / "finetune.py",
        args.config,
        "--data",
        args.data,
        "--init",
        args.init,
        "--output",
        output,
        "--resume",
    ]
    train += [word for setting in settings for word in ("--set", setting)]
    score = [HERE / "evaluate.py", output, "--data", args.test, "--panels", "0"]
    train += ["--labels", *args.labels] if args.labels else []
    score += ["--labels", *args.test_labels] if args.test_labels else []
    for command in (train, score):
        if code := subprocess.run([sys.executable, *map(str, command)], check=False).returncode:
            print(f"fewshot: {shots} images, seed {seed}: {command[0].name} ended with {code}", file=sys.stderr)
            return code if code in (USAGE, INTERRUPTED) else FAILED
    return DONE


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="TOML file, see finetune/configs")
    parser.add_argument("--data", required=True, metavar="DIR|URL", help="labelled images to choose from")
    parser.add_argument("--labels", type=Path, nargs="+", default=[], metavar="FILE", help="see finetune.py")
    parser.add_argument("--test", required=True, metavar="DIR|URL", help="labelled images to score on")
    parser.add_argument("--test-labels", type=Path, nargs="+", default=[], metavar="FILE", help="see evaluate.py")
    parser.add_argument("--init", required=True, metavar="random|DIR", help="where the encoder's weights come from")
    parser.add_argument("--output", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--shots", type=int, nargs="+", default=DEFAULT_SHOTS, help="numbers of images")
    parser.add_argument("--seeds", type=int, default=MIN_SEEDS, help=f"runs for each, {MIN_SEEDS} or more")
    parser.add_argument("--finetuned", action="store_true", help="train the encoder, too")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change any config key")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
