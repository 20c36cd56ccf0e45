"""Pages hold all they need, forbid every request, and show what they are given as text."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import make_image, make_sample, shift_map

from mimic_wds.looking.page import asset, data_uri, render_page
from mimic_wds.looking.pictures import decode_view, patch_colours
from mimic_wds.looking.shown import MOST_SIDE, shown
from mimic_wds.storage.pictures import decode_jpeg


class Read(HTMLParser):
    """Elements with their attributes, and all text outside scripts and styles."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self._within = [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag):
        self._within = ""

    def handle_data(self, data):
        if self._within not in ("script", "style"):
            self.text.append(data)


#: Of a grid of 4 x 4: hue by column, brightness by row.
PATCH_COLOURS = patch_colours(4, 4).astype(float)

FACTS = {"key": "k", "source": "s", "told": "t", "size": (4, 4), "view0": "data:,"}


def sample_page(scene):
    """A page with the parts that every report has, about a sample of this scene."""
    facts = dict.fromkeys(("samples", "shards", "size", "generation", "id", "looked", "seed", "unreadable"), 0)
    names = re.findall(r"\{[{%][^}]*?\b([a-z_]+_(?:chart|charts|table|told|left))\b", asset("report.html"))
    empty = dict.fromkeys(names, "")
    values = {**empty, "facts": {**facts, "kind": "images", "noun": "image"}, "contents": [("gallery", "Gallery")]}
    values |= {"titles": {"gallery": "Gallery"}, "gallery": [("All", [{**FACTS, "scene": scene, "view1": ""}])]}
    values |= {"outliers": [], "duplicates": [], "overlap_known": 0, "bounds": "", "near_bits": 0, "is_import": False}
    return render_page(scene, "report.html", script="blend.js", version="1", url=scene, **values)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40))
def test_any_text_is_shown_as_it_is(scene):
    usual, page = Read(sample_page("clip")), Read(sample_page(scene))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in usual.elements], "no element more or less"
    assert "".join(page.text).count(scene) >= 4, "the title twice, the sample, the address"


def test_the_policy_allows_the_pages_own_script_and_nothing_else():
    page = sample_page("clip")
    (policy,) = [attrs["content"] for _, attrs in Read(page).elements if "http-equiv" in attrs]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert script == asset("blend.js")
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"


def test_a_value_that_is_missing_is_an_error_not_a_gap():
    with pytest.raises(Exception, match="undefined"):
        render_page("title", "report.html")


def bytes_of(address, kind):
    head, data = address.split(",", 1)
    assert head == f"data:{kind};base64"
    return base64.b64decode(data)


def flat(colour, side=64):
    """A JPEG of one colour (R, G, B)."""
    picture = np.full((side, side, 3), colour[::-1], np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


def test_a_pair_is_shown_with_its_views_patches_and_warp():
    sample = make_sample(1, image0_jpg=flat((250, 0, 0)), image1_jpg=flat((128, 128, 128)))
    one = shown(sample)
    assert bytes_of(one.view0, "image/jpeg") == sample.image0_jpg
    assert bytes_of(one.view1, "image/jpeg") == sample.image1_jpg
    patches = [decode_view(bytes_of(address, "image/jpeg")).astype(int) for address in (one.patches0, one.patches1)]
    left, right = (picture[8::16, 8::16].reshape(16, 3) for picture in patches)
    corr, coloured = shift_map(), PATCH_COLOURS
    expected0 = np.where((corr >= 0)[:, None], 0.55 * np.array([250, 0, 0]) + 0.45 * coloured, 0)
    expected1 = np.zeros((16, 3))
    expected1[corr[corr >= 0]] = 0.55 * 128 + 0.45 * coloured[corr >= 0]
    for seen, expected in ((left, expected0), (right, expected1)):
        matched = expected.any(axis=1)
        assert np.abs(seen - expected)[matched].max() <= 12, "the view under the colour of its match"
        assert np.ptp(seen[~matched], axis=1).max() <= 6, "patches without a match are grey"
        assert matched.sum() == 12
    warped = cv2.imdecode(np.frombuffer(bytes_of(one.warped, "image/webp"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert warped.shape == (64, 64, 4)
    assert (warped[:, :16, 3] == 0).all(), "shifted by 16 pixels to the right"
    assert (warped[:, 16:, 3] == 255).all()
    assert np.abs(warped[20:-20, 30:, :3].astype(int) - (0, 0, 250)).max() <= 8
    assert one.frame == "15.5,-0.5 79.5,-0.5 79.5,63.5 15.5,63.5"


@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_behind_the_camera_is_not_warped(sign):
    """x' = 60 + 20 x / (40 - x): view 0 is behind the camera from x = 40 on, and would come back left of x' = 40."""
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, :40], halves[:, 40:] = (0, 255, 0), (0, 0, 255)  # green before, red behind
    jpeg = cv2.imencode(".jpg", halves, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    H = sign * np.array([[1, 0, 60], [0, 1, 0], [0, 0, 1]]) @ [[20, 0, 0], [0, 20, 0], [-1, 0, 40]]
    one = shown(make_sample(image0_jpg=jpeg, H_0to1=H.astype(float)))
    unchecked = cv2.warpPerspective(halves, H.astype(float), (64, 64))
    assert (unchecked[..., 2] > 200).any(), "this homography brings what is behind into the picture"
    warped = cv2.imdecode(np.frombuffer(bytes_of(one.warped, "image/webp"), np.uint8), cv2.IMREAD_UNCHANGED)
    opaque = warped[..., 3] > 128
    assert opaque.any()
    assert not (opaque & (warped[..., 2] > 128)).any()


@pytest.mark.parametrize("homography", [np.full((3, 3), np.nan), np.zeros((3, 3))])
def test_a_pair_without_a_homography_has_no_warp(homography):
    one = shown(make_sample(H_0to1=homography))
    assert (one.warped, one.frame) == ("", "")
    assert one.patches0


def test_large_images_are_shrunk_small_ones_are_left():
    large = cv2.imencode(".jpg", np.full((300, 2000, 3), 90, np.uint8))[1].tobytes()
    one = shown(make_image(image_jpg=large, size=(300, 2000)))
    assert decode_jpeg(bytes_of(one.view0, "image/jpeg")).shape == (round(300 * MOST_SIDE / 2000), MOST_SIDE, 3)
    small = make_image()
    assert bytes_of(shown(small).view0, "image/jpeg") == small.image_jpg
    assert data_uri(b"\0\xff", "x/y") == "data:x/y;base64,AP8="
