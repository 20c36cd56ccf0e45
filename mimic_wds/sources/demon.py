"""DeMoN: small sets of views of a scene, in the HDF5 files of the data set or as folders of images."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mimic_wds.pairs import AllPairs, Fault, Policy, Scene, SceneError, View
from mimic_wds.sources.archives import MAX_MEMBER_BYTES, join_path, split_path
from mimic_wds.sources.base import existing, natural_key
from mimic_wds.sources.images import IMAGE_SUFFIXES, decode_view, file_names, read_view, read_views
from mimic_wds.sources.listing import unique, walk, what_is_there

if TYPE_CHECKING:
    import h5py

HDF5_SUFFIXES = frozenset({".h5", ".hdf5"})

#: A view's folder below its scene, in an HDF5 file and as the data set's own tools export it.
_VIEW_FOLDER = re.compile(r"(.*)/frames/(t\d+)/(v\d+)")

#: What h5py raises for a file that is damaged.
_DAMAGED = (OSError, KeyError, RuntimeError, ValueError, TypeError)


@dataclass(frozen=True, kw_only=True)
class Demon:
    """One scene is a top-level group of an HDF5 file, or a folder of images; every pair of its views is tried.

    The pair with the smallest accepted overlap is kept (MIMIC, arXiv 2306.15128, appendix C.1). The format of the files
    is that of github.com/lmb-freiburg/demon, multivih5datareaderop: ``/<scene>/frames/t0/v<k>/image`` holds an encoded
    image (webp), groups that begin with "." are no scenes. A scene of a file has the path ``FILE::GROUP``.
    """

    name: ClassVar[str] = "demon"
    reads: ClassVar[str] = "DeMoN: HDF5 files (<scene>/frames/t0/v0/image), or a folder of images for each scene"

    paths: tuple[str, ...]
    licence: str = "research purposes only (DeMoN; made from SUN3D, TUM RGB-D, Scenes11 and MVE)"  #: in the manifest

    def policy(self, scene: Scene) -> Policy:
        """All pairs of a scene; one is kept."""
        return AllPairs(keep="smallest")

    def scenes(self) -> list[Scene]:
        """One scene per group or folder, named by its path relative to the parent of the path given.

        Raises ValueError when there is none, for a file that is not HDF5, and when h5py is not installed.
        """
        scenes: list[Scene] = []
        for root in existing(self.paths):
            base = root.resolve().parent
            found = list(_scenes(root))
            if not found:
                raise ValueError(
                    f"{root}: no DeMoN scenes here; expected HDF5 files (.h5) with groups <scene>/frames/t0/v0/image, "
                    f"or a folder of images for each scene; {what_is_there(root)}"
                )
            for place, path, num_bytes in found:
                name = Path(place).resolve().relative_to(base).as_posix()
                scenes.append(Scene(source=self.name, name=name, path=path, num_bytes=num_bytes))
        return unique(scenes, "give their common parent folder instead")

    def views(self, scene: Scene) -> Iterator[View | Fault]:
        """The views of a scene in natural order."""
        container, group = split_path(scene.path)
        if container.is_file():
            yield from _group_views(scene, container, group)
        elif (container / "frames").is_dir():
            for path in _exported(container):
                yield read_view(path, f"{path.parts[-3]}-{path.parts[-2]}")
        else:
            yield from read_views(scene, file_names(scene, IMAGE_SUFFIXES))


def _scenes(root: Path) -> Iterator[tuple[str, str, int]]:
    """(place that gives the name, path, bytes) of every scene at or below a folder, or in an HDF5 file."""
    if root.is_file():
        if root.suffix.lower() in HDF5_SUFFIXES:
            yield from _in_file(root)
        return
    exported: dict[str, int] = {}
    for folder, files in walk(root):
        images = [file for file in files if Path(file.name).suffix.lower() in IMAGE_SUFFIXES]
        view = _VIEW_FOLDER.fullmatch(folder.as_posix())
        if view:
            size = sum(file.stat().st_size for file in images if Path(file.name).stem == "image")
            exported[view[1]] = exported.get(view[1], 0) + size
        elif images:
            yield str(folder), str(folder), sum(file.stat().st_size for file in images)
        for file in files:
            if Path(file.name).suffix.lower() in HDF5_SUFFIXES:
                yield from _in_file(Path(file.path))
    yield from ((scene, str(Path(scene)), num_bytes) for scene, num_bytes in exported.items())


def _exported(scene: Path) -> list[Path]:
    """The images of a scene as the data set's own tools export it: frames/t0/v0/image.png."""
    found = scene.glob("frames/t*/v*/image.*")
    return sorted((p for p in found if p.suffix.lower() in IMAGE_SUFFIXES), key=lambda p: natural_key(p.as_posix()))


def _in_file(path: Path) -> Iterator[tuple[str, str, int]]:
    with open_hdf5(path, str(path)) as file:
        for name in file:
            if not name.startswith(".") and (num_bytes := _image_bytes(file, name)) is not None:
                yield f"{path}/{name}", join_path(path, name), num_bytes


def _image_bytes(file: "h5py.File", name: str) -> int | None:
    """Bytes of a scene's images; 0 for a group that is damaged, None for something that is no scene."""
    try:
        group = file[name]
        if not hasattr(group, "keys") or "frames" not in group:
            return None
        return sum(image.nbytes for _, image in _images(group) if image is not None)
    except _DAMAGED:
        return 0


def _images(group: "h5py.Group") -> Iterator[tuple[str, "h5py.Dataset | None"]]:
    """(frame, image as it is stored, None if it is not there) of every view of a scene, in natural order."""
    frames = group["frames"]
    for time in sorted(frames, key=natural_key):
        for view in sorted(frames[time], key=natural_key):
            image = None
            with suppress(*_DAMAGED):
                image = frames[time][view]["image"]
            yield f"{time}-{view}", image


def _group_views(scene: Scene, path: Path, name: str) -> Iterator[View | Fault]:
    """Raises SceneError when the file or the group cannot be read."""
    with open_hdf5(path, scene.path) as file:
        try:
            images = list(_images(file[name]))
        except _DAMAGED as error:
            raise SceneError(f"{scene.path}: has no frames/t0/v0, v1, ... that can be read ({error})") from None
        for frame, image in images:
            yield _view(image, frame, f"{scene.path}/{frame}")


def _view(image: "h5py.Dataset | None", frame: str, where: str) -> View | Fault:
    """The image is an array (bytes,) of 8-bit integers: the encoded file."""
    try:
        if image is None or getattr(image, "ndim", 0) != 1 or image.dtype.itemsize != 1:
            return Fault("unreadable_image", where, frame=frame)
        if image.nbytes > MAX_MEMBER_BYTES:
            return Fault("image_too_large", where, frame=frame)
        data = np.asarray(image).tobytes()
    except _DAMAGED:
        data = b""
    return decode_view(data, frame, where)


@contextmanager
def open_hdf5(path: Path, where: str) -> Iterator["h5py.File"]:
    """An HDF5 file for reading, without a lock, so that it may lie on a read-only disk.

    Raises ValueError when h5py is not installed, and SceneError naming `where` when the file is not HDF5 or cut short.
    """
    try:
        import h5py
    except ImportError:
        raise ValueError("source 'demon' reads HDF5 files with h5py: pip install 'mimic-wds[eval]'") from None
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise SceneError(f"{where}: is no whole HDF5 file ({error}); download it again, or leave it out") from None
    with file:
        yield file
