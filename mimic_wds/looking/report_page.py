"""The report on a data set as one page that needs nothing else; see `report` for its numbers."""

from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup

from mimic_wds import __version__
from mimic_wds.looking import report
from mimic_wds.looking.charts import bars, histogram, table
from mimic_wds.looking.page import render_page
from mimic_wds.looking.report import Looked
from mimic_wds.looking.shown import Shown, shown
from mimic_wds.looking.viewer_data import read_scene_table
from mimic_wds.storage.browse import Browser
from mimic_wds.storage.manifest import Manifest

#: Rows of long tables, and outliers that are drawn.
MOST_ROWS, MOST_OUTLIERS = 200, 8


def report_page(browser: Browser, *, samples: int, num: int, seed: int, note: Callable[[], None]) -> str:
    """The page of a data set, from `samples` samples drawn by `seed`; `num` pictures in each part of the gallery.

    `note` is called for every sample that has been read. Raises as `Browser` does.
    """
    manifest = browser.manifest
    numbers = report.draw_numbers(len(browser), samples, seed)
    looks: list[Looked] = []
    for look in report.measure(browser, numbers):
        looks.append(look)
        note()
    drawn = _Drawn(browser)
    odd = report.outliers(looks)
    alike = report.near_duplicates(looks)
    values = {
        "facts": {
            "samples": len(browser),
            "kind": manifest.kind,
            "shards": len(manifest.shards),
            "size": _size(sum(shard.bytes for shard in manifest.shards)),
            "generation": manifest.generation,
            "id": manifest.id,
            "looked": len(numbers),
            "seed": seed,
            "unreadable": len(numbers) - len(looks),
        },
        "contents": [(id, name) for id, name in CONTENTS if _has(id, manifest, looks)],
        "outliers": [(each.why, drawn(each.look)) for each in odd[:MOST_OUTLIERS]],
        "outliers_told": f"{len(odd)} of {len(looks)} drawn" + _first(odd, MOST_OUTLIERS),
        "duplicates_told": f"{len(alike)} of {len(looks)} drawn look nearly like an earlier one"
        + _first(alike, MOST_ROWS),
        "duplicates_table": table(["sample", "looks like"], [(a.key, b.key) for a, b in alike[:MOST_ROWS]])
        if alike
        else "",
        "gallery": [
            (name, [drawn(look) for look in members]) for name, members in report.gallery(looks, num, seed).items()
        ],
        "version": __version__,
        "url": browser.place.url,
    }
    title = f"{manifest.name}: what is in this data set"
    charts = _of_all(browser) | _of_drawn(looks)
    return render_page(title, "report.html", script="blend.js", **values, **charts)


CONTENTS = (
    ("composition", "Composition by source"),
    ("fates", "Kept and dropped"),
    ("overlap", "Overlap"),
    ("scenes", "Scenes"),
    ("light", "Brightness and sharpness"),
    ("duplicates", "Near duplicates"),
    ("gallery", "Gallery"),
    ("shards", "Shards"),
)


class _Drawn:
    """Samples as pictures, each drawn once."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._done: dict[int, Shown] = {}

    def __call__(self, look: Looked) -> Shown:
        if look.number not in self._done:
            self._done[look.number] = shown(self._browser.sample(look.number))
        return self._done[look.number]


def _of_all(browser: Browser) -> dict[str, object]:
    """Charts and tables of what the manifest and the scenes' lines say."""
    manifest = browser.manifest
    rows = report.composition(manifest)
    fates = report.fates(manifest)
    by_source = {source: {fate: n for s, fate, n in fates if s == source} for source, _, _ in fates}
    faults = [(s, reason, n) for s, reasons in manifest.faults.items() for reason, n in reasons.items()]
    low, high = (float(manifest.criteria.get(name, -1)) for name in ("min_overlap", "max_overlap"))
    known = sum(manifest.overlap_histogram.counts) > 0
    bounds = (low, high) if 0 <= low < high else None
    return {
        "composition_chart": bars("Samples by source", {str(row[0]): float(str(row[1])) for row in rows}, "samples"),
        "composition_table": table(["source", "samples", "scenes", "candidates", "dropped", "kept", "licence"], rows),
        "fates_charts": [(s, bars(f"Candidates of {s}", kinds, "samples")) for s, kinds in by_source.items()],
        "fates_table": table(["source", "fate", "candidates"], fates) if fates else "",
        "faults_table": table(["source", "reason", "how many"], faults) if faults else "",
        "overlap_chart": histogram(
            "Overlap", manifest.overlap_histogram.edges, manifest.overlap_histogram.counts, "overlap", bounds
        )
        if known
        else "",
        "bounds": f": {low:g} to {high:g}" if bounds else "",
        "shards_table": table(
            ["shard", "samples", "bytes", "sha256"],
            [(s.name, s.samples, s.bytes, s.sha256) for s in manifest.shards[:MOST_ROWS]],
        ),
        "shards_left": max(0, len(manifest.shards) - MOST_ROWS),
        **_of_scenes(browser),
    }


def _of_scenes(browser: Browser) -> dict[str, object]:
    """Samples per scene; nothing for imports, whose lines are of other things than scenes."""
    manifest = browser.manifest
    scenes = None if manifest.criteria.get("preset") == "import" else read_scene_table(browser.place, manifest)
    if scenes is None or not len(scenes.count):
        return {"scenes_chart": "", "scenes_told": ""}
    edges, counts = report.binned(scenes.count.tolist(), min(20, len(scenes.count)))
    told = (
        f"{len(scenes.count):,} scenes with samples; samples per scene: least {scenes.count.min():,}, "
        f"median {np.median(scenes.count):,.0f}, most {scenes.count.max():,}."
    )
    return {"scenes_chart": histogram("Samples per scene", edges, counts, "samples of a scene"), "scenes_told": told}


def _of_drawn(looks: Sequence[Looked]) -> dict[str, object]:
    """Charts of what was measured."""
    inliers = [float(look.inliers) for look in looks if look.inliers >= 0]
    bright = [value for look in looks for value in look.brightness]
    sharp = [float(np.log10(max(value, 1e-3))) for look in looks for value in look.sharpness]
    light = np.histogram(bright, 32, (0, 256))
    empty = Markup("")
    return {
        "inliers_chart": histogram("Inliers", *report.binned(inliers), "inliers of a pair") if inliers else empty,
        "brightness_chart": histogram("Brightness", light[1].tolist(), light[0].tolist(), "mean grey level"),
        "sharpness_chart": histogram("Sharpness", *report.binned(sharp), "log10 of the Laplacian's variance")
        if sharp
        else empty,
    }


def _has(id: str, manifest: Manifest, looks: Sequence[Looked]) -> bool:
    if id == "fates":
        return bool(report.fates(manifest))
    if id == "overlap":
        return sum(manifest.overlap_histogram.counts) > 0 or any(look.inliers >= 0 for look in looks)
    return True


def _first(things: Sequence[object], most: int) -> str:
    return f"; the first {most}:" if len(things) > most else "."


def _size(count: int) -> str:
    """Bytes for people."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:,} bytes"
