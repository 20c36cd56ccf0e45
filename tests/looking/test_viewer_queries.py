"""What is on a page follows from the manifest and `scenes.jsonl` alone; an outline is what the homography says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_wds.looking.viewer_outline import outline
from mimic_wds.looking.viewer_queries import (
    Query,
    Scenes,
    check_query,
    common,
    joined,
    like,
    numbers_at,
    read_query,
    size_of,
    spans_of,
    whole_number,
)
from mimic_wds.storage.manifest import Histogram, Manifest, ShardInfo


@st.composite
def span_lists(draw):
    cuts = sorted(draw(st.sets(st.integers(0, 60), max_size=12)))
    return joined(list(zip(cuts[::2], cuts[1::2], strict=False)))


def members(spans):
    return [number for start, stop in spans.tolist() for number in range(start, stop)]


@given(span_lists(), span_lists())
def test_common_spans_hold_what_both_hold(a, b):
    both = common(a, b)
    assert members(both) == sorted(set(members(a)) & set(members(b)))
    assert (both[1:, 0] > both[:-1, 1]).all(), "spans that touch are one"


@given(span_lists(), st.integers(0, 70), st.integers(0, 70))
def test_a_page_is_a_slice_of_all_numbers(spans, offset, limit):
    assert size_of(spans) == len(members(spans))
    assert numbers_at(spans, offset, limit) == members(spans)[offset : offset + limit]


def manifest(*sources):
    """A manifest of shards with these samples per source."""
    shards = [
        ShardInfo(name=f"tiny-{n:06d}.tar", bytes=10**6, sha256="0" * 64, samples=sum(counts.values()), sources=counts)
        for n, counts in enumerate(sources)
    ]
    empty = {
        name: {} for name in ("criteria", "versions", "candidates", "kept", "dropped", "faults", "views", "scenes")
    }
    return Manifest(
        format_version=1, name="tiny", id="0", generation=0, shards=shards, failed_scenes={}, licences={},
        overlap_histogram=Histogram(edges=[0, 1], counts=[0]), **empty,
    )  # fmt: skip


TWO = manifest({"a": 4}, {"a": 2, "b": 3}, {"b": 5})
SCENES = Scenes(["a", "a", "b", "b"], ["x1", "x2", "x1", "y"], np.array([0, 3, 6, 12]), np.array([3, 3, 6, 2]))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(), (range(14), True)),
        (Query(shard="tiny-000001.tar"), (range(4, 9), True)),
        (Query(source="a"), (range(6), True)),
        (Query(source="b"), (range(6, 14), True)),
        (Query(source="b", shard="tiny-000002.tar"), (range(9, 14), True)),
        (Query(scene="x1"), ([*range(3), *range(6, 12)], True)),
        (Query(scene="x*", source="a"), (range(6), True)),
        (Query(scene="y", shard="tiny-000002.tar"), (range(12, 14), True)),
        (Query(scene="?1", source="b", shard="tiny-000001.tar"), (range(6, 9), True)),
        (Query(scene="z"), (range(14), False)),
    ],
)
def test_filters_give_spans_without_reading_samples(query, expected):
    spans, is_exact = spans_of(query, TWO, SCENES)
    assert (members(spans), is_exact) == (list(expected[0]), expected[1])


def test_without_scenes_only_mixed_shards_and_scenes_must_be_searched():
    assert spans_of(Query(source="a"), TWO, None)[1] is False
    assert members(spans_of(Query(source="a"), TWO, None)[0]) == list(range(9))
    assert spans_of(Query(source="a", shard="tiny-000000.tar"), TWO, None)[1] is True
    assert spans_of(Query(scene="x1"), TWO, None)[1] is False


def test_suggestions_are_scenes_with_the_text_once_each():
    assert like(SCENES, "", "X", 10) == ["x1", "x2"]
    assert like(SCENES, "b", "", 10) == ["x1", "y"]
    assert like(SCENES, "", "", 2) == ["x1", "x2"]


@pytest.mark.parametrize("text", ["-1", "1.5", "٣", "1e3", "9" * 30, "x"])
def test_numbers_in_addresses_are_whole_and_in_range(text):
    with pytest.raises(ValueError, match="expected a whole number"):
        whole_number({"offset": text}, "offset", 0, 0, 1000)


@pytest.mark.parametrize("text", ["nan", "inf", "-0.1", "1.01", "half"])
def test_overlaps_in_addresses_are_from_0_to_1(text):
    with pytest.raises(ValueError, match="from 0 to 1"):
        read_query({"least": text})


@pytest.mark.parametrize("query", [Query(source="c"), Query(shard="tiny-000003.tar"), Query(where="overlap <")])
def test_queries_that_mean_nothing_here_are_refused(query):
    with pytest.raises(ValueError, match=r"source 'c'|no shard|condition"):
        check_query(query, TWO)


def test_the_outline_of_a_shift_is_the_shifted_frame():
    shift = np.array([[1, 0, 16], [0, 1, -4], [0, 0, 1]], float)
    assert outline(shift, (64, 32)) == [(15.5, -4.5), (47.5, -4.5), (47.5, 59.5), (15.5, 59.5)]
    assert outline(-2 * shift, (64, 32)) == outline(shift, (64, 32)), "a homography has no scale and no sign"


def test_what_lies_behind_the_camera_is_cut_off():
    tilted = np.array([[1, 0, 0], [0, 1, 0], [-1 / 40, 0, 1]], float)  # w = 1 - x / 40 < 0 right of x = 40
    points = np.array(outline(tilted, (64, 64)))
    back = np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(tilted).T
    back = back[:, :2] / back[:, 2:]
    assert len(points) == 4
    assert back[:, 0].max() < 40
    assert back[:, 0].max() == pytest.approx(40, abs=0.1)
    assert (back[:, 0] >= -0.51).all()
