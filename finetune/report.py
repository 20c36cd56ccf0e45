"""Write one page about scored runs: our rows beside the published ones, few-shot curves, pictures.

    python finetune/report.py runs/depth-croco runs/few --output report.md

Reads the scores.json that finetune/evaluate.py wrote, and the reconstruction.json of finetune/reconstruction.py, in
these folders and below. Few-shot runs are drawn too
(report-few-shot.png beside the page) where matplotlib is installed. Exit codes: 0 done, 2 wrong arguments.
"""

import argparse
import sys
from pathlib import Path

from mimic_wds.downstream.report import curves, page, read_reconstructions, read_runs
from mimic_wds.storage.files import atomic_write

DONE, USAGE = 0, 2


def main() -> int:
    """Write the page; returns the exit code."""
    args = parse_arguments()
    try:
        runs, reconstructions = read_runs(args.runs), read_reconstructions(args.runs)
    except ValueError as error:
        print(f"report: {error}", file=sys.stderr)
        return USAGE
    text = page(runs, reconstructions)
    figure = args.output.with_name(f"{args.output.stem}-few-shot.png")
    if (found := curves(runs, args.protocol)) and draw(found, figure, args.protocol):
        text += f"\n![few-shot]({figure.name})\n"
    with atomic_write(args.output) as file:
        file.write(text.encode())
    print(f"{len(runs)} runs in {args.output}")
    return DONE


def draw(found: dict, path: Path, protocol: str) -> bool:
    """Curves with sample deviations as error bars, a panel per task; False where matplotlib is missing."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        print("report: no figure; install matplotlib for it", file=sys.stderr)
        return False
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    tasks = sorted({task for task, _, _ in found})
    figure, panels = plt.subplots(1, len(tasks), figsize=(5 * len(tasks), 4), squeeze=False)
    for task, panel in zip(tasks, panels[0], strict=True):
        for (_, init, name), points in ((key, value) for key, value in found.items() if key[0] == task):
            shots, means, deviations, _ = zip(*points, strict=True)
            panel.errorbar(shots, means, yerr=deviations, marker="o", capsize=3, label=init)
            panel.set(title=f"{task} ({protocol})", xlabel="images learned from", ylabel=name, xscale="log")
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders with scored runs, at any depth")
    parser.add_argument("--output", type=Path, default=Path("report.md"), help="the page to write")
    parser.add_argument("--protocol", choices=("paper", "standard"), default="paper", help="of the few-shot curves")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
