"""Objectron: names as in the data set's index from whichever folder is given, and the grid of its videos."""

import os

import pytest
from videos import read_number, rotate_by_metadata, write_pan, write_video

from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.scene import Tally, curate
from mimic_wds.pairs import Chain, Fault, View
from mimic_wds.sources.objectron import Objectron
from mimic_wds.sources.video import Video


def write_mov(path, writer=write_video, **options):
    """The video under its name: OpenCV writes .mp4 and .avi, and readers look at the content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = writer(path.parent / ("made.avi" if writer is write_pan else "made.mp4"), **options)
    return made.rename(path)


def names(path):
    return [scene.name for scene in Objectron(paths=(str(path),)).scenes()]


def test_videos_are_named_as_in_the_index_from_any_folder(tmp_path, monkeypatch):
    root = tmp_path / "objectron"
    for name in ("chair/batch-10/2", "chair/batch-2/10", "chair/batch-2/9", "bike/batch-0/0"):
        write_mov(root / "videos" / name / "video.MOV", num_frames=1)
        (root / "videos" / name / "geometry.pbdata").write_bytes(b"x")
    (root / "videos/chair/preview.mp4").write_bytes(b"x")
    everything = ["bike/batch-0/0", "chair/batch-2/9", "chair/batch-2/10", "chair/batch-10/2"]
    assert names(root) == names(root / "videos") == everything
    assert names(root / "videos/chair") == everything[1:]
    assert names(root / "videos/chair/batch-2") == everything[1:3]
    assert names(root / "videos/bike/batch-0/0/video.MOV") == everything[:1]
    monkeypatch.chdir(root / "videos/chair/batch-2/9")
    assert names(".") == ["chair/batch-2/9"]


def test_grid_in_seconds_or_frames_and_upright(tmp_path):
    path = write_mov(tmp_path / "cup/batch-1/3/video.MOV", num_frames=25, fps=10)
    rotate_by_metadata(path, 90)
    for options, expected in (({}, [0, 10, 20]), ({"every_frames": 7}, [0, 7, 14, 21]), ({"every_s": 0.4}, [0, 4, 8])):
        source = Objectron(paths=(str(tmp_path),), **options)
        (scene,) = source.scenes()
        views = list(source.views(scene))
        assert [int(v.frame) for v in views][: len(expected)] == expected
        assert {v.image.shape for v in views} == {(128, 96, 3)}  # portrait, as the phone was held


def test_a_truncated_video_keeps_what_decodes_and_counts_the_rest(tmp_path):
    path = tmp_path / "cup/batch-1/3/video.MOV"
    path.parent.mkdir(parents=True)
    data = write_video(tmp_path / "whole.avi", 40).read_bytes()
    path.write_bytes(data[: data.index(b"movi") + (len(data) - data.index(b"movi")) * 2 // 5])
    source = Objectron(paths=(str(tmp_path),))
    found = list(source.views(source.scenes()[0]))
    assert [read_number(v.image) for v in found if isinstance(v, View)] == [0, 10]
    assert [v.reason for v in found if isinstance(v, Fault)] == ["video_cut_short"]


def test_the_wrong_folder_is_told_what_it_holds(tmp_path):
    write_mov(tmp_path / "clips/video.MOV", num_frames=1)
    with pytest.raises(ValueError, match=r"expected Objectron videos: .*/video\.MOV.*; found 1 \.mov file"):
        names(tmp_path)
    with pytest.raises(ValueError, match="every_s must be above 0"):
        Objectron(paths=("x",), every_s=-1)


def test_two_copies_of_a_video_are_refused(tmp_path):
    for copy in ("a", "b"):
        write_mov(tmp_path / copy / "cup/batch-1/3/video.MOV", num_frames=1)
    with pytest.raises(ValueError, match=r"cup/batch-1/3 is in .*; keep one of them"):
        names(tmp_path)


def test_a_linked_video_keeps_the_name_of_its_link(tmp_path):
    write_mov(tmp_path / "store/real.mp4", num_frames=1)
    link = tmp_path / "in/cup/batch-1/3/video.MOV"
    link.parent.mkdir(parents=True)
    os.symlink(tmp_path / "store/real.mp4", link)
    assert names(tmp_path / "in") == ["cup/batch-1/3"]
    assert [s.name for s in Video(paths=(str(tmp_path / "in"),)).scenes()] == ["in/cup/batch-1/3/video.MOV"]


def test_neighbouring_frames_are_kept(tmp_path):
    write_mov(tmp_path / "cup/batch-1/3/video.MOV", write_pan, num_frames=5)
    source = Objectron(paths=(str(tmp_path),))
    (scene,) = source.scenes()
    assert source.policy(scene) == Chain(retry=True)
    tally = Tally()
    kept = list(curate(scene, source.views(scene), source.policy(scene), Criteria(), tally))
    assert [(p.scene, p.frame0, p.frame1) for p in kept] == [
        ("cup/batch-1/3", f"{i:06d}", f"{i + 1:06d}") for i in range(4)
    ]
    assert [p.overlap for p in kept] == pytest.approx([1 - 64 / 224] * 4, abs=0.03)
    assert tally.counts().candidates == 4


def test_genuine_video(shared_data):
    source = Objectron(paths=(str(shared_data / "video/objectron"),))
    (scene,) = source.scenes()
    assert scene.name == "sign/batch-1/0"
    views = list(source.views(scene))
    assert [v.frame for v in views] == [f"{10 * i:06d}" for i in range(9)]  # 83 frames at 10 a second
    assert [v.time_s for v in views] == pytest.approx(range(9), abs=1e-3)
    assert {v.image.shape for v in views} == {(800, 450, 3)}
    assert Objectron(paths=source.paths, retry=False).policy(scene) == Chain(retry=False)
