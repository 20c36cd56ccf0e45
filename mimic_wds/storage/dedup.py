"""Near-identical samples within a data set, and what two data sets have in common: near.py's search on their shards."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mimic_wds.storage.catalog import Catalog, Progress
from mimic_wds.storage.near import distances, duplicates, jpeg_hash, leaks
from mimic_wds.storage.reader import REPAIR, Shard
from mimic_wds.storage.selection import Numbers, Scope
from mimic_wds.storage.threads import in_threads


@dataclass(frozen=True, slots=True)
class Match:
    """A sample that looks nearly like another one."""

    key: str
    like: str  #: key of the other one
    bits: int  #: of 64 by which the views that differ most differ


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What was found: N samples of a catalog."""

    near: NDArray[np.int64]  #: (N,) the sample that each is nearly identical to, or -1
    matches: list[Match]  #: the same in words
    scenes: list[str] = field(default_factory=list)  #: "source/scene" that are in both data sets
    samples_of_scenes: int = 0  #: samples of those scenes

    def as_plain(self) -> Mapping[str, object]:
        """For JSON."""
        return {
            "near_identical": len(self.matches),
            "matches": [{"key": m.key, "like": m.like, "bits": m.bits} for m in self.matches],
            "scenes_in_both": self.scenes,
            "samples_of_scenes_in_both": self.samples_of_scenes,
        }


def find_duplicates(catalog: Catalog, bits: int, workers: int, progress: Progress) -> Found:
    """Samples that are nearly identical to one before them which is not.

    Takes 16 bytes a sample and, of those that are near others, 8 bytes a pair. Raises ValueError for a picture that
    does not decode.
    """
    hashes = hash_views(catalog, workers, progress)
    near = duplicates(hashes, bits)
    return Found(near, _matches(catalog, hashes, catalog, hashes, near))


def find_leaks(catalog: Catalog, other: Catalog, bits: int, workers: int, progress: Progress) -> Found:
    """Samples that are nearly identical to one of another data set, and the scenes that both have.

    The scenes of single images are classes: it says nothing that both have them. Raises ValueError for data sets of
    other kinds, and for a picture that does not decode.
    """
    kinds = [c.data_sets[0].manifest.kind for c in (catalog, other)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"the one data set holds {kinds[0]}, the other {kinds[1]}: no sample can be in both")
    hashes, others = hash_views(catalog, workers, progress), hash_views(other, workers, progress)
    near = leaks(hashes, others, bits)
    shared = [] if kinds[0] == "images" else sorted(catalog.scenes.keys() & other.scenes.keys())
    numbers = [catalog.scenes[name] for name in shared]
    return Found(
        near,
        _matches(catalog, hashes, other, others, near),
        ["/".join(name) for name in shared],
        int(np.isin(catalog.scene, numbers).sum()),
    )


def hash_views(catalog: Catalog, workers: int, progress: Progress) -> NDArray[np.uint64]:
    """(N, V) difference hashes of the V views of every sample."""
    done: list[NDArray[np.uint64]] = []
    for part in in_threads(lambda shard: _hash_shard(catalog, shard), range(len(catalog.shards)), workers):
        done.append(part)
        progress("hashing", len(done), len(catalog.shards))
    views = 2 if catalog.data_sets[0].manifest.kind == "pairs" else 1
    return np.concatenate([np.empty((0, views), np.uint64), *done])


def _hash_shard(catalog: Catalog, number: int) -> NDArray[np.uint64]:
    """The hashes of one shard's samples."""
    path = catalog.path(number)
    members = catalog.data_sets[catalog.shards[number][0]].manifest.members
    views = [place for place, member in enumerate(members) if member.endswith(".jpg")]
    with Shard(path, members=members) as shard, path.open("rb") as file:
        hashes = np.empty((len(shard), len(views)), np.uint64)
        for i in range(len(shard)):
            for column, place in enumerate(views):
                offset, length = shard.index.ranges(i)[place]
                try:
                    hashes[i, column] = jpeg_hash(os.pread(file.fileno(), length, offset))
                except ValueError as error:
                    raise ValueError(f"{path}: {shard.key(i)}.{members[place]} {error}; {REPAIR}") from None
    return hashes


def _matches(
    catalog: Catalog,
    hashes: NDArray[np.uint64],
    other: Catalog,
    others: NDArray[np.uint64],
    near: NDArray[np.int64],
) -> list[Match]:
    """The samples that are near another one, by their keys."""
    (which,) = np.nonzero(near >= 0)
    bits = distances(hashes[which], others[near[which]])
    keys, likes = catalog.keys_of(which), other.keys_of(near[which])
    return [Match(key, like, int(b)) for key, like, b in zip(keys, likes, bits, strict=True)]


def remaining(catalog: Catalog, found: Found, scope: Scope | None = None) -> Numbers:
    """The samples that are not nearly identical to another one, of the scenes in scope."""
    kept = found.near < 0
    if scope is not None and len(catalog):
        chosen = np.fromiter((scope(*name) for name in catalog.scenes), bool, len(catalog.scenes))
        kept &= chosen[catalog.scene]
    return np.flatnonzero(kept)
