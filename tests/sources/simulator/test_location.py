"""The walk of MIMIC on a bare floor whose pictures say only where they were taken."""

import itertools
from collections import Counter

import numpy as np
import pytest

from mimic_wds.sources.simulator.agent import Agent
from mimic_wds.sources.simulator.base import Picture
from mimic_wds.sources.simulator.location import EYE_M, Refused, Walk, locations

SCENE = "tests/floor.glb"


class BareFloor:
    """An analytic stand-in for a simulator: a square floor of `side` metres without walls, and blank pictures."""

    def __init__(self, side_m=20.0, radius_m=10.0, stuck=False):
        self.half_m, self.radius_m, self.stuck, self.seeds = side_m / 2, radius_m, stuck, []

    def random_point(self, seed):
        self.seeds.append(seed)
        x, z = np.random.default_rng(seed).uniform(-self.half_m, self.half_m, 2)
        return np.array([x, 0.25, z])

    def island_radius(self, point):
        return self.radius_m

    def step(self, start, end):
        return start if self.stuck else np.clip(end, -self.half_m, self.half_m)

    def render(self, pose):
        return Picture(image=np.zeros((4, 4, 3), np.uint8), depth=np.ones((4, 4), np.float32))


def rings(simulator, **options):
    """Of each location the agents of rings a, b and c."""
    found = list(locations(simulator, SCENE, Walk(**options)))
    assert all(len(seen) == 24 for seen in found)
    assert [s.name for s in found[0]] == [f"{ring}{i}" for ring, i in itertools.product("abc", range(8))]
    return [[[s.agent for s in seen[i : i + 8]] for i in (0, 8, 16)] for seen in found]


@pytest.mark.parametrize("rule", ["default", "paper"])
def test_rings_are_eight_turns_of_45_degrees_to_the_right(rule):
    for location in rings(BareFloor(), attempts=20, rule=rule):
        for ring in location:
            turned = [(ring[0].heading_deg - agent.heading_deg) % 360 for agent in ring]
            assert turned == pytest.approx([45 * i for i in range(8)])
            assert all(np.array_equal(agent.point, ring[0].point) for agent in ring)


@pytest.mark.parametrize("rule", ["default", "paper"])
def test_between_rings_a_multiple_of_60_degrees_and_half_a_metre_to_one(rule):
    turns, steps = Counter(), []
    for first, second, third in rings(BareFloor(1000), attempts=300, rule=rule):
        for which, before, after in (("ab", first[0], second[0]), ("bc", second[0], third[0])):
            turns[which, round(before.heading_deg - after.heading_deg) % 360] += 1
            steps.append(np.linalg.norm(after.point - before.point))
            ahead = np.radians(after.heading_deg)
            direction = (after.point - before.point) / steps[-1]
            assert direction == pytest.approx([-np.sin(ahead), 0, -np.cos(ahead)], abs=1e-6)
    assert {turn for which, turn in turns if which == "ab"} == {60, 120, 240, 300}
    assert {turn for which, turn in turns if which == "bc"} == {60, 120, 240, 300} | ({0} if rule == "paper" else set())
    assert 0.5 <= min(steps) < 0.51
    assert 0.99 < max(steps) <= 1.0


def repeats(location):
    """True if ring c looks along directions of ring a."""
    turned = (location[0][0].heading_deg - location[2][0].heading_deg) % 45
    return min(turned, 45 - turned) < 1e-6


def test_the_paper_repeats_ring_a_in_8_of_20_cases_and_the_default_never():
    share = np.mean([repeats(location) for location in rings(BareFloor(1000), attempts=2000, rule="paper")])
    assert share == pytest.approx(0.4, abs=0.04)
    assert not any(repeats(location) for location in rings(BareFloor(1000), attempts=300))


def test_the_paper_looks_the_same_way_first_from_one_height():
    found = rings(BareFloor(), attempts=50, rule="paper")
    assert {location[0][0].heading_deg for location in found} == {0.0}
    assert len({agent.eye_m for location in found for ring in location for agent in ring}) == 1


def test_the_default_draws_heading_and_height_for_each_location():
    found = rings(BareFloor(), attempts=400)
    heights = np.array([location[0][0].eye_m for location in found])
    headings = np.array([location[0][0].heading_deg for location in found])
    assert EYE_M[0] <= heights.min() < 1.22
    assert 1.78 < heights.max() <= EYE_M[1]
    assert np.histogram(headings, bins=4, range=(0, 360))[0].min() > 70
    assert all(len({a.eye_m for ring in location for a in ring}) == 1 for location in found)


def test_an_attempt_draws_the_same_whatever_was_before_it():
    many = rings(BareFloor(), attempts=10)
    few = rings(BareFloor(), attempts=4)
    assert [a[0][0].camera.tolist() for a in few] == [a[0][0].camera.tolist() for a in many[:4]]
    other = next(iter(locations(BareFloor(), "another scene", Walk())))
    assert not np.array_equal(other[0].agent.point, many[0][0][0].point)


def test_places_on_small_islands_are_refused_with_their_radius():
    found = list(locations(BareFloor(radius_m=4.5), SCENE, Walk(min_island_m=6.0, attempts=3)))
    assert found == [Refused("island_too_small", 4.5)] * 3


def test_where_no_step_is_possible_the_walk_goes_on():
    (location,) = rings(BareFloor(stuck=True), attempts=1)
    assert np.array_equal(location[0][0].point, location[2][0].point)


def test_pictures_are_rendered_attempt_by_attempt():
    floor = BareFloor()
    next(iter(locations(floor, SCENE, Walk(attempts=1000))))
    assert len(floor.seeds) == 1


@pytest.mark.parametrize(
    ("heading", "forward"), [(0, (0, 0, -1)), (45, (-(0.5**0.5), 0, -(0.5**0.5))), (90, (-1, 0, 0))]
)
def test_headings_turn_left(heading, forward):
    agent = Agent(point=np.array([1.0, 2.0, 3.0]), heading_deg=heading, eye_m=1.5)
    assert agent.camera[:3, :3] @ (0, 0, -1) == pytest.approx(forward, abs=1e-9)
    assert agent.camera[:3, 3].tolist() == [1, 3.5, 3]
