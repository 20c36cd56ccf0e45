"""Whatever decodes, the pixels and the faults are the same."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mimic_wds.loading import decoding
from mimic_wds.loading.decoding import BadSample, decode_corr, decode_into, decode_rgb
from mimic_wds.storage.sample import encode_array

pytest.importorskip("simplejpeg", reason="the other decoder; comes with the train extra")


def picture(height=48, width=64, seed=0):
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image, *options):
    return cv2.imencode(".jpg", image, list(options))[1].tobytes()


def both(monkeypatch, function, *arguments):
    """Result or reason with simplejpeg, and without."""
    found = []
    for module in (decoding.simplejpeg, None):
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "simplejpeg", module)
            try:
                found.append(function(*arguments))
            except BadSample as bad:
                found.append(bad.args)
    return found


KINDS = {
    "default": [],
    "4:4:4": [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
    "low": [cv2.IMWRITE_JPEG_QUALITY, 20],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(48, 64), (17, 31), (224, 224), (1, 1)])
def test_both_decoders_give_the_same_pixels(monkeypatch, kind, shape):
    data = jpeg(picture(*shape), *KINDS[kind])
    first, second = both(monkeypatch, decode_rgb, data)
    assert np.array_equal(first, second)
    assert first.shape == (*shape, 3)
    out = np.empty((*shape, 3), np.uint8)
    decode_into(data, out)
    assert np.array_equal(out, first)


def test_grey_becomes_rgb(monkeypatch):
    first, second = both(monkeypatch, decode_rgb, jpeg(picture()[..., 0]))
    assert np.array_equal(first, second)
    assert (first[..., 0] == first[..., 2]).all()


def test_four_colours_are_left_to_opencv(monkeypatch):
    image = pytest.importorskip("PIL.Image", reason="writes CMYK").fromarray(picture()).convert("CMYK")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    first, second = both(monkeypatch, decode_rgb, buffer.getvalue())
    assert np.array_equal(first, second)


@pytest.mark.parametrize("data", [b"", b"no jpeg", b"\xff\xd8\xff", jpeg(picture())[:100]])
def test_what_does_not_decode_has_the_same_reason(monkeypatch, data):
    out = np.empty((48, 64, 3), np.uint8)
    assert both(monkeypatch, decode_rgb, data) == [("jpeg_does_not_decode",)] * 2
    assert both(monkeypatch, decode_into, data, out) == [("jpeg_does_not_decode",)] * 2


@pytest.mark.parametrize("shape", [(64, 48), (40, 64), (100, 100), (32, 96)])
def test_another_size_is_told(monkeypatch, shape):
    """Also where the pixels would fit into the memory."""
    out = np.empty((48, 64, 3), np.uint8)
    assert both(monkeypatch, decode_into, jpeg(picture(*shape)), out) == [("image_of_another_size",)] * 2


@given(st.data())
def test_damage_leaves_both_with_one_answer(data):
    """Cut or changed anywhere: the same pixels, or the same reason."""
    whole = bytearray(jpeg(picture(), cv2.IMWRITE_JPEG_QUALITY, 60))
    place = data.draw(st.integers(2, len(whole) - 1))
    damaged = bytes(whole[:place]) if data.draw(st.booleans()) else bytes(whole)
    if len(damaged) == len(whole):
        whole[place] ^= data.draw(st.integers(1, 255))
        damaged = bytes(whole)
    with pytest.MonkeyPatch.context() as patch:
        first, second = both(patch, decode_rgb, damaged)
        assert np.array_equal(first, second)


def test_correspondences_in_any_header_are_read():
    corr = np.array([3, -1, 0, 2], np.int16)
    numpys = io.BytesIO()
    np.save(numpys, corr)
    for data in (encode_array(corr), numpys.getvalue()):
        assert np.array_equal(decode_corr(data, 4), corr)
    for data, reason in (
        (encode_array(corr)[:-2], "correspondences_unreadable"),
        (encode_array(corr.astype(np.int32)), "correspondences_of_another_shape"),
        (encode_array(corr[:3]), "correspondences_of_another_shape"),
        (b"", "correspondences_unreadable"),
    ):
        with pytest.raises(BadSample, match=reason):
            decode_corr(data, 4)


@given(arrays(np.int16, 6, elements=st.integers(-3, 8)))
def test_only_one_to_one_maps_are_taken(corr):
    used = corr[corr != -1]
    is_good = bool(((used >= 0) & (used < 6)).all()) and len(set(used.tolist())) == len(used)
    try:
        assert np.array_equal(decode_corr(encode_array(corr), 6), corr)
    except BadSample:
        assert not is_good
    else:
        assert is_good


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("without", [False, True])
def test_a_picture_is_decoded_smaller(factor, without, monkeypatch):
    """By the mean of each block of pixels, near enough; the sides are rounded up; with and without simplejpeg."""
    if without:
        monkeypatch.setattr(decoding, "simplejpeg", None)
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8), (520, 361), interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    small = decode_rgb(data, factor)
    assert small.shape == (-(-361 // factor), -(-520 // factor), 3)
    height, width = (side // factor * factor for side in (361, 520))
    blocks = image[:height, :width, ::-1].reshape(height // factor, factor, width // factor, factor, 3).mean((1, 3))
    difference = np.abs(small[: height // factor, : width // factor] - blocks)
    assert difference.mean() < 3


def test_headers_that_ask_for_too_much_and_torn_files_are_bad_samples():
    data = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    at = data.index(b"\xff\xc0") + 5
    for bad in (data[:at] + b"\xff\xdc\xff\xdc" + data[at + 4 :], data[:-40], b"", data[:100] + b"\xff\xd9"):
        with pytest.raises(BadSample, match="jpeg_does_not_decode"):
            decode_rgb(bad)
