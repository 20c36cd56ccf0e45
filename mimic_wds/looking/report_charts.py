"""Charts and tables of a report on a data set; `report` has their numbers, `report_page` the page around them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from mimic_wds.looking import report
from mimic_wds.looking.charts import bars, histogram, table
from mimic_wds.looking.report import KINDS, Looked, Outlier
from mimic_wds.looking.viewer_data import Scenes, read_scene_table
from mimic_wds.storage.browse import Browser
from mimic_wds.storage.manifest import Manifest

#: Rows of long tables, sources that get a chart of their own, and scenes that are named as the largest.
MOST_ROWS, MOST_CHARTS, LARGEST = 200, 12, 10

#: Bins of the histogram of brightness: 8 grey levels each.
GREY_BINS = 32


def of_composition(manifest: Manifest) -> dict[str, object]:
    """Samples by source (figure 2 of MIMIC, arXiv 2306.15128, as bars), and what became of the candidates."""
    rows = report.composition(manifest)
    fates = report.fates(manifest)
    by_source = {source: {fate: n for s, fate, n in fates if s == source} for source, _, _ in fates}
    largest = sorted(by_source, key=lambda source: -sum(by_source[source].values()))[:MOST_CHARTS]
    total: Counter[str] = Counter()
    for _, fate, n in fates:
        total[fate] += n
    charts = [bars(f"Candidates of {source}", by_source[source], manifest.kind, shares=True) for source in largest]
    if len(by_source) > 1:
        charts.insert(0, bars("Candidates of all sources", dict(total.most_common()), manifest.kind, shares=True))
    faults = [(s, reason, n) for s, reasons in manifest.faults.items() for reason, n in reasons.items()]
    head = ["source", manifest.kind, "share", "scenes", "candidates", "dropped", "kept", "licence"]
    held = {str(row[0]): float(str(row[1])) for row in rows}
    return {
        "composition_chart": bars("Samples by source", held, manifest.kind, shares=True),
        "composition_table": table(head, rows, "What each source gave"),
        "fates_charts": charts,
        "fates_table": table(["source", "fate", "candidates"], fates) if fates else "",
        "faults_table": table(["source", "reason", "how many"], faults) if faults else "",
    }


def of_overlap(manifest: Manifest, looks: Sequence[Looked]) -> dict[str, object]:
    """Overlaps of all pairs with the criteria marked; inliers of those measured."""
    found, bounds = manifest.overlap_histogram, criteria_bounds(manifest)
    inliers = [look.inliers for look in looks if look.inliers >= 0]
    overlap = histogram("Overlap", found.edges, found.counts, "overlap (share of patches)", bounds, manifest.kind)
    return {
        "overlap_chart": overlap if sum(found.counts) else "",
        "overlap_known": sum(found.counts),
        "bounds": f"{bounds[0]:g} to {bounds[1]:g}" if bounds else "",
        "inliers_chart": histogram("Inliers", *report.binned_whole(inliers), "inliers of a pair", unit=manifest.kind)
        if inliers
        else "",
        "inliers_told": _spread(inliers) if inliers else "",
    }


def criteria_bounds(manifest: Manifest) -> tuple[float, float] | None:
    """Between which overlaps the build kept pairs; None if it did not say."""
    low, high = manifest.criteria.get("min_overlap", 0.0), manifest.criteria.get("max_overlap", 1.0)
    if not {"min_overlap", "max_overlap"} & set(manifest.criteria) or isinstance(low, str) or isinstance(high, str):
        return None
    return (float(low), float(high)) if low < high else None


def of_scenes(browser: Browser) -> dict[str, object]:
    """Samples per scene; nothing for imports, whose lines are of other things than scenes."""
    manifest = browser.manifest
    failed = list(manifest.failed_scenes.items())[:MOST_ROWS]
    values: dict[str, object] = {
        "is_import": manifest.criteria.get("preset") == "import",
        "failed_table": table(["scene", "what was wrong"], failed, "Scenes that failed") if failed else "",
        "failed_left": len(manifest.failed_scenes) - len(failed),
        "scenes_chart": "",
        "scenes_told": "",
        "largest_table": "",
    }
    scenes = None if values["is_import"] else read_scene_table(browser.place, manifest)
    if scenes is None or not len(scenes.count):
        return values
    counts = scenes.count.tolist()
    chart = histogram(
        f"{manifest.kind.capitalize()} per scene",
        *report.binned_whole(counts),
        f"{manifest.kind} of a scene",
        unit="scenes",
    )
    noun = "scene" if len(counts) == 1 else "scenes"
    told = f"{len(counts):,} {noun} with {manifest.kind}; {manifest.kind} per scene: {_spread(counts)}"
    return {**values, "scenes_chart": chart, "scenes_told": told, "largest_table": _largest(scenes, manifest)}


def _largest(scenes: Scenes, manifest: Manifest) -> Markup:
    """The scenes with the most samples."""
    order = np.argsort(-scenes.count, kind="stable")[:LARGEST].tolist()
    rows = [(scenes.source[i], scenes.scene[i], int(scenes.count[i])) for i in order]
    return table(["source", "scene", manifest.kind], rows, f"Scenes with the most {manifest.kind}")


def of_light(looks: Sequence[Looked], odd: Sequence[Outlier]) -> dict[str, object]:
    """Brightness and sharpness of the views measured, and those that are unlike others of their source."""
    bright = [value for look in looks for value in look.brightness]
    sharp = [float(np.log10(max(value, 1e-3))) for look in looks for value in look.sharpness]
    counts, edges = np.histogram(bright, GREY_BINS, (0, 256))
    head = ["source", "samples", "median grey level", "median Laplacian variance", *KINDS]
    rows = [(each.look.key, each.look.source, each.kind, each.why) for each in odd[:MOST_ROWS]]
    return {
        "brightness_chart": histogram("Brightness", edges.tolist(), counts.tolist(), "mean grey level", unit="views")
        if bright
        else "",
        "sharpness_chart": histogram("Sharpness", *report.binned(sharp), "log10 of Laplacian variance", unit="views")
        if sharp
        else "",
        "light_table": table(head, report.light(looks, odd), "Views by source, and outliers among the samples")
        if looks
        else "",
        "outliers_table": table(["sample", "source", "kind", "why"], rows) if rows else "",
    }


def of_shards(manifest: Manifest) -> dict[str, object]:
    """The shards with their hashes."""
    rows = [(s.name, s.generation, s.samples, s.bytes, s.sha256) for s in manifest.shards[:MOST_ROWS]]
    head = ["shard", "generation", manifest.kind, "bytes", "sha256"]
    return {"shards_table": table(head, rows), "shards_left": len(manifest.shards) - len(rows)}


def _spread(values: Sequence[int]) -> str:
    return f"least {min(values):,}, median {np.median(values):,.4g}, most {max(values):,}."
