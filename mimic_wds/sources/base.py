"""The Source protocol, and what every source that reads files needs."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from mimic_wds.pairs import Fault, Policy, Scene, View


@runtime_checkable
class Source(Protocol):
    """A family of data sets on disk.

    A source is a frozen dataclass of plain options, so it travels to worker processes. `name` is its name in the
    registry, `reads` says in one line what it expects on disk.

    Scenes are named by their path relative to the parent of the path given, the same in every build of the same input.
    """

    name: ClassVar[str]
    reads: ClassVar[str]

    @property
    def paths(self) -> tuple[str, ...]:
        """Files or folders to read."""
        ...

    @property
    def licence(self) -> str:
        """Licence note of the material; goes into the manifest."""
        ...

    def policy(self, scene: Scene) -> Policy:
        """Which pairs of a scene's views are tried and kept."""
        ...

    def scenes(self) -> list[Scene]:
        """All scenes below `paths`, sorted. Raises ValueError when a path is missing or holds nothing to read."""
        ...

    def views(self, scene: Scene) -> Iterator[View | Fault]:
        """The views of a scene in order, with a Fault (naming its frame) in place of each one that cannot be read.

        Only the frames that the policy pairs are decoded. Raises SceneError when nothing of the scene can be read.
        """
        ...


def natural_key(text: str) -> list[tuple[bool, int | str]]:
    """Sort key under which "frame2" comes before "frame10"."""
    parts = re.split(r"(\d+)", text)
    return [(part.isdigit(), int(part) if part.isdigit() else part) for part in parts if part]


def existing(paths: Iterable[str]) -> list[Path]:
    """The paths as given, each checked to exist. Raises ValueError naming the first that does not."""
    found = [Path(p) for p in paths]
    if not found:
        raise ValueError("no input path given: name at least one file or folder")
    for path in found:
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
    return found


def walk_files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """All files below `folder` with one of the (lower-case) suffixes, naturally sorted; hidden ones are passed over."""
    files = (p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    visible = (p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    return sorted(visible, key=lambda p: natural_key(str(p.relative_to(folder))))


def check_unique(scenes: list[Scene]) -> list[Scene]:
    """The scenes, if no two have the same name. Raises ValueError naming both paths otherwise."""
    seen: dict[str, str] = {}
    for scene in scenes:
        other = seen.setdefault(scene.name, scene.path)
        if other != scene.path:
            raise ValueError(
                f"{other} and {scene.path} would both be scene {scene.name!r}: give their common parent folder instead"
            )
    return list({scene.name: scene for scene in scenes}.values())
