"""Several data sets as one, to be mixed: their samples and shards are numbered one set after the other."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Lock

import numpy as np

from mimic_wds.loading.dataset import LOCAL_CACHE, Dataset, ImageDataset, PairDataset, open_dataset
from mimic_wds.loading.mixing import Mixture, weights_by_size
from mimic_wds.loading.remote import Remote
from mimic_wds.loading.remote_shard import RemoteShard
from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.reader import Shard


class JoinedDataset:
    """Data sets under names, as a loader reads them. Safe to share between threads."""

    def __init__(self, parts: Mapping[str, PairDataset] | Mapping[str, ImageDataset]):
        """Raises ValueError for no data set, several kinds, other classes, and pairs of different sizes."""
        if not parts:
            raise ValueError("there is no data set to read: give at least one")
        self.parts: list[Dataset] = list(parts.values())
        first = self.parts[0]
        self.kind = first.kind
        for name in ("kind", "size", "patch_size", "classes"):
            found = {key: getattr(part, name, None) for key, part in parts.items()}
            if any(value != getattr(first, name, None) for value in found.values()):
                raise ValueError(f"data sets of another {name} cannot be read together: {found}")
        if isinstance(first, PairDataset):
            self.size, self.patch_size, self.num_patches = first.size, first.patch_size, first.num_patches
        else:
            self.classes = first.manifest.classes
        self.folder = ", ".join(str(part.folder) for part in self.parts)  #: for people
        self.hash = hashlib.sha256("".join(part.hash for part in self.parts).encode()).hexdigest()
        counts = [[shard.samples for shard in part.manifest.shards] for part in self.parts]
        self.shard_samples = [count for part in counts for count in part]
        starts = np.cumsum([0, *(len(part) for part in counts)]).tolist()
        self.sources = {name: range(starts[n], starts[n + 1]) for n, name in enumerate(parts)}  #: shards of each
        self._first_shards = starts
        self._ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def close(self) -> None:
        """Close all data sets."""
        for part in self.parts:
            part.close()

    def read(self, index: int) -> tuple[str, Mapping[str, bytes]]:
        """Key and members of sample `index`, as they lie in the shard."""
        number, own = self._part(index)
        return self.parts[number].read(own)

    def locate(self, index: int) -> tuple[Shard | RemoteShard, int]:
        """Shard and place in it of sample `index`."""
        number, own = self._part(index)
        return self.parts[number].locate(own)

    def expect(self, groups: Iterator[list[int]]) -> None:
        """Tell every data set which of its shards will be needed in which order."""
        dealt = _Dealt(groups, self._first_shards)
        for number, part in enumerate(self.parts):
            part.expect(dealt.of(number))

    def will_read(self, indices: Iterable[int]) -> None:
        """Tell every data set which of its samples will be read next."""
        asked: dict[int, list[int]] = {}
        for index in indices:
            number, own = self._part(index)
            asked.setdefault(number, []).append(own)
        for number, own_indices in asked.items():
            self.parts[number].will_read(own_indices)

    def mixture(
        self, global_batch: int, weights: Mapping[str, float] | None = None, *, temperature: float = 1.0, seed: int = 0
    ) -> Mixture:
        """The order that mixes the data sets, by these weights or by their sizes (`weights_by_size`)."""
        sizes = {name: len(part) for name, part in zip(self.sources, self.parts, strict=True)}
        chosen = weights_by_size(sizes, temperature) if weights is None else weights
        return Mixture(self.shard_samples, self.sources, chosen, global_batch, seed)

    def _part(self, index: int) -> tuple[int, int]:
        """The data set that holds a sample, and its number there."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - (int(self._ends[number - 1]) if number else 0)


def open_data(addresses: Sequence[str], remote: Remote = LOCAL_CACHE) -> PairDataset | ImageDataset | JoinedDataset:
    """One data set, or several as one: each a folder, a URL, or NAME=either; its manifest's name is the default.

    Raises ValueError and OSError as the data sets do, and ValueError when two have the same name.
    """
    parts: dict[str, PairDataset | ImageDataset] = {}
    for address in addresses:
        given, where = _named(address)
        part = open_dataset(where, remote)
        name = given or part.manifest.name
        if name in parts:
            raise ValueError(f"two data sets are named {name!r}: give them names of your own, as in new={where}")
        parts[name] = part
    if len(parts) == 1:
        return next(iter(parts.values()))
    return JoinedDataset(parts)  # type: ignore[arg-type]  # it refuses several kinds


def _named(address: str) -> tuple[str, str]:
    """The name, "" if none, and the rest of NAME=ADDRESS."""
    name, separator, where = address.partition("=")
    is_name = bool(separator) and name.replace("-", "").replace("_", "").isalnum()
    return (name, where) if is_name else ("", address)


class _Dealt:
    """Groups of shards of several data sets, dealt out to each; any thread may ask."""

    def __init__(self, groups: Iterator[list[int]], first_shards: Sequence[int]):
        self._groups = groups
        self._first = first_shards
        self._waiting: list[deque[list[int]]] = [deque() for _ in first_shards[1:]]
        self._lock = Lock()

    def of(self, number: int) -> Iterator[list[int]]:
        """The groups of one data set, in its own numbers of shards."""
        while (group := self._next(number)) is not None:
            yield group

    def _next(self, number: int) -> list[int] | None:
        """The next group of a data set, None after the last."""
        with self._lock:
            while not self._waiting[number]:
                group = next(self._groups, None)
                if group is None:
                    return None
                for other, (start, stop) in enumerate(zip(self._first, self._first[1:], strict=False)):
                    if own := [shard - start for shard in group if start <= shard < stop]:
                        self._waiting[other].append(own)
            return self._waiting[number].popleft()


def sources_of_shards(manifest: Manifest, where: object) -> dict[str, list[int]]:
    """The shards (numbers) of each source of a data set, to be mixed within it.

    Raises ValueError when a shard holds several sources: the manifest does not say which sample is whose.
    """
    found: dict[str, list[int]] = {}
    for number, shard in enumerate(manifest.shards):
        sources = [source for source, count in shard.sources.items() if count]
        if len(sources) > 1:
            raise ValueError(
                f"{where}: {shard.name} holds samples of {', '.join(sources)}; to weigh sources, each shard must hold "
                f"one only: make a data set of each (mimic-shard filter {where} --out DIR --where \"source == '"
                f"{sources[0]}'\") and mix those"
            )
        found.setdefault(sources[0], []).append(number)
    return found
