"""Staged scenes: what a build has finished before it is packed into shards.

Scene number N of the plan is a tar of its kept samples, if any, with its .idx, then a .json of its outcome: for scene
12,345 they are 000012/345.tar and so on, so that no folder grows too long. The .json is written last: a scene is done
if and only if it exists. Packing removes the tars of scenes whose samples are all in shards.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from mimic_wds.pairs import Counts, PairSample, Sample, Scene
from mimic_wds.storage.files import atomic_write, remove_stale
from mimic_wds.storage.index import index_path, write_index
from mimic_wds.storage.writer import ShardWriter

#: Scenes in one folder.
SCENES_PER_FOLDER = 1000

_FOLDER = re.compile(r"\d{6,}")
_OUTCOME = re.compile(r"(\d{3})\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedScene:
    """The outcome of one scene."""

    scene: Scene
    counts: Counts
    error: str  #: why the scene could not be read (to its end), or ""
    keys: tuple[str, ...]  #: of the kept samples, like the next two
    overlaps: tuple[float, ...]  #: none of images
    sizes: tuple[int, ...]  #: bytes that each takes in a tar


class SceneStage:
    """Writes one staged scene: a context manager; `finish` must be called last inside it."""

    def __init__(self, folder: Path, number: int):
        self._writer = ShardWriter(scene_tar(folder, number), hashed=False)
        self._json = _scene_json(folder, number)
        self._overlaps: list[float] = []
        self._sizes: list[int] = []
        self._outcome: StagedScene | None = None

    def __enter__(self) -> Self:
        self._json.parent.mkdir(exist_ok=True)
        self._writer.__enter__()
        return self

    def add(self, sample: Sample) -> None:
        """Append a kept sample. Raises ValueError when its key is there already."""
        before = self._writer.num_bytes
        self._writer.add(sample)
        self._sizes.append(self._writer.num_bytes - before)
        if isinstance(sample, PairSample):
            self._overlaps.append(sample.overlap)

    def finish(self, scene: Scene, counts: Counts, error: str = "") -> None:
        """Say what became of the scene."""
        assert counts.kept == len(self._sizes)
        self._outcome = StagedScene(
            scene=scene,
            counts=counts,
            error=error,
            keys=tuple(self._writer.keys),
            overlaps=tuple(self._overlaps),
            sizes=tuple(self._sizes),
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, traceback)
        if error is not None:
            return
        assert self._outcome is not None, "finish was not called"
        if self._sizes:
            write_index(index_path(self._writer.path), self._writer.index)
        with atomic_write(self._json) as file:
            file.write(msgspec.json.encode(self._outcome))


def read_staged(folder: Path, number: int) -> StagedScene | None:
    """The outcome of scene `number`, or None while it is not done."""
    try:
        data = _scene_json(folder, number).read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(data, type=StagedScene)


def staged_numbers(folder: Path) -> Iterator[int]:
    """The numbers of all scenes that are done, in no order."""
    for group in _groups(folder):
        for path in group.iterdir():
            if match := _OUTCOME.fullmatch(path.name):
                yield int(group.name) * SCENES_PER_FOLDER + int(match[1])


def clean_staged(folder: Path) -> None:
    """Remove the unfinished files that a killed run left (the caller holds the folder's lock)."""
    remove_stale(folder)
    for group in _groups(folder):
        remove_stale(group)


def take_staged(folder: Path, other: Path, number: int) -> None:
    """Move scene `number`, which is done in `other`, to `folder` (of the same file system, or not)."""
    source, target = _scene_json(other, number), _scene_json(folder, number)
    target.parent.mkdir(exist_ok=True)
    for suffix in (".tar", ".idx", ".json"):  # the outcome last, as when it was made
        with suppress(FileNotFoundError):
            _move(source.with_suffix(suffix), target.with_suffix(suffix))


def _move(source: Path, target: Path) -> None:
    """Move a file; a whole copy is there before the original goes."""
    try:
        source.replace(target)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        with source.open("rb") as data, atomic_write(target) as file:
            while chunk := data.read(2**24):
                file.write(chunk)
        source.unlink()


def scene_tar(folder: Path, number: int) -> Path:
    """Where the samples of scene `number` lie; not there if none was kept."""
    return folder / f"{number // SCENES_PER_FOLDER:06d}" / f"{number % SCENES_PER_FOLDER:03d}.tar"


def remove_samples(folder: Path, number: int) -> None:
    """Remove the samples of a scene, which are in a shard now; its outcome stays."""
    tar = scene_tar(folder, number)
    for path in (tar, index_path(tar)):
        path.unlink(missing_ok=True)


def _scene_json(folder: Path, number: int) -> Path:
    return scene_tar(folder, number).with_suffix(".json")


def _groups(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if _FOLDER.fullmatch(path.name))
