#!/usr/bin/env python3
"""The whole chain for real, without licensed data: from houses to a report on what pretraining was good for.

    make tour                                  (2 cores: under an hour)
    python tools/tour.py --out runs/tour --budget 8 --jobs 1        (a GPU: more views and steps, larger models)

Furnished houses are rendered: walks through six of them as videos, from which pairs are mined; views of three of those
with depth, normals and named parts, to finetune on; and the same of a mirrored house with other wallpapers, to score
on. CroCo and MAE are pretrained on the pairs. Depth, normals and segmentation are learned from random weights, MAE and
CroCo: with all images and the encoder finetuned, three seeds each, and from few with a frozen encoder, five seeds each.

Every step is a command that is printed, with its output in OUT/logs. Steps that are done are not done again: after an
interruption, call it again. The table at the end is also in OUT/table.txt; docs/tour.md explains it.
Exit codes: 0 done, 1 a step failed, 2 wrong arguments, 130 interrupted.
"""

import argparse
import fcntl
import itertools
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mimic_wds.downstream.fewshot import mean_and_deviation
from mimic_wds.storage.files import atomic_write

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
ROOT = Path(__file__).resolve().parents[1]

TASKS, INITS = ("depth", "normals", "segmentation"), ("random", "mae", "croco")
SEEDS, FEW_SEEDS = 3, 5
PYTHON = sys.executable

#: The scores of the table, under the protocol "standard", and whether more of them is better.
SHOWN = {"depth": "delta1", "normals": "mean_deg", "segmentation": "miou"}


@dataclass(frozen=True, slots=True)
class Step:
    """Commands that are done one after the other, or not at all."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    resumes: str = ""  #: the first command goes on with --resume once this folder is there


def plan(out: str, budget: float) -> list[list[Step]]:
    """Phases; the steps of one do not need each other."""
    tuned = [_finetuning(out, budget), _few_shot(out, budget)]
    return [_scenes(out, budget), _data(out, budget), _pretraining(out, budget), *tuned, _end(out)]


def main() -> int:
    """Take the folder, run what is not done, show the table; returns the exit code."""
    args = parse_args()
    try:
        with begun(args.out, args.budget) as lock:
            code = run_all(args.out, plan(str(args.out), args.budget), args.jobs, lock)
    except (ValueError, OSError) as error:
        print(f"tour: {error}", file=sys.stderr)
        return USAGE if isinstance(error, ValueError) else FAILED
    if code == DONE:
        found = table(args.out)
        with atomic_write(args.out / "table.txt") as file:
            file.write(found.encode() + b"\n")
        print(f"\n{found}\nreport  {args.out / 'report.md'}")
    return code


@contextmanager
def begun(out: Path, budget: float) -> Iterator[int]:
    """A tour in `out`, one at a time; yields the lock, which steps inherit: they may outlive a tour that is killed.

    Raises ValueError when `out` holds a tour with another budget, OSError when another tour or a step of it still runs.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"another tour, or a step that one has left behind, runs in {out}: wait for it") from None
        before = out / "budget"
        if before.is_file() and float(before.read_text()) != budget:
            said = before.read_text().strip()
            raise ValueError(f"{out} holds a tour with --budget {said}, not {budget:g}: choose another --out")
        with atomic_write(before) as file:
            file.write(f"{budget!r}\n".encode())
        yield lock.fileno()


def run_all(out: Path, phases: Sequence[Sequence[Step]], jobs: int, lock: int) -> int:
    """All phases, without the steps that are done; stops at the first that fails. Returns the exit code."""
    for number, steps in enumerate(phases, 1):
        waiting = [step for step in steps if not marker(out, step).is_file()]
        print(f"\n== {number}/{len(phases)}  {len(steps)} steps, {len(steps) - len(waiting)} done already", flush=True)
        if code := run_phase(out, waiting, jobs, lock):
            return code
    return DONE


def run_phase(out: Path, steps: Sequence[Step], jobs: int, lock: int | None = None) -> int:
    """Some steps, `jobs` at a time; after a failure no further ones begin. Returns the exit code."""
    codes: list[int] = []

    def work(step: Step) -> None:
        if not any(codes):
            codes.append(run_step(out, step, lock))

    pool = ThreadPoolExecutor(jobs)
    try:
        list(pool.map(work, steps))
    except KeyboardInterrupt:  # the steps have had it, too
        return INTERRUPTED
    finally:
        pool.shutdown(cancel_futures=True)
    return next(filter(None, codes), DONE)


def run_step(out: Path, step: Step, lock: int | None = None) -> int:
    """One step; its marker is written when all of it is done. Returns the exit code."""
    found = {**os.environ, "PATH": os.pathsep.join((str(Path(PYTHON).parent), os.environ.get("PATH", os.defpath)))}
    inherited = () if lock is None else (lock,)
    log = out / "logs" / f"{step.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    resume = bool(step.resumes) and Path(step.resumes).exists()
    started = time.monotonic()
    for number, command in enumerate(step.commands):
        full = [*command, "--resume"] if resume and number == 0 else [*command]
        print(f"$ {shlex.join(full)}", flush=True)
        with log.open("ab") as file:
            code = subprocess.run(
                full, cwd=ROOT, env=found, stdout=file, stderr=subprocess.STDOUT, pass_fds=inherited, check=False
            ).returncode
        if code:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            print(f"{tail}\ntour: {step.name} ended with {code}; all it said: {log}", file=sys.stderr, flush=True)
            return INTERRUPTED if code in (INTERRUPTED, -2) else FAILED
    with atomic_write(marker(out, step)) as file:
        file.write(f"{time.monotonic() - started:.0f} s\n".encode())
    return DONE


def marker(out: Path, step: Step) -> Path:
    """Says that a step is done, and how long it took."""
    folder = out / "done"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / step.name


def table(out: Path) -> str:
    """What was found: mean and sample deviation over seeds."""
    lines = [f"{'':14}{'images':>8}  " + "".join(f"{init:>20}" for init in INITS)]
    for task in TASKS:
        for shots in (*_shots_found(out, task), 0):
            cells = []
            for init in INITS:
                values = list(_values(out, task, init, shots))
                mean, deviation = mean_and_deviation(values) if values else (float("nan"), float("nan"))
                cells.append(f"{mean:>12.3f} ±{deviation:6.3f}")
            label = f"{task} {SHOWN[task]}"
            lines.append(f"{label:<22}{shots or 'all':>6}" + "".join(cells))
    return "\n".join(lines)


def _values(out: Path, task: str, init: str, shots: int) -> Iterator[float]:
    """The score of every seed."""
    folder = out / "few" / f"{task}-{init}" / f"shots-{shots}" if shots else out / "full" / f"{task}-{init}"
    for path in sorted(folder.glob("seed-*/scores.json")):
        scores = json.loads(path.read_text())["protocols"]["standard"]["scores"]
        yield scores[SHOWN[task]]


def _shots_found(out: Path, task: str) -> list[int]:
    return sorted({int(path.name.removeprefix("shots-")) for path in (out / "few").glob(f"{task}-*/shots-*")})


def _scenes(out: str, budget: float) -> list[Step]:
    """Videos of walks, and houses with named parts. House 9 is never learned from."""
    seconds = f"{200 * min(budget, 4):.0f}"
    video = (PYTHON, "tools/make_demo_video.py", "--threads", "1", "--seconds", seconds)
    house = (PYTHON, "tools/make_house.py")
    return [
        *(Step(f"video-{n}", ((*video, f"{out}/videos/house{n}.mp4", "--seed", str(n)),)) for n in range(1, 7)),
        Step("video-9", ((*video, f"{out}/held-video/house9.mp4", "--seed", "9"),)),
        *(Step(f"house-{n}", ((*house, f"{out}/houses/house{n}.glb", "--seed", str(n)),)) for n in (1, 2, 3)),
        Step("house-9", ((*house, f"{out}/held-house/house9.glb", "--seed", "9", "--mirror"),)),
    ]


def _data(out: str, budget: float) -> list[Step]:
    """Pairs as the paper mines them, and labels."""
    build = ("mimic-shard", "build", "--source", "video")
    labels = ("mimic-shard", "render-labels")
    more = ("--workers", "1", "--size", "128")
    pairs = ("--workers", "1", "-c", "patch_size=32")  # views of 112 pixels have patches of 16 there
    train, test = f"{80 * budget:.0f}", f"{120 * min(budget, 4):.0f}"
    kept, kept_test = f"{out}/labels", f"{out}/test-labels"
    return [
        Step("pairs", ((*build, f"{out}/videos", "--out", f"{out}/pairs", *pairs),), f"{out}/pairs"),
        Step("held-pairs", ((*build, f"{out}/held-video", "--out", f"{out}/held-pairs", *pairs),), f"{out}/held-pairs"),
        Step("labels", ((*labels, f"{out}/houses", "--out", kept, "--views", train, *more),), kept),
        Step("test-labels", ((*labels, f"{out}/held-house", "--out", kept_test, "--views", test, *more),), kept_test),
    ]


def _pretraining(out: str, budget: float) -> list[Step]:
    """Both models, and what they make of pairs that they have not seen."""
    steps = []
    for name in ("mae", "croco"):
        run = (PYTHON, "train/pretrain.py", f"train/configs/small_{name}.toml", "--data", f"{out}/pairs")
        run += ("--look-at", f"{out}/held-pairs", "--output", f"{out}/{name}", "--resume")
        run += ("--epochs", f"{16 * budget:.0f}", *_sets(*_model(budget)))
        look = (PYTHON, "finetune/reconstruction.py", f"{out}/{name}", "--data", f"{out}/held-pairs", "--images", "100")
        steps.append(Step(f"pretrain-{name}", (run, (*look, "--output", f"{out}/{name}/held"))))
    return steps


def _finetuning(out: str, budget: float) -> list[Step]:
    """All images with the encoder finetuned, scored on the house that nothing was learned from."""
    steps = []
    for task, init, seed in itertools.product(TASKS, INITS, range(SEEDS)):
        output = f"{out}/full/{task}-{init}/seed-{seed}"
        run = (PYTHON, "finetune/finetune.py", *_from(out, init), "--output", output, "--resume")
        run += _sets(f"task={task}", f"run.seed={seed}", f"run.steps={60 * budget:.0f}", *_model(budget))
        score = (PYTHON, "finetune/evaluate.py", output, "--data", f"{out}/test-labels", "--bootstrap", "100")
        steps.append(Step(f"full-{task}-{init}-{seed}", (run, score)))
    return steps


def _few_shot(out: str, budget: float) -> list[Step]:
    """Few images with a frozen encoder, other ones for every seed."""
    shots = ("2", "8", "32") if budget >= 2 else ("8",)
    steps = []
    for task, init in itertools.product(TASKS, INITS):
        run = (PYTHON, "finetune/fewshot.py", *_from(out, init), "--test", f"{out}/test-labels")
        run += ("--output", f"{out}/few/{task}-{init}", "--seeds", str(FEW_SEEDS), "--shots", *shots)
        run += _sets(f"task={task}", f"run.steps={40 * budget:.0f}", *_model(budget))
        steps.append(Step(f"few-{task}-{init}", (run,)))
    return steps


def _from(out: str, init: str) -> tuple[str, ...]:
    """Config, data and first weights of finetuning."""
    weights = init if init == "random" else f"{out}/{init}"
    return ("finetune/configs/tour.toml", "--data", f"{out}/labels", "--init", weights)


def _end(out: str) -> list[Step]:
    folders = (f"{out}/full", f"{out}/few", f"{out}/mae/held", f"{out}/croco/held")
    return [Step("report", ((PYTHON, "finetune/report.py", *folders, "--output", f"{out}/report.md"),))]


def _model(budget: float) -> tuple[str, ...]:
    """Settings of a larger encoder, 22 M parameters, for budgets that are meant for a GPU."""
    return ("model.size=small", "model.depth=12") if budget >= 8 else ()


def _sets(*assignments: str) -> tuple[str, ...]:
    return tuple(word for each in assignments for word in ("--set", each))


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/tour"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--budget", type=float, default=1.0, help="times so many steps and views (default: 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="steps at a time; default: one per core")
    args = parser.parse_args()
    if not args.budget > 0 or args.jobs < 1:
        parser.error("--budget must be above 0 and --jobs 1 or more")
    args.out = args.out.resolve()
    return args


if __name__ == "__main__":
    sys.exit(main())
