"""CO3D sequences as they are shipped, in folders and in zips: which frames are paired, and what is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import encode, frames, mine, pack_tar, pack_zip, pan, read, read_elsewhere, same, write

from mimic_wds.curation.selection import windows
from mimic_wds.pairs import DropReason, SceneError, View, Windows
from mimic_wds.sources.base import Source
from mimic_wds.sources.co3d import Co3d, paired_indices


def sequence(name: str, num: int, step: int = 16) -> dict[str, bytes]:
    """The files of a sequence as CO3D ships it; frames `step` pixels apart."""
    files = {f"{name}/images/frame{k + 1:06d}.jpg": encode(image) for k, image in enumerate(pan(num, step))}
    files[f"{name}/masks/frame000001.png"] = b"mask"
    files[f"{name}/depths/frame000001.jpg.geometric.png"] = b"depth"
    return {**files, f"{name}/pointcloud.ply": b"ply"}


@pytest.fixture
def dataset(tmp_path):
    files = {**sequence("apple/110_1_2", 18), **sequence("tv/9_8_7", 8), **sequence("tv/10_8_7", 6)}
    files["apple/set_lists/set_lists_fewview_dev.json"] = b"{}"
    files["apple/frame_annotations.jgz"] = b"gz"
    return write(tmp_path / "co3d", files), files


def literal(n: int) -> list[tuple[int, int]]:
    """The formula as it is published: i, i + 5 while i < n - 6, i += 10."""
    pairs, i = [], 0
    while i < n - 6:
        pairs.append((i, i + 5))
        i += 10
    return pairs


@given(st.integers(0, 500))
def test_the_paired_frames_are_those_of_the_formula(n):
    tried = windows(map(Frame, paired_indices(n, 5, 10)), lambda a, b: DropReason.VETOED, heads=1, tails=1)
    assert [(c.view0.index, c.view1.index) for c in tried] == literal(n)


class Frame:
    def __init__(self, index):
        self.index, self.frame = index, str(index)


@given(st.integers(0, 200), st.integers(1, 30), st.integers(1, 30))
def test_any_gap_and_step_stay_within_the_sequence(n, gap, step):
    indices = list(paired_indices(n, gap, step))
    heads, tails = indices[::2], indices[1::2]
    assert [t - h for h, t in zip(heads, tails, strict=True)] == [gap] * len(heads)
    assert heads == list(range(0, max(n - gap - 1, 0), step))
    assert all(i < n for i in indices)


def test_scenes_and_frames_of_the_official_layout(dataset):
    root, files = dataset
    source = Co3d(paths=(str(root),))
    assert isinstance(source, Source)
    assert {name: frames(found) for name, found in read(source).items()} == {
        "apple/110_1_2": [(f"frame{k:06d}", "view") for k in (1, 6, 11, 16)],
        "tv/9_8_7": [("frame000001", "view"), ("frame000006", "view")],
        "tv/10_8_7": [],  # too short for the formula
    }
    scene = source.scenes()[0]
    assert source.policy(scene) == Windows(heads=1, tails=1)
    assert scene.num_bytes == sum(len(files[f"apple/110_1_2/images/frame{k:06d}.jpg"]) for k in (1, 6, 11, 16))


def test_frames_are_sorted_by_their_number(tmp_path):
    images = pan(12, 16)
    write(tmp_path / "a/b", {f"images/frame{k}.jpg": encode(image) for k, image in enumerate(images)})
    write(tmp_path / "a/b", {"images/frame_x.jpg": b"", "images/other.jpg": b""})
    (found,) = read(Co3d(paths=(str(tmp_path),), gap=2, step=3)).values()
    assert [v.frame for v in found] == [f"frame{k}" for k in (0, 2, 3, 5, 6, 8)]


def test_zips_as_shipped_a_tar_and_folders_are_one_thing(dataset, tmp_path):
    root, files = dataset
    for number, category in enumerate(["apple", "tv"]):
        mine_only = {name: data for name, data in files.items() if name.startswith(category)}
        pack_zip(tmp_path / "zips" / f"{category}_00{number}.zip", mine_only)
    pack_zip(tmp_path / "zips/apple_001.zip", {"apple/eval_batches/x.json": b"{}"})  # one without photographs
    unpacked, zipped = Co3d(paths=(str(root),)), Co3d(paths=(str(tmp_path / "zips"),))
    assert same(read(unpacked), read(zipped))
    tar = Co3d(paths=(str(pack_tar(tmp_path / "all.tar", root)),))
    assert same(read(unpacked), read(tar))
    assert [s.num_bytes for s in unpacked.scenes()] == [s.num_bytes for s in zipped.scenes()]
    assert zipped.scenes()[0].path == f"{tmp_path}/zips/apple_000.zip::apple/110_1_2/images"


def test_a_category_or_a_sequence_alone_has_the_same_name(dataset):
    root, _ = dataset
    for path in ("tv", "tv/9_8_7", "tv/9_8_7/images"):
        assert "tv/9_8_7" in [s.name for s in Co3d(paths=(str(root / path),)).scenes()]


def test_a_sequence_that_is_there_twice_is_named(dataset, tmp_path):
    root, files = dataset
    pack_zip(root / "tv_000.zip", {name: data for name, data in files.items() if name.startswith("tv/9")})
    with pytest.raises(ValueError, match=r"tv/9_8_7 is in .* and in .*leave one out"):
        Co3d(paths=(str(root),)).scenes()
    assert len(Co3d(paths=(str(tmp_path / "co3d/tv"),) * 2).scenes()) == 2


def test_another_process_reads_the_same_from_zips(tmp_path):
    path = pack_zip(tmp_path / "apple_000.zip", {**sequence("apple/1_2_3", 8), **sequence("apple/4_5_6", 18)})
    assert read_elsewhere(Co3d(paths=(str(path),))) == [
        ["frame000001", "frame000006"],
        ["frame000001", "frame000006", "frame000011", "frame000016"],
    ]


def test_damaged_frames_are_faults_in_their_place(dataset, tmp_path):
    root, files = dataset
    name = "apple/110_1_2/images/frame000006.jpg"
    files = {k: v for k, v in files.items() if k.startswith("apple")} | {name: files[name][:2000]}
    (root / name).write_bytes(files[name])
    expected = [(f"frame{k:06d}", "unreadable_image" if k == 6 else "view") for k in (1, 6, 11, 16)]
    assert frames(read(Co3d(paths=(str(root),)))["apple/110_1_2"]) == expected
    zipped = Co3d(paths=(str(pack_zip(tmp_path / "apple_000.zip", files)),))
    assert frames(read(zipped)["apple/110_1_2"]) == expected
    assert all(isinstance(v, View) or "frame000006" in v.where for v in read(zipped)["apple/110_1_2"])


def test_a_sequence_that_is_gone_is_a_broken_scene(dataset, tmp_path):
    path = pack_zip(tmp_path / "tv.zip", sequence("tv/1_2_3", 8))
    source = Co3d(paths=(str(path),))
    (scene,) = source.scenes()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SceneError, match="no whole zip file") as error:
        list(source.views(scene))
    assert str(error.value).startswith(scene.path)  # so that the path can be left out of what is published
    path.unlink()
    with pytest.raises(SceneError, match="cannot be read"):
        list(source.views(scene))


def test_what_is_there_instead_is_said(tmp_path):
    for k in range(12):
        (tmp_path / f"{k}.mp4").touch()
    for k in range(3):
        (tmp_path / f"{k}.txt").touch()
    with pytest.raises(ValueError, match=r"expected <category>/<sequence>/images/.*found 12 .mp4 and 3 .txt files"):
        Co3d(paths=(str(tmp_path),)).scenes()
    with pytest.raises(ValueError, match=r"found 1 .mp4 file$"):
        Co3d(paths=(str(tmp_path / "0.mp4"),)).scenes()
    (tmp_path / "apple.tar.gz").touch()
    with pytest.raises(ValueError, match=r"unpack apple\.tar\.gz"):
        Co3d(paths=(str(tmp_path),)).scenes()
    for options in ({"gap": 0}, {"step": 0}):
        with pytest.raises(ValueError, match="gap and step must be 1 or more"):
            Co3d(paths=("x",), **options)


def test_pairs_five_frames_apart_are_kept(tmp_path):
    write(tmp_path, sequence("apple/1_2_3", 28, step=16))  # 5 * 16 of 224 pixels: 64 % overlap
    kept, counts = mine(Co3d(paths=(str(tmp_path),)))
    expected = [(1, 6), (11, 16), (21, 26)]
    assert [(p.frame0, p.frame1) for p in kept] == [(f"frame{a:06d}", f"frame{b:06d}") for a, b in expected]
    assert [p.overlap for p in kept] == pytest.approx([1 - 80 / 224] * 3, abs=0.03)
    assert (counts.views, counts.candidates, counts.kept) == (6, 3, 3)
    assert kept[0].key.startswith("co3d_apple-1-2-3")
    assert kept[0].key.endswith("_frame000001_frame000006")


def test_the_sample_sequence(shared_data):
    source = Co3d(paths=(str(shared_data / "images/co3d"),))
    assert {name: [v.frame for v in found] for name, found in read(source).items()} == {
        "chair/100_1000_2000": ["frame000001", "frame000006", "frame000011", "frame000016"]
    }
    kept, counts = mine(Co3d(paths=(str(shared_data / "images/co3d"),), gap=2, step=2))
    assert counts.candidates == 9  # heads 0, 2, ... 16 of 21 frames
    assert all(0.5 < p.overlap < 0.75 for p in kept)
    assert 2 <= counts.kept <= 7
