"""Frames of a video at given times: the nearest ones, whether the start is sought or read to, and what is missing."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videos import numbered_frame, read_number, write_video

from mimic_wds.pairs import Fault, SceneError, View
from mimic_wds.sources import video
from mimic_wds.sources.video import read_at


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """25 s at 10 frames a second; frame n says n."""
    return str(write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", 250))


def at(path, times_s):
    return list(read_at(path, times_s, [f"{t:.3f}" for t in times_s]))


@given(times_s=st.lists(st.integers(0, 24_900), min_size=1, max_size=6, unique=True).map(sorted))
@settings(max_examples=30, deadline=None)
def test_frames_are_the_nearest_to_their_times(long_clip, times_s):
    times_s = [t / 1000 for t in times_s]
    views = at(long_clip, times_s)
    frames = [float(v.frame) for v in views]
    numbers = [read_number(v.image) for v in views]
    assert len(set(numbers)) == len(numbers)
    assert all(abs(t - n / 10) <= 0.05 + 2e-5 for t, n in zip(frames, numbers, strict=True))
    # A time is left out only for a later one that is nearest to the same frame.
    for t in set(np.round(times_s, 3)) - set(frames):
        assert min(abs(t - n / 10) for n in numbers) <= 0.05 + 2e-5


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi", "clip.mkv"])
def test_a_far_start_is_sought_and_gives_the_same_frames(tmp_path, name, monkeypatch):
    path = tmp_path / name
    if path.suffix == ".mkv":
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (128, 96))
        for number in range(250):
            writer.write(numbered_frame(number))
        writer.release()
    else:
        write_video(path, 250)
    grabbed = []

    def counted(capture, seek=None, grab=video.grab):
        for item in grab(capture, seek):
            grabbed.append(item)
            yield item

    monkeypatch.setattr(video, "grab", counted)
    times_s = [20.0, 21.0, 22.04]
    views = at(str(path), times_s)
    sought = len(grabbed)
    grabbed.clear()
    monkeypatch.setattr(video, "RUN_UP_S", 1000.0)
    read_to = at(str(path), times_s)
    assert [read_number(v.image) for v in views] == [read_number(v.image) for v in read_to] == [200, 210, 220]
    assert all(np.array_equal(a.image, b.image) and a.time_s == b.time_s for a, b in zip(views, read_to, strict=True))
    assert sought < 100 < len(grabbed) == 221


def test_a_file_that_cannot_be_sought_is_read_to_the_start(tmp_path):
    path = tmp_path / "clip.mjpeg"  # JPEGs one after the other: no index, no time stamps, 25 a second by custom
    path.write_bytes(b"".join(cv2.imencode(".jpg", numbered_frame(n % 256))[1].tobytes() for n in range(500)))
    views = at(str(path), [15.0, 16.0])
    assert [read_number(v.image) for v in views] == [375 % 256, 400 % 256]


def test_times_after_the_end_are_counted(long_clip):
    found = at(long_clip, [23.0, 24.0, 25.0, 26.0])
    assert [read_number(v.image) for v in found if isinstance(v, View)] == [230, 240]
    (fault,) = [v for v in found if isinstance(v, Fault)]
    assert (fault.reason, fault.frame) == ("video_cut_short", "")
    assert "read to 24.900 s; no frame for 2 later times" in fault.where


def test_a_video_that_ends_before_the_first_time_is_a_broken_scene(long_clip):
    with pytest.raises(SceneError, match=r"read to .* s, has no frame within the 40\.000 to 41\.000 s wanted"):
        at(long_clip, [40.0, 41.0])


def test_no_frame_is_taken_from_after_the_last_time(tmp_path):
    path = str(write_video(tmp_path / "slow.mp4", 5, fps=0.5))  # frames at 0, 2, 4, 6, 8 s
    assert [read_number(v.image) for v in at(path, [0.0, 2.2, 4.1])] == [0, 1, 2]
    assert [v.frame for v in at(path, [0.0, 0.2, 0.9])] == ["0.900"]
