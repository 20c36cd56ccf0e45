"""Entry point of `mimic-shard`: picks the verb, turns errors into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 usage, 3 finished but incomplete, 130 interrupted.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

import tyro

from mimic_wds.cli.console import error

DONE, FAILED, USAGE, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130

#: Where the function of each verb is. Only that of the verb asked for is imported, so that commands start at once.
VERBS: dict[str, str] = {
    "build": "mimic_wds.cli.build:build",
    "card": "mimic_wds.cli.card:card",
    "cat": "mimic_wds.cli.cat:cat",
    "dedup": "mimic_wds.cli.dedup:dedup",
    "explain": "mimic_wds.cli.explain:explain",
    "extend": "mimic_wds.cli.extend:extend",
    "filter": "mimic_wds.cli.filter:filter_",
    "import": "mimic_wds.cli.import_:import_",
    "info": "mimic_wds.cli.info:info",
    "ls": "mimic_wds.cli.ls:ls",
    "merge": "mimic_wds.cli.merge:merge",
    "pack-labels": "mimic_wds.cli.pack_labels:pack_labels",
    "plan": "mimic_wds.cli.plan:plan",
    "pull": "mimic_wds.cli.pull:pull",
    "push": "mimic_wds.cli.push:push",
    "render-labels": "mimic_wds.cli.render_labels:render_labels",
    "repair": "mimic_wds.cli.repair:repair",
    "report": "mimic_wds.cli.report:report",
    "reshard": "mimic_wds.cli.reshard:reshard",
    "sample": "mimic_wds.cli.sample:sample",
    "show": "mimic_wds.cli.show:show",
    "sources": "mimic_wds.cli.sources:sources",
    "split": "mimic_wds.cli.split:split",
    "verify": "mimic_wds.cli.verify:verify",
    "view": "mimic_wds.cli.view:view",
}


def main(args: Sequence[str] | None = None) -> None:
    """Run `mimic-shard` and exit with its code."""
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run `mimic-shard` with `args` (default: the command line's) and return its exit code."""
    words = list(sys.argv[1:] if args is None else args)
    try:
        if words and words[0] in VERBS:
            return tyro.cli(_function(words[0]), prog=f"mimic-shard {words[0]}", args=words[1:])
        return tyro.extras.subcommand_cli_from_dict(
            {verb: _function(verb) for verb in VERBS},
            prog="mimic-shard",
            description="Mine pairs of views, pack them in shards, and look after those.",
            args=words,
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


def _function(verb: str) -> Callable[..., int]:
    module, _, name = VERBS[verb].partition(":")
    found: Callable[..., int] = getattr(import_module(module), name)
    return found


if __name__ == "__main__":
    main()
