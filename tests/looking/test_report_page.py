"""The report in a real browser, from a local file: pixels, keys, screen readers, light and dark, paper."""

import cv2
import numpy as np
import pytest
from browser import (
    console_errors,
    driver,  # noqa: F401
    focus_order,
    low_contrast,
    open_file,
    page,  # noqa: F401
    press,
    screenshot_pixels,
    set_media,
    unnamed,
)
from samples import CRITERIA, make_sample, shift_map, stage

from mimic_wds.looking.pictures import TINT, patch_colours
from mimic_wds.looking.report_page import report_page
from mimic_wds.storage.browse import open_browser
from mimic_wds.storage.packing import pack

HOSTILE = '<img src=x onerror="document.title=1">"\'&amp;</script><script>alert(1)</script>'
RED, BLUE, ORANGE = (255, 0, 0), (0, 0, 255), (0xE6, 0x9F, 0x00)
END, HOME, LEFT = "\ue010", "\ue011", "\ue012"

#: Colours of the text of charts that are not the page's own.
CHART_INKS = """
const ink = getComputedStyle(document.body).color;
return [...document.querySelectorAll("svg.chart text")].map((node) => getComputedStyle(node).fill)
  .filter((fill) => fill !== ink);
"""

WIDER = """
return [...document.querySelectorAll("body *")].filter((node) => !node.closest(".plot, .scroll, svg") &&
  node.getBoundingClientRect().right > 360).map((node) => node.outerHTML.slice(0, 100));
"""

REQUESTS = "return performance.getEntriesByType('resource').map((e) => e.name).filter((n) => !n.startsWith('data:'))"


def flat(colour):
    """A 64 x 64 JPEG of one colour (R, G, B)."""
    picture = np.full((64, 64, 3), colour[::-1], np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The report on a data set of pairs red (view 0) and blue (view 1), shifted by 16 of 64 pixels."""
    folder = tmp_path_factory.mktemp("page") / "tiny"
    folder.mkdir()
    colours = {"image0_jpg": flat(RED), "image1_jpg": flat(BLUE)}
    pairs = [make_sample(n, scene=HOSTILE, overlap=0.55 + n / 100, **colours) for n in range(5)]
    stage(folder.parent / "staging", 0, pairs, HOSTILE)
    pack(folder.parent / "staging", 1, folder, "tiny", 10**6, {"criteria": CRITERIA, "versions": {}, "licences": {}})
    file = folder.parent / "report.html"
    text = report_page(open_browser(folder), samples=100, num=2, seed=0, note=lambda: None)
    file.write_text(text, encoding="utf-8")
    return file


def show(page, file):  # noqa: F811
    """Open the file and wait for its pictures, which lie inside it."""
    open_file(page, file)
    page.execute_script("return Promise.all([...document.images].map((image) => image.decode()))")


def pixels(page, selector):  # noqa: F811
    """What an element shows, (H, W, 3)."""
    return screenshot_pixels(page, page.find_element("css selector", selector)).astype(int)


def middle(picture):
    """Without the outermost sixth on each side."""
    height, width = picture.shape[:2]
    return picture[height // 6 : -height // 6, width // 6 : -width // 6]


def test_the_page_opens_without_a_request_or_a_complaint(page, file):  # noqa: F811
    show(page, file)
    assert page.title == "tiny: what is in this data set"
    assert page.execute_script(REQUESTS) == []
    assert page.execute_script("return [...document.images].filter((image) => !image.naturalWidth).length") == 0
    assert HOSTILE in page.find_element("tag name", "main").get_attribute("textContent")
    page.find_element("link text", "Gallery").click()
    assert -1 <= page.execute_script("return document.getElementById('gallery').getBoundingClientRect().top") < 200
    assert console_errors(page) == []


def test_pictures_are_where_they_belong(page, file):  # noqa: F811
    show(page, file)
    first = "section[aria-labelledby=gallery] article .views figure:nth-child({})"
    assert np.abs(middle(pixels(page, first.format(1) + " img")) - RED).max() <= 6
    assert np.abs(middle(pixels(page, first.format(2) + " img")) - BLUE).max() <= 6
    corr, colours = shift_map(), patch_colours(4, 4).astype(float)
    matches = np.flatnonzero(corr >= 0)
    for at, view, patches in ((3, RED, matches), (4, BLUE, corr[matches])):
        seen = pixels(page, first.format(at) + " img")
        row, column = np.meshgrid(*[(np.arange(4) * 2 + 1) * seen.shape[0] // 8] * 2, indexing="ij")
        expected = np.full((16, 3), 0.6 * 255 / 3 + 80)  # grey: no match
        expected[patches] = (1 - TINT) * np.array(view) + TINT * colours[matches]
        assert np.abs(seen[row, column].reshape(16, 3) - expected).max() <= 12, "matches have the same colour"
    boxes = [page.find_element("css selector", first.format(at)).rect for at in (1, 2, 3, 4, 5)]
    assert [box["x"] for box in boxes] == sorted({box["x"] for box in boxes})
    assert len({box["y"] for box in boxes}) == 1, "beside each other in a wide window"


def test_the_slider_blends_by_keys(page, file):  # noqa: F811
    show(page, file)
    stack = "section[aria-labelledby=gallery] article .stack"
    slider = page.find_element("css selector", "section[aria-labelledby=gallery] article input")
    half = pixels(page, stack)
    height, width = half.shape[:2]
    edge = width / 4
    seen0, seen1 = (slice(int(edge + 6), -8), slice(8, int(edge - 6)))
    rows = slice(height // 4, -height // 4)
    assert np.abs(half[rows, seen0] - (128, 0, 128)).max() <= 8
    assert np.abs(half[rows, seen1] - BLUE).max() <= 6, "which view 0 does not see"
    is_line = (np.abs(half - ORANGE).max(axis=2) <= 60)[rows]
    assert is_line.any(axis=1).all(), "the frame of view 0 in orange"
    assert np.abs(np.flatnonzero(is_line.any(axis=0)) - edge).max() <= 4
    page.execute_script("arguments[0].focus()", slider)
    press(page, END)
    assert np.abs(pixels(page, stack)[rows, seen0] - RED).max() <= 8
    press(page, HOME)
    assert np.abs(pixels(page, stack)[rows, seen0] - BLUE).max() <= 6
    press(page, END, LEFT)
    assert slider.get_attribute("aria-valuetext") == "99 % view 0"
    others = page.execute_script("return [...document.querySelectorAll('.warped')].map((p) => p.style.opacity)")
    assert sorted(set(others)) == ["0.5", "0.99"]
    assert others.count("0.99") == 1, "the others stay as they are"


def test_tab_leads_through_the_contents_to_the_sliders(page, file):  # noqa: F811
    show(page, file)
    assert unnamed(page) == []
    sliders = page.execute_script("return [...document.querySelectorAll('input')].map((i) => i.id)")
    links = page.execute_script("return document.querySelectorAll('nav a').length")
    others = page.execute_script("return document.querySelectorAll('summary').length")
    order = focus_order(page, len(sliders) + links + others)
    assert order[0] == "summary"
    assert order[1 : links + 1] == ["a"] * links
    assert [name for name in order if name in sliders] == sliders
    assert page.execute_script("return getComputedStyle(document.activeElement).outlineWidth") == "3px"
    order = page.execute_script("return [...document.querySelectorAll('h1, h2, h3')].map((h) => +h.tagName[1])")
    assert order[0] == 1
    assert max(np.diff(order)) <= 1, "no level is left out"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(page, file, scheme):  # noqa: F811
    set_media(page, scheme)
    show(page, file)
    page.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    assert low_contrast(page) == []
    assert page.execute_script(CHART_INKS) == []
    assert (screenshot_pixels(page)[5, 5].mean() > 100) == (scheme == "light")


def test_paper_is_white_and_has_no_controls(page, file):  # noqa: F811
    show(page, file)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    try:
        assert page.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        hidden = "return [...document.querySelectorAll('nav, input')].filter((node) => node.checkVisibility()).length"
        assert page.execute_script(hidden) == 0
        assert low_contrast(page) == []
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_a_narrow_window_is_not_scrolled_sideways(page, file):  # noqa: F811
    metrics = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        show(page, file)
        assert page.execute_script(WIDER) == []
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
