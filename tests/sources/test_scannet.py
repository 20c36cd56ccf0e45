"""ScanNet: which frames make up the windows, and that `.sens` files give the same frames as the exported ones."""

from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sens_files import write_sens
from videos import numbered_frame, read_number, texture

from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.scene import Tally, curate
from mimic_wds.pairs import Fault, SceneError, View, Windows
from mimic_wds.sources.scannet import ScanNet, color_frames, window_frames
from mimic_wds.sources.sens import SensReader

SMALL = {"window": 10, "stride": 10, "heads": 2, "tails": 3, "gap": 6}


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()


def numbered(count: int) -> list[bytes]:
    return [jpeg(numbered_frame(number)) for number in range(count)]


def write_color(folder, images, name="{}.jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        (folder / name.format(number)).write_bytes(image)


def scene_of(path, **options):
    source = ScanNet(paths=(str(path),), **options)
    (scene,) = source.scenes()
    return source, scene


def read(path, **options):
    source, scene = scene_of(path, **options)
    return list(source.views(scene))


@given(st.integers(0, 700))
def test_windows_are_those_of_the_paper(n):
    literal = []
    for w in range(0, n - 60, 60):
        literal += [w + a for a in range(10)] + [w + 49 + b for b in range(10)]
    source = ScanNet(paths=("x",))
    options = {name: getattr(source, name) for name in ("window", "stride", "heads", "tails", "gap")}
    assert window_frames(n, **options) == literal
    assert all(frame < n for frame in literal)
    gaps = [b - a for start in range(0, len(literal), 20) for a in literal[start:][:10] for b in literal[start:][10:20]]
    assert not gaps or (min(gaps), max(gaps)) == (40, 58)


@given(
    st.integers(0, 200), st.integers(1, 30), st.integers(1, 5), st.integers(1, 5), st.integers(0, 9), st.integers(0, 9)
)
def test_every_window_of_any_shape_is_whole_and_within_the_scene(n, stride, heads, tails, room, slack):
    gap, window = heads + room, heads + room + tails + slack
    frames = window_frames(n, window=window, stride=stride, heads=heads, tails=tails, gap=gap)
    assert len(frames) == (heads + tails) * len(range(0, n - window, stride))
    assert all(0 <= frame < n for frame in frames)


def test_the_default_policy_is_ten_by_ten():
    assert ScanNet(paths=("x",)).policy(None) == Windows(heads=10, tails=10)


def test_sens_and_exported_frames_give_the_same_views(tmp_path):
    images = numbered(25)
    write_sens(tmp_path / "a/scans/scene0000_00/scene0000_00.sens", images)
    write_color(tmp_path / "b/scans/scene0000_00/color", images)
    found = {}
    for folder in "ab":
        source, scene = scene_of(tmp_path / folder / "scans", **SMALL)
        assert scene.name == "scans/scene0000_00"
        assert source.policy(scene) == Windows(heads=2, tails=3)
        found[folder] = list(source.views(scene))
    frames = ["0", "1", "6", "7", "8", "10", "11", "16", "17", "18"]
    assert [view.frame for view in found["a"]] == [view.frame for view in found["b"]] == frames
    for view, other in zip(found["a"], found["b"], strict=True):
        assert read_number(view.image) == int(view.frame)
        np.testing.assert_array_equal(view.image, other.image)


@pytest.mark.parametrize("name", ["{}.jpg", "{:06d}.JPG", "frame-{:06d}.color.jpg"])
def test_every_way_of_exporting_is_read_in_the_order_of_the_numbers(tmp_path, name):
    write_color(tmp_path / "scene0001_00", numbered(13), name)
    (tmp_path / "scene0001_00/thumbnail.jpg").write_bytes(jpeg(numbered_frame(200)))
    views = read(tmp_path, **SMALL)
    assert [read_number(v.image) for v in views] == [0, 1, 6, 7, 8]
    assert [v.frame for v in views] == ["0", "1", "6", "7", "8"]


def test_names_are_sorted_by_number():
    assert list(color_frames(["10.jpg", "2.jpg", "x.jpg", "1.png", "0100.jpg"]).items()) == [
        ("2.jpg", 2),
        ("10.jpg", 10),
        ("0100.jpg", 100),
    ]


def test_a_scene_with_both_is_one_scene_of_the_stream_wanted(tmp_path):
    folder = tmp_path / "scans/scene0000_00"
    write_sens(folder / "scene0000_00.sens", numbered(3))
    write_color(folder / "color", numbered(4))
    for stream, ending in {"any": ".sens", "sens": ".sens", "color": "color"}.items():
        for root, name in ((tmp_path / "scans", "scans/scene0000_00"), (folder, "scene0000_00")):
            _, scene = scene_of(root, stream=stream)
            assert (scene.name, scene.path.endswith(ending)) == (name, True)
    assert scene_of(folder / "color")[1].name == "scene0000_00"
    assert scene_of(folder / "scene0000_00.sens")[1].name == "scene0000_00"


def test_a_sens_file_is_read_frame_by_frame(tmp_path):
    images = numbered(7)
    starts = write_sens(tmp_path / "x.sens", images)
    with SensReader(tmp_path / "x.sens") as reader:
        assert (reader.promised, len(reader.frames)) == (7, 7)
        assert [reader.color(index) for index in (5, 0, 6)] == [images[5], images[0], images[6]]
        assert [frame.time_us for frame in reader.frames] == [33_333 * number for number in range(7)]
        assert [frame.offset - start for frame, start in zip(reader.frames, starts, strict=False)] == [96] * 7


def test_a_cut_sens_file_keeps_its_complete_frames_and_counts_the_rest(tmp_path):
    path = tmp_path / "x.sens"
    starts = write_sens(path, numbered(25))
    path.write_bytes(path.read_bytes()[: starts[19] + 100])
    found = read(path, **SMALL)
    assert [v.frame for v in found if isinstance(v, View)] == ["0", "1", "6", "7", "8"]
    (fault,) = [v for v in found if isinstance(v, Fault)]
    assert (fault.reason, fault.frame) == ("file_cut_short", "")
    assert "19 of 25 frames" in fault.where


def test_a_damaged_picture_keeps_its_place(tmp_path):
    images = numbered(25)
    images[7] = b"\xff\xd8 not a picture"
    write_sens(tmp_path / "x.sens", images)
    found = read(tmp_path / "x.sens", **SMALL)
    assert [v.frame for v in found] == ["0", "1", "6", "7", "8", "10", "11", "16", "17", "18"]
    assert [v.reason for v in found if isinstance(v, Fault)] == ["unreadable_image"]
    assert found[3].frame == "7"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "begins with version 3"),
        ({"compression": 0}, "colour compression 0 is not known"),
        ({"images": []}, "holds no complete frame of the 0 promised"),
        ({"images": [], "promised": 10**15}, "holds no complete frame"),
    ],
)
def test_other_sens_files_are_broken_scenes(tmp_path, changes, message):
    write_sens(tmp_path / "x.sens", **({"images": numbered(2)} | changes))
    with pytest.raises(SceneError, match=message):
        read(tmp_path / "x.sens")


@given(st.data())
@settings(deadline=None)
def test_any_damage_is_a_scene_error_or_faults(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "x.sens"
    write_sens(path, numbered(12))
    content = bytearray(path.read_bytes()[: data.draw(st.integers(0, path.stat().st_size))])
    for _ in range(data.draw(st.integers(0, 3)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    found = []
    with suppress(SceneError):
        found = read(path, **SMALL)
    assert [v.frame for v in found if v.frame] in ([], ["0", "1", "6", "7", "8"])


def test_a_scene_shorter_than_a_window_is_counted(tmp_path):
    write_color(tmp_path / "s/color", numbered(10))
    (fault,) = read(tmp_path, **SMALL)
    assert (fault.reason, fault.frame) == ("too_few_frames", "")
    assert "10 frames; a window needs 11" in fault.where


def test_the_wrong_folder_is_told_what_it_holds(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.txt", "b.txt", "cat.jpg"):
        (tmp_path / "in" / name).write_text("x")
    with pytest.raises(ValueError, match=r"expected ScanNet scenes: .*; found 2 \.txt and 1 \.jpg files"):
        scene_of(tmp_path / "in")
    write_color(tmp_path / "in/color", numbered(1))
    with pytest.raises(ValueError, match=r"expected \.sens files; found"):
        scene_of(tmp_path / "in", stream="sens")
    with pytest.raises(ValueError, match="no such file or folder"):
        scene_of(tmp_path / "nowhere")


def test_two_scenes_of_one_name_are_refused(tmp_path):
    for root in "ab":
        write_sens(tmp_path / root / "scans/s/s.sens", numbered(1))
    with pytest.raises(ValueError, match=r"scans/s is in .* and in .*; give their common parent folder"):
        ScanNet(paths=(str(tmp_path / "a/scans"), str(tmp_path / "b/scans"))).scenes()


@pytest.mark.parametrize("options", [{"heads": 50}, {"gap": 51}, {"tails": 12}, {"window": 58}])
def test_windows_that_do_not_hold_their_frames_are_refused(options):
    with pytest.raises(ValueError, match="need heads <= gap <= window - tails"):
        ScanNet(paths=("x",), **options)
    with pytest.raises(ValueError, match="must be 1 or more"):
        ScanNet(paths=("x",), stride=0)


def test_the_pair_that_overlaps_least_is_kept_of_each_window(tmp_path):
    canvas = texture(3, 224, 600)
    images = [jpeg(canvas[:, 14 * number :][:, :224]) for number in range(25)]  # a patch is 16 pixels
    write_sens(tmp_path / "s.sens", images)
    source, scene = scene_of(tmp_path / "s.sens", **SMALL)
    tally = Tally()
    kept = list(curate(scene, source.views(scene), source.policy(scene), Criteria(), tally))
    counts = tally.counts()
    assert [(pair.frame0, pair.frame1) for pair in kept] == [("0", "7"), ("10", "17")]
    assert [pair.overlap for pair in kept] == pytest.approx([1 - 7 * 14 / 224] * 2, abs=0.08)
    assert (counts.views, counts.candidates, counts.kept) == (10, 12, 2)
    assert set(counts.dropped) == {"overlap_too_small", "not_selected"}


def test_genuine_scene(shared_data):
    root = shared_data / "video/scannet"
    source, scene = scene_of(root, **SMALL)
    assert scene.name == "scannet/scans/scene9000_00"
    color = root / "scans/scene9000_00/color"
    with SensReader(root / "scans/scene9000_00/scene9000_00.sens") as reader:
        assert len(reader.frames) == reader.promised == 40
        assert all(reader.color(index) == (color / f"{index}.jpg").read_bytes() for index in range(40))
    views = list(source.views(scene))
    exported = read(root, stream="color", **SMALL)
    frames = [str(w + place) for w in (0, 10, 20) for place in (0, 1, 6, 7, 8)]
    assert [v.frame for v in views] == [v.frame for v in exported] == frames
    assert all(np.array_equal(a.image, b.image) for a, b in zip(views, exported, strict=True))
    assert [v.reason for v in read(root)] == ["too_few_frames"]
