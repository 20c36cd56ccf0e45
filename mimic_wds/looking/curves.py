"""The numbers and pictures of training runs as one page: curves of several runs over each other."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2

from mimic_wds.looking.charts import line_chart
from mimic_wds.looking.page import data_uri, render_page
from mimic_wds.storage.pictures import decode_png

#: (step, value)
Points: TypeAlias = list[tuple[float, float]]

#: What the log's numbers are called on the page, in the order that they are shown; others follow by name.
TITLES = {
    "loss": "Loss",
    "look_loss": "Loss of held-out samples",
    "look_loss_other_reference": "Loss of held-out samples, with the reference of another pair",
    "attention": "Attention agreement",
    "attention_same_place": "Attention agreement of always looking at the same place",
    "lr": "Learning rate",
    "grad_norm": "Gradient norm",
    "pairs_per_s": "Pairs per second",
    "samples_per_s": "Samples per second",
    "loader_wait": "Share of the time spent waiting for data",
}

#: A curve of more points is averaged to so many: no screen has more.
MOST_POINTS = 400

#: Pictures of a run are shown with this width in pixels at most, evenly spread over its steps.
WIDEST, MOST_PICTURES, QUALITY = 1400, 6, 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run has written."""

    name: str
    curves: Mapping[str, Points]  #: by the log's names
    pictures: Mapping[int, Path]  #: by step


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture on the page."""

    run: str
    step: int
    address: str


def read_run(folder: Path) -> Run:
    """The log and the pictures of a run. Raises ValueError when there is no log, or not a number in it."""
    path = folder / "log.jsonl"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); give the output folder of a run") from None
    curves: dict[str, Points] = {}
    for line in text.splitlines():
        try:
            record = json.loads(line)
            step = record["step"]
        except (json.JSONDecodeError, KeyError, TypeError):
            break  # a killed run can leave its last line half-written
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                curves.setdefault(name, []).append((step, value))
    if not curves:
        raise ValueError(f"{path}: has no numbers yet")
    pictures = {int(file.stem): file for file in sorted((folder / "pictures").glob("*.png")) if file.stem.isdigit()}
    return Run(name=folder.name or str(folder), curves=curves, pictures=pictures)


def curves_page(runs: Sequence[Run]) -> str:
    """The page. Raises ValueError when a picture does not decode."""
    known = sorted({name for run in runs for name in run.curves} - {"epoch"}, key=_place)
    charts = []
    for name in known:
        series = {run.name: thinned(run.curves[name]) for run in runs if name in run.curves}
        charts.append(line_chart(TITLES.get(name, name), series, "optimizer steps", name))
    ends = [(run.name, last_values(run)) for run in runs]
    shown = [picture for run in runs for picture in pictures_of(run)]
    return render_page("Training runs", "curves.html", charts=charts, ends=ends, pictures=shown)


def thinned(points: Points) -> Points:
    """At most MOST_POINTS points: means of equally many neighbours, at the mean of their steps."""
    count = math.ceil(len(points) / MOST_POINTS)
    groups = (points[start : start + count] for start in range(0, len(points), count))
    return [tuple(sum(values) / len(group) for values in zip(*group, strict=True)) for group in groups]  # type: ignore[misc]


def last_values(run: Run) -> list[tuple[str, str]]:
    """The last step, and the last value of everything, for people."""
    steps = max(int(points[-1][0]) for points in run.curves.values())
    named = [
        (TITLES.get(name, name), f"{run.curves[name][-1][1]:.4g}")
        for name in sorted(set(run.curves) - {"epoch"}, key=_place)
    ]
    return [("Steps", f"{steps:,}"), *named]


def pictures_of(run: Run) -> list[Picture]:
    """Some of its pictures, the first and the last among them. Raises ValueError when one does not decode."""
    steps = sorted(run.pictures)
    if len(steps) > MOST_PICTURES:
        steps = [steps[round(n * (len(steps) - 1) / (MOST_PICTURES - 1))] for n in range(MOST_PICTURES)]
    return [Picture(run=run.name, step=step, address=_address(run.pictures[step])) for step in steps]


def _address(path: Path) -> str:
    pixels = decode_png(path.read_bytes())
    if pixels is None:
        raise ValueError(f"{path}: does not decode")
    height, width = pixels.shape[:2]
    if width > WIDEST:
        pixels = cv2.resize(pixels, (WIDEST, round(height * WIDEST / width)), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data_uri(data.tobytes())


def _place(name: str) -> tuple[int, str]:
    order = list(TITLES)
    return (order.index(name), "") if name in order else (len(order), name)
