"""CroCo's trees, lists and crops: every pair is found, kept or counted; crops are cut as Pillow cuts them."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import jpeg, run_import, write_tree

from mimic_wds.importing.crops import cut, quarter_turns
from mimic_wds.importing.resample import resize
from mimic_wds.storage.reader import open_shards
from mimic_wds.storage.verify import verify


def read(folder, manifest):
    shards = open_shards(folder, manifest)
    found = [shard.sample(i) for shard in shards for i in range(len(shard))]
    for shard in shards:
        shard.close()
    return found


TREE = {
    f"hm3d/val/00800-x/{n:08d}_{view}.jpeg": jpeg(10 * n + view, (256, 256)) for n in range(3) for view in (1, 2)
} | {"gibson/Adrian/00000000_1.jpeg": jpeg(1, (256, 256)), "hm3d/metadata.json": b"{}"}


def test_a_tree_is_walked(tmp_path):
    root = write_tree(tmp_path / "habitat_release", TREE)
    manifest = run_import(tmp_path / "out", "croco-pairs", [root])
    assert manifest.kept == {"habitat": 3}  # scenes below a folder "val" are pairs like others
    assert manifest.dropped == {"habitat": {"missing_view": 1}}
    sample = read(tmp_path / "out", manifest)[1]
    assert (sample.scene, sample.frame0, sample.frame1) == ("hm3d/val/00800-x", "00000001-1", "00000001-2")
    assert sample.image1_jpg == TREE["hm3d/val/00800-x/00000001_2.jpeg"]
    assert (sample.overlap, sample.num_inliers, sample.corr_0to1.shape) == (-1.0, -1, (256,))
    assert list(verify(tmp_path / "out")) == []


def test_a_list_of_pairs_is_followed(tmp_path):
    root = write_tree(tmp_path / "habitat_release", TREE)
    at = "hm3d/val/00800-x/0000000"
    lines = [
        f"{at}2_1.jpeg {at}2_2.jpeg",
        f"{at}0_1.jpeg {at}0_2.jpeg",
        f"{at}2_1.jpeg {at}2_2.jpeg",
        f"{at}9_1.jpeg {at}9_2.jpeg",
        "../x_1.jpeg ../x_2.jpeg",
        "/etc/x_1.jpeg /etc/x_2.jpeg",
        "one two three",
    ]
    (root / "pairs.txt").write_text("\n".join(lines))
    manifest = run_import(tmp_path / "out", "croco-pairs", [root])
    assert [s.frame0 for s in read(tmp_path / "out", manifest)] == ["00000002-1", "00000000-1"]
    assert manifest.dropped == {"habitat": {"missing_files": 1, "duplicate_key": 1, "bad_list_row": 3}}
    assert run_import(tmp_path / "all", "croco-pairs", [root], use_list=False).kept == {"habitat": 3}


def test_a_listing_of_stems_is_followed(tmp_path):
    files = {f"0/{n:x}_{view}.jpg": jpeg(view, (256, 256)) for n in (10, 11) for view in (1, 2)}
    root = write_tree(tmp_path / "ARKitScenes_crops", files | {"listing.txt": b"# pair_path\n0/b\n0/a\n"})
    manifest = run_import(tmp_path / "out", "croco-pairs", [root / "listing.txt"])
    assert [(s.source, s.scene, s.frame0) for s in read(tmp_path / "out", manifest)] == [
        ("arkitscenes", "0", "b-1"),
        ("arkitscenes", "0", "a-1"),
    ]


def test_a_folder_without_pairs_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"no pairs here or below; expected files STEM_1\.jpeg"):
        run_import(tmp_path / "out", "croco-pairs", [write_tree(tmp_path / "in", {"a.jpeg": b"x"})])


def picture(seed, height, width):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 50, width // 50, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def crops_folder(folder, lines):
    folder.mkdir()
    for name, seed in (("a", 1), ("b", 2)):
        cv2.imwrite(str(folder / f"{name}.png"), picture(seed, 900, 1300)[..., ::-1])
    (folder / "crops_release.txt").write_text("# img1, img2, rotation(deg)\n" + "\n".join(lines) + "\n")
    return folder


def test_crops_are_cut_and_turned(tmp_path):
    lines = [
        "a.png, b.png, 12",
        "0, 1000, 0, 900, 100, 400, 50, 350",
        "b.png, a.png, 91.5",
        "0, 256, 0, 256, 0, 256, 0, 256",
    ]
    manifest = run_import(tmp_path / "out", "croco-crops", [crops_folder(tmp_path / "IndoorVL_crops", lines)])
    first, second = read(tmp_path / "out", manifest)
    assert (first.source, first.scene, first.frame1) == ("indoorvl", ".", "b.png[100:400,50:350]")
    a, b = picture(1, 900, 1300), picture(2, 900, 1300)
    assert error(first.image0_jpg, pillow(a[:900, :1000], "lanczos")) < 3
    assert error(first.image1_jpg, pillow(b[50:350, 100:400], "bicubic")) < 3
    assert error(second.image0_jpg, b[:256, :256]) < 3
    assert error(second.image1_jpg, np.rot90(a[:256, :256])) < 3  # a quarter turn counter-clockwise, as Pillow turns
    assert list(verify(tmp_path / "out")) == []
    again = run_import(tmp_path / "cw", "croco-crops", [tmp_path / "IndoorVL_crops"], clockwise=True)
    assert error(read(tmp_path / "cw", again)[1].image1_jpg, np.rot90(a[:256, :256], -1)) < 3


def error(data, expected):
    """Mean difference in grey levels (a JPEG of quality 95 of these pictures differs by about 2)."""
    image = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return np.abs(image.astype(int) - expected).mean()


def pillow(image, kernel):
    pytest.importorskip("PIL", reason="Pillow is the oracle")
    from PIL import Image

    kernels = {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC}
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((256, 256), kernels[kernel]))


@pytest.mark.parametrize("kernel", ["lanczos", "bicubic"])
@pytest.mark.parametrize("shape", [(256, 256), (100, 70), (900, 1300), (257, 300), (3, 2000)])
def test_resizing_is_pillows(kernel, shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    difference = np.abs(resize(image, 256, kernel).astype(int) - pillow(image, kernel))
    assert difference.max() <= 1
    assert difference.mean() < 0.05


def test_the_kernel_follows_the_area():
    image = picture(3, 900, 1300)
    for box, kernel in (((0, 512, 0, 512), "bicubic"), ((0, 513, 0, 512), "lanczos")):
        assert np.array_equal(cut(image, box, 256), resize(image[box[2] : box[3], box[0] : box[1]], 256, kernel))


@pytest.mark.parametrize(
    ("degrees", "turns"),
    [
        (0, 0),
        (59, 0),
        (-59.9, 0),
        (60, 1),
        (61, 1),
        (91, 1),
        (-91, 3),
        (-60, 3),
        (134, 1),
        (136, 2),
        (180, 2),
        (-180, 2),
    ],
)
def test_rotations_are_right_angles(degrees, turns):
    assert quarter_turns(degrees) == turns


@settings(max_examples=50, deadline=None)
@given(st.integers(-180, 180), st.integers(-2, 2))
def test_a_full_turn_changes_nothing(degrees, times):
    assert quarter_turns(degrees) == quarter_turns(degrees + 360 * times)


def test_every_line_of_a_crop_list_is_kept_or_counted(tmp_path):
    lines = [
        "0, 256, 0, 256, 0, 256, 0, 256",  # belongs to no pair
        "a.png, b.png, 0",
        "0, 256, 0, 256, 0, 256, 0, 256",
        "0, 256, 0, 256, 0, 256, 0, 256",  # twice
        "0, 2000, 0, 256, 0, 256, 0, 256",  # leaves the picture
        "256, 0, 0, 256, 0, 256, 0, 256",  # right of its own left
        "0, 256, 0, 256",  # half a crop
        "a.png, missing.png, 0",
        "0, 256, 0, 256, 0, 256, 0, 256",
        "a.png, ../b.png, 0",  # leads out of the folder
        "5, 256, 0, 256, 0, 256, 0, 256",
    ]
    manifest = run_import(tmp_path / "out", "croco-crops", [crops_folder(tmp_path / "x_crops", lines)])
    assert manifest.kept == {"x": 1}
    assert manifest.dropped == {"x": {"bad_list_row": 4, "duplicate_key": 1, "bad_crop": 2, "unreadable": 1}}


def test_pictures_may_lie_elsewhere(tmp_path):
    crops_folder(tmp_path / "in", ["a.png, b.png, 0", "0, 300, 0, 300, 0, 300, 0, 300"])
    (tmp_path / "list.txt").write_bytes((tmp_path / "in" / "crops_release.txt").read_bytes())
    arguments = (tmp_path / "out", "croco-crops", [tmp_path / "list.txt"])
    assert run_import(*arguments, images=str(tmp_path / "in"), source="mine", size=224).kept == {"mine": 1}
    with pytest.raises(ValueError, match="elsewhere: no such file or folder"):
        run_import(tmp_path / "x", *arguments[1:], images=str(tmp_path / "elsewhere"))
