"""Curves of runs: the log's numbers, averaged where there are many, and the pictures."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import console_errors, driver, low_contrast, open_file, page, unnamed  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st

from mimic_wds.looking.curves import MOST_PICTURES, MOST_POINTS, pictures_of, read_run, thinned

ROOT = Path(__file__).parents[2]


def make_run(folder, steps, rate=1.0, torn=False, pictures=0):
    (folder / "pictures").mkdir(parents=True)
    lines = [json.dumps({"step": n, "loss": 1 / (rate * n), "attention": None, "skipped": ""}) for n in steps]
    (folder / "log.jsonl").write_text("\n".join(lines) + ('\n{"step": 99, "lo' if torn else "\n"))
    for number in range(pictures):
        cv2.imwrite(str(folder / "pictures" / f"{10 * number:07d}.png"), np.full((8, 2000, 3), number, np.uint8))
    return folder


def plot(*words):
    command = [sys.executable, ROOT / "tools" / "plot_run.py", *words]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)


def test_a_run_is_read_up_to_a_torn_line(tmp_path):
    run = read_run(make_run(tmp_path / "one", range(1, 6), torn=True))
    assert run.curves == {"loss": [(n, 1 / n) for n in range(1, 6)]}
    assert run.name == "one"


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=3 * MOST_POINTS))
def test_many_points_become_means_of_neighbours(values):
    points = list(enumerate(values))
    found = thinned(points)
    assert len(found) <= MOST_POINTS
    assert (found == points) == (len(points) <= MOST_POINTS)
    each = -(-len(points) // MOST_POINTS)
    weights = [min(each, len(points) - each * n) for n in range(len(found))]
    assert np.dot(weights, [y for _, y in found]) == pytest.approx(sum(values), abs=1e-6)


def test_pictures_are_spread_over_the_steps(tmp_path):
    run = read_run(make_run(tmp_path / "one", [1], pictures=30))
    steps = [picture.step for picture in pictures_of(run)]
    assert len(steps) == MOST_PICTURES
    assert (steps[0], steps[-1]) == (0, 290)
    assert max(np.diff(steps)) <= 60


def test_runs_stand_over_each_other(tmp_path, page):  # noqa: F811
    one = make_run(tmp_path / "a" / "<b>depth", range(1, 9), pictures=1)
    other = make_run(tmp_path / "c" / "<b>depth", range(1, 5), rate=2.0)
    done = plot(one, other, "--out", tmp_path / "curves.html")
    assert (done.returncode, done.stderr) == (0, "")
    html = (tmp_path / "curves.html").read_text()
    assert html.count("<polyline") == 2
    assert "<b>" not in html
    open_file(page, tmp_path / "curves.html")
    lines = [line.get_attribute("points").split() for line in page.find_elements("css selector", "polyline")]
    assert [len(points) for points in lines] == [8, 4]
    first, last = ([float(n) for n in lines[0][place].split(",")] for place in (0, -1))
    assert first[1] < last[1]  # the loss falls; down is larger
    assert console_errors(page) == []
    assert low_contrast(page) == []
    assert unnamed(page) == []
    assert str(one) in page.find_element("tag name", "table").text
    (picture,) = page.find_elements("tag name", "img")
    assert "after 0 steps" in picture.get_attribute("alt")


@pytest.mark.parametrize(("name", "message"), [("none", "give the output folder"), ("empty", "no numbers yet")])
def test_mistakes_are_told(tmp_path, name, message):
    make_run(tmp_path / "empty", [])
    done = plot(tmp_path / name, "--out", tmp_path / "curves.html")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "curves.html").exists()
