"""Foreign WebDataset tars with two pictures per sample, read from front to back by webdataset itself."""

import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import cv2
import numpy as np

from mimic_wds.importing import base
from mimic_wds.importing.base import Lost, Plan, RawPair, Settings, Unit, existing
from mimic_wds.importing.walk import walk
from mimic_wds.pairs import Kind, Scene, SceneError
from mimic_wds.storage.tar import BLOCK, END

#: Samples that are looked at to say what else they hold.
LOOKED_AT = 20

#: Quality of the JPEG that a picture of another format becomes.
JPEG_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class WebDatasetPairs:
    """Tars whose samples have two pictures, by the names of the members; a tar is a scene."""

    name: ClassVar[str] = "wds"
    reads: ClassVar[str] = "WebDataset tars with two pictures a sample; -o image0=0.jpg -o image1=1.jpg names them"
    kind: ClassVar[Kind] = "pairs"
    default_size: ClassVar[int] = 224

    paths: tuple[str, ...]
    image0: str = "0.jpg"  #: member of view 0: what follows the first dot of its name
    image1: str = "1.jpg"  #: member of view 1
    source: str = "wds"  #: name of the source
    licence: str = ""  #: goes into the manifest

    def __post_init__(self) -> None:
        if self.image0 == self.image1:
            raise ValueError(f"wds: image0 and image1 are both {self.image0!r}")

    def plan(self, settings: Settings) -> Plan:
        """One unit per tar, in order of the paths and names."""
        tars = [tar for path in existing(self.paths) for tar in _tars(path)]
        stems = Counter(tar.stem for tar in tars)
        for tar in tars:
            if stems[tar.stem] > 1:
                raise ValueError(f"{tar}: another tar has the same name; import them apart, with -o source=NAME")
        units = [Unit(scene=Scene(source=self.source, name=tar.stem, path=str(tar))) for tar in tars]
        return Plan(units=units, notes=self._notes(tars[0]))

    def pairs(self, unit: Unit, settings: Settings) -> Iterator[RawPair | Lost]:
        """The samples of a tar."""
        for members in _samples(Path(unit.scene.path)):
            yield self._pair(unit, members)

    def _pair(self, unit: Unit, members: Mapping[str, Any]) -> RawPair | Lost:
        key = members["__key__"]
        where = f"{unit.scene.path}: {key}"
        views = [members[name.lower()] for name in (self.image0, self.image1) if name.lower() in members]
        if len(views) != 2:
            return Lost(base.MISSING_VIEW, where)
        jpegs = [_as_jpeg(view) for view in views]
        if jpegs[0] is None or jpegs[1] is None:
            return Lost(base.UNREADABLE, where)
        return RawPair(
            source=self.source,
            scene=unit.scene.name,
            frame0=f"{key}-0",
            frame1=f"{key}-1",
            image0_jpg=jpegs[0],
            image1_jpg=jpegs[1],
        )

    def _notes(self, tar: Path) -> list[str]:
        """Says which members are not imported. Raises ValueError when the first samples have no such pictures."""
        try:
            looked_at = list(islice(_samples(tar), LOOKED_AT))
        except SceneError:
            return []  # the unit says so
        names = sorted({name for members in looked_at for name in members if not name.startswith("__")})
        views = [self.image0.lower(), self.image1.lower()]  # webdataset gives the names in lower case
        missing = [name for name in views if name not in names]
        if missing:
            raise ValueError(
                f"{tar}: its samples have no {' and no '.join(missing)}; they have {', '.join(names) or 'nothing'}: "
                "choose with -o image0=NAME -o image1=NAME"
            )
        ignored = [name for name in names if name not in views]
        return [f"members that are not imported: {', '.join(ignored)}"] if ignored else []


def _tars(path: Path) -> list[Path]:
    """The tars that a path names. Raises ValueError for a folder without any."""
    if path.is_file():
        return [path]
    tars = [path / folder / name for folder, names in walk(path) for name in names if name.endswith(".tar")]
    if not tars:
        raise ValueError(f"{path}: no .tar here or below")
    return tars


def _samples(path: Path) -> Iterator[Mapping[str, Any]]:
    """The samples of a tar: {"__key__": key, member: data}. Raises SceneError where the tar is damaged."""
    # The file is opened here, since webdataset takes a path for a URL, expands braces in it and runs "pipe:" commands.
    from webdataset.tariterators import group_by_keys, tar_file_expander

    try:
        with path.open("rb") as stream:
            yield from group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}]))
            _check_end(path, stream)
    except (tarfile.ReadError, OSError, EOFError, ValueError) as error:
        raise SceneError(f"{path}: {error.args[0] if error.args else 'not a whole tar'}") from None


def _check_end(path: Path, stream: BinaryIO) -> None:
    """Raise ValueError for a tar without its end: webdataset takes one that was cut between two samples for whole."""
    size = path.stat().st_size
    stream.seek(max(0, size - len(END)))
    if path.suffix == ".tar" and (size % BLOCK or stream.read() != END):
        raise ValueError("ends without the two zero blocks that end a tar: it was cut short")


def _as_jpeg(data: bytes) -> bytes | None:
    """A JPEG as it is; a picture of another format as a JPEG; None for anything else."""
    if data.startswith(b"\xff\xd8"):
        return data
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        return None
    if image is None:
        return None
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
