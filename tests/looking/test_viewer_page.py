"""The viewer's page in a real browser: what it shows and where, keys, screen readers, hostile names."""

import json
import threading

import cv2
import numpy as np
import pytest
from browser import (
    console_errors,
    driver,  # noqa: F401
    focus_order,
    low_contrast,
    page,  # noqa: F401
    press,
    screenshot_pixels,
    set_media,
    unnamed,
    wait_for,
)
from samples import CRITERIA, make_image, make_image_set, make_sample, shift_map, stage
from test_viewer import CountingPlace, serving

from mimic_wds.looking.viewer_data import Viewed
from mimic_wds.pairs import invert_correspondences
from mimic_wds.storage.browse import Browser, open_browser
from mimic_wds.storage.packing import pack

HOSTILE = '<img src=x onerror="document.title=1">"\'&amp;</script><script>alert(1)</script>'
GREY = (128, 128, 128)


def flat(colour):
    """A 64 x 64 JPEG of one colour (R, G, B)."""
    picture = np.full((64, 64, 3), colour[::-1], np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """30 grey pairs of a scene, then 3 of one whose name is hostile, the left of them red, the right blue."""
    folder = tmp_path_factory.mktemp("page") / "tiny"
    folder.mkdir()
    grey = flat(GREY)
    plain = [make_sample(n, image0_jpg=grey, image1_jpg=grey, overlap=0.5 + n / 100) for n in range(30)]
    colours = {"image0_jpg": flat((255, 0, 0)), "image1_jpg": flat((0, 0, 255))}
    hostile = [make_sample(n, scene=HOSTILE, frame0="<b>0</b>", **colours) for n in range(3)]
    stage(folder.parent / "staging", 0, plain, "clip.mp4")
    stage(folder.parent / "staging", 1, hostile, HOSTILE)
    description = {"criteria": CRITERIA, "versions": {}, "licences": {"video": "CC0"}}
    pack(folder.parent / "staging", 2, folder, "tiny", 10**6, description)
    return folder


@pytest.fixture(scope="module")
def url(folder):
    with serving(Viewed(open_browser(folder))) as server:
        yield server.url.rstrip("/")


def show(page, address):  # noqa: F811
    """Open an address and wait until nothing more is on its way."""
    page.get(address)
    shown(page)


def shown(page, path=""):  # noqa: F811
    wait_for(page, f"location.href.includes({json.dumps(path)}) && document.body.dataset.state")


def keys(page):  # noqa: F811
    return page.execute_script("return [...document.querySelectorAll('#cards a')].map((a) => a.lastChild.textContent)")


def text(page, selector):  # noqa: F811
    return page.execute_script("return document.querySelector(arguments[0]).textContent", selector)


def pixels(page, selector):  # noqa: F811
    """What an element shows, (H, W, 3)."""
    return screenshot_pixels(page, page.find_element("css selector", selector)).astype(int)


def test_the_list_shows_pages_and_their_pictures(page, url, folder):  # noqa: F811
    browser = open_browser(folder)
    show(page, f"{url}/")
    assert keys(page) == [browser.key(number) for number in range(24)]
    assert text(page, "#page") == "Page 1 of 2"
    press(page, "n")
    shown(page, "offset=24")
    assert keys(page) == [browser.key(number) for number in range(24, 33)]
    assert text(page, "#next") == "Next page"
    assert not page.execute_script("return document.getElementById('next').href")
    last = "#cards li:last-child img"
    wait_for(page, f"[...document.querySelectorAll('{last}')].every((i) => i.complete && i.naturalWidth)")
    for at, colour in ((1, (255, 0, 0)), (2, (0, 0, 255))):
        seen = pixels(page, f"{last}:nth-child({at})")
        assert np.abs(seen[20:-20, 20:-20] - colour).max() <= 6
    assert console_errors(page) == []


def test_filters_are_in_the_address_and_a_search_ends(page, url):  # noqa: F811
    show(page, f"{url}/")
    page.find_element("id", "least").send_keys("0.7")
    page.find_element("id", "where").send_keys("num_inliers < 45\n")
    shown(page, "least=0.7")
    wait_for(page, "document.getElementById('status').textContent.endsWith(' found')")
    assert text(page, "#status") == "8 found"  # 0.70 to 0.74 of the first scene, and the three of the other
    assert len(keys(page)) == 8
    assert page.execute_script("return document.getElementById('where').value") == "num_inliers < 45"
    assert page.execute_script("return document.getElementById('stop').hidden")
    page.find_element("css selector", "#cards li:nth-child(5) a").click()
    shown(page, "/sample/")
    press(page, "j")  # the next that passes, not the next in the shard
    shown(page, "at=5")
    assert text(page, "#key").startswith("video_img-src") or "alert" in text(page, "#key")
    assert console_errors(page) == []


def test_a_search_shows_how_far_it_is_and_stop_ends_it(page, folder):  # noqa: F811
    gate = threading.Semaphore(0)
    with serving(Viewed(Browser(CountingPlace(folder, gate)))) as server:
        page.get(f"{server.url}?where=overlap+%3E+0")
        wait_for(page, "!document.getElementById('stop').hidden")
        assert text(page, "#status") == "0 found so far, 0 of 33 searched"
        assert page.find_element("id", "progress").is_displayed()
        page.find_element("id", "stop").click()
        wait_for(page, "document.body.dataset.state && document.getElementById('progress').hidden")
        assert text(page, "#status").startswith("0 found, stopped after 0 of 33")
        gate.release(1000)
        page.find_element("id", "show").click()  # from the beginning, now to its end
        wait_for(page, "document.getElementById('status').textContent === '33 found'")
        assert len(keys(page)) == 24


def test_a_condition_that_means_nothing_is_explained(page, url):  # noqa: F811
    show(page, f"{url}/?where=overlapp+%3E+1")
    assert "overlapp" in text(page, "#error")
    assert page.find_element("id", "error").is_displayed()


def test_a_pair_is_drawn_where_its_patches_are(page, url, folder):  # noqa: F811
    show(page, f"{url}/sample/{open_browser(folder).key(3)}")
    page.execute_script("document.getElementById('frame').click()")
    views = [pixels(page, f"#views figure:nth-child({at}) canvas") for at in (1, 2)]
    assert views[0].shape == (448, 448, 3)
    centres = [view[56::112, 56::112].reshape(16, 3) for view in views]
    corr = shift_map()
    tinted = [np.abs(centre.astype(int) - 128).max(axis=1) > 10 for centre in centres]  # the picture is grey
    np.testing.assert_array_equal(tinted[0], corr >= 0)
    np.testing.assert_array_equal(tinted[1], invert_correspondences(corr) >= 0)
    for patch in np.flatnonzero(corr >= 0):
        assert np.abs(centres[0][patch] - centres[1][corr[patch]]).max() <= 3, "matching patches have one colour"
    used = centres[0][corr >= 0]
    assert len(np.unique(used, axis=0)) == 12, "and every match its own"
    press(page, "m")
    assert np.abs(pixels(page, "canvas") - 128).max() <= 3, "the picture alone"


def test_the_outline_is_the_frame_of_the_other_view(page, url, folder):  # noqa: F811
    show(page, f"{url}/sample/{open_browser(folder).key(3)}")
    press(page, "m")
    orange = np.array([0xE6, 0x9F, 0x00])
    for at, column in ((1, 48 * 7), (2, 16 * 7)):  # shifted by 16 of 64 pixels: its edge is there, 7 times enlarged
        view = pixels(page, f"#views figure:nth-child({at}) canvas")
        is_line = (np.abs(view - orange).max(axis=2) <= 8)[100:-100]
        assert is_line[:, column - 1 : column + 1].all()
        assert not is_line[:, : column - 4].any()
        assert not is_line[:, column + 4 :].any()


def test_the_blend_lays_the_warped_view_over_the_other(page, url, folder):  # noqa: F811
    show(page, f"{url}/sample/{open_browser(folder).key(31)}")
    stack = pixels(page, "#stack")
    assert np.abs(stack[200, :108] - (0, 0, 255)).max() <= 6, "the part that view 0 does not see"
    assert np.abs(stack[200, 116:] - (128, 0, 128)).max() <= 6
    press(page, "b", "\ue010")  # End
    assert np.abs(pixels(page, "#stack")[200, 116:-12] - (255, 0, 0)).max() <= 6
    press(page, "\ue011")  # Home
    assert np.abs(pixels(page, "#stack")[200] - (0, 0, 255)).max() <= 6


def test_pointing_at_a_patch_marks_its_counterpart(page, url, folder):  # noqa: F811
    from selenium.webdriver.common.action_chains import ActionChains

    show(page, f"{url}/sample/{open_browser(folder).key(3)}")
    canvas = page.find_element("css selector", "#views figure:nth-child(1) canvas")
    ActionChains(page).move_to_element_with_offset(canvas, -56, -56).perform()  # left above the middle: row 1, column 1
    assert text(page, "#patch") == "patch 5 of view 0: patch 6 in view 1"
    seen = pixels(page, "#views figure:nth-child(2) canvas")
    assert (seen[112:224, 224] > 250).all(), "a white square around patch 6"


def test_hostile_names_are_text(page, url, folder):  # noqa: F811
    for address in (f"{url}/?offset=24", f"{url}/sample/{open_browser(folder).key(31)}"):
        show(page, address)
        assert HOSTILE in text(page, "main")
        assert "tiny" in page.title
    page.find_element("id", "search").send_keys(HOSTILE + "\n")
    shown(page, "/sample/%3Cimg")
    assert "no pair has the key" in text(page, "#error")
    assert page.execute_script("return document.images.length") == 0
    assert [line for line in console_errors(page) if "404" not in line] == []


def test_keys_do_what_the_help_says(page, url, folder):  # noqa: F811
    browser = open_browser(folder)
    show(page, f"{url}/")
    press(page, "?")
    assert page.find_element("id", "help").is_displayed()
    listed = page.execute_script("return [...document.querySelectorAll('#help-keys tr')].map((r) => r.innerText)")
    assert len(listed) == page.execute_script("return KEYS.length") >= 12
    press(page, "\ue00c")  # Escape
    assert not page.find_element("id", "help").is_displayed()
    press(page, "j", "j", "\ue014", "k")  # twice next, arrow right, once previous: the second
    assert page.execute_script("return document.activeElement.lastChild.textContent") == browser.key(1)
    press(page, "\ue007")  # Enter
    shown(page, "/sample/")
    assert text(page, "#key") == browser.key(1)
    press(page, "\ue014")  # arrow right
    shown(page, browser.key(2))
    press(page, "k")
    shown(page, browser.key(1))
    press(page, "/")
    press(page, "30")  # digits and letters go to the field now
    press(page, "\ue007")
    shown(page, "/sample/30")
    assert text(page, "#key") == browser.key(30)
    press(page, "u")
    shown(page, "offset=24")
    assert len(keys(page)) == 9
    press(page, "p")
    wait_for(page, "document.body.dataset.state && !location.search")
    assert keys(page)[0] == browser.key(0)
    assert console_errors(page) == []


def test_an_unknown_key_names_those_that_are_near(page, url, folder):  # noqa: F811
    known = open_browser(folder).key(7)
    show(page, f"{url}/sample/{known[:-1]}9")
    page.find_element("link text", known).click()
    shown(page, known)
    assert text(page, "#key") == known


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_and_controls_have_names(page, url, folder, scheme):  # noqa: F811
    set_media(page, scheme)
    for address in (f"{url}/", f"{url}/sample/{open_browser(folder).key(3)}", f"{url}/sample/nothing"):
        show(page, address)
        assert low_contrast(page) == []
        assert unnamed(page) == []
    press(page, "?")
    assert low_contrast(page) == []
    lightness = screenshot_pixels(page)[300, 5].mean()
    assert (lightness > 100) == (scheme == "light")


def test_tab_leads_through_all_controls_in_their_order(page, url):  # noqa: F811
    show(page, f"{url}/")
    order = focus_order(page, 14)
    expected = ["a", "name", "search", "open", "keys", "source", "scene", "shard", "least", "most", "where", "show"]
    assert order == [*expected, "clear", "next"]
    outline = page.execute_script("return getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    assert page.find_element("id", "status").get_attribute("role") == "status"


def test_a_narrow_window_is_not_scrolled_sideways(page, url, folder):  # noqa: F811
    metrics = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        for address in (f"{url}/?offset=24", f"{url}/sample/{open_browser(folder).key(31)}"):
            show(page, address)
            wide = page.execute_script(
                "return [...document.querySelectorAll('body *')].filter((node) => !node.closest('.scroll, .hidden') &&"
                " node.getBoundingClientRect().right > 360).map((node) => node.outerHTML.slice(0, 100))"
            )
            assert wide == []
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_images_are_shown_too(page, tmp_path):  # noqa: F811
    make_image_set(tmp_path / "single", [make_image(number) for number in range(3)])
    with serving(Viewed(open_browser(tmp_path / "single"))) as server:
        show(page, server.url)
        assert len(keys(page)) == 3
        assert not page.find_element("id", "least").is_displayed()
        show(page, f"{server.url}sample/2")
        height, width = open_browser(tmp_path / "single").sample(2).size
        scale = 448 // width
        canvas = page.find_element("css selector", "canvas")
        sides = [int(canvas.get_attribute(name)) for name in ("width", "height")]
        assert sides == [width * scale, height * scale]
        assert console_errors(page) == []
