"""ARKitScenes: every layout it is downloaded in, the grid of time stamps, and frames that are really upright."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videos import numbered_frame, read_number, rotate_by_metadata, write_pan, write_video

from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.scene import Tally, curate
from mimic_wds.pairs import Chain, Fault, SceneError, View
from mimic_wds.sources.arkitscenes import ARKitScenes
from mimic_wds.sources.trajectory import read_rotations, turns_by_metadata, turns_by_trajectory

#: Camera-to-world rotation of a camera that looks along +y of a world with z up and is held upright.
LEVEL = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float64)

VIDEO_ID = "41048190"


def rolled(quarters: float, tilt_deg: float = 0.0) -> np.ndarray:
    """World-to-camera rotation of a camera rolled clockwise by so many quarters, looking up by `tilt_deg`."""
    tilt = cv2.Rodrigues(np.array([np.radians(tilt_deg), 0, 0]))[0]
    roll = cv2.Rodrigues(np.array([0, 0, quarters * np.pi / 2]))[0]
    return (LEVEL @ tilt @ roll).T


def as_seen(upright: np.ndarray, quarters: int) -> np.ndarray:
    """What a camera rolled clockwise by so many quarters stores: the world turns the other way."""
    return np.ascontiguousarray(np.rot90(upright, quarters))


def write_traj(path, rotations):
    lines = [
        f"{number / 10} {' '.join(f'{v:.9f}' for v in cv2.Rodrigues(rotation)[0].ravel())} 0.1 -0.2 0.3\n"
        for number, rotation in enumerate(rotations)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))


def write_mov(path, quarters=0, num_frames=3, fps=1.0):
    """A .mov of numbered frames as a rolled camera stores them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = as_seen(numbered_frame(0), quarters).shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    assert writer.isOpened()
    for number in range(num_frames):
        writer.write(as_seen(numbered_frame(number), quarters))
    writer.release()


def write_frames(folder, stamps, quarters=0, video_id=VIDEO_ID):
    folder.mkdir(parents=True, exist_ok=True)
    for number, stamp in enumerate(stamps):
        cv2.imwrite(str(folder / f"{video_id}_{stamp}.png"), as_seen(numbered_frame(number), quarters))


def read(path, **options):
    source = ARKitScenes(paths=(str(path),), **options)
    (scene,) = source.scenes()
    return list(source.views(scene))


def is_upright(views):
    images = [view.image for view in views]
    return [image.shape for image in images] == [(96, 128, 3)] * len(images) and [
        read_number(image) for image in images
    ] == list(range(len(images)))


@pytest.mark.parametrize("quarters", range(4))
def test_mov_is_turned_upright_by_its_trajectory(tmp_path, quarters):
    folder = tmp_path / "raw/Training" / VIDEO_ID
    write_mov(folder / f"{VIDEO_ID}.mov", quarters)
    assert is_upright(read(tmp_path / "raw", rotate="none")) == (quarters == 0)
    write_traj(folder / "lowres_wide.traj", [rolled(quarters + 0.3, tilt) for tilt in (-80, -20, 0, 30)])
    assert is_upright(read(tmp_path / "raw"))


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("known_by", ["traj", "csv"])
def test_rotation_in_the_container_is_not_applied_twice(tmp_path, quarters, known_by):
    folder = tmp_path / "raw/Training" / VIDEO_ID
    write_mov(folder / f"{VIDEO_ID}.mov", quarters)
    rotate_by_metadata(folder / f"{VIDEO_ID}.mov", 90 * quarters)
    assert is_upright(read(tmp_path / "raw"))  # the container alone
    if known_by == "traj":
        write_traj(folder / f"{VIDEO_ID}.traj", [rolled(quarters)])
    else:
        sky = {1: "Left", 2: "Down", 3: "Right"}[quarters]
        (tmp_path / "raw/metadata.csv").write_text(f"video_id,visit_id,sky_direction\n{VIDEO_ID},NA,{sky}\n")
    assert is_upright(read(tmp_path / "raw"))


def test_the_trajectory_is_believed_before_the_table(tmp_path):
    folder = tmp_path / "raw/Training" / VIDEO_ID
    write_frames(folder / "lowres_wide", ["1.0", "2.0"], quarters=1)
    (tmp_path / "raw/metadata.csv").write_text(f"video_id,sky_direction\n1,Down\n{VIDEO_ID},Up\n")
    assert not is_upright(read(tmp_path / "raw"))
    write_traj(folder / "lowres_wide.traj", [rolled(1)])
    assert is_upright(read(tmp_path / "raw"))


def test_a_damaged_trajectory_is_counted_and_the_table_asked(tmp_path):
    folder = tmp_path / "raw/Training" / VIDEO_ID
    write_frames(folder / "lowres_wide", ["1.0", "2.0"], quarters=3)
    (tmp_path / "raw/metadata.csv").write_text(f"video_id,sky_direction\n{VIDEO_ID},Right\n")
    (folder / "lowres_wide.traj").write_text("0 0 0 0 0 0 0\n1 2 three 4 5 6 7\n")
    fault, *views = read(tmp_path / "raw")
    assert (fault.reason, fault.frame) == ("unreadable_trajectory", "")
    assert "line 2" in fault.where
    assert is_upright(views)


@given(st.floats(-0.95, 0.95), st.integers(0, 3), st.floats(-75, 75))
@settings(deadline=None)
def test_the_nearest_side_is_chosen(part, quarters, tilt_deg):
    assert turns_by_trajectory(rolled(quarters + part / 2, tilt_deg)[None]) == quarters


def test_a_trajectory_that_says_nothing(tmp_path):
    straight_down = rolled(0, -90)
    assert turns_by_trajectory(straight_down[None]) is None
    assert turns_by_trajectory(np.empty((0, 3, 3))) is None
    write_traj(tmp_path / "x.traj", [rolled(2, 10), straight_down])
    np.testing.assert_allclose(read_rotations(tmp_path / "x.traj"), [rolled(2, 10), straight_down], atol=1e-6)
    assert turns_by_metadata(tmp_path, "1") is None
    (tmp_path / "metadata.csv").write_text("video_id,sky_direction\n1,NA\n2,left\n")
    assert [turns_by_metadata(tmp_path, name) for name in "123"] == [None, 1, None]


def test_frames_are_taken_by_their_time_stamps(tmp_path):
    stamps = ["99.5", "99.75", "100.499", "100.6", "101.4", "103.9", "104.1", "104.6"]
    write_frames(tmp_path / VIDEO_ID / "wide", stamps)
    views = read(tmp_path)
    assert [v.frame for v in views] == ["99.5", "100.6", "103.9", "104.6"]
    assert [v.time_s for v in views] == [99.5, 100.6, 103.9, 104.6]
    assert [read_number(v.image) for v in views] == [0, 3, 5, 7]
    assert [v.frame for v in read(tmp_path, every_frames=3)] == ["99.5", "100.6", "104.1"]


def test_a_mov_is_read_on_a_grid_of_seconds(tmp_path):
    write_mov(tmp_path / "47333462.mov", num_frames=35, fps=10)
    assert [read_number(v.image) for v in read(tmp_path)] == [0, 10, 20, 30]


def test_every_layout_names_the_capture(tmp_path):
    write_mov(tmp_path / "raw/Training/1/1.mov")
    for stream in ("wide", "lowres_wide"):
        write_frames(tmp_path / "raw/Training/1" / stream, ["1.0"], video_id=1)
    write_frames(tmp_path / "raw/Training/1/lowres_depth", ["1.0"], video_id=1)
    write_frames(tmp_path / "raw/Validation/2/vga_wide", ["1.0"], video_id=2)
    write_frames(tmp_path / "3dod/Training/3/3_frames/lowres_wide", ["1.0"], video_id=3)
    write_mov(tmp_path / "flat/4.mov")
    found = {s.name: s.path for s in ARKitScenes(paths=(str(tmp_path),)).scenes()}
    base = tmp_path.name
    assert found == {
        f"{base}/3dod/Training/3": str(tmp_path / "3dod/Training/3/3_frames/lowres_wide"),
        f"{base}/flat/4": str(tmp_path / "flat/4.mov"),
        f"{base}/raw/Training/1": str(tmp_path / "raw/Training/1/1.mov"),
        f"{base}/raw/Validation/2": str(tmp_path / "raw/Validation/2/vga_wide"),
    }
    low = ARKitScenes(paths=(str(tmp_path / "raw"),), stream="lowres_wide").scenes()
    assert [(s.name, s.path) for s in low] == [("raw/Training/1", str(tmp_path / "raw/Training/1/lowres_wide"))]
    for folder in ("raw/Training/1", "raw/Training/1/1.mov", "raw/Training/1/wide", "3dod/Training/3/3_frames"):
        (scene,) = ARKitScenes(paths=(str(tmp_path / folder),)).scenes()
        assert scene.name == ("3" if "3dod" in folder else "1")


def test_the_3dod_layout_finds_trajectory_and_table(tmp_path):
    folder = tmp_path / "3dod/Training" / VIDEO_ID / f"{VIDEO_ID}_frames"
    write_frames(folder / "lowres_wide", ["1.0", "2.0"], quarters=2)
    (tmp_path / "3dod/metadata.csv").write_text(f"video_id,sky_direction\n{VIDEO_ID},Down\n")
    assert is_upright(read(tmp_path / "3dod"))
    (tmp_path / "3dod/metadata.csv").unlink()
    write_traj(folder / "lowres_wide.traj", [rolled(2)])
    assert is_upright(read(tmp_path / "3dod"))


def test_damaged_frames_and_videos_are_counted(tmp_path):
    write_frames(tmp_path / VIDEO_ID / "wide", ["1.0", "2.0", "3.0"])
    (tmp_path / VIDEO_ID / f"wide/{VIDEO_ID}_2.0.png").write_bytes(b"cut")
    found = read(tmp_path)
    assert [v.frame for v in found] == ["1.0", "2.0", "3.0"]
    assert [v.reason for v in found if isinstance(v, Fault)] == ["unreadable_image"]
    path = tmp_path / "cut/5.mov"
    path.parent.mkdir()
    avi = write_video(tmp_path / "whole.avi", 40)  # a container that can be cut; only the ending says .mov
    data = avi.read_bytes()
    path.write_bytes(data[: data.index(b"movi") + (len(data) - data.index(b"movi")) * 2 // 5])
    found = read(path)
    views = [v for v in found if isinstance(v, View)]
    assert [read_number(v.image) for v in views] == [0, 10]
    assert [v.reason for v in found if isinstance(v, Fault)] == ["video_cut_short"]
    path.write_bytes(b"nothing")
    with pytest.raises(SceneError, match=r"5\.mov: cannot be opened as a video"):
        read(path)


def test_the_wrong_folder_is_told_what_it_holds(tmp_path):
    (tmp_path / "a.mp4").write_text("x")
    with pytest.raises(ValueError, match=r"expected ARKitScenes captures: ID/ID\.mov.*; found 1 \.mp4 file"):
        read(tmp_path)
    write_frames(tmp_path / VIDEO_ID / "wide", ["1.0"])
    with pytest.raises(ValueError, match=r"expected captures with mov \(option stream\); found"):
        read(tmp_path, stream="mov")
    with pytest.raises(ValueError, match="every_s must be above 0"):
        ARKitScenes(paths=("x",), every_s=0)


def test_neighbouring_frames_of_a_turned_capture_are_kept(tmp_path):
    avi = write_pan(tmp_path / "pan.avi", 6)
    folder = tmp_path / "raw/Training" / VIDEO_ID
    folder.mkdir(parents=True)
    (folder / f"{VIDEO_ID}.mov").write_bytes(avi.read_bytes())
    write_traj(folder / "lowres_wide.traj", [rolled(1)])
    source = ARKitScenes(paths=(str(tmp_path / "raw"),))
    (scene,) = source.scenes()
    assert source.policy(scene) == Chain(retry=True)
    tally = Tally()
    kept = list(curate(scene, source.views(scene), source.policy(scene), Criteria(), tally))
    assert [(p.frame0, p.frame1) for p in kept] == [(f"{i:06d}", f"{i + 1:06d}") for i in range(5)]
    assert tally.counts().kept == tally.counts().candidates == 5
    # The pan goes right by 64 of 224 pixels; turned clockwise that is down.
    for pair in kept:
        moved = pair.H_0to1 @ (112, 112, 1)
        assert moved[:2] / moved[2] == pytest.approx((112, 112 - 64), abs=3)


def test_genuine_captures(shared_data):
    source = ARKitScenes(paths=(str(shared_data / "video/arkitscenes/raw"),))
    upright, turned = source.scenes()
    assert [s.name for s in (upright, turned)] == ["raw/Training/49000001", "raw/Training/49000002"]
    views, others = (list(source.views(scene)) for scene in (upright, turned))
    assert [v.frame for v in views] == [v.frame for v in others] == [f"{2 * i:06d}" for i in range(52)]
    assert {v.image.shape for v in views + others} == {(384, 512, 3)}
    same = [np.abs(a.image.astype(int) - b.image).mean() for a, b in zip(views, others, strict=True)]
    assert max(same) < 6  # grey levels; the two were encoded apart
    as_stored = list(ARKitScenes(paths=source.paths, rotate="none").views(turned))
    assert {v.image.shape for v in as_stored} == {(512, 384, 3)}
