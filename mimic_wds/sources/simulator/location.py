"""The walk of MIMIC through 3D scenes (arXiv 2306.15128, appendix C.1): views around three places near each other.

At a random place of the floor the agent looks in eight directions, 45 degrees apart (ring a). It turns to the right by
a multiple of 60 degrees, takes a step and looks round again (ring b), and once more (ring c). Each view of ring a is
then paired with the 16 others; of those pairs the one with the smallest accepted overlap is kept.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from mimic_wds.sources.simulator.agent import Agent
from mimic_wds.sources.simulator.base import Picture, Simulator

#: Views of a ring, and the turn between them.
RING, TURN_DEG = 8, 45

#: Turns to the right between two rings. The released code draws the second also from 0.
TURNS_DEG = (60, 120, 240, 300)

#: Metres: length of a step, and height of the camera above the floor.
STEP_M, EYE_M = (0.5, 1.0), (1.2, 1.8)

#: Metres: the default walk draws a step again that gets no farther than this, so many times.
SHORT_STEP_M, REDRAWS = 0.25, 8


#: How much of the released code's walk is kept.
Rule: TypeAlias = Literal["default", "paper"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """How locations are chosen."""

    #: "default": random first heading, height for every location, ring c never looks along ring a's directions, steps
    #: into walls are drawn again. "paper": as the released code does: the first heading is always the same, one height
    #: for the whole scene, ring c repeats ring a's directions in 8 of 20 cases, steps are taken as far as they go.
    rule: Rule = "default"
    attempts: int = 100  #: random places of a scene
    min_island_m: float = 1.5  #: radius that the floor around a place must have


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One view of a location."""

    name: str  #: "b3": the fourth of ring b
    agent: Agent
    picture: Picture


@dataclass(frozen=True, slots=True)
class Refused:
    """A random place that gives no location."""

    reason: str  #: "no_floor", "island_too_small"
    radius_m: float = 0.0  #: of its island


def locations(simulator: Simulator, scene: str, walk: Walk) -> Iterator[list[Seen] | Refused]:
    """The views of each attempt, rings a, b and c one after the other, or why it gives none.

    What an attempt draws depends on the scene's name and its own number only. Pictures are rendered when they are asked
    for, attempt by attempt.
    """
    eye_m = float(generator(scene, -1).uniform(*EYE_M))
    for attempt in range(walk.attempts):
        rng = generator(scene, attempt)
        start = simulator.random_point(int(rng.integers(2**31)))
        if start is None:
            yield Refused("no_floor")
            continue
        radius_m = simulator.island_radius(start)
        if radius_m < walk.min_island_m:
            yield Refused("island_too_small", radius_m)
            continue
        agent = Agent(point=start, eye_m=eye_m)
        if walk.rule == "default":
            agent = Agent(point=start, eye_m=float(rng.uniform(*EYE_M)), heading_deg=float(rng.uniform(0, 360)))
        stops = places(simulator, agent, walk.rule, rng)
        yield [seen for ring, stop in zip("abc", stops, strict=True) for seen in look_round(simulator, stop, ring)]


def generator(scene: str, attempt: int) -> np.random.Generator:
    """The random numbers of one attempt; -1 = those of the scene."""
    digest = hashlib.sha256(scene.encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng([int.from_bytes(digest[:8], "little"), attempt + 1])


def places(simulator: Simulator, agent: Agent, rule: Rule, rng: np.random.Generator) -> tuple[Agent, Agent, Agent]:
    """Where the agent stands, and which way it looks first, for the three rings."""
    second = _stride(simulator, agent, TURNS_DEG, rule, rng)
    if rule == "paper":
        return agent, second, _stride(simulator, second, (0, *TURNS_DEG), rule, rng)
    turned = round(agent.heading_deg - second.heading_deg) % 360
    other = tuple(t for t in TURNS_DEG if (turned + t) % TURN_DEG)
    return agent, second, _stride(simulator, second, other, rule, rng)


def _stride(
    simulator: Simulator,
    agent: Agent,
    turns: tuple[int, ...],
    rule: Rule,
    rng: np.random.Generator,
) -> Agent:
    """The agent after a random turn and a random step; by default one that gets somewhere, if there is any."""
    for _ in range(REDRAWS):
        moved = agent.turned_right(int(rng.choice(turns))).forward(simulator, float(rng.uniform(*STEP_M)))
        if rule == "paper" or np.linalg.norm(moved.point - agent.point) > SHORT_STEP_M:
            break
    return moved


def look_round(simulator: Simulator, agent: Agent, ring: str) -> Iterator[Seen]:
    """The eight views of a ring, the first along the agent's heading, the others to the right of it."""
    for number in range(RING):
        turned = agent.turned_right(TURN_DEG * number)
        yield Seen(f"{ring}{number}", turned, turned.look(simulator))
