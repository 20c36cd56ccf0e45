"""Text files of camera poses, one a clip, that RealEstate10K and MannequinChallenge are published as.

The first line is the address of a YouTube video; each other line is a frame: its time stamp in microseconds from the
start of the video, four intrinsics, two zeros, and a 3x4 world-to-camera pose: 19 columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from mimic_wds.sources.video import Grid

COLUMNS = 19

#: Length of a YouTube id: no shorter one is looked for within a longer name.
ID_LENGTH = 11


@dataclass(frozen=True, slots=True)
class CameraList:
    """What of a clip's list is used."""

    times_us: tuple[int, ...]  #: microseconds from the start of the video, ascending
    damaged: tuple[int, ...]  #: lines that are not a frame, counted from 1


def read_list(path: Path) -> CameraList:
    """Read a clip's list; lines that are not a frame are told, not used. Raises OSError, and ValueError if none is."""
    times: set[int] = set()
    damaged = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines[1:], start=2):
        columns = line.split()
        if len(columns) == COLUMNS and columns[0].isdecimal():
            times.add(int(columns[0]))
        elif columns:
            damaged.append(number)
    if not times:
        raise ValueError(f"{path}: no line of {COLUMNS} columns after the address")
    return CameraList(tuple(sorted(times)), tuple(damaged))


def video_address(path: Path) -> str:
    """The address in the first line of a clip's list; "" if the file is no such list."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            address, frame = file.readline(1000).strip(), file.readline(10_000).split()
    except OSError:
        return ""
    is_list = "://" in address and " " not in address and (not frame or frame[0].isdecimal())
    return address if is_list else ""


def video_id(address: str) -> str:
    """The id of the video that an address names: "watch?v=ID" or ".../ID"; "" when it names none."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return next(iter(parse_qs(parts.query).get("v", [])), "") or parts.path.rstrip("/").rpartition("/")[2]


def find_videos(ids: Iterable[str], videos: Iterable[Path]) -> dict[str, Path]:
    """For each id the first video called by it, or in a folder called by it, or with the id within its name.

    Downloaders write "ID.mp4", "Title [ID].mp4" or "Title-ID.mp4". Ids without a video are left out.
    """
    wanted, videos = set(ids), list(videos)
    found: dict[str, Path] = {}
    for path in videos:
        for name in (path.stem, path.parent.name):
            if name in wanted:
                found.setdefault(name, path)
    for path in videos:
        for start in range(len(path.stem) - ID_LENGTH + 1):
            part = path.stem[start : start + ID_LENGTH]
            if part in wanted:
                found.setdefault(part, path)
    return found


def on_grid(times_us: Iterable[int], every_s: float, every_frames: int = 0) -> list[int]:
    """The listed times (microseconds, ascending) on a grid that starts at the first of them."""
    times = list(times_us)
    grid = Grid(every_s, every_frames)
    return [time_us for index, time_us in enumerate(times) if grid.has(index, (time_us - times[0]) / 1e6)]
