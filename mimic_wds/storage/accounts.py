"""What a data set made from others says about itself: the outcomes of its scenes, and the manifest's counts.

One rule: every sample is counted in the line of its own scene, and a sample of that scene that the new data set does
not take is `dropped` there, for the reason that the verb gives. So candidates stay what was tried when the pairs were
mined, and kept + dropped = candidates still. A verb that takes whole scenes (its scope) takes their lines, no others.

Imports have lines of their units of work ("pairs 0 to 1999"), not of scenes; in a data set made from one, their samples
are counted in lines of their scenes, and a unit keeps a line only of what was lost or faulty in it.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import Kind
from mimic_wds.storage.catalog import Catalog, DataSet
from mimic_wds.storage.layout import SCENES_NAME
from mimic_wds.storage.reader import REPAIR
from mimic_wds.storage.scenes import SceneOutcome, scene_lines
from mimic_wds.storage.selection import Numbers, Scope

#: Views that a sample stands for, where imports have counted them.
_VIEWS: dict[Kind, int] = {"pairs": 2, "images": 1}


def check_lines(data_set: DataSet) -> None:
    """Raise ValueError unless the lines of a data set add up to its manifest."""
    kept = Counter[str]()
    for line in _lines(data_set):
        kept[line.source] += line.kept
    expected = +Counter(data_set.manifest.kept)
    if +kept != expected:
        path = data_set.folder / SCENES_NAME
        raise ValueError(f"{path}: its lines keep {dict(+kept)}, the manifest says {dict(expected)}; {REPAIR}")


def settled(catalog: Catalog, taken: Numbers, reason: str, scope: Scope) -> Iterator[SceneOutcome]:
    """The lines of a new data set that takes these samples; the others in scope are dropped for `reason`.

    Lines of the same scene in several data sets are added up.
    """
    size = len(catalog.scenes)
    before: NDArray[np.int64] = np.bincount(catalog.scene, minlength=size)
    after: NDArray[np.int64] = np.bincount(catalog.scene[taken], minlength=size)
    views = _VIEWS[catalog.data_sets[0].manifest.kind]
    listed = np.zeros(size, bool)
    for line in _combined(lambda: chain.from_iterable(map(_lines, catalog.data_sets))):
        number = catalog.scenes.get((line.source, line.scene), -1)
        listed[number : number + 1] = True
        here, left = (int(before[number]), int(after[number])) if number >= 0 else (0, 0)
        new = _settle(line, here, left, reason, views)
        is_told_elsewhere = line.kept and not (here or new.dropped or new.faults or new.views or new.error)
        if scope(line.source, line.scene) and not is_told_elsewhere:
            yield new
    for (source, scene), number in catalog.scenes.items():
        if not listed[number] and scope(source, scene):
            nothing = SceneOutcome(source=source, scene=scene, kept=0, dropped={}, faults={}, views=0, error="")
            yield _settle(nothing, int(before[number]), int(after[number]), reason, views)


def _settle(line: SceneOutcome, before: int, after: int, reason: str, views: int) -> SceneOutcome:
    """A scene's line: it has `before` samples, and the new data set takes `after` of them."""
    dropped = dict(line.dropped)
    if before > after:
        dropped[reason] = dropped.get(reason, 0) + before - after
    elsewhere = line.kept - before  # samples of a unit, which are counted in the lines of their scenes
    return replace(line, kept=after, dropped=dropped, views=max(0, line.views - views * elsewhere))


def _lines(data_set: DataSet) -> Iterator[SceneOutcome]:
    return scene_lines(data_set.folder, data_set.manifest.generation)


def _combined(lines: Callable[[], Iterator[SceneOutcome]]) -> Iterator[SceneOutcome]:
    """The lines, those of one scene added up at the place of the last; only scenes with several are held in memory."""
    digests = np.array(array("Q", map(_digest, lines())), np.uint64)
    values, times = np.unique(digests, return_counts=True)
    left = dict(zip(values[times > 1].tolist(), times[times > 1].tolist(), strict=True))
    held: dict[str, SceneOutcome] = {}
    for line in lines():
        digest = _digest(line)
        if digest not in left:
            yield line
            continue
        left[digest] -= 1
        held[line.name] = _added(held[line.name], line) if line.name in held else line
        if not left[digest]:
            yield held.pop(line.name)
    yield from held.values()  # two scenes of one digest


def _digest(line: SceneOutcome) -> int:
    name = f"{line.source}\0{line.scene}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def _added(a: SceneOutcome, b: SceneOutcome) -> SceneOutcome:
    """Two lines of one scene."""
    counts = a.counts + b.counts
    return replace(
        a,
        kept=counts.kept,
        dropped=dict(counts.dropped),
        faults=dict(counts.faults),
        views=counts.views,
        error="; ".join(dict.fromkeys(error for error in (a.error, b.error) if error)),
    )
