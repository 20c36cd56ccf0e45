"""What a report on a data set says: numbers of its manifest, statistics of samples drawn from it, and which to show."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import PairSample, Sample
from mimic_wds.storage.browse import REQUESTS, Browser
from mimic_wds.storage.manifest import Manifest
from mimic_wds.storage.near import duplicates, jpeg_hash
from mimic_wds.storage.pictures import decode_jpeg
from mimic_wds.storage.threads import in_threads

#: Bits by which difference hashes of near-identical views differ at most, as `mimic-shard dedup` has them.
NEAR_BITS = 4

#: A view is an outlier of its source beyond so many times the spread of the middle half (Tukey 1977).
WHISKER = 1.5

#: Samples of a source from which quartiles mean something.
ENOUGH = 8

#: Mean grey level (0 to 255) below which a view is all but black, whatever its source looks like.
NEAR_BLACK = 12.0

#: Bins of a histogram of whole numbers at least, so that a single value is a bar and not a block.
FEWEST = 5

#: What can be odd about a view, the worst first.
KINDS = ("all but black", "dark", "bright", "blurred or bare")


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was measured of one sample."""

    number: int
    key: str
    source: str
    overlap: float  #: in 0..1; -1 = not known, or no pair
    inliers: int  #: -1 = not known, or no pair
    brightness: tuple[float, ...]  #: mean grey level of each view, 0 to 255
    sharpness: tuple[float, ...]  #: variance of the Laplacian of each view; low = blurred or bare
    hashes: tuple[int, ...]  #: difference hash of each view


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """A sample with a view that looks unlike the others of its source."""

    look: Looked
    kind: str  #: one of KINDS
    why: str  #: with its numbers


def draw_numbers(total: int, wanted: int, seed: int) -> list[int]:
    """`wanted` samples of `total`, or all, each once, ascending."""
    if wanted >= total:
        return list(range(total))
    return sorted(np.random.default_rng(seed).choice(total, wanted, replace=False).tolist())


def measure(browser: Browser, numbers: Sequence[int]) -> Iterator[Looked]:
    """Read and measure samples; one that cannot be read or decoded is left out (`mimic-shard verify` names those)."""

    def one(number: int) -> Looked | None:
        try:
            return look_at(number, browser.sample(number))
        except ValueError:
            return None

    return (found for found in in_threads(one, numbers, REQUESTS) if found is not None)


def look_at(number: int, sample: Sample) -> Looked:
    """Measure one sample. Raises ValueError when a view does not decode."""
    jpegs: tuple[bytes, ...]
    if isinstance(sample, PairSample):
        jpegs, overlap, inliers = (sample.image0_jpg, sample.image1_jpg), float(sample.overlap), int(sample.num_inliers)
    else:
        jpegs, overlap, inliers = (sample.image_jpg,), -1.0, -1
    greys = [_grey(jpeg) for jpeg in jpegs]
    return Looked(
        number=number,
        key=sample.key,
        source=sample.source,
        overlap=overlap,
        inliers=inliers,
        brightness=tuple(float(grey.mean()) for grey in greys),
        sharpness=tuple(float(cv2.Laplacian(grey, cv2.CV_64F).var()) for grey in greys),
        hashes=tuple(jpeg_hash(jpeg) for jpeg in jpegs),
    )


def outliers(looks: Iterable[Looked]) -> list[Outlier]:
    """Samples with a view that is all but black, or darker, brighter or blurrier than others of its source, by KINDS.

    Darker or brighter: beyond the quartiles of the source by WHISKER times their distance. Blurrier: the same on the
    logarithm of the sharpness, downwards only. Needs ENOUGH samples of a source.
    """
    found = [odd for own in by_source(looks).values() for odd in _oddities(own)]
    return sorted(found, key=lambda odd: (KINDS.index(odd.kind), odd.look.number))


def by_source(looks: Iterable[Looked]) -> dict[str, list[Looked]]:
    """Samples of each source, in their order; sources sorted by name."""
    found: dict[str, list[Looked]] = {}
    for look in looks:
        found.setdefault(look.source, []).append(look)
    return dict(sorted(found.items()))


def light(looks: Sequence[Looked], odd: Sequence[Outlier]) -> list[tuple[object, ...]]:
    """A row per source: samples, medians of brightness and sharpness of their views, outliers of each of KINDS."""
    count = Counter((each.look.source, each.kind) for each in odd)
    rows: list[tuple[object, ...]] = []
    for source, own in by_source(looks).items():
        medians = [
            float(np.median([value for values in views for value in values]))
            for views in ([look.brightness for look in own], [look.sharpness for look in own])
        ]
        rows.append((source, len(own), *(round(median, 1) for median in medians), *(count[source, k] for k in KINDS)))
    return rows


def _oddities(own: Sequence[Looked]) -> Iterator[Outlier]:
    """Those of the samples of a source that are odd."""
    enough = len(own) >= ENOUGH
    dark_end, bright_end = whiskers([value for look in own for value in look.brightness]) if enough else (0.0, 255.0)
    blurred_end = whiskers([np.log1p(value) for look in own for value in look.sharpness])[0] if enough else 0.0
    for look in own:
        dark, bright, blurred = min(look.brightness), max(look.brightness), min(look.sharpness)
        if dark < NEAR_BLACK:
            yield Outlier(look=look, kind=KINDS[0], why=f"mean grey level {dark:.1f} of 255")
        elif dark < dark_end:
            yield Outlier(look=look, kind=KINDS[1], why=f"mean grey level {dark:.1f}, others above {dark_end:.1f}")
        elif bright > bright_end:
            yield Outlier(look=look, kind=KINDS[2], why=f"mean grey level {bright:.1f}, others below {bright_end:.1f}")
        elif np.log1p(blurred) < blurred_end:
            others = np.expm1(blurred_end)
            yield Outlier(look=look, kind=KINDS[3], why=f"Laplacian variance {blurred:.1f}, others above {others:.1f}")


def whiskers(values: Sequence[float]) -> tuple[float, float]:
    """Where the usual values end, below and above (Tukey's rule)."""
    low, high = np.percentile(values, [25, 75])
    return float(low - WHISKER * (high - low)), float(high + WHISKER * (high - low))


def near_duplicates(looks: Sequence[Looked], bits: int = NEAR_BITS) -> list[tuple[Looked, Looked]]:
    """Samples that look nearly like an earlier one, and that one."""
    if not looks:
        return []
    hashes = np.array([look.hashes for look in looks], np.uint64)
    same = duplicates(hashes, bits)
    return [(looks[n], looks[int(first)]) for n, first in enumerate(same) if first >= 0 and int(first) != n]


def binned(values: Sequence[float], bins: int = 20) -> tuple[list[float], list[int]]:
    """Edges and counts of a histogram over all values."""
    counts, edges = np.histogram(values, bins)
    return edges.tolist(), counts.tolist()


def binned_whole(values: Sequence[int], bins: int = 20) -> tuple[list[float], list[int]]:
    """The same of whole numbers: at most `bins` bins with whole edges; a bin holds its lower edge, not its upper."""
    low = min(values)
    high = max(*values, low + min(bins, FEWEST) - 1)
    width = (high - low) // bins + 1
    edges = np.arange(low, high + width + 1, width)
    return edges.astype(float).tolist(), np.histogram(values, edges)[0].tolist()


def composition(manifest: Manifest) -> list[tuple[object, ...]]:
    """By source: samples, their share, scenes, candidates, dropped, share kept, licence; as the manifest has them."""
    held: Counter[str] = Counter()
    for shard in manifest.shards:
        held.update(shard.sources)
    rows: list[tuple[object, ...]] = []
    for source, samples in held.most_common():
        tried, kept = manifest.candidates.get(source, 0), manifest.kept.get(source, 0)
        share = f"{kept / tried:.1%}" if tried else "-"
        scenes, dropped = manifest.scenes.get(source, 0), sum(manifest.dropped.get(source, {}).values())
        licence = manifest.licences.get(source, "") or "not stated"
        rows.append((source, samples, f"{samples / held.total():.1%}", scenes, tried, dropped, share, licence))
    return rows


def fates(manifest: Manifest) -> list[tuple[str, str, int]]:
    """A row per source and fate of candidates: (source, "kept" or why dropped, how many)."""
    rows: list[tuple[str, str, int]] = []
    for source, tried in manifest.candidates.items():
        if tried:
            rows.append((source, "kept", manifest.kept.get(source, 0)))
            reasons: Mapping[str, int] = manifest.dropped.get(source, {})
            rows += [(source, reason, count) for reason, count in sorted(reasons.items(), key=lambda item: -item[1])]
    return rows


def gallery(looks: Sequence[Looked], num: int, seed: int) -> dict[str, list[Looked]]:
    """Which samples to show, by title: drawn ones, pairs that overlap least and most, and some of each source."""
    if not looks:
        return {}
    picked = np.random.default_rng(seed).permutation(len(looks))[:num]
    shown = {"Drawn at random": [looks[i] for i in sorted(picked.tolist())]}
    known = sorted((look for look in looks if look.overlap >= 0), key=lambda look: look.overlap)
    if known:
        shown["Lowest overlap"], shown["Highest overlap"] = known[:num], known[: -num - 1 : -1]
    sources = sorted({look.source for look in looks})
    if len(sources) > 1:
        for source in sources:
            shown[f"Source {source}"] = [look for look in looks if look.source == source][:num]
    return shown


def _grey(data: bytes) -> NDArray[np.uint8]:
    grey = decode_jpeg(data, cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise ValueError("a view does not decode")
    return np.asarray(grey, np.uint8)
