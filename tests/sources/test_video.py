"""Frames of real video files: which ones, in which order, how upright, and what happens to broken files."""

import numpy as np
import pytest
from videos import numbered_frame, read_number, rotate_by_metadata, write_video

from mimic_wds.pairs import Fault, SceneError, View
from mimic_wds.sources.video import Video, _Clock


def grid(path, **options):
    source = Video(paths=(str(path),), **options)
    (scene,) = source.scenes()
    return list(source.views(scene))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi"])
def test_grid_in_seconds_takes_the_first_frame_at_or_after_each_tick(tmp_path, name):
    views = grid(write_video(tmp_path / name, 35, fps=10), every_s=0.5)
    assert [read_number(v.image) for v in views] == [0, 5, 10, 15, 20, 25, 30]
    assert [v.frame for v in views] == ["000000", "000005", "000010", "000015", "000020", "000025", "000030"]
    assert [v.time_s for v in views] == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, 3], abs=1e-3)


def test_a_grid_as_fine_as_the_video_loses_no_frame_to_rounding(tmp_path):
    views = grid(write_video(tmp_path / "clip.mp4", 60, fps=10), every_s=0.1)
    assert [read_number(v.image) for v in views] == list(range(60))


def test_grid_in_frames(tmp_path):
    views = grid(write_video(tmp_path / "clip.mp4", 20, fps=25), every_frames=6)
    assert [read_number(v.image) for v in views] == [0, 6, 12, 18]


def test_a_grid_finer_than_the_video_takes_every_frame_once(tmp_path):
    views = grid(write_video(tmp_path / "clip.mp4", 7, fps=10), every_s=0.01)
    assert [read_number(v.image) for v in views] == list(range(7))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_metadata_is_honoured(tmp_path, degrees):
    path = write_video(tmp_path / "clip.mp4", 3)
    rotate_by_metadata(path, degrees)
    upright = np.rot90(numbered_frame(1), k=-degrees // 90)
    image = grid(path, every_frames=1)[1].image
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 8  # compression leaves a few grey levels


def test_text_named_mp4_is_a_broken_scene(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("not a video")
    with pytest.raises(SceneError, match=r"notes\.mp4: cannot be opened as a video"):
        grid(path)


def test_a_clip_without_frames_is_a_broken_scene(tmp_path):
    path = write_video(tmp_path / "clip.avi", 5)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"movi") + 4])
    with pytest.raises(SceneError, match=r"clip\.avi: (opens as a video but no frame|cannot be opened)"):
        grid(path)


def test_a_truncated_video_keeps_what_decodes_and_counts_the_rest(tmp_path):
    path = write_video(tmp_path / "clip.avi", 40)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"movi") + (len(data) - data.index(b"movi")) // 2])
    found = grid(path, every_frames=1)
    views = [v for v in found if isinstance(v, View)]
    assert 10 < len(views) < 30
    assert [read_number(v.image) for v in views] == list(range(len(views)))
    assert [f.reason for f in found if isinstance(f, Fault)] == ["video_cut_short"]


def test_folders_are_searched_and_sorted_naturally(tmp_path):
    for name in ("b/clip10.mp4", "b/clip2.mp4", "a.avi", ".hidden/x.mp4", "b/notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    names = [scene.name for scene in Video(paths=(str(tmp_path / "in"),)).scenes()]
    assert names == ["in/a.avi", "in/b/clip2.mp4", "in/b/clip10.mp4"]


def test_missing_and_empty_paths_are_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such file or folder"):
        Video(paths=(str(tmp_path / "nowhere"),)).scenes()
    with pytest.raises(ValueError, match="no videos here or below"):
        Video(paths=(str(tmp_path),)).scenes()


def test_two_paths_with_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "clip.mp4").write_bytes(b"")
    paths = tuple(str(tmp_path / folder / "clip.mp4") for folder in ("a", "b"))
    with pytest.raises(ValueError, match="give their common parent folder"):
        Video(paths=paths).scenes()
    assert len(Video(paths=paths[:1] * 2).scenes()) == 1  # the same file twice is one scene


@pytest.mark.parametrize("options", [{"every_s": 0.0}, {"every_s": -1.0}, {"every_frames": -2}])
def test_impossible_grids_are_refused(options):
    with pytest.raises(ValueError, match="every_s must be above 0"):
        Video(paths=("x",), **options)


def test_clock_falls_back_to_the_frame_rate_and_never_runs_backwards():
    clock = _Clock(fps=10)
    assert [clock.read(stamp, i) for i, stamp in enumerate([5.0, 5.1, 5.1, 0.0, float("nan"), 6.0])] == pytest.approx(
        [0.0, 0.1, 0.2, 0.3, 0.4, 1.0]
    )
    assert _Clock(fps=0).frame_s == 1 / 25


def test_every_sample_video_is_read_to_its_end(shared_data):
    expected = {"stone_sign.mp4": 83, "log_building_02.mp4": 85, "drone_park_01.mp4": 37, "lines_indoors.mjpeg": 104}
    for name, frames in expected.items():
        found = grid(shared_data / "video/boofcv" / name, every_frames=10)
        assert len(found) == -(-frames // 10), name
        assert all(isinstance(v, View) for v in found)
