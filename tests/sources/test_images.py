"""Photographs of every kind that people have: grey, with alpha, 16 bit, rotated, tiny, broken."""

import cv2
import numpy as np
import pytest

from mimic_wds.pairs import AllPairs, Fault, Scene, View
from mimic_wds.sources.images import Images


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def read(folder, **options):
    source = Images(paths=(str(folder),), **options)
    return {scene.name: list(source.views(scene)) for scene in source.scenes()}


def test_grey_alpha_and_16_bit_become_8_bit_rgb(tmp_path, photo):
    grey, alpha = photo[..., 0], np.dstack([photo, np.full((90, 120), 7, np.uint8)])
    cv2.imwrite(str(tmp_path / "1_colour.png"), photo[..., ::-1])
    cv2.imwrite(str(tmp_path / "2_grey.png"), grey)
    cv2.imwrite(str(tmp_path / "3_alpha.png"), alpha[..., [2, 1, 0, 3]])
    cv2.imwrite(str(tmp_path / "4_deep.png"), photo[..., ::-1].astype(np.uint16) * 257)
    (views,) = read(tmp_path).values()
    assert all(v.image.shape == (90, 120, 3) and v.image.dtype == np.uint8 for v in views)
    colour, grey_view, alpha_view, deep = (v.image for v in views)
    assert np.array_equal(colour, photo)
    assert np.array_equal(grey_view, np.repeat(grey[..., None], 3, 2))
    assert np.array_equal(alpha_view, photo)
    assert np.array_equal(deep, photo)


def test_exif_orientation_is_honoured(tmp_path, photo):
    ok, jpeg = cv2.imencode(".jpg", photo[..., ::-1])
    assert ok
    # APP1 segment: little-endian TIFF with one tag, 0x0112 orientation = 6 (turn 90 degrees clockwise).
    tiff = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    jpeg = jpeg.tobytes()
    tagged = jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]
    (tmp_path / "turned.jpg").write_bytes(tagged)
    (tmp_path / "plain.jpg").write_bytes(jpeg)
    ((plain, turned),) = read(tmp_path).values()
    assert np.array_equal(turned.image, np.rot90(plain.image, -1))


def test_tiny_empty_and_broken_files_are_faults_with_a_reason(tmp_path, photo):
    cv2.imwrite(str(tmp_path / "1.png"), photo)
    cv2.imwrite(str(tmp_path / "2.png"), photo[:8, :8])
    (tmp_path / "3.jpg").write_bytes(b"")
    (tmp_path / "4.jpg").write_text("not a picture")
    (found,) = read(tmp_path).values()
    assert isinstance(found[0], View)
    assert [f.reason for f in found[1:] if isinstance(f, Fault)] == [
        "image_too_small",
        "unreadable_image",
        "unreadable_image",
    ]
    assert "4.jpg" in found[3].where


def test_one_folder_is_one_scene_in_natural_order(tmp_path, photo):
    for name in ("a/img10.png", "a/img2.png", "a/sub/x.png", "b/1.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / name), photo)
    found = read(tmp_path / "in")
    assert {name: [v.frame for v in views] for name, views in found.items()} == {
        "in/a": ["img2.png", "img10.png"],
        "in/a/sub": ["x.png"],
        "in/b": ["1.png"],
    }


def test_wrong_paths_say_what_is_expected(tmp_path, photo):
    cv2.imwrite(str(tmp_path / "one.png"), photo)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="reads folders, this is a file"):
        read(tmp_path / "one.png")
    with pytest.raises(ValueError, match="no images here or below; expected"):
        read(tmp_path / "empty")
    with pytest.raises(ValueError, match="no such file or folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="max_gap"):
        Images(paths=("x",), max_gap=-1)


def test_the_policy_follows_the_options():
    assert Images(paths=("x",), keep="smallest", max_gap=3).policy(
        Scene(source="images", name="x", path="x")
    ) == AllPairs(keep="smallest", max_gap=3)
