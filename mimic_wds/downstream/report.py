"""One page about finetuned models: our rows beside the published ones, each with its protocol, seeds and budget."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from mimic_wds.downstream.fewshot import mean_and_deviation
from mimic_wds.downstream.published import NOT_PUBLISHED, ROWS, value

SCORES_NAME, RECONSTRUCTION_NAME = "scores.json", "reconstruction.json"

#: What Table 4 shows of a model that was not finetuned: key and heading.
RECONSTRUCTION = {
    "images": "images",
    "mask_ratio": "hidden",
    "masked_l2": "masked L2",
    "masked_l2_other_reference": "with another reference",
    "attention": "attention agreement",
    "psnr_db": "PSNR (dB)",
    "ssim": "SSIM",
    "fid": "FID",
    "kid": "KID",
    "layer": "layer",
}

#: Scores that tables give in per cent.
PERCENT = {"delta1": "delta1 (%)", "miou": "mIoU (%)", "AP": "AP (%)", "top1": "top-1 (%)"}

#: A run's task, init, frozen, shots, steps, data: runs that differ in nothing but the seed make one row.
Setting: TypeAlias = tuple[str, str, bool, int, int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """A run with its scores."""

    folder: str
    account: dict[str, Any]  #: what scores.json holds

    @property
    def setting(self) -> Setting:
        """See `Setting`."""
        a = self.account
        return a["task"], a["init"], a["frozen"], a["shots"], a["steps"], a["data"]

    def headline(self, protocol: str) -> tuple[str, float]:
        """Name and value of the score that tables show."""
        found = self.account["protocols"][protocol]
        return found["headline"], found["scores"][found["headline"]]


def read_runs(folders: Sequence[Path]) -> list[Evaluated]:
    """The scored runs in these folders and below. Raises ValueError when there are none, or one is malformed."""
    paths = sorted({path for folder in folders for path in folder.rglob(SCORES_NAME)})
    if not paths:
        raise ValueError(f"no {SCORES_NAME} below {', '.join(map(str, folders))}: score runs with finetune/evaluate.py")
    found = []
    for path in paths:
        try:
            run = Evaluated(folder=str(path.parent), account=json.loads(path.read_text(encoding="utf-8")))
            _ = run.setting, [run.headline(name) for name in run.account["protocols"]]
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not what finetune/evaluate.py writes ({error!r}); run it again") from None
        found.append(run)
    return found


def read_reconstructions(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """What finetune/reconstruction.py wrote in these folders and below, by folder. Raises ValueError otherwise."""
    found = {}
    for path in sorted({path for folder in folders for path in folder.rglob(RECONSTRUCTION_NAME)}):
        try:
            found[str(path.parent)] = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{path}: not what finetune/reconstruction.py writes ({error!r}); run it again") from None
    return found


def reconstructions_table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row per model that was looked at; columns that nobody has are left out."""
    if not found:
        return []
    shown = [key for key in RECONSTRUCTION if any(key in each for each in found.values())]
    rows = (" | ".join(_cell(each.get(key, "–")) for key in shown) for each in found.values())
    return [
        "## Reconstruction",
        "",
        f"| run | {' | '.join(RECONSTRUCTION[key] for key in shown)} |",
        "|" + "---|" * (1 + len(shown)),
        *(f"| {folder} | {row} |" for folder, row in zip(found, rows, strict=True)),
        "",
    ]


def _cell(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, int | float) else str(value)


def page(runs: Sequence[Evaluated], reconstructions: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> str:
    """The report as Markdown."""
    tasks = sorted({run.account["task"] for run in runs})
    parts = ["# Finetuned models", ""]
    for task in tasks:
        own = [run for run in runs if run.account["task"] == task]
        parts += [f"## {task}", "", *_protocols(own[0]), "", *_table(own), "", *_spreads(own), *_panels(own)]
        parts += [*_published(task), ""]
    parts += reconstructions_table(reconstructions)
    parts += ["## Not published", "", *(f"- {line}" for line in NOT_PUBLISHED), ""]
    return "\n".join(parts)


def curves(runs: Sequence[Evaluated], protocol: str) -> dict[tuple[str, str, str], list[tuple[int, float, float, int]]]:
    """Few-shot curves: (task, init, score) -> (shots, mean, sample deviation, seeds), of runs with 1 shot or more."""
    grouped: dict[tuple[str, str, str, int], list[float]] = defaultdict(list)
    for run in runs:
        if run.account["shots"] and protocol in run.account["protocols"]:
            name, score = run.headline(protocol)
            grouped[run.account["task"], run.account["init"], name, run.account["shots"]].append(score)
    found: dict[tuple[str, str, str], list[tuple[int, float, float, int]]] = defaultdict(list)
    for (task, init, name, shots), scores in sorted(grouped.items()):
        found[task, init, name].append((shots, *mean_and_deviation(scores), len(scores)))
    return dict(found)


def _protocols(run: Evaluated) -> list[str]:
    """What is measured how."""
    return [f"- {name}: {found['told']}" for name, found in run.account["protocols"].items()]


def _table(runs: Sequence[Evaluated]) -> list[str]:
    """A row per setting: mean and sample deviation over its seeds."""
    groups: dict[Setting, list[Evaluated]] = defaultdict(list)
    for run in runs:
        groups[run.setting].append(run)
    protocols = list(dict.fromkeys(name for run in runs for name in run.account["protocols"]))
    heads = {name: run.headline(name)[0] for name in protocols for run in runs if name in run.account["protocols"]}
    names = [f"{protocol}: {_label(heads[protocol])}" for protocol in protocols]
    lines = [
        f"| init | encoder | images learned from | steps | scored on | seeds | {' | '.join(names)} |",
        "|" + "---|" * (6 + len(names)),
    ]
    for (_, init, frozen, shots, steps, data), members in sorted(groups.items()):
        scores = (
            _shown([run.headline(protocol) for run in members if protocol in run.account["protocols"]])
            for protocol in protocols
        )
        encoder = "frozen" if frozen else "fine-tuned"
        images = members[0].account["images"]
        lines.append(
            f"| {init} | {encoder} | {shots or 'all'} | {steps} | {data} ({images}) | {len(members)} | "
            f"{' | '.join(scores)} |"
        )
    return lines


def _shown(scores: Sequence[tuple[str, float]]) -> str:
    """Mean, with the deviation where there are several, or a dash."""
    if not scores:
        return "–"
    factor = 100 if scores[0][0] in PERCENT else 1
    mean, deviation = mean_and_deviation([factor * value for _, value in scores])
    return f"{mean:.2f} ± {deviation:.2f}" if len(scores) > 1 else f"{mean:.2f}"


def _label(name: str) -> str:
    return PERCENT.get(name, name)


def _spreads(runs: Sequence[Evaluated]) -> list[str]:
    """Resampled test sets, of the runs that have them."""
    lines: list[str] = []
    for run in runs:
        for protocol, found in run.account["protocols"].items():
            if spread := found["spread"].get(found["headline"]):
                values = " | ".join(f"{spread[key]:.5g}" for key in ("min", "max", "mean", "std"))
                lines.append(
                    f"| {run.folder} | {protocol}: {found['headline']} | {run.account['resamples']} | {values} |"
                )
    head = ["| run | score | resampled test sets | min | max | mean | std |", "|---|---|---|---|---|---|---|"]
    return [*head, *lines, ""] if lines else []


def _panels(runs: Sequence[Evaluated]) -> list[str]:
    """Pictures of the runs that have them."""
    return [
        f"![{run.folder}]({run.folder}/panels.png)\n" for run in runs if (Path(run.folder) / "panels.png").is_file()
    ]


def _published(task: str) -> list[str]:
    """The paper's rows for a task; its data and budget, not ours."""
    headings = {
        "depth": "NYUv2 delta1 (%)",
        "normals": "Taskonomy L1 x 1000",
        "segmentation": "ADE20K mIoU (%)",
        "pose": "COCO AP (%)",
        "probe": "ImageNet-1K top-1 (%), encoder frozen",
    }
    rows = [row for row in ROWS if value(row, task) is not None]
    if not rows:
        return ["The paper has no such task."]
    return [
        'Published (arXiv 2306.15128, ViT-B/16; other data and budgets than above, protocol "paper"):',
        "",
        f"| model | encoder | pretrained on | {headings[task]} |",
        "|---|---|---|---|",
        *(f"| {row.model} | {row.encoder} | {row.data} | {value(row, task)} |" for row in rows),
    ]
