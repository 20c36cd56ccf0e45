"""Charts: lengths follow numbers, ticks are round, what is shown is also told, and nothing in a name is markup."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_wds.looking.charts import HEIGHT, PALETTE, TICKS, bars, histogram, line_chart, table, ticks
from mimic_wds.looking.report import binned, binned_whole

HOSTILE = '<img src=x onerror="alert(1)">"\'&amp;</svg></script>'
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=30)
NUMBERS = st.integers(0, 10**9).map(float)


def rectangles(chart, kind="bar"):
    return [node for node in ET.fromstring(str(chart)).iter("rect") if node.get("class") == kind]


def texts(chart):
    return [node.text for node in ET.fromstring(str(chart)).iter("text")]


@given(st.dictionaries(NAMES, NUMBERS, min_size=1, max_size=8))
def test_bars_are_as_long_as_their_numbers(rows):
    chart = bars("Title", rows, "pairs")
    lengths = [float(node.get("width")) for node in rectangles(chart)]
    longest = max(rows.values())
    assert len(lengths) == len(rows)
    if longest:
        assert max(lengths) == pytest.approx(320)
        expected = [320 * value / longest for value in rows.values()]
        assert lengths == pytest.approx(expected, abs=0.051)
    assert texts(chart)[0] == "Title (pairs)"
    full_names = [node.text or "" for node in ET.fromstring(str(chart)).iter("title")]
    assert full_names == list(rows)
    numbers = [int(text.replace(",", "")) for text in texts(chart)[2::2]]
    assert numbers == list(rows.values())


def test_bars_say_shares():
    assert texts(bars("T", {"a": 3, "b": 1, "c": 0}, shares=True))[2::2] == ["3 (75.0%)", "1 (25.0%)", "0 (0.0%)"]
    assert texts(bars("T", {"a": 0}, shares=True))[2] == "0 (0.0%)"
    assert bars("T", {}) == ""


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=50), st.integers(1, 30))
def test_bins_of_whole_numbers_hold_every_value_once(values, bins):
    edges, counts = binned_whole(values, bins)
    assert len(counts) <= bins
    assert sum(counts) == len(values)
    assert len(counts) >= min(bins, 5) or max(values) - min(values) >= 5
    assert all(edge == int(edge) for edge in edges)
    assert len(set(np.diff(edges))) == 1
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        assert count == sum(low <= value < high for value in values)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_bins_of_any_numbers_hold_every_value_once(values):
    edges, counts = binned(values)
    assert sum(counts) == len(values)
    assert edges[0] <= min(values)
    assert edges[-1] >= max(values)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(-5, 5), st.floats(0.01, 100))
def test_a_histogram_has_a_bar_for_each_count(counts, first, step):
    edges = [first + step * i for i in range(len(counts) + 1)]
    found = rectangles(histogram("Title", edges, counts, "overlap"))
    heights, bottoms = (
        [float(node.get("height")) for node in found],
        [float(node.get("y")) + float(node.get("height")) for node in found],
    )
    assert heights == pytest.approx([188 * count / max([*counts, 1]) for count in counts], abs=0.051)
    assert bottoms == pytest.approx([HEIGHT - 40] * len(counts), abs=0.11)
    assert [int(node[0].text.rsplit(": ")[1].replace(",", "")) for node in found] == counts


def test_a_histogram_marks_a_range_and_writes_its_ends():
    chart = histogram("Overlap", np.linspace(0, 1, 21).tolist(), [1] * 20, "overlap", (0.5, 0.75), "pairs")
    (marked,) = rectangles(chart, "marked")
    bar = rectangles(chart)
    assert float(marked.get("x")) == pytest.approx(float(bar[10].get("x")) - 0.5, abs=0.1)
    end = float(marked.get("x")) + float(marked.get("width"))
    assert end == pytest.approx(float(bar[15].get("x")) - 0.5, abs=0.2)
    assert {"Overlap", "overlap", "pairs", "0.5", "0.75"} <= set(texts(chart))
    assert not rectangles(histogram("Overlap", [0, 1], [1], "overlap"), "marked")


def test_what_a_chart_shows_is_told():
    chart = histogram("Overlap", [0, 0.5, 1], [0, 1234], "overlap", unit="pairs")
    assert ET.fromstring(str(chart)).get("aria-label") == "Overlap, pairs by overlap: 0.5 to 1: 1,234"
    assert ET.fromstring(str(chart)).get("role") == "img"
    told = ET.fromstring(str(bars("Sources", {"a": 2, "b": 1}, "pairs"))).get("aria-label")
    assert told == "Sources (pairs), a 2, b 1"


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_round_and_inside(low, span):
    high = low + span
    if (high - low) < 1e-6 * max(abs(low), 1e-3):
        return
    found = ticks(low, high)
    assert 1 <= len(found) <= TICKS + 1
    slack = 1e-6 * span
    assert all(low - slack <= tick <= high + slack for tick in found)
    if len(found) > 1:
        step = found[1] - found[0]
        leading = step / 10 ** math.floor(math.log10(step) + 1e-9)
        assert min(abs(leading - round_step) for round_step in (1, 2, 5)) < 1e-3


def test_ticks_of_known_ranges():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 139) == [0, 50, 100]
    assert ticks(24, 396) == [100, 200, 300]
    assert ticks(3, 3) == [3]
    assert ticks(0, 2, whole=True) == [0, 1, 2]
    assert ticks(0, 0.5, whole=True) == [0]


def test_a_line_has_gaps_where_nothing_is_known():
    line = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 4.0), (4, 3.0)]
    chart = line_chart("Loss", {"train": line, HOSTILE: [(0, 0.0)]}, "epoch", "loss")
    lines = list(ET.fromstring(str(chart)).iter("polyline"))
    assert [len(node.get("points").split()) for node in lines] == [2, 2, 1]
    assert [node.get("stroke") for node in lines] == [PALETTE[0], PALETTE[0], PALETTE[1]]
    heights = [float(point.split(",")[1]) for node in lines for point in node.get("points").split()]
    assert heights == pytest.approx([200 - 188 * y / 4 for y in (1, 2, 4, 3, 0)], abs=0.051)
    assert "train ends at 3" in ET.fromstring(str(chart)).get("aria-label")
    assert line_chart("Loss", {"train": [(0, math.nan)]}, "epoch", "loss") == ""


@given(st.lists(st.tuples(NAMES, st.integers(-(10**9), 10**9)), max_size=5))
def test_a_table_escapes_and_aligns(rows):
    found = ET.fromstring(str(table(["name", "<n>"], rows, "All of <it>")))
    assert found.find("caption").text == "All of <it>"
    assert [node.text for node in found.iter("th")] == ["name", "<n>"]
    assert all(node.get("scope") == "col" for node in found.iter("th"))
    cells = [(row[0].text or "", int(row[1].text.replace(",", ""))) for row in found.find("tbody")]
    assert cells == rows
    assert all(row[1].get("class") == "number" and row[0].get("class") is None for row in found.find("tbody"))
    if rows:
        assert [node.get("class") for node in found.iter("th")] == [None, "number"]


@pytest.mark.parametrize(
    "drawn",
    [
        bars(HOSTILE, {HOSTILE: 1}, HOSTILE),
        histogram(HOSTILE, [0, 1], [1], HOSTILE, unit=HOSTILE),
        line_chart(HOSTILE, {HOSTILE: [(0, 1)]}, HOSTILE, HOSTILE),
        table([HOSTILE], [(HOSTILE,)], HOSTILE),
    ],
)
def test_names_are_text_in_charts(drawn):
    root = ET.fromstring(str(drawn))
    assert not list(root.iter("img"))
    assert not list(root.iter("script"))
    assert not re.search(r"<img|</script", str(drawn))
    assert any(HOSTILE in (node.text or "") for node in root.iter())
