"""Which samples a new data set takes from others, and in which order: pure functions of their catalog.

Chance is a hash of a sample's key, or of a scene's name, with a seed: so an outcome does not depend on how the data set
is cut into shards, nor on what else is in it. A larger sample holds the smaller one; a scene stays on its side of a
split when others are added.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mimic_wds.storage.catalog import Catalog, rank_of
from mimic_wds.storage.layout import MAX_KEY

#: Numbers of the samples that are taken, in their new order.
Numbers: TypeAlias = NDArray[np.int64]

#: Which scenes, by source and name, a new data set speaks of.
Scope: TypeAlias = Callable[[str, str], bool]


def everything(source: str, scene: str) -> bool:
    """The scope of all scenes."""
    return True


def in_order(catalog: Catalog, order: Literal["keep", "key", "shuffle"]) -> Numbers:
    """All samples as they are, by key, or by their rank ("key" and "shuffle" need a catalog with keys, or ranks)."""
    if order == "keep":
        return np.arange(len(catalog))
    assert len(catalog.key if order == "key" else catalog.rank) == len(catalog)
    return np.argsort(catalog.key if order == "key" else catalog.rank, kind="stable")


def in_scope(catalog: Catalog, scope: Scope) -> NDArray[np.bool_]:
    """(N,) whether a sample is of a scene in scope."""
    chosen = np.fromiter((scope(*name) for name in catalog.scenes), bool, len(catalog.scenes))
    return chosen[catalog.scene] if len(catalog) else np.empty(0, bool)


def drawn(catalog: Catalog, number: int, per_source: bool = False) -> Numbers:
    """`number` random samples, of all or of each source, in the order they have: those of the lowest ranks.

    Every set of samples is equally likely over the seeds. Raises ValueError when there are fewer.
    """
    groups = catalog.source[catalog.scene] if per_source else np.zeros(len(catalog), np.uint32)
    taken = []
    for group, name in enumerate(catalog.sources if per_source else [""]):
        (members,) = np.nonzero(groups == group)
        if len(members) < number:
            of = f" of source {name!r}" if name else ""
            raise ValueError(f"{number:,} samples were asked for, there are {len(members):,}{of}")
        taken.append(members[np.argsort(catalog.rank[members], kind="stable")[:number]])
    return np.sort(np.concatenate(taken)) if taken else np.empty(0, np.int64)


def without_duplicates(catalog: Catalog, skip: bool) -> Numbers:
    """All samples, of several with the same key the first (needs a catalog with ranks).

    Raises ValueError naming some when there are any and they are not to be skipped.
    """
    order = np.argsort(catalog.rank, kind="stable")
    same = np.flatnonzero(catalog.rank[order][1:] == catalog.rank[order][:-1])
    suspects = np.unique(order[np.concatenate([same, same + 1])])  # equal ranks: equal keys, but for one case in 10**19
    seen: set[str] = set()
    extra, names = [], []
    for number, key in zip(suspects.tolist(), catalog.keys_of(suspects), strict=True):
        if key in seen:
            extra.append(number)
            names.append(key)
        seen.add(key)
    if extra and not skip:
        raise ValueError(
            f"{len(extra):,} samples have a key that another one has, e.g. {', '.join(names[:3])}: the same pairs? "
            "--on-duplicate skip takes the first of each"
        )
    kept = np.ones(len(catalog), bool)
    kept[extra] = False
    return np.flatnonzero(kept)


@dataclass(frozen=True, slots=True, eq=False)
class KeyList:
    """Keys that a file lists."""

    path: Path
    keys: NDArray[np.bytes_]  #: sorted, none twice

    def members(self, catalog: Catalog) -> NDArray[np.bool_]:
        """(N,) whether a sample is listed (needs a catalog with keys). Raises ValueError for keys that none has."""
        if not len(self.keys):
            return np.zeros(len(catalog), bool)
        places = np.minimum(np.searchsorted(self.keys, catalog.key), len(self.keys) - 1)
        listed: NDArray[np.bool_] = self.keys[places] == catalog.key
        found = np.zeros(len(self.keys), bool)
        found[places[listed]] = True
        if not found.all():
            missing = self.keys[~found]
            raise ValueError(
                f"{self.path}: {len(missing):,} of {len(self.keys):,} keys are of no sample, e.g. {missing[0].decode()}"
            )
        return listed


def read_keys(path: Path) -> KeyList:
    """A file of keys, one a line; empty lines are skipped. Raises ValueError naming the line that cannot be a key."""
    keys = []
    for number, line in _lines(path):
        if not line.isascii() or len(line) > MAX_KEY:
            raise ValueError(f"{path}: line {number}: {line[:100]!r} is no key")
        keys.append(line.encode())
    return KeyList(path, np.unique(np.array(keys, f"S{MAX_KEY}")))


@dataclass(frozen=True, slots=True)
class SceneList:
    """Scenes that a file lists, as "source/scene" or as "scene" of any source."""

    path: Path
    names: frozenset[str]

    def scope(self, source: str, scene: str) -> bool:
        """Whether a scene is listed."""
        return scene in self.names or f"{source}/{scene}" in self.names

    def check(self, catalog: Catalog) -> None:
        """Raise ValueError for scenes that no sample is of."""
        there = {scene for _, scene in catalog.scenes} | {f"{source}/{scene}" for source, scene in catalog.scenes}
        if missing := sorted(self.names - there):
            raise ValueError(
                f"{self.path}: {len(missing):,} of {len(self.names):,} scenes have no sample, e.g. {missing[0]!r}"
            )


def read_scene_list(path: Path) -> SceneList:
    """A file of scenes, one a line; empty lines are skipped."""
    return SceneList(path, frozenset(line for _, line in _lines(path)))


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text in UTF-8: {error}") from None
    lines = (line.rstrip("\r") for line in text.split("\n"))
    return [(number, line) for number, line in enumerate(lines, start=1) if line]


@dataclass(frozen=True, slots=True)
class Split:
    """Puts scenes on two sides; those of a group always on the same one."""

    share: float  #: of the groups that go to the validation side, in (0, 1)
    seed: int
    group: re.Pattern[str] | None = None  #: what scenes of a group have in common; those without it are their own group

    def is_val(self, source: str, scene: str) -> bool:
        """Whether a scene is on the validation side: by its group's name and the seed alone."""
        name = f"{source}\0{self.group_of(scene)}".encode("utf-8", "surrogatepass")
        return rank_of(name, self.seed) < self.share * 2**64

    def is_train(self, source: str, scene: str) -> bool:
        """Whether it is on the other one."""
        return not self.is_val(source, scene)

    def group_of(self, scene: str) -> str:
        """The name of a scene's group: the first parenthesis of the expression if there is one, else all it finds."""
        found = self.group.search(scene) if self.group else None
        if found is None:
            return scene
        return found[1] if found.re.groups and found[1] is not None else found[0]


def make_split(share: float, seed: int, group: str = "") -> Split:
    """A split as the command line describes it. Raises ValueError."""
    if not 0 < share < 1:
        raise ValueError(f"--val must be a share between 0 and 1, got {share}")
    try:
        return Split(share, seed, re.compile(group) if group else None)
    except re.error as error:
        raise ValueError(f"--group: {group!r} is no regular expression: {error}") from None
