"""CroCo's crop lists: which parts of which two pictures make a pair; the pictures are the reader's own.

`crops_release.txt`: after comments (#), a line `IMAGE1, IMAGE2, DEGREES` opens a pair of pictures, each line of eight
whole numbers `l1, r1, t1, b1, l2, r2, t2, b2` (left, right, top, bottom) after it is one crop of both (documentation of
the released code of CroCo v2, arXiv 2211.10408). Crops are resized to a square, with Lanczos' kernel where the crop
has more than four times the area, else bicubic; the second is then turned by the rotation, if that is 60 degrees or
more, rounded to a right angle.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import cv2
import msgspec
import numpy as np

from mimic_wds.importing import base
from mimic_wds.importing.base import Lost, Plan, RawPair, Settings, Unit, existing
from mimic_wds.importing.croco import source_name
from mimic_wds.importing.resample import resize
from mimic_wds.pairs import Image, Kind, Scene

#: The list's name in a folder of crops.
LIST_NAME = "crops_release.txt"

#: left, right, top, bottom of view 0, then of view 1, in pixels.
Box: TypeAlias = tuple[int, int, int, int, int, int, int, int]

#: Crops of a unit: each takes some 30 ms.
UNIT_CROPS = 500

_BOX = re.compile(r"-?\d{1,9}(?:, *-?\d{1,9}){7}")


class Opened(NamedTuple):
    """Two pictures, and the angle between them."""

    image0: str
    image1: str
    degrees: float


class _Group(msgspec.Struct, array_like=True):
    """Two pictures and the crops of them."""

    image0: str
    image1: str
    turns: int
    boxes: list[Box]


class _Payload(msgspec.Struct, array_like=True):
    """The crops of a unit."""

    images: str
    groups: list[_Group]


@dataclass(frozen=True, kw_only=True)
class CrocoCrops:
    """Cuts the crops of a list out of the reader's pictures."""

    name: ClassVar[str] = "croco-crops"
    reads: ClassVar[str] = "CroCo's crops_release.txt; -o images=DIR is where its pictures are"
    kind: ClassVar[Kind] = "pairs"
    default_size: ClassVar[int] = 256

    paths: tuple[str, ...]
    images: str = ""  #: folder that the list's names are relative to; default: the list's own
    quality: int = 95  #: of the JPEGs; the published extraction used 75
    clockwise: bool = False  #: turn the second crop the other way round
    source: str = ""  #: name of the source; default: the list's folder without "_crops"
    licence: str = ""  #: goes into the manifest

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ValueError(f"croco-crops: quality must lie in 1..100, got {self.quality}")

    def plan(self, settings: Settings) -> Plan:
        """The crops of one list, in its order."""
        if len(self.paths) != 1:
            raise ValueError("croco-crops: give one list; import others apart")
        path = existing(self.paths)[0]
        path = path / LIST_NAME if path.is_dir() else path
        images = Path(self.images).absolute() if self.images else path.parent
        for needed in (path, images):
            if not needed.exists():
                raise ValueError(f"{needed}: no such file or folder")
        dropped: Counter[str] = Counter()
        source = self.source or source_name(path.parent)
        units = list(_units(source, str(images), list(self._groups(path, dropped)), dropped))
        if not any(unit.num_pairs for unit in units):
            raise ValueError(f"{path}: names no crops; expected lines of IMAGE1, IMAGE2, DEGREES and of eight numbers")
        return Plan(units=units, notes=[f"pictures are read from {images}"])

    def pairs(self, unit: Unit, settings: Settings) -> Iterator[RawPair | Lost]:
        """Cut the crops of a unit; its pictures are decoded once for all crops of a line."""
        payload = msgspec.msgpack.decode(zlib.decompress(unit.payload), type=_Payload)
        for group in payload.groups:
            image0, image1 = (_read(Path(payload.images) / name) for name in (group.image0, group.image1))
            for box in group.boxes:
                yield self._crop(unit.scene.source, group, box, image0, image1, settings.size)

    def _crop(
        self, source: str, group: _Group, box: Box, image0: Image | None, image1: Image | None, size: int
    ) -> RawPair | Lost:
        """One pair of crops."""
        if image0 is None or image1 is None:
            return Lost(base.UNREADABLE, f"{group.image0}, {group.image1}")
        if not _lies_in(box[:4], image0) or not _lies_in(box[4:], image1):
            return Lost(base.BAD_CROP, f"{group.image0}, {group.image1}: {box}")
        crop1 = np.rot90(cut(image1, box[4:], size), -group.turns if self.clockwise else group.turns)
        return RawPair(
            source=source,
            scene=PurePosixPath(group.image0).parent.as_posix(),
            frame0=_frame(group.image0, box[:4]),
            frame1=_frame(group.image1, box[4:]),
            image0_jpg=self._encode(cut(image0, box[:4], size)),
            image1_jpg=self._encode(crop1),
        )

    def _encode(self, image: Image) -> bytes:
        bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
        return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1].tobytes()

    def _groups(self, path: Path, dropped: Counter[str]) -> Iterator[_Group]:
        """The crops of the list by picture pair, at most UNIT_CROPS together; a crop listed twice is counted."""
        seen: set[bytes] = set()
        group: _Group | None = None
        for line in read_list(path, dropped):
            if isinstance(line, Opened):
                if group is not None and group.boxes:
                    yield group
                group = _Group(line.image0, line.image1, quarter_turns(line.degrees), [])
                continue
            if group is None:
                dropped[base.BAD_LIST_ROW] += 1
                continue
            digest = blake2b(repr((group.image0, group.image1, line)).encode(), digest_size=12).digest()
            if digest in seen:
                dropped[base.DUPLICATE_KEY] += 1
                continue
            seen.add(digest)
            group.boxes.append(line)
            if len(group.boxes) == UNIT_CROPS:
                yield group
                group = _Group(group.image0, group.image1, group.turns, [])
        if group is not None and group.boxes:
            yield group


def read_list(path: Path, dropped: Counter[str]) -> Iterator[Opened | Box]:
    """The lines of a crop list, comments left out; counts those that are neither of the two kinds.

    After a line that should open a pair of pictures and does not, the crops that follow belong to none.
    """
    is_lost = False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for line in map(str.strip, file):
            if not line or line.startswith("#"):
                continue
            box = _parse_box(line)
            opened = None if box else _parse_opened(line)
            if opened is not None:
                is_lost = False
                yield opened
            elif box is not None and not is_lost:
                yield box
            else:
                dropped[base.BAD_LIST_ROW] += 1
                is_lost = is_lost or line.count(",") < 7


def _parse_box(line: str) -> Box | None:
    if not _BOX.fullmatch(line):
        return None
    l0, r0, t0, b0, l1, r1, t1, b1 = (int(word) for word in line.split(","))
    return l0, r0, t0, b0, l1, r1, t1, b1


def _parse_opened(line: str) -> Opened | None:
    fields = [field.strip() for field in line.split(", ")]
    try:
        opened = Opened(fields[0], fields[1], float(fields[2])) if len(fields) == 3 else None
    except ValueError:
        return None
    if opened is None or not np.isfinite(opened.degrees):
        return None
    parts = [PurePosixPath(name) for name in opened[:2]]
    return None if any(part.is_absolute() or ".." in part.parts for part in parts) else opened


def quarter_turns(degrees: float) -> int:
    """Right angles, 0 to 3, to turn the second crop by: none below 60 degrees either way, else the nearest."""
    degrees = (degrees + 180) % 360 - 180
    return 0 if abs(degrees) < 60 else round(degrees / 90) % 4


def cut(image: Image, box: tuple[int, ...], size: int) -> Image:
    """The crop (left, right, top, bottom) of an image, resized to (size, size, 3)."""
    left, right, top, bottom = box
    area = (right - left) * (bottom - top)
    kernel: Literal["lanczos", "bicubic"] = "lanczos" if area > 4 * size * size else "bicubic"
    return resize(image[top:bottom, left:right], size, kernel)


def _lies_in(box: tuple[int, ...], image: Image) -> bool:
    left, right, top, bottom = box
    return 0 <= left < right <= image.shape[1] and 0 <= top < bottom <= image.shape[0]


def _read(path: Path) -> Image | None:
    """A picture as (H, W, 3) RGB, not turned by its EXIF tag: the crops are of the stored pixels."""
    try:
        bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except (OSError, cv2.error):
        return None
    return None if bgr is None else np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _frame(image: str, box: tuple[int, ...]) -> str:
    """Names a crop: "hall/7.jpg[10:522,0:512]", columns first."""
    left, right, top, bottom = box
    return f"{image}[{left}:{right},{top}:{bottom}]"


def _units(source: str, images: str, groups: list[_Group], dropped: Counter[str]) -> Iterator[Unit]:
    """The groups, at most UNIT_CROPS crops in a unit."""
    parts: list[list[_Group]] = [[]]
    for group in groups:
        if sum(len(g.boxes) for g in parts[-1]) + len(group.boxes) > UNIT_CROPS:
            parts.append([])
        parts[-1].append(group)
    start = 0
    for number, part in enumerate(part for part in parts if part):
        num_pairs = sum(len(group.boxes) for group in part)
        yield Unit(
            scene=Scene(source=source, name=f"crops {start} to {start + num_pairs - 1}", path=images),
            payload=zlib.compress(msgspec.msgpack.encode(_Payload(images, part)), 1),
            num_pairs=num_pairs,
            dropped=dropped if number == 0 else {},
        )
        start += num_pairs
