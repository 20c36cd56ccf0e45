"""Scenes in other units than metres, for habitat-sim.

It leaves the units of a stage alone: "scale" and "units_to_meters" in its configuration have no effect on stages (its
pull request 2543, still open at v0.3.4), and its path finder looks for the floor in a box of 2 x 4 x 2 units whatever
they are. So it is given a copy whose nodes hang below one more that is scaled (glTF 2.0 specification, section 3.5.3).
"""

import dataclasses
import json
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import SceneFile

#: Header of a .glb file, and of one of its chunks (glTF 2.0 specification, section 4.4).
HEADER, CHUNK = struct.Struct("<4sII"), struct.Struct("<I4s")


@contextmanager
def in_metres(scene: SceneFile) -> Iterator[SceneFile]:
    """The scene itself if it is in metres, else a scaled copy in a temporary folder, which is removed afterwards.

    Raises SceneError when it is no .glb file of glTF 2.0 that holds all its parts, or is described by the configuration
    of a data set.
    """
    if scene.scale_m == 1:
        yield scene
        return
    path = Path(scene.path)
    if path.suffix.lower() != ".glb" or scene.stage_config:
        what = "a data set's configuration" if scene.stage_config else f"{path.suffix} files"
        raise SceneError(
            f"{path}: habitat-sim works in metres, and scale_m {scene.scale_m:g} cannot be applied to {what}; leave it "
            "at 1, or convert the file to .glb"
        )
    with tempfile.TemporaryDirectory(prefix="mimic-wds-") as folder:
        copy = Path(folder, path.name)
        try:
            with path.open("rb") as source, copy.open("wb") as target:
                _copy(source, target, scene.scale_m, str(path))
        except OSError as error:
            raise SceneError(f"{path}: cannot be copied to {folder} to scale it: {error.strerror}") from None
        yield dataclasses.replace(scene, path=str(copy), scale_m=1.0)


def _copy(source: IO[bytes], target: IO[bytes], scale: float, where: str) -> None:
    """Write the .glb file with its scenes scaled; the binary chunk is not looked at."""
    try:
        magic, version, _ = HEADER.unpack(source.read(HEADER.size))
        length, kind = CHUNK.unpack(source.read(CHUNK.size))
        if (magic, version, kind) != (b"glTF", 2, b"JSON"):
            raise ValueError
        content = json.loads(source.read(length))
        _scale(content, scale)
    except (struct.error, ValueError, KeyError, TypeError):
        raise SceneError(f"{where}: not a .glb file of glTF 2.0 with a scene") from None
    parts = [*content.get("buffers", ()), *content.get("images", ())]
    if any(not part.get("uri", "data:").startswith("data:") for part in parts):
        raise SceneError(f"{where}: it has parts in other files, so habitat-sim cannot be given a scaled copy")
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    target.write(HEADER.pack(magic, version, 0) + CHUNK.pack(len(text), kind) + text)
    shutil.copyfileobj(source, target)
    size = target.tell()
    target.seek(0)
    target.write(HEADER.pack(magic, version, size))


def _scale(content: dict[str, Any], scale: float) -> None:
    """Hang the roots of every scene below a new node."""
    for scene in content["scenes"]:
        content["nodes"].append({"name": "metres", "scale": [scale] * 3, "children": scene["nodes"]})
        scene["nodes"] = [len(content["nodes"]) - 1]
