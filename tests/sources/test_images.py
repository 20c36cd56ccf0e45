"""Photographs of every kind that people have: grey, with alpha, 16 bit, rotated, tiny, broken, zipped; listed pairs."""

import zipfile

import cv2
import numpy as np
import pytest
from pictures import encode, frames, mine, pack_tar, pack_zip, pan, same, write
from pictures import read as read_source

from mimic_wds.pairs import AllPairs, Fault, Listed, Scene, SceneError, View
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


@pytest.fixture
def album(photo):
    """Files of two scenes, with something else beside them."""
    data = encode(photo, ".png")
    return {"a/img10.png": data, "a/img2.png": data, "a/sub/x.png": data, "top.png": data, "a/notes.txt": b"hello"}


def test_zips_and_tars_read_like_folders(tmp_path, album):
    root = write(tmp_path / "in", album)
    zipped, tar = pack_zip(tmp_path / "x.zip", album), pack_tar(tmp_path / "x.tar", root)
    folder = read(root)
    assert list(folder) == ["in", "in/a", "in/a/sub"]
    for archive in (zipped, tar):
        found = read(archive)
        assert list(found) == [archive.name, f"{archive.name}/a", f"{archive.name}/a/sub"]
        assert same(folder, {name.replace(archive.name, "in"): views for name, views in found.items()})
    sizes = [[s.num_bytes for s in Images(paths=(str(p),)).scenes()] for p in (root, zipped, tar)]
    assert sizes[0] == sizes[1] == sizes[2]
    assert [s.path for s in Images(paths=(str(zipped),)).scenes()][1] == f"{zipped}::a"


def test_archives_within_a_folder_are_read_too(tmp_path, album):
    pack_zip(tmp_path / "in/more/x.zip", album)
    pack_zip(tmp_path / "in/notes.zip", {"notes.txt": b"no pictures"})
    (tmp_path / "in/code.tar.gz").write_bytes(b"passed over")
    assert list(read(write(tmp_path / "in", album))) == [
        "in",
        "in/a",
        "in/a/sub",
        "in/more/x.zip",
        "in/more/x.zip/a",
        "in/more/x.zip/a/sub",
    ]


def test_an_archive_and_what_was_unpacked_from_it_are_not_both_read(tmp_path, album):
    pack_zip(tmp_path / "in/photos.zip", album)
    write(tmp_path / "in/photos", album)
    with pytest.raises(ValueError, match=r"photos\.zip: lies beside .*photos, unpacked as it seems; keep one"):
        read(tmp_path / "in")


def test_damaged_members_are_faults_in_their_place(tmp_path, photo):
    good = encode(photo, ".png")
    files = {"a/1.png": good, "a/2.png": b"not a picture", "a/3.png": good, "a/4.png": good, "a/5.png": good}
    path = pack_zip(tmp_path / "x.zip", files, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(good) + len(good) // 2] ^= 1  # a bit of the first picture
    directory = data.index(b"PK\x01\x02")
    third = data.index(b"a/3.png", directory) - 46
    data[third + 8] |= 1  # says that it is encrypted
    fourth = data.index(b"a/4.png", directory) - 46
    data[fourth + 24 : fourth + 28] = (2**31).to_bytes(4, "little")  # says that it unpacks to 2 GiB
    path.write_bytes(data)
    ((*found,),) = read(path).values()
    assert frames(found) == [
        ("1.png", "unreadable_image"),
        ("2.png", "unreadable_image"),
        ("3.png", "encrypted_image"),
        ("4.png", "image_too_large"),
        ("5.png", "view"),
    ]
    assert found[0].where == f"{path}: a/1.png"


def test_a_folder_or_archive_that_is_gone_is_a_broken_scene(tmp_path, album):
    path, root = pack_zip(tmp_path / "x.zip", album), write(tmp_path / "in", {"a/1.png": album["top.png"]})
    for place in (path, root):
        source = Images(paths=(str(place),))
        scene = source.scenes()[-1]
        if place is path:
            path.unlink()
        else:
            (root / "a/1.png").unlink()
            (root / "a").rmdir()
        with pytest.raises(SceneError, match="cannot be read") as error:
            list(source.views(scene))
        assert str(error.value).startswith(scene.path)


def test_wrong_archives_say_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"no images here or below; expected .*, found 1 .zip file"):
        read(pack_zip(tmp_path / "x.zip", {"notes.txt": b""}))
    (tmp_path / "cut.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"cut\.zip: is no whole zip file"):
        read(tmp_path / "cut.zip")
    with pytest.raises(ValueError, match="leads out of it"):
        read(pack_zip(tmp_path / "y.zip", {"../x.png": b""}))


def listed(tmp_path, text: str) -> str:
    (tmp_path / "pairs.txt").write_text(text)
    return str(tmp_path / "pairs.txt")


def test_listed_pairs_are_tried_in_their_order(tmp_path, album):
    root = write(tmp_path / "in", {**album, "a/img3.png": album["top.png"], "a/b c.png": album["top.png"]})
    text = """# pairs of my album
    a/img10.png a/img2.png   # the best
    ./a/img3.png a/img10.png
    a/img10.png a/img2.png

    a/b c.png\ta/img3.png
    """
    for place in (root, pack_tar(tmp_path / "x.tar", root)):
        source = Images(paths=(str(place),), pairs=listed(tmp_path, text))
        (scene,) = source.scenes()
        pairs = (("img10.png", "img2.png"), ("img3.png", "img10.png"), ("b c.png", "img3.png"))
        assert source.policy(scene) == Listed(pairs=pairs)
        assert [v.frame for v in source.views(scene)] == ["img10.png", "img2.png", "img3.png", "b c.png"]
        assert scene.name == f"{place.name}/a"
        assert scene.num_bytes == 4 * len(album["top.png"])


def test_listed_pairs_of_several_folders_and_of_the_top_one(tmp_path, album):
    root = write(tmp_path / "in", {**album, "2.png": album["top.png"]})
    pack_zip(root / "more.zip", album)
    text = "2.png top.png\nmore.zip/a/img2.png more.zip/a/img10.png\n"
    source = Images(paths=(str(root),), pairs=listed(tmp_path, text))
    assert [(s.name, source.policy(s).pairs) for s in source.scenes()] == [
        ("in", (("2.png", "top.png"),)),
        ("in/more.zip/a", (("img2.png", "img10.png"),)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a/img2.png a/img10.png\na/img2.png a/none.png\nno/1.png no/2.png",
            r"line 2: there is no image 'a/none.png' \(3",
        ),
        ("#\nno/1.png no/2.png", r"line 2: there is no image 'no/1.png'"),
        ("../1.png ../2.png", r"line 1: there is no image '../1.png'"),
        ("a/img2.png a/sub/x.png", r"line 1: .* are in two folders; a pair's images must be in one"),
        ("a/img2.png", r"line 1: expected \"IMAGE0 IMAGE1\", found 1 names"),
        ("a/b c.png a/img2.png", r"found 3 names \(a tab parts"),
        ("a/img2.png a/./img2.png", r"names 'a/img2.png' twice"),
        ("# nothing\n", r"lists no pairs"),
    ],
)
def test_mistakes_in_a_list_are_named_with_their_line(tmp_path, album, text, message):
    with pytest.raises(ValueError, match=message) as error:
        Images(paths=(str(write(tmp_path / "in", album)),), pairs=listed(tmp_path, text)).scenes()
    assert str(tmp_path / "pairs.txt") in str(error.value)


def test_a_list_that_cannot_be_read_or_does_not_fit_the_options(tmp_path, album):
    root = str(write(tmp_path / "in", album))
    with pytest.raises(ValueError, match=r"none\.txt: cannot be read as a list of pairs"):
        Images(paths=(root,), pairs=str(tmp_path / "none.txt")).scenes()
    (tmp_path / "pairs.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="cannot be read as a list of pairs"):
        Images(paths=(root,), pairs=str(tmp_path / "pairs.txt")).scenes()
    with pytest.raises(ValueError, match="leave out max_gap and keep"):
        Images(paths=(root,), pairs="x", max_gap=2)
    with pytest.raises(ValueError, match="relative to one path, but 2 are given"):
        Images(paths=(root, root), pairs="x")


def test_listed_pairs_are_mined_and_a_broken_view_keeps_its_place(tmp_path):
    files = {f"s/{k}.png": encode(image, ".png") for k, image in enumerate(pan(4, 70))}
    root = write(tmp_path / "in", {**files, "s/2.png": b"broken"})
    pairs = listed(tmp_path, "s/1.png s/0.png\ns/2.png s/1.png\ns/3.png s/0.png\n")
    for place in (root, pack_zip(tmp_path / "x.zip", {**files, "s/2.png": b"broken"})):
        kept, counts = mine(Images(paths=(str(place),), pairs=pairs))
        assert [(p.frame0, p.frame1) for p in kept] == [("1.png", "0.png")]
        assert kept[0].overlap == pytest.approx(1 - 70 / 224, abs=0.03)
        assert (counts.candidates, counts.kept, counts.views) == (3, 1, 3)
        assert counts.dropped["unreadable"] == 1
        assert counts.faults == {"unreadable_image": 1}


def test_the_sample_photographs_zipped(tmp_path, shared_data):
    root = shared_data / "images/boofcv_rotation"
    files = {p.relative_to(root.parent).as_posix(): p.read_bytes() for p in root.rglob("*.jpg")}
    zipped = read_source(Images(paths=(str(pack_zip(tmp_path / "x.zip", files)),)))
    unpacked = read_source(Images(paths=(str(root),)))
    assert same(unpacked, {name.removeprefix("x.zip/"): views for name, views in zipped.items()})
    assert sum(map(len, unpacked.values())) == len(files) == 4
