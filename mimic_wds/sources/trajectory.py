"""Which way is up in an ARKitScenes capture: from its camera trajectory, or from the data set's metadata table.

The sensor's frames are stored as the sensor lies, whichever way the device was held. Worlds of the data set have z up,
so a camera-to-world pose has the sky's direction in camera axes (x right, y down) as its third row.
"""

import csv
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

#: Quarter turns clockwise that make a frame upright, by the side of the frame that the sky is on.
QUARTER_TURNS = {"Up": 0, "Left": 1, "Down": 2, "Right": 3}

#: Direction of those sides in the image (x, y), in the order of QUARTER_TURNS.
_SIDES = np.array([[0, -1], [-1, 0], [0, 1], [1, 0]], np.float64)

#: Below this length the sky's mean direction in the image says nothing: the camera looked straight up or down.
MIN_SKY = 0.1

METADATA_NAME = "metadata.csv"

#: So many folders above a scene the metadata table is looked for: <root>/raw/Training/<id>.
LEVELS_UP = 5


def read_rotations(path: Path) -> NDArray[np.float64]:
    """The (n, 3, 3) world-to-camera rotations of a `.traj` file.

    A line is a time, a rotation as axis and angle (three numbers, radians) and a translation (DATA.md of ARKitScenes).
    Raises ValueError naming the first line that is not of that form, and OSError.
    """
    rotations = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = np.array(line.split(), np.float64)
        except ValueError:
            values = np.empty(0)
        if len(values) != 7 or not np.isfinite(values).all():
            raise ValueError(f"{path}: line {number} is not seven numbers (time, rotation, translation)")
        rotations.append(cv2.Rodrigues(values[1:4])[0])
    return np.array(rotations, np.float64).reshape(-1, 3, 3)


def turns_by_trajectory(rotations: NDArray[np.float64]) -> int | None:
    """Quarter turns clockwise that make the frames of a capture upright, for (n, 3, 3) world-to-camera rotations.

    The third row of the camera-to-world pose, averaged over the capture so that no pair of views is turned apart, is
    held against the four sides (the data set's authors in apple/ARKitScenes issue 47, there for one pose). None when it
    points at no side.
    """
    if not len(rotations):
        return None
    sky = rotations[:, :2, 2].mean(axis=0)  # third row of the inverse = third column
    return int(np.argmax(_SIDES @ sky)) if np.hypot(*sky) >= MIN_SKY else None


def turns_by_metadata(scene: Path, video_id: str) -> int | None:
    """Quarter turns clockwise by the `sky_direction` of the nearest metadata.csv above a scene that knows the video."""
    for folder in (scene, *scene.resolve().parents[:LEVELS_UP]):
        direction = _sky_direction(folder / METADATA_NAME, video_id)
        if direction in QUARTER_TURNS:
            return QUARTER_TURNS[direction]
    return None


def _sky_direction(table: Path, video_id: str) -> str:
    """What the table says of a video; "" when there is no such table or row."""
    try:
        with table.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = (row for row in csv.DictReader(file) if row.get("video_id") == video_id)
            row = next(rows, {})
    except (OSError, csv.Error):
        return ""
    return (row.get("sky_direction") or "").strip().capitalize()
