#!/usr/bin/env python3
"""Curves and pictures of training runs on one page, over each other: loss, rate, attention agreement, throughput.

    python tools/plot_run.py runs/croco runs/mae --out curves.html

RUN is the output folder of train/pretrain.py or finetune/finetune.py. The page needs nothing else: a browser opens it
without a network. Exit codes: 0 done, 1 the page cannot be written, 2 wrong arguments.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from mimic_wds.looking.curves import curves_page, read_run
from mimic_wds.storage.files import atomic_write

DONE, FAILED, USAGE = 0, 1, 2


def main() -> int:
    """Write the page; returns the exit code."""
    args = parse_args()
    try:
        runs = [read_run(folder) for folder in args.runs]
        if len({run.name for run in runs}) < len(runs):  # runs/a/depth and runs/b/depth
            runs = [replace(run, name=str(folder)) for run, folder in zip(runs, args.runs, strict=True)]
        page = curves_page(runs)
    except ValueError as error:
        print(f"plot_run: {error}", file=sys.stderr)
        return USAGE
    try:
        with atomic_write(args.out) as file:
            file.write(page.encode())
    except OSError as error:
        print(f"plot_run: {args.out}: cannot be written ({error.strerror})", file=sys.stderr)
        return FAILED
    print(f"{args.out}: {len(runs)} runs, {len(page) / 1e6:.1f} MB")
    return DONE


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="output folder of a run")
    parser.add_argument("--out", type=Path, default=Path("curves.html"), help="the page to write")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
