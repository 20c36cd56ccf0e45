"""Entry point of `mimic-shard`: picks the verb, turns errors into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 usage, 3 finished but incomplete, 130 interrupted.
"""

import sys
from collections.abc import Callable, Sequence

import tyro

from mimic_wds.cli.build import build
from mimic_wds.cli.card import card
from mimic_wds.cli.cat import cat
from mimic_wds.cli.console import error
from mimic_wds.cli.dedup import dedup
from mimic_wds.cli.explain import explain
from mimic_wds.cli.extend import extend
from mimic_wds.cli.filter import filter_
from mimic_wds.cli.import_ import import_
from mimic_wds.cli.info import info
from mimic_wds.cli.ls import ls
from mimic_wds.cli.merge import merge
from mimic_wds.cli.pack_labels import pack_labels
from mimic_wds.cli.plan import plan
from mimic_wds.cli.pull import pull
from mimic_wds.cli.push import push
from mimic_wds.cli.render_labels import render_labels
from mimic_wds.cli.repair import repair
from mimic_wds.cli.report import report
from mimic_wds.cli.reshard import reshard
from mimic_wds.cli.sample import sample
from mimic_wds.cli.show import show
from mimic_wds.cli.sources import sources
from mimic_wds.cli.split import split
from mimic_wds.cli.verify import verify
from mimic_wds.cli.view import view

DONE, FAILED, USAGE, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130

VERBS: dict[str, Callable[..., int]] = {
    "build": build,
    "card": card,
    "cat": cat,
    "dedup": dedup,
    "explain": explain,
    "extend": extend,
    "filter": filter_,
    "import": import_,
    "info": info,
    "ls": ls,
    "merge": merge,
    "pack-labels": pack_labels,
    "plan": plan,
    "pull": pull,
    "push": push,
    "render-labels": render_labels,
    "repair": repair,
    "report": report,
    "reshard": reshard,
    "sample": sample,
    "show": show,
    "sources": sources,
    "split": split,
    "verify": verify,
    "view": view,
}


def main(args: Sequence[str] | None = None) -> None:
    """Run `mimic-shard` and exit with its code."""
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run `mimic-shard` with `args` (default: the command line's) and return its exit code."""
    try:
        return tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="mimic-shard",
            description="Mine pairs of views, pack them in shards, and look after those.",
            args=args,
        )
    except ValueError as wrong:
        error(str(wrong))
        return USAGE
    except (OSError, RuntimeError) as failed:
        error(str(failed))
        return FAILED
    except KeyboardInterrupt:
        error("interrupted")
        return INTERRUPTED


if __name__ == "__main__":
    main()
