"""MannequinChallenge and RealEstate10K: lists find their videos, frames lie where the lists say, missing is counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from videos import numbered_frame, read_number, write_pan, write_video

from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.scene import Tally, curate
from mimic_wds.pairs import Chain, Fault, Scene, SceneError, View
from mimic_wds.sources.camera_lists import find_videos, on_grid, read_list, video_address, video_id
from mimic_wds.sources.mannequin import Mannequin, RealEstate10K, without_bottom

ID, OTHER, GONE = "ejoqh_d2zM8", "-Ab_cdefghi", "00000000000"
CAMERA = "0.5 0.9 0.5 0.5 0 0 " + "1 0 0 0.1 0 1 0 0.2 0 0 1 0.3"


def write_list(path, times_us, video=ID):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{time_us} {CAMERA}\n" for time_us in times_us)
    path.write_text(f"https://www.youtube.com/watch?v={video}\n{rows}")
    return path


def write_clip(path, num_frames=40, fps=10.0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, num_frames, fps, **options)


def frames_us(start, stop, fps=30):
    """Time stamps of the frames from `start` to `stop` seconds, as the lists round them."""
    return [round(number / fps * 1e6) for number in range(round(start * fps), round(stop * fps) + 1)]


def read(*paths, kind=RealEstate10K, **options):
    source = kind(paths=tuple(str(p) for p in paths), **options)
    return {scene.name: list(source.views(scene)) for scene in source.scenes()}


def test_a_list_and_its_video_give_the_frames_at_the_listed_times(tmp_path):
    write_list(tmp_path / "lists/train/abc.txt", frames_us(0.5, 3.2))
    write_clip(tmp_path / "videos" / f"A walk [{ID}].mp4")
    (views,) = read(tmp_path / "lists", tmp_path / "videos").values()
    assert [v.frame for v in views] == ["500000", "1500000", "2500000"]
    assert [read_number(v.image) for v in views] == [5, 15, 25]
    assert [v.time_s for v in views] == pytest.approx([0.5, 1.5, 2.5], abs=1e-3)
    assert {v.image.shape for v in views} == {(96, 128, 3)}


def test_the_frame_nearest_to_a_listed_time_is_taken(tmp_path):
    write_list(tmp_path / "x.txt", [640_000, 1_660_000, 2_749_000, 2_751_000])
    write_clip(tmp_path / f"{ID}.avi")
    (views,) = read(tmp_path).values()
    assert [(v.frame, read_number(v.image)) for v in views] == [("640000", 6), ("1660000", 17), ("2749000", 27)]


def test_many_clips_of_many_videos(tmp_path):
    write_list(tmp_path / "RealEstate10K/train/c1.txt", frames_us(0, 1))
    write_list(tmp_path / "RealEstate10K/train/c2.txt", frames_us(2, 3))
    write_list(tmp_path / "RealEstate10K/test/c3.txt", frames_us(1, 3), OTHER)
    write_list(tmp_path / "RealEstate10K/test/c4.txt", frames_us(1, 3), GONE)
    (tmp_path / "RealEstate10K/README.txt").write_text("see https://google.github.io/realestate10k\n")
    write_clip(tmp_path / f"videos/{ID}/video.mp4")
    write_clip(tmp_path / f"videos/title-{OTHER}.mp4")
    write_clip(tmp_path / "videos/of no list.mp4")
    found = read(tmp_path)
    base = tmp_path.name
    assert {name: [v.frame for v in views] for name, views in found.items()} == {
        f"{base}/RealEstate10K/test/c3": ["1000000", "2000000", "3000000"],
        f"{base}/RealEstate10K/test/c4": [""],
        f"{base}/RealEstate10K/train/c1": ["0", "1000000"],
        f"{base}/RealEstate10K/train/c2": ["2000000", "3000000"],
    }
    (fault,) = found[f"{base}/RealEstate10K/test/c4"]
    assert fault.reason == "video_missing"
    assert fault.where.endswith(f"c4.txt: no video of https://www.youtube.com/watch?v={GONE}")


@given(st.lists(st.integers(0, 20_000_000), min_size=1, max_size=60, unique=True).map(sorted), st.integers(1, 4))
def test_grid_of_listed_times(times_us, every):
    chosen = on_grid(times_us, float(every))
    assert chosen[0] == times_us[0]
    step = every * 1_000_000
    expected = []  # by definition: the first listed time at or after each tick, none twice
    for tick in range(times_us[0], times_us[-1] + 1, step):
        first = next(t for t in times_us if t >= tick)
        if first not in expected:
            expected.append(first)
    assert chosen == expected
    assert on_grid(times_us, 1.0, every) == times_us[::every]


def test_the_bottom_fifth_is_cut_off_for_mannequin(tmp_path):
    write_list(tmp_path / "m/train/a.txt", frames_us(0, 1))
    write_clip(tmp_path / f"m/{ID}.mp4", size=(100, 128))
    heights = {}
    for kind, options in ((Mannequin, {}), (RealEstate10K, {}), (Mannequin, {"bottom_crop": 0.33})):
        (views,) = read(tmp_path / "m", kind=kind, **options).values()
        heights[kind.name, *options] = {v.image.shape for v in views}
    assert heights == {
        ("mannequin",): {(80, 128, 3)},
        ("realestate10k",): {(100, 128, 3)},
        ("mannequin", "bottom_crop"): {(67, 128, 3)},
    }
    whole = View(image=numbered_frame(77), frame="x")
    assert (without_bottom(whole, 0.2).image == whole.image[:77]).all()


def test_clips_that_are_cut_already_are_read_from_their_start(tmp_path):
    for name in ("v1/trims/0.mp4", "v1/trims/1.mp4", "v2/trims/0.mp4"):
        write_clip(tmp_path / "clips" / name, 25)
    found = read(tmp_path / "clips", kind=Mannequin)
    assert list(found) == ["clips/v1/trims/0.mp4", "clips/v1/trims/1.mp4", "clips/v2/trims/0.mp4"]
    assert all([v.frame for v in views] == ["000000", "000010", "000020"] for views in found.values())
    assert {v.image.shape for views in found.values() for v in views} == {(77, 128, 3)}
    assert [v.frame for v in read(tmp_path / "clips/v1/trims/1.mp4", every_frames=9)["1.mp4"]] == [
        "000000",
        "000009",
        "000018",
    ]


def test_lists_with_cut_clips_are_not_missing(tmp_path):
    for name in ("aa", "bb", "cc", "dd"):
        write_list(tmp_path / "in/train" / f"{name}.txt", frames_us(7, 8), GONE)
    write_clip(tmp_path / "in/clips/aa/trims/0.mp4", 5)
    write_clip(tmp_path / "in/cut/bb.mp4", 5)
    write_clip(tmp_path / "in/cut/a | b/cc/video.mp4", 5)
    found = read(tmp_path / "in")
    assert {name: [type(v) for v in views] for name, views in found.items()} == {
        "in/clips/aa/trims/0.mp4": [View],
        "in/cut/a | b/cc/video.mp4": [View],
        "in/cut/bb.mp4": [View],
        "in/train/dd": [Fault],
    }


def test_a_video_that_ends_early_is_counted(tmp_path):
    write_list(tmp_path / "a.txt", frames_us(2, 6))
    write_list(tmp_path / "b.txt", frames_us(50, 55))
    write_clip(tmp_path / f"{ID}.mp4")
    source = RealEstate10K(paths=(str(tmp_path),))
    first, second = source.scenes()
    *views, fault = source.views(first)
    assert [read_number(v.image) for v in views] == [20, 30]
    assert (fault.reason, fault.frame) == ("video_cut_short", "")
    with pytest.raises(SceneError, match=r"has no frame within the 50\.000 to 55\.000 s wanted"):
        list(source.views(second))


def test_a_broken_video_is_a_broken_scene(tmp_path):
    write_list(tmp_path / "a.txt", frames_us(2, 6))
    (tmp_path / f"{ID}.mp4").write_text("removed")
    with pytest.raises(SceneError, match=rf"{ID}\.mp4: cannot be opened"):
        read(tmp_path)


def test_damaged_lines_are_counted(tmp_path):
    path = write_list(tmp_path / "a.txt", frames_us(0, 2))
    lines = path.read_text().splitlines()
    lines[3], lines[5] = lines[3][:40], "12.5 " + CAMERA
    path.write_text("\n".join(lines) + "\n\n")
    assert read_list(path).damaged == (4, 6)
    write_clip(tmp_path / f"{ID}.mp4")
    (found,) = read(tmp_path).values()
    assert [v.reason for v in found if isinstance(v, Fault)] == ["unreadable_list_line"] * 2
    assert [v.frame for v in found if isinstance(v, View)] == ["0", "1000000", "2000000"]
    path.write_text(lines[0] + "\n")
    with pytest.raises(SceneError, match=r"a\.txt: no line of 19 columns"):
        read(tmp_path)


def test_addresses_and_ids(tmp_path):
    assert video_id(f"https://www.youtube.com/watch?v={ID}") == ID
    assert video_id(f"https://youtu.be/{OTHER}") == OTHER
    assert video_id(f"https://www.youtube.com/watch?feature=x&v={ID}&t=3") == ID
    assert video_id("https://www.youtube.com/") == ""
    assert video_address(write_list(tmp_path / "a.txt", [0])).endswith(ID)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00 no list")
    assert video_address(tmp_path / "b.txt") == ""


def test_videos_are_found_by_id_and_exact_names_come_first(tmp_path):
    videos = [tmp_path / f"a {ID} b.mp4", tmp_path / f"{ID}.webm", tmp_path / OTHER / "v.mkv", tmp_path / "7.mp4"]
    assert find_videos([ID, OTHER, GONE, "7"], videos) == {ID: videos[1], OTHER: videos[2], "7": videos[3]}
    assert find_videos([ID, "a"], videos[:1]) == {ID: videos[0]}  # too short an id is not looked for within names


def test_the_wrong_folder_is_told_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("no list")
    with pytest.raises(ValueError, match=r"expected MannequinChallenge lists .*; found 1 \.txt file"):
        read(tmp_path, kind=Mannequin)
    write_list(tmp_path / "a.txt", [0])
    write_clip(tmp_path / "holiday.mp4", 1)
    with pytest.raises(ValueError, match=rf"found 1 list\(s\) and 1 video\(s\), none .* e\.g\. '{ID}' of https"):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"bottom_crop is a share of the rows in \[0, 1\), got 1\.0"):
        Mannequin(paths=("x",), bottom_crop=1.0)


def test_policies_and_licences():
    scene = Scene(source="mannequin", name="x", path="x")
    assert Mannequin(paths=("x",)).policy(scene) == RealEstate10K(paths=("x",)).policy(scene) == Chain(retry=False)
    assert Mannequin(paths=("x",), retry=True).policy(scene) == Chain(retry=True)
    assert "MannequinChallenge" in Mannequin(paths=("x",)).licence


def test_neighbouring_frames_of_a_clip_are_kept(tmp_path):
    write_pan(tmp_path / f"{ID}.avi", 8)  # one frame a second
    write_list(tmp_path / "a.txt", frames_us(2, 5))
    source = RealEstate10K(paths=(str(tmp_path),))
    (scene,) = source.scenes()
    tally = Tally()
    kept = list(curate(scene, source.views(scene), source.policy(scene), Criteria(), tally))
    assert [(p.frame0, p.frame1) for p in kept] == [
        ("2000000", "3000000"),
        ("3000000", "4000000"),
        ("4000000", "5000000"),
    ]
    assert [p.overlap for p in kept] == pytest.approx([1 - 64 / 224] * 3, abs=0.03)
    assert tally.counts().candidates == 3


def test_genuine_lists(shared_data, tmp_path):
    root = shared_data / "video/mannequin"
    found = read(root, kind=Mannequin)
    assert {name: [v.frame for v in views] for name, views in found.items()} == {
        "mannequin/clips/0a1b2c3d4e5f6071/trims/0.mp4": ["000000", "000030", "000060", "000090"]
    }
    assert {v.image.shape for views in found.values() for v in views} == {(192, 320, 3)}
    # The same clip by its list, as the video that the list names.
    clip = root / "clips/0a1b2c3d4e5f6071/trims/0.mp4"
    (tmp_path / "trajectory0.mp4").write_bytes(clip.read_bytes())
    (listed,) = read(root / "train", tmp_path, kind=Mannequin).values()
    (cut,) = found.values()
    assert [v.frame for v in listed] == ["0", "1000000", "2000000", "3000000"]
    assert all((a.image == b.image).all() for a, b in zip(listed, cut, strict=True))
    real = shared_data / "video/realestate10k"
    (text,) = real.rglob("*.txt")
    assert video_id(video_address(text)) == ID
    cameras = read_list(text)
    assert (len(cameras.times_us), cameras.times_us[0], cameras.damaged) == (12, 53_928_878, ())
    with pytest.raises(ValueError, match=r"found 1 list\(s\) and 0 video\(s\)"):
        read(real)
