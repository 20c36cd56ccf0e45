"""The report on a data set as one page that needs nothing else; see `report` for its numbers."""

from collections.abc import Callable, Sequence

from mimic_wds import __version__
from mimic_wds.looking import report, report_charts
from mimic_wds.looking.charts import table
from mimic_wds.looking.page import render_page
from mimic_wds.looking.report import Looked
from mimic_wds.looking.shown import Shown, shown
from mimic_wds.storage.browse import Browser
from mimic_wds.storage.manifest import Manifest

#: Outliers and near duplicates that are drawn, and rows of the table of near duplicates.
MOST_OUTLIERS, MOST_ALIKE, MOST_ROWS = 8, 4, 200

#: Sections of the page: id, title.
CONTENTS = (
    ("composition", "Composition by source"),
    ("fates", "Kept and dropped"),
    ("overlap", "Overlap and inliers"),
    ("scenes", "Scenes"),
    ("light", "Brightness and sharpness"),
    ("duplicates", "Near duplicates"),
    ("gallery", "Gallery"),
    ("shards", "Shards"),
)


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
    values = {
        **_facts(browser, len(numbers), len(looks), seed),
        **report_charts.of_composition(manifest),
        **report_charts.of_overlap(manifest, looks),
        **report_charts.of_scenes(browser),
        **report_charts.of_light(looks, odd),
        **report_charts.of_shards(manifest),
        **_alike(looks, drawn),
        "outliers": [(f"{each.kind}: {each.why}", drawn(each.look)) for each in odd[:MOST_OUTLIERS]],
        "outliers_told": f"{len(odd):,} of {len(looks):,} drawn{_first(len(odd), MOST_OUTLIERS)}",
        "gallery": [
            (name, [drawn(look) for look in members]) for name, members in report.gallery(looks, num, seed).items()
        ],
    }
    return render_page(f"{manifest.name}: what is in this data set", "report.html", script="blend.js", **values)


def _facts(browser: Browser, wanted: int, read: int, seed: int) -> dict[str, object]:
    """What stands at the top and the end of the page."""
    manifest = browser.manifest
    settings = [(name, str(value)) for name, value in (manifest.criteria | manifest.versions).items()]
    facts = {
        "samples": len(browser),
        "kind": manifest.kind,
        "noun": browser.noun,
        "shards": len(manifest.shards),
        "size": _size(sum(shard.bytes for shard in manifest.shards)),
        "generation": manifest.generation,
        "id": manifest.id,
        "looked": wanted,
        "seed": seed,
        "unreadable": wanted - read,
    }
    contents = [(id, name) for id, name in CONTENTS if _has(id, manifest)]
    settings_table = table(["setting", "value"], settings) if settings else ""
    return {
        "facts": facts,
        "contents": contents,
        "titles": dict(contents),
        "settings_table": settings_table,
        "version": __version__,
        "url": browser.place.url,
    }


def _alike(looks: Sequence[Looked], drawn: "_Drawn") -> dict[str, object]:
    """Near duplicates: how many, which, and pictures of some."""
    alike = report.near_duplicates(looks)
    rows = [(later.key, earlier.key) for later, earlier in alike[:MOST_ROWS]]
    told = f"{len(alike):,} of {len(looks):,} drawn look nearly like an earlier one{_first(len(alike), MOST_ROWS)}"
    return {
        "duplicates_told": told,
        "duplicates_table": table(["sample", "looks like"], rows) if rows else "",
        "duplicates": [(drawn(later), drawn(earlier)) for later, earlier in alike[:MOST_ALIKE]],
        "near_bits": report.NEAR_BITS,
    }


class _Drawn:
    """Samples as pictures, each drawn once."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._done: dict[int, Shown] = {}

    def __call__(self, look: Looked) -> Shown:
        if look.number not in self._done:
            self._done[look.number] = shown(self._browser.sample(look.number))
        return self._done[look.number]


def _has(id: str, manifest: Manifest) -> bool:
    """Whether there is anything to say in this section."""
    if id == "fates":
        return bool(report.fates(manifest)) or any(manifest.faults.values())
    return id != "overlap" or manifest.kind == "pairs"


def _first(count: int, most: int) -> str:
    return f"; the first {most}:" if count > most else "."


def _size(count: int) -> str:
    """Bytes for people."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:,} bytes"
