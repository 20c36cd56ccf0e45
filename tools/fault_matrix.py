#!/usr/bin/env python3
"""Faults of all kinds, beside each other: what this package does, and what plain webdataset does.

    python tools/fault_matrix.py --out docs/fault-matrix.md

The cases are those of tests/faults, where each must end right for ours. Here they also run on webdataset, each in a
process of its own that is ended after a while: some of its answers to a fault are to wait for ever.
"""

import argparse
import datetime
import importlib.metadata
import multiprocessing
import os
import platform
import sys
import tempfile
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("faults", "storage", "transfer")]

import damaged  # noqa: E402
import ordering  # noqa: E402
import remote  # noqa: E402
import webdataset  # noqa: E402, F401 - once, before the processes fork
import writing  # noqa: E402

CASES = {case.number: case for case in [*damaged.CASES, *writing.CASES, *remote.CASES, *ordering.CASES]}

#: After so many seconds a case is ended, and counts as one that waits for ever.
LIMIT_S = 90

HEAD = """# Faults, and what becomes of them

Written by `python tools/fault_matrix.py --out docs/fault-matrix.md` on {date}, {machine}, mimic-wds {ours},
webdataset {theirs}. Shards have 10 samples of 4 members; servers are real ones on the same machine.
`tests/faults` holds ours to this. What webdataset does not offer has no entry in its column. Its defaults are used
where nothing else is said; a process that still waits after 40 s is ended. In F13 to F15 `pull` and the cache wait
0.5 s for a silent server instead of the usual 15 s. ✓ is right, ✗ is not.

| | fault | mimic-wds | webdataset |
|---|---|---|---|
"""


def main() -> int:
    """Run all cases, print them, write the table; 1 if ours is not right everywhere."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=CASES, help="run these cases, for example F3")
    args = parser.parse_args()
    rows = []
    for number in sorted(args.only or CASES, key=lambda number: int(number[1:])):
        rows.append((number, outcome(number, "ours"), outcome(number, "theirs") if CASES[number].theirs else None))
        for name, side in zip(("mimic-wds", "webdataset"), rows[-1][1:], strict=True):
            print(f"{number} {name}: {cell(side)}", flush=True)
    if args.out:
        args.out.write_text(table(rows), encoding="utf-8")
    wrong = [number for number, ours, _ in rows if not ours["right"]]
    print(f"ours is right in {len(rows) - len(wrong)} of {len(rows)}{': not in ' if wrong else ''}{', '.join(wrong)}")
    return int(bool(wrong))


def run_one(number: str, side: str, answers: Connection) -> None:
    """Run one side of a case and send its outcome."""
    warnings.simplefilter("ignore")
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            found = getattr(CASES[number], side)(Path(scratch))
            answers.send({"right": bool(found.right), "what": found.what})
        except Exception as error:
            answers.send({"right": False, "what": f"ends with {type(error).__name__}: {str(error)[:200]}"})


def outcome(number: str, side: str) -> dict[str, object]:
    """The outcome of one side of a case, from a process of its own, forked so that imports are done once."""
    context = multiprocessing.get_context("fork")
    answers, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_one, args=(number, side, sender))
    process.start()
    sender.close()
    try:
        if answers.poll(LIMIT_S):
            return answers.recv()
        return {"right": False, "what": f"still waiting after {LIMIT_S} s"}
    except EOFError:
        return {"right": False, "what": "the process ended without an answer"}
    finally:
        process.kill()
        process.join()


def table(rows: list[tuple[str, dict[str, object], dict[str, object] | None]]) -> str:
    """The Markdown page."""
    head = HEAD.format(
        date=datetime.date.today().isoformat(),
        machine=f"Python {platform.python_version()}, {platform.system()}",
        ours=importlib.metadata.version("mimic-wds"),
        theirs=importlib.metadata.version("webdataset"),
    )
    lines = [f"| {n} | {CASES[n].fault} | {cell(ours)} | {cell(theirs)} |" for n, ours, theirs in rows]
    return head + "\n".join(lines) + "\n"


def cell(found: dict[str, object] | None) -> str:
    """An outcome as a cell of the table."""
    if found is None:
        return ""
    return f"{'✓' if found['right'] else '✗'} {found['what']}".replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
