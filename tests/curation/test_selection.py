"""Which pairs are tried and kept, on views that are numbers and a judge that is a table."""

from hypothesis import given
from hypothesis import strategies as st

from mimic_wds.curation.selection import select
from mimic_wds.pairs import AllPairs, Chain, DropReason, Listed, Overlap, Windows

SMALL, LARGE = DropReason.OVERLAP_TOO_SMALL, DropReason.OVERLAP_TOO_LARGE


def kept(ratio=0.6):
    return Overlap(ratio=ratio, corr_0to1=None, H_0to1=None, num_matches=0, num_inliers=0)


class Number(int):
    @property
    def frame(self):
        return str(int(self))


def run(policy, num_views, outcomes, default=SMALL):
    views = (Number(n) for n in range(num_views))
    tried = list(select(policy, views, lambda a, b: outcomes.get((a, b), default)))
    return [(c.view0, c.view1) for c in tried], [(c.view0, c.view1) for c in tried if c.kept], tried


def test_chain_tries_neighbours():
    tried, held, _ = run(Chain(retry=False), 4, {(1, 2): kept()})
    assert tried == [(0, 1), (1, 2), (2, 3)]
    assert held == [(1, 2)]


def test_chain_retries_with_the_next_but_one_when_views_are_too_alike():
    tried, held, _ = run(Chain(), 6, {(0, 1): LARGE, (0, 2): kept(), (2, 3): LARGE, (2, 4): SMALL})
    # A kept retry advances by two, a failed one by one.
    assert tried == [(0, 1), (0, 2), (2, 3), (2, 4), (3, 4), (4, 5)]
    assert held == [(0, 2)]


def test_chain_does_not_retry_when_views_are_too_different_or_at_the_end():
    assert run(Chain(), 3, {}, default=SMALL)[0] == [(0, 1), (1, 2)]
    assert run(Chain(), 3, {}, default=LARGE)[0] == [(0, 1), (0, 2), (1, 2)]
    assert run(Chain(), 1, {})[0] == []
    assert run(Chain(), 0, {})[0] == []


def test_chain_holds_three_views_at_most():
    alive, most = 0, 0

    class Held:
        def __init__(self):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    for _ in select(Chain(), (Held() for _ in range(50)), lambda a, b: LARGE):
        pass
    assert most <= 4  # three, and the one just being made


def test_all_pairs_and_the_gap():
    assert run(AllPairs(), 4, {})[0] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert run(AllPairs(max_gap=1), 4, {})[0] == [(0, 1), (1, 2), (2, 3)]


def test_smallest_keeps_one_and_says_why_not_the_others():
    outcomes = {(0, 1): kept(0.7), (0, 2): kept(0.55), (1, 2): kept(0.55), (2, 3): LARGE}
    _, held, tried = run(AllPairs(keep="smallest"), 4, outcomes)
    assert held == [(0, 2)]  # the first of equals
    reasons = {(c.view0, c.view1): c.outcome for c in tried if not c.kept}
    assert reasons[0, 1] is reasons[1, 2] is DropReason.NOT_SELECTED
    assert reasons[2, 3] is LARGE


@given(st.integers(0, 8), st.data())
def test_every_candidate_has_one_outcome(num_views, data):
    outcomes = {}

    def judge(a, b):
        assert (a, b) not in outcomes, "tried twice"
        outcomes[a, b] = data.draw(st.sampled_from([SMALL, LARGE, kept(0.6), kept(0.7)]))
        return outcomes[a, b]

    policy = data.draw(st.sampled_from([Chain(), Chain(retry=False), AllPairs(), AllPairs(keep="smallest")]))
    tried = list(select(policy, iter(range(num_views)), judge))
    assert sorted((c.view0, c.view1) for c in tried) == sorted(outcomes)


def test_a_gap_limits_both_the_pairs_and_the_views_that_are_held():
    assert run(AllPairs(max_gap=2), 4, {})[0] == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    assert run(AllPairs(max_gap=9), 3, {})[0] == run(AllPairs(), 3, {})[0]
    read = 0

    def views():
        nonlocal read
        for number in range(100):
            read += 1
            yield Number(number)

    for candidate in select(AllPairs(max_gap=3), views(), lambda a, b: SMALL):
        assert read <= candidate.view0 + 4


def test_windows_try_heads_with_tails_and_keep_the_smallest_of_each_group():
    outcomes = {(0, 3): kept(0.7), (1, 2): kept(0.6), (1, 4): kept(0.6), (5, 9): kept(0.55)}
    tried, held, candidates = run(Windows(heads=2, tails=3), 11, outcomes)
    assert sorted(tried) == [
        *((0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)),
        *((5, 7), (5, 8), (5, 9), (6, 7), (6, 8), (6, 9)),
    ]  # the last group has a head and no tail
    assert held == [(1, 2), (5, 9)]
    assert sum(c.outcome is DropReason.NOT_SELECTED for c in candidates) == 2


def test_listed_pairs_are_tried_in_their_order_whatever_the_order_of_the_views():
    pairs = (("3", "1"), ("0", "4"), ("1", "0"), ("2", "2"))
    assert run(Listed(pairs=pairs), 6, {})[0] == [(3, 1), (0, 4), (1, 0), (2, 2)]
