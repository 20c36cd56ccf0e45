"""Explaining a pair: the very numbers of a build, verdicts with their reasons, and the page."""

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from browser import console_errors, driver, low_contrast, open_file, page, unnamed  # noqa: F401

from mimic_wds.cli.explain import REASONS, measured_of, vars_of
from mimic_wds.cli.main import run
from mimic_wds.curation.criteria import Criteria, preset
from mimic_wds.curation.scene import Tally, describe, judge, make_estimator
from mimic_wds.curation.trace import trace
from mimic_wds.pairs import DropReason, Overlap, Scene, View
from mimic_wds.sources.simulator.film import write_video

SCENE = Scene(source="images", name="some", path="/in")

#: Reasons that need more than the pictures of one pair.
ELSEWHERE = {
    DropReason.UNREADABLE,
    DropReason.EMPTY_VIEW,
    DropReason.NO_DEPTH,
    DropReason.NEAR_DUPLICATE,
    DropReason.DUPLICATE_KEY,
    DropReason.NOT_SELECTED,
}


def texture(seed=0, side=600):
    """Blobs of all sizes: many keypoints."""
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.random((n, n, 3)), (side, side), interpolation=cv2.INTER_CUBIC) for n in (8, 30, 90)]
    return (np.mean(layers, axis=0).clip(0, 1) * 255).astype(np.uint8)


def crops(shift, turn=0.0):
    """Two views of one texture, 300 pixels wide, the second moved by `shift` pixels."""
    picture = texture()
    matrix = cv2.getRotationMatrix2D((300, 300), turn, 1.0)
    moved = cv2.warpAffine(picture, matrix, (600, 600))
    return picture[100:400, 100:400], moved[100:400, 100 + shift : 400 + shift]


def views(*images):
    return [View(image=np.ascontiguousarray(image), frame=f"view{n}") for n, image in enumerate(images)]


def saved(folder, *images, names=("a.png", "b.png")):
    paths = [folder / name for name in names]
    for path, image in zip(paths, images, strict=True):
        assert cv2.imwrite(str(path), image[..., ::-1])
    return [str(path) for path in paths]


@pytest.mark.parametrize("name", ["default", "paper"])
@pytest.mark.parametrize(("shift", "turn"), [(110, 0), (110, 8), (0, 0), (200, 0), (60, -5)])
def test_the_steps_end_in_what_a_build_finds(name, shift, turn):
    criteria = preset(name)
    pair = views(*crops(shift, turn))
    found = trace(SCENE, pair, criteria)
    estimator = make_estimator(criteria)
    expected = judge(SCENE, *describe(pair, criteria, estimator, Tally()), criteria, estimator)
    measured = measured_of(found)
    loose = replace(criteria, min_overlap=0.0, max_overlap=1.0)
    overlap = judge(SCENE, *describe(pair, criteria, estimator, Tally()), loose, estimator)
    if isinstance(overlap, Overlap):  # else all patches go together, or none
        assert measured.ratio == overlap.ratio
        assert np.array_equal(measured.corr_0to1, overlap.corr_0to1)
        assert np.array_equal(measured.H_0to1, overlap.H_0to1)
        assert (measured.num_matches, measured.num_inliers) == (overlap.num_matches, overlap.num_inliers)
    assert found.outcome == expected or found.outcome.ratio == expected.ratio
    for votes in filter(None, (found.forward, found.backward)):
        assert votes.num_out + votes.num_taken + (votes.corr >= 0).sum() == 196


def test_kept_and_dropped_pairs_are_told(tmp_path, capsys):
    out = str(tmp_path / "why.html")
    verdicts = {}
    for shift in (110, 10, 200):
        names = saved(tmp_path, *crops(shift))
        assert run(["explain", *names, "--out", out, "--json"]) == 0
        verdicts[shift] = json.loads(capsys.readouterr().out)
        assert run(["explain", *names, "--out", out]) == 0
        told = capsys.readouterr()
        words = told.out + told.err
        assert f"overlap is {verdicts[shift]['overlap']:.3f}" in words
        html = (tmp_path / "why.html").read_text()
        assert html.count('<li class="step') == 5
        assert html.count("step failed") == (shift != 110)
        inliers, matches = verdicts[shift]["inliers"], verdicts[shift]["matches"]
        assert f"takes {inliers} of the {matches} matches" in html
        assert html.count("<line ") == 2 * matches
        assert html.count("<circle ") == sum(verdicts[shift]["keypoints"])
    assert [verdicts[shift]["verdict"] for shift in (110, 10, 200)] == [
        "kept", "overlap_too_large", "overlap_too_small",
    ]  # fmt: skip
    assert "lower -c min_overlap" in words


@pytest.mark.parametrize(
    ("images", "criteria", "verdict", "num_steps"),
    [
        ((np.zeros((300, 300, 3), np.uint8), texture()[:300, :300]), [], "no_keypoints", 1),
        ((texture(1)[:300, :300], texture(2)[:300, :300]), [], "too_few_matches", 2),
        (crops(110), ["min_inliers=5000"], "too_few_inliers", 5),
        (crops(110), ["min_texture=100000"], "low_texture", 1),
        (crops(110), ["min_overlap=0.7"], "overlap_too_small", 5),
    ],
)
def test_every_step_can_be_the_last(tmp_path, capsys, images, criteria, verdict, num_steps):
    more = [word for change in criteria for word in ("-c", change)]
    out = tmp_path / "why.html"
    assert run(["explain", *saved(tmp_path, *images), "--out", str(out), "--json", *more]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == verdict
    html = out.read_text()
    assert html.count('<li class="step') == num_steps
    assert html.count("step failed") == 1
    assert f"Dropped: {verdict}" in html


def test_every_reason_of_a_pair_has_words():
    assert set(REASONS) == set(DropReason) - ELSEWHERE
    for why, advice in REASONS.values():
        assert "{" not in (why + advice).format(**vars_of(Criteria()))


def test_moments_of_a_video(tmp_path, capsys):
    picture = texture()
    frames = (picture[150:390, 20 * n : 320 + 20 * n] for n in range(14))
    write_video(tmp_path / "walk.mp4", frames, fps=5.0)
    video, out = str(tmp_path / "walk.mp4"), str(tmp_path / "why.html")
    found = {}
    for times in (("0", "1.2"), ("1.2", "0"), ("0", "0.2")):
        assert run(["explain", video, *times, "--out", out, "--json"]) == 0
        found[times] = json.loads(capsys.readouterr().out)
    assert found["0", "1.2"]["keypoints"] == found["1.2", "0"]["keypoints"][::-1]
    assert found["0", "0.2"]["overlap"] > 0.85
    assert found["0", "1.2"]["overlap"] == pytest.approx(1 - 120 / 320, abs=0.08)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.png"], "two images, or a video and two times"),
        (["a.png", "none.png"], "none.png: cannot be read"),
        (["walk.mp4", "1", "soon"], "no time in seconds"),
        (["a.png", "b.png", "-c", "estimator=truth"], "no depth and poses"),
        (["a.png", "b.png", "--out", "why.txt"], "ending in .html"),
        (["a.png", "b.png", "-c", "min_overlop=0.4"], "min_overlap"),
    ],
)
def test_mistakes_are_told(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, *crops(110))
    assert run(["explain", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.html"))


def test_the_page_in_a_browser(page, tmp_path):  # noqa: F811
    names = ('<img src=x onerror="document.title=1">.png', "</script><script>document.title=2<script>.png")
    names = tuple(name.replace("/", "∕") for name in names)  # no file name holds a slash
    out = tmp_path / "why.html"
    assert run(["explain", *saved(tmp_path, *crops(110), names=names), "--out", str(out)]) == 0
    open_file(page, out)
    assert page.title == f"{names[0]} and {names[1]}"
    assert page.find_element("tag name", "h1").text == f"{names[0]} and {names[1]}"
    assert console_errors(page) == []
    assert low_contrast(page) == []
    assert unnamed(page) == []
    figures = page.find_elements("css selector", "svg.pair")
    assert len(figures) == 5
    assert all(figure.get_attribute("aria-label") for figure in figures)
    widths = page.execute_script(
        "return [...document.querySelectorAll('svg.pair image')].map((i) => i.getBoundingClientRect().width)"
    )
    assert len(widths) == 10
    assert min(widths) > 300
    assert not re.search(r'(src|href)="(?!data:)', out.read_text())
