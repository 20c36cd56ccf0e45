"""Selection policies: which pairs of a scene's views are tried, and which of the accepted ones are kept.

A policy turns views and a judge into candidates, each with its one outcome. It knows nothing of images: any kind of
view will do, and `judge(view0, view1)` says what becomes of a pair.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain as concatenate
from itertools import islice
from typing import Generic, Protocol, TypeVar

from mimic_wds.pairs import AllPairs, Chain, DropReason, Listed, Overlap, Policy, Windows


class HasFrame(Protocol):
    """A view that has a name."""

    @property
    def frame(self) -> str:
        """Names it within its scene."""
        ...


V = TypeVar("V", bound=HasFrame)
Outcome = Overlap | DropReason
Judge = Callable[[V, V], Outcome]


@dataclass(frozen=True, slots=True)
class Candidate(Generic[V]):
    """A pair that was tried, and what became of it."""

    view0: V
    view1: V
    outcome: Outcome

    @property
    def kept(self) -> bool:
        """True if the pair goes into a shard."""
        return isinstance(self.outcome, Overlap)


def select(policy: Policy, views: Iterable[V], judge: Judge[V]) -> Iterator[Candidate[V]]:
    """All candidates of a scene under `policy`, in a fixed order."""
    match policy:
        case Chain(retry=retry):
            return chain(views, judge, retry=retry)
        case Windows(heads=heads, tails=tails):
            return windows(views, judge, heads=heads, tails=tails)
        case Listed(pairs=pairs):
            return listed(views, judge, pairs=pairs)
        case AllPairs(keep=keep, max_gap=max_gap):
            candidates = all_pairs(views, judge, max_gap=max_gap)
            return smallest(candidates) if keep == "smallest" else candidates


def chain(views: Iterable[V], judge: Judge[V], *, retry: bool) -> Iterator[Candidate[V]]:
    """Try (i, i+1); with `retry`, on too large an overlap also (i, i+2); go on from i+2 after a kept retry, else i+1.

    Holds at most three views at a time, so a video streams through.
    """
    stream = iter(views)
    current, following = next(stream, None), next(stream, None)
    while current is not None and following is not None:
        tried = Candidate(current, following, judge(current, following))
        yield tried
        after = next(stream, None)
        if retry and tried.outcome is DropReason.OVERLAP_TOO_LARGE and after is not None:
            retried = Candidate(current, after, judge(current, after))
            yield retried
            if retried.kept:
                current, following = after, next(stream, None)
                continue
        current, following = following, after


def all_pairs(views: Iterable[V], judge: Judge[V], *, max_gap: int = 0) -> Iterator[Candidate[V]]:
    """Try every pair (i, j), i < j; with max_gap > 0 only those with j - i <= max_gap, holding so many views at a time.

    The pairs come in the order of i, then j.
    """
    stream = iter(views)
    pool = deque(islice(stream, max_gap + 1) if max_gap else stream)
    while pool:
        view0 = pool.popleft()
        for view1 in pool:
            yield Candidate(view0, view1, judge(view0, view1))
        pool.extend(islice(stream, 1))


def windows(views: Iterable[V], judge: Judge[V], *, heads: int, tails: int) -> Iterator[Candidate[V]]:
    """Try each of the first `heads` views of a group with each of its `tails`; keep the smallest of each group."""
    stream = iter(views)
    while group := list(islice(stream, heads + tails)):
        pairs = ((view0, view1) for view0 in group[:heads] for view1 in group[heads:])
        yield from smallest(Candidate(view0, view1, judge(view0, view1)) for view0, view1 in pairs)


def listed(views: Iterable[V], judge: Judge[V], *, pairs: Sequence[tuple[str, str]]) -> Iterator[Candidate[V]]:
    """Try the pairs that are named, in their order. A view is held from its arrival to its last pair.

    `views` must hold every frame that is named.
    """
    stream, held = iter(views), dict[str, V]()
    uses = Counter(concatenate.from_iterable(pairs))
    for pair in pairs:
        while not all(frame in held for frame in pair):
            view = next(stream)
            if uses[view.frame]:
                held[view.frame] = view
        view0, view1 = held[pair[0]], held[pair[1]]
        yield Candidate(view0, view1, judge(view0, view1))
        uses.subtract(pair)
        for frame in set(pair):
            if not uses[frame]:
                del held[frame]


def smallest(candidates: Iterable[Candidate[V]]) -> Iterator[Candidate[V]]:
    """Keep of all accepted candidates the one with the smallest overlap, the first of equals; drop the others."""
    best: Candidate[V] | None = None
    for candidate in candidates:
        if not isinstance(candidate.outcome, Overlap):
            yield candidate
        elif best is None:
            best = candidate
        else:
            assert isinstance(best.outcome, Overlap)
            better = candidate.outcome.ratio < best.outcome.ratio
            loser = best if better else candidate
            best = candidate if better else best
            yield replace(loser, outcome=DropReason.NOT_SELECTED)
    if best is not None:
        yield best
