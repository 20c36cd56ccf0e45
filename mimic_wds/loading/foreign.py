"""Tars of others, without manifest or index, read in file order through webdataset's own pipeline.

Whatever webdataset opens can be named: files, web addresses, several joined by "::", braces ("part-{0000..0127}.tar"),
commands ("pipe:aws s3 cp s3://bucket/part.tar -"). A command is run by a shell, so names must come from people who may
run programs here. For tars in our own format beside which nothing lies there is the stricter `sequential.read_tars`.

What it cannot do, for webdataset cannot or because nothing is known of the tars before they are read:

- The order is that of the tars, shuffled within a buffer; there is no state, and no epoch is exact: ranks get different
  numbers of samples where tars differ. Have a trainer count steps, not epochs, or import the tars (docs/import.md).
- A tar that was cut between two members passes for whole: its last sample is counted as one without its members, or
  is not missed at all. One that was cut inside a member raises, and so does one that cannot be opened.
- A connection that breaks is not taken up again; one that goes silent is waited for.
- A cached tar is never compared with its origin again; the size of the cache is looked at every 30 seconds only.

Members are bytes until the given decoder sees them: none is unpickled.
"""

import hashlib
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from mimic_wds.loading.decoding import BadSample
from mimic_wds.loading.faults import FaultCounts, FaultPolicy

Sample = TypeVar("Sample")


def read_foreign(
    urls: str | Sequence[str],
    decode: Callable[[str, Mapping[str, bytes]], Sample],
    members: Sequence[str],
    *,
    seed: int = 0,
    shuffle: int = 0,
    rank: int = 0,
    world_size: int = 1,
    cache_dir: Path | None = None,
    cache_bytes: int = 10**12,
    policy: FaultPolicy | None = None,
    faults: FaultCounts | None = None,
) -> Iterator[Sample]:
    """The samples of this rank's tars, `decode`d from key and `members` (name -> data).

    `shuffle` is the size of the buffer that samples are mixed in, and permutes the tars, too (0: file order); another
    `seed` gives another order. Ranks take every `world_size`th tar; in a DataLoader, so do its workers of those.
    With `cache_dir`, tars that are not files are kept there, up to about `cache_bytes`.
    Samples without their members, and those for which `decode` raises ValueError (BadSample: with a reason), are
    counted in `faults` and left out up to the `count` of `policy`; then RuntimeError. Raises ValueError when there are
    fewer tars than ranks, and for a tar that cannot be read.
    """
    names = expand(urls)
    if len(names) < world_size:
        raise ValueError(f"{len(names)} tars cannot be shared by {world_size} processes: a process reads whole tars")
    policy, faults = policy or FaultPolicy(), faults if faults is not None else FaultCounts()
    budget = 0 if policy.action == "raise" else policy.count
    pipeline = _pipeline(names[rank::world_size], seed, shuffle, cache_dir, cache_bytes)
    for number, sample in enumerate(_reported(pipeline)):
        key = str(sample["__key__"])
        try:
            yield _decoded(decode, key, sample, members)
        except BadSample as bad:
            if faults.add(number * world_size + rank, str(bad), key) > budget:
                raise RuntimeError(
                    f"{sample['__url__']!s}: more than {budget} samples cannot be used ({dict(faults.counts)}), "
                    f"the last one is {key}"
                ) from None


def _decoded(
    decode: Callable[[str, Mapping[str, bytes]], Sample], key: str, sample: Mapping[str, bytes], members: Sequence[str]
) -> Sample:
    """A decoded sample. Raises BadSample with the reason."""
    if missing := [member for member in members if member not in sample]:
        raise BadSample(f"no_{missing[0].replace('.', '_')}")
    try:
        return decode(key, {member: sample[member] for member in members})
    except BadSample:
        raise
    except ValueError:
        raise BadSample("does_not_decode") from None


def expand(urls: str | Sequence[str]) -> list[str]:
    """The tars that are meant: braces are expanded, and "::" joins several. Raises ValueError when there are none."""
    from webdataset.shardlists import expand_urls

    names = [name for url in ([urls] if isinstance(urls, str) else urls) for name in expand_urls(url) if name]
    if not names:
        raise ValueError(f"no tars are named by {urls!r}")
    return names


def _pipeline(
    names: list[str], seed: int, shuffle: int, cache_dir: Path | None, cache_bytes: int
) -> Iterator[dict[str, bytes]]:
    """Undecoded samples of tars; a worker of a DataLoader takes its share of the tars."""
    from webdataset import filters, shardlists
    from webdataset.cache import FileCache, StreamingOpen
    from webdataset.tariterators import group_by_keys

    if shuffle:
        random.Random(seed).shuffle(names)
    opener = StreamingOpen()
    if cache_dir is not None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        opener = FileCache(str(cache_dir), url_to_name=cache_name, cache_size=cache_bytes)
    sources = opener({"url": name} for name in shardlists.split_by_worker(iter(names)))
    samples = group_by_keys(_files(sources))
    yield from filters.shuffle(shuffle, seed=seed)(samples) if shuffle else samples


def _files(sources: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The files in opened tars. Each is closed after it, which webdataset leaves to chance."""
    from webdataset.tariterators import tar_file_expander

    for source in sources:
        with closing(source["stream"]):
            yield from tar_file_expander([source])


def cache_name(url: str) -> str:
    """The name of a tar in the cache: other addresses have other names, though their files may be called the same."""
    return f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.tar"


def _reported(samples: Iterator[dict[str, bytes]]) -> Iterator[dict[str, bytes]]:
    """The same samples; what goes wrong with a tar is a ValueError that names it."""
    try:
        yield from samples
    except (OSError, EOFError, tarfile.TarError) as error:
        where = getattr(error, "filename", None) or error.args[-1]  # webdataset adds the name as the last argument
        what = getattr(error, "strerror", None) or error.args[0]
        raise ValueError(f"{where}: cannot be read: {what}") from error
