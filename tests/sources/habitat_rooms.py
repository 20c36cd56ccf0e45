"""What the tests of the habitat-sim backend share: rooms of the stand-in for habitat_sim, and a look at its process."""

import json
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mimic_wds.sources.simulator import habitat_worker
from mimic_wds.sources.simulator.base import Lens, SceneFile
from mimic_wds.sources.simulator.habitat import HabitatSimulator

STAND_IN = Path(__file__).parent / "simulator" / "habitat_stand_in"
WORKER = Path(habitat_worker.__file__)
LENS = Lens(size=(48, 64), hfov_deg=75.0, depth=True)

#: The room of most tests, y up: 8 x 3 x 6 m, its floor at height 1.
LOW, HIGH = np.array([-4.0, 1.0, -3.0]), np.array([4.0, 4.0, 3.0])
ROOM = {"room": [LOW.tolist(), HIGH.tolist()]}

#: An environment of a user: an interpreter that habitat_sim is installed for, and what its log says.
Interpreter = Callable[..., str]


def write(folder: Path, content: object = ROOM, name: str = "room.glb") -> SceneFile:
    """A scene file of the stand-in's, y up."""
    folder.mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text)
    return SceneFile(path=str(folder / name))


def calls(log: Path, name: str) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.split()[0] == name]


def process(simulator: HabitatSimulator) -> "subprocess.Popen[bytes]":
    return simulator._link._worker._process  # type: ignore[attr-defined]


def gone(pid: int) -> bool:
    """Whether a process has ended, waiting for it."""
    for _ in range(300):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def write_glb(path: Path, gltf: dict[str, object], binary: bytes = b"") -> SceneFile:
    text = json.dumps(gltf).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if binary:
        chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    return SceneFile(path=str(path))
