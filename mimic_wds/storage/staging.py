"""Staged scenes: what a build has finished before it is packed into shards.

Scene number N of the plan is NNNNNN.tar (its kept samples, if any) with its .idx, then NNNNNN.json (its
outcome). The last one is written last, so a scene is done if and only if it exists.
"""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from mimic_wds.pairs import Counts, PairSample, Scene
from mimic_wds.storage.files import atomic_write
from mimic_wds.storage.index import write_index
from mimic_wds.storage.writer import ShardWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedScene:
    """The outcome of one scene."""

    scene: Scene
    counts: Counts
    error: str  #: why the scene could not be read (to its end), or ""
    keys: tuple[str, ...]
    overlaps: tuple[float, ...]  #: of the kept samples


class SceneStage:
    """Writes one staged scene: a context manager; `finish` must be called last inside it."""

    def __init__(self, folder: Path, number: int):
        self._writer = ShardWriter(scene_tar(folder, number))
        self._json = _scene_json(folder, number)
        self._overlaps: list[float] = []
        self._outcome: StagedScene | None = None

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def add(self, sample: PairSample) -> None:
        """Append a kept sample."""
        self._writer.add(sample)
        self._overlaps.append(sample.overlap)

    def finish(self, scene: Scene, counts: Counts, error: str = "") -> None:
        """Say what became of the scene."""
        assert counts.kept == len(self._overlaps)
        self._outcome = StagedScene(
            scene=scene, counts=counts, error=error, keys=tuple(self._writer.keys), overlaps=tuple(self._overlaps)
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, traceback)
        if error is not None:
            return
        assert self._outcome is not None, "finish was not called"
        if self._overlaps:
            index = self._writer.path.with_suffix(".idx")
            write_index(index, self._writer.index)
        with atomic_write(self._json) as file:
            file.write(msgspec.json.encode(self._outcome))


def read_staged(folder: Path, number: int) -> StagedScene | None:
    """The outcome of scene `number`, or None while it is not done."""
    try:
        data = _scene_json(folder, number).read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(data, type=StagedScene)


def scene_tar(folder: Path, number: int) -> Path:
    """Where the samples of scene `number` lie; not there if none was kept."""
    return folder / f"{number:06d}.tar"


def _scene_json(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"
