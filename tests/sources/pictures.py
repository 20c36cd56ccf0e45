"""Picture files for tests: pans over a texture, whose overlaps are known, in folders and in archives."""

import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
from videos import texture

from mimic_wds.curation.criteria import Criteria
from mimic_wds.curation.scene import Tally, curate
from mimic_wds.pairs import Counts, PairSample, View
from mimic_wds.sources.base import Source

SIDE = 224


def pan(num: int, step: int, seed: int = 0) -> list[np.ndarray]:
    """Views (224, 224, 3) panning `step` pixels a frame: views k frames apart overlap by 1 - k * step / 224."""
    canvas = texture(seed, SIDE, SIDE + step * num)
    return [np.ascontiguousarray(canvas[:, k * step : k * step + SIDE]) for k in range(num)]


def encode(image: np.ndarray, suffix: str = ".jpg") -> bytes:
    ok, data = cv2.imencode(suffix, image[..., ::-1])
    assert ok
    return data.tobytes()


def write(root: Path, files: dict[str, bytes]) -> Path:
    """Files below `root` by their relative names."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def pack_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def pack_tar(path: Path, folder: Path, form: int = tarfile.USTAR_FORMAT) -> Path:
    """As `tar -C folder -cf path .` does."""
    with tarfile.open(path, "w", format=form) as archive:
        archive.add(folder, arcname=".")
    return path


def read(source: Source) -> dict[str, list]:
    """scene name -> what its views are, for all scenes."""
    return {scene.name: list(source.views(scene)) for scene in source.scenes()}


def frames(found: list) -> list[tuple[str, str]]:
    """(frame, "view" or the fault's reason) of each."""
    return [(v.frame, "view" if isinstance(v, View) else v.reason) for v in found]


def same(found0: dict[str, list], found1: dict[str, list]) -> bool:
    """True if the same scenes hold the same frames with equal pixels."""
    return found0.keys() == found1.keys() and all(
        frames(found0[name]) == frames(found1[name])
        and all(
            np.array_equal(a.image, b.image)
            for a, b in zip(found0[name], found1[name], strict=True)
            if isinstance(a, View)
        )
        for name in found0
    )


def read_elsewhere(source: Source) -> list[list[str]]:
    """The frames of each scene as another process reads them, given source and scenes only; faults begin with "!"."""
    program = """if True:
        import pickle, sys
        from mimic_wds.pairs import View
        source, scenes = pickle.load(sys.stdin.buffer)
        for scene in scenes:
            print(*((v.frame if isinstance(v, View) else "!" + v.frame) for v in source.views(scene)))
    """
    sent = pickle.dumps((source, source.scenes()))
    done = subprocess.run([sys.executable, "-c", program], input=sent, capture_output=True, check=True)
    return [line.split() for line in done.stdout.decode().splitlines()]


def mine(source: Source, criteria: Criteria | None = None) -> tuple[list[PairSample], Counts]:
    """The pairs that are kept of the source's one scene, and the counts."""
    (scene,) = source.scenes()
    tally = Tally()
    kept = list(curate(scene, source.views(scene), source.policy(scene), criteria or Criteria(), tally))
    return kept, tally.counts()
