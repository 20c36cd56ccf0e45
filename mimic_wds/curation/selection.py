"""Selection policies: which pairs of a scene's views are tried, and which of the accepted ones are kept.

A policy turns views and a judge into candidates, each with its one outcome. It knows nothing of images: any kind of
view will do, and `judge(view0, view1)` says what becomes of a pair.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from mimic_wds.pairs import AllPairs, Chain, DropReason, Overlap, Policy

V = TypeVar("V")
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
    if isinstance(policy, Chain):
        return chain(views, judge, retry=policy.retry)
    assert isinstance(policy, AllPairs)
    candidates = all_pairs(views, judge, max_gap=policy.max_gap)
    return smallest(candidates) if policy.keep == "smallest" else candidates


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
    """Try every pair (i, j), i < j; with max_gap > 0 only those with j - i <= max_gap."""
    pool = list(views)
    for i, view0 in enumerate(pool):
        stop = i + max_gap + 1 if max_gap else len(pool)
        for view1 in pool[i + 1 : stop]:
            yield Candidate(view0, view1, judge(view0, view1))


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
