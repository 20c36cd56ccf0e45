"""Sizes from headers are those that a decoder finds."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_wds.storage.jpeg import jpeg_size


def encode(height, width, *flags):
    rng = np.random.default_rng(height * width)
    return cv2.imencode(".jpg", rng.integers(0, 256, (height, width, 3), dtype=np.uint8), list(map(int, flags)))[
        1
    ].tobytes()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.booleans(), st.integers(1, 100))
def test_the_size_is_that_of_the_picture(height, width, progressive, quality):
    data = encode(height, width, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_QUALITY, quality)
    assert jpeg_size(data) == (height, width)
    assert jpeg_size(data + bytes(100)) == (height, width)


def test_a_thumbnail_in_the_header_is_passed_over():
    data = encode(48, 64)
    thumbnail = encode(8, 8)
    app1 = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    assert jpeg_size(data[:2] + app1 + b"\xff\xff\xff" + data[3:]) == (48, 64)


@pytest.mark.parametrize("cut", [0, 1, 2, 10, 160, -1, -2, -100])
def test_a_cut_file_is_none(cut):
    assert jpeg_size(encode(48, 64)[:cut]) is None


def test_other_files_are_none():
    png = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    assert jpeg_size(png) is None
    assert jpeg_size(b"\xff\xd8\xff\xd9") is None
    assert jpeg_size(b"<html>404</html>") is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_anything_is_a_size_or_none(data):
    for candidate in (data, b"\xff\xd8\xff" + data + b"\xff\xd9"):
        size = jpeg_size(candidate)
        assert size is None or min(size) > 0


def test_real_photographs(shared_data):
    files = sorted(shared_data.rglob("*.jpg"))[:40]
    assert files
    for path in files:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        assert jpeg_size(path.read_bytes()) == image.shape[:2], path
