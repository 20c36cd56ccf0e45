"""Benchmarks with labels for every pixel, as they are published: NYUv2 depth, Taskonomy normals, ADE20K classes.

Each becomes a data set of single images with maps (`storage/maps.py`), so that finetuning reads all of them alike.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from mimic_wds.importing import base
from mimic_wds.importing.base import Lost, Made, Plan, Settings, Unit, existing
from mimic_wds.importing.coco import CocoPose
from mimic_wds.importing.image_folder import ImageFolder, usable_jpeg
from mimic_wds.pairs import Image, ImageSample, Kind, Scene, SceneError
from mimic_wds.storage.layout import image_key
from mimic_wds.storage.maps import encode_depth, encode_normal, encode_semseg

#: Label of a picture that has none, or whose map has another size.
BAD_LABEL = "bad_label"

#: Of images that are not published as JPEG: as near to lossless as JPEG comes, colours at full resolution.
_BEST = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


@dataclass(frozen=True, kw_only=True)
class NyuDepth:
    """`nyu_depth_v2_labeled.mat` (MATLAB 7.3, so HDF5) and `splits.mat`: 795 training and 654 test images."""

    name: ClassVar[str] = "nyu-depth"
    reads: ClassVar[str] = "nyu_depth_v2_labeled.mat, and splits.mat beside it or given second"
    kind: ClassVar[Kind] = "images"
    default_size: ClassVar[int] = 0

    paths: tuple[str, ...]
    split: Literal["train", "test"] = "train"
    depth: Literal["filled", "raw"] = "filled"  #: in-painted, or what the sensor saw
    licence: str = ""  #: goes into the manifest

    def plan(self, settings: Settings) -> Plan:
        """Units of the images of the split, in the order of the file; a scene is a room."""
        first, *rest = existing(self.paths)
        file = first / "nyu_depth_v2_labeled.mat" if first.is_dir() else first
        numbers = _nyu_split(rest[0] if rest else file.with_name("splits.mat"), self.split)
        with _hdf5(file) as data:
            count = len(data["images"])
        if numbers.max(initial=0) >= count:
            raise ValueError(f"{file}: holds {count} images, the split names number {int(numbers.max()) + 1}")
        units = [
            _unit(self.name, self.split, file, part.tolist(), start)
            for start, part in ((s, numbers[s : s + _UNIT]) for s in range(0, len(numbers), _UNIT))
        ]
        return Plan(units=units, notes=[f"{len(numbers)} images of the split {self.split!r}"], maps=["depth"])

    def pairs(self, unit: Unit, settings: Settings) -> Iterator[Made | Lost]:
        """Read images and depths; MATLAB's axes come in reverse, (3, W, H) and (W, H)."""
        with _hdf5(Path(unit.scene.path)) as data:
            scenes = data["scenes"][0]
            for number in msgspec.msgpack.decode(unit.payload, type=list[int]):
                image = data["images"][number].transpose(2, 1, 0)
                depth = data["depths" if self.depth == "filled" else "rawDepths"][number].T
                scene = "".join(map(chr, data[scenes[number]][:].ravel()))
                yield _made(self.name, scene, f"{number + 1:04d}", image, {"0.depth.png": encode_depth(depth)})


@dataclass(frozen=True, kw_only=True)
class TaskonomyNormals:
    """Taskonomy's tree by task, `TASK/BUILDING/point_P_view_V_domain_TASK.png`, and a list of `building,point,view`."""

    name: ClassVar[str] = "taskonomy-normals"
    reads: ClassVar[str] = "the folder that holds rgb, normal and mask_valid"
    kind: ClassVar[Kind] = "images"
    default_size: ClassVar[int] = 0

    paths: tuple[str, ...]
    csv: str = ""  #: a split's list, e.g. of tiny-train; "" = every view that is there
    first: int = 0  #: take so many of the list; 0 = all (MultiMAE takes 800 of tiny-train, 200 of tiny-val)
    licence: str = ""  #: goes into the manifest

    def plan(self, settings: Settings) -> Plan:
        """Units of the views in the order of the list."""
        (root,) = existing(self.paths[:1])
        views = _taskonomy_list(Path(self.csv)) if self.csv else _taskonomy_tree(root)
        views = views[: self.first or None]
        if not views:
            raise ValueError(f"{root}: no views here; expected rgb/BUILDING/point_0_view_0_domain_rgb.png")
        units = [_unit(self.name, "views", root, views[s : s + _UNIT], s) for s in range(0, len(views), _UNIT)]
        return Plan(units=units, notes=[f"{len(views)} views"], maps=["normal"])

    def pairs(self, unit: Unit, settings: Settings) -> Iterator[Made | Lost]:
        """Read views and normals; where the mask says that nothing was seen, no normal is known. No mask: all are."""
        root = Path(unit.scene.path)
        for building, point, view in msgspec.msgpack.decode(unit.payload, type=list[tuple[str, str, str]]):
            stem = f"point_{point}_view_{view}_domain"
            path = root / "rgb" / building / f"{stem}_rgb.png"
            image = _picture(path, cv2.IMREAD_COLOR)
            normal = _picture(root / "normal" / building / f"{stem}_normal.png", cv2.IMREAD_COLOR)
            mask = _picture(root / "mask_valid" / building / f"{stem}_depth_zbuffer.png", cv2.IMREAD_GRAYSCALE)
            if image is None:
                yield Lost(base.UNREADABLE, str(path))
            elif normal is None or normal.shape != image.shape or (mask is not None and mask.shape != image.shape[:2]):
                yield Lost(BAD_LABEL, str(path))
            else:
                known = np.ones(image.shape[:2], bool) if mask is None else mask > 127
                vectors = (normal[..., ::-1].astype(np.float32) / 127.5 - 1) * known[..., None]
                maps = {"0.normal.png": encode_normal(vectors)}
                yield _made(self.name, building, f"{point}_{view}", image[..., ::-1], maps)


@dataclass(frozen=True, kw_only=True)
class Ade20k:
    """`ADEChallengeData2016`: images and masks, 0 = other, 1 to 150 = classes, as `objectInfo150.txt` names them."""

    name: ClassVar[str] = "ade20k"
    reads: ClassVar[str] = "the folder ADEChallengeData2016"
    kind: ClassVar[Kind] = "images"
    default_size: ClassVar[int] = 0

    paths: tuple[str, ...]
    split: Literal["training", "validation"] = "training"
    licence: str = ""  #: goes into the manifest

    def plan(self, settings: Settings) -> Plan:
        """Units of the images of the split, sorted by name."""
        (root,) = existing(self.paths)
        stems = sorted(path.stem for path in (root / "images" / self.split).glob("*.jpg"))
        if not stems:
            raise ValueError(f"{root}: no images/{self.split}/*.jpg here; expected the folder ADEChallengeData2016")
        units = [_unit(self.name, self.split, root, stems[s : s + _UNIT], s) for s in range(0, len(stems), _UNIT)]
        notes = [f"{len(stems)} images of the split {self.split!r}"]
        return Plan(units=units, notes=notes, maps=["semseg"], semseg_classes=_ade20k_names(root))

    def pairs(self, unit: Unit, settings: Settings) -> Iterator[Made | Lost]:
        """Copy JPEGs as they are, masks as maps."""
        root = Path(unit.scene.path)
        for stem in msgspec.msgpack.decode(unit.payload, type=list[str]):
            path = root / "images" / self.split / f"{stem}.jpg"
            usable = usable_jpeg(path.read_bytes() if path.is_file() else b"", 0)
            mask = _picture(root / "annotations" / self.split / f"{stem}.png", cv2.IMREAD_UNCHANGED)
            if usable is None:
                yield Lost(base.UNREADABLE, str(path))
                continue
            jpeg, size, faults = usable
            if mask is None or mask.ndim != 2 or mask.shape != size or int(mask.max()) > 150:
                yield Lost(BAD_LABEL, str(path))
                continue
            yield Made(_sample(self.name, self.split, stem, jpeg, size, {"0.semseg.png": encode_semseg(mask)}), faults)


#: Images of one unit: some hundred megabytes at most while they are staged.
_UNIT = 200


@dataclass(frozen=True, kw_only=True)
class ImageNet:
    """`train` and `val` with a folder of images per class, as ImageNet-1K is unpacked for most programs."""

    name: ClassVar[str] = "imagenet"
    reads: ClassVar[str] = "the folder that holds train and val, a folder of images per class in each"
    kind: ClassVar[Kind] = "images"
    default_size: ClassVar[int] = 0

    paths: tuple[str, ...]
    split: Literal["train", "val"] = "train"
    licence: str = ""  #: goes into the manifest

    def plan(self, settings: Settings) -> Plan:
        """All images of the split. Raises ValueError when they are in no folders of classes: they have no labels."""
        (root,) = existing(self.paths)
        plan = self._folder(root / self.split).plan(settings)
        if not plan.classes:
            raise ValueError(
                f"{root / self.split}: its images are in no folders of classes, so they have no labels: sort those of "
                "val into the folders of their classes first"
            )
        return plan

    def pairs(self, unit: Unit, settings: Settings) -> Iterator[Made | Lost]:
        """Read the images of a unit."""
        yield from self._folder(Path(unit.scene.path)).pairs(unit, settings)

    def _folder(self, path: Path) -> ImageFolder:
        return ImageFolder(paths=(str(path),), source=f"{self.name}-{self.split}", licence=self.licence)


#: What can be packed, by name.
BENCHMARKS: dict[str, type[NyuDepth] | type[TaskonomyNormals] | type[Ade20k] | type[CocoPose] | type[ImageNet]] = {
    kind.name: kind for kind in (NyuDepth, TaskonomyNormals, Ade20k, CocoPose, ImageNet)
}


def _unit(source: str, what: str, path: Path, items: list[Any], start: int) -> Unit:
    scene = Scene(source=source, name=f"{what} {start} to {start + len(items) - 1}", path=str(path))
    return Unit(scene=scene, payload=msgspec.msgpack.encode(items), num_pairs=len(items))


def _made(source: str, scene: str, frame: str, image: Image, maps: dict[str, bytes]) -> Made:
    """The sample of RGB pixels (H, W, 3)."""
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), _BEST)
    return Made(_sample(source, scene, frame, jpeg.tobytes(), image.shape[:2], maps), ())


def _sample(
    source: str, scene: str, frame: str, jpeg: bytes, size: tuple[int, int], maps: dict[str, bytes]
) -> ImageSample:
    return ImageSample(
        key=image_key(source, scene, frame),
        image_jpg=jpeg,
        size=(int(size[0]), int(size[1])),
        source=source,
        scene=scene,
        frame=frame,
        label=-1,
        maps=maps,
    )


def _picture(path: Path, flags: int) -> NDArray[Any] | None:
    """The pixels of a file (BGR), or None."""
    try:
        data = np.fromfile(path, np.uint8)
        return cv2.imdecode(data, flags) if len(data) else None
    except (OSError, cv2.error):
        return None


def _hdf5(path: Path) -> Any:
    """An open HDF5 file. Raises SceneError naming it when it is none, ValueError without h5py."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise ValueError("nyu-depth needs h5py: pip install 'mimic-wds[eval]'") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise SceneError(f"{path}: no MATLAB 7.3 file, or cut short: {error}") from None


def _nyu_split(path: Path, split: str) -> NDArray[np.int64]:
    """Numbers from 0 of the images of a split; in the file they count from 1. Raises ValueError."""
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ModuleNotFoundError:
        raise ValueError("nyu-depth needs scipy: pip install 'mimic-wds[eval]'") from None
    if not path.is_file():
        raise ValueError(f"{path}: no such file; it comes with the data set: give it after the .mat")
    try:
        numbers = loadmat(path)[f"{split}Ndxs"]
    except (MatReadError, KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(f"{path}: no splits.mat with {split}Ndxs: {error}") from None
    return np.asarray(numbers, np.int64).ravel() - 1


def _taskonomy_list(path: Path) -> list[tuple[str, str, str]]:
    """building, point, view of every row. Raises ValueError naming the row that is none."""
    try:
        rows = list(csv.reader(path.read_text().splitlines()))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    if rows and rows[0][:1] == ["building"]:
        rows = rows[1:]
    views = []
    for number, row in enumerate(rows, start=1):
        if len(row) < 3 or not all(cell.isdigit() for cell in row[1:3]):
            raise ValueError(f"{path}: row {number} is no building,point,view: {','.join(row)!r}")
        views.append((row[0], row[1], row[2]))
    return views


def _taskonomy_tree(root: Path) -> list[tuple[str, str, str]]:
    """building, point, view of every picture below rgb, in their order."""
    found = []
    for path in (root / "rgb").glob("*/point_*_view_*_domain_rgb.png"):
        _, point, _, view, *_ = path.stem.split("_")
        if point.isdigit() and view.isdigit():
            found.append((path.parent.name, int(point), int(view)))
    return [(building, str(point), str(view)) for building, point, view in sorted(found)]


def _ade20k_names(root: Path) -> list[str]:
    """Names of the classes 1 to 150; numbers where the list is not there or is another one."""
    path = root / "objectInfo150.txt"
    lines = path.read_text(encoding="utf-8").splitlines()[1:] if path.is_file() else []
    names = [line.rstrip().split("\t")[-1].split(",")[0].strip() for line in lines]
    return names if len(names) == len(set(names)) == 150 else [f"class {number}" for number in range(1, 151)]
