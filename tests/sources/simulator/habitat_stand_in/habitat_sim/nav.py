"""Stand-in: habitat_sim.nav. The floor of a room is one rectangle, or two with a wall between them."""

import json
import os
import random
import signal
from typing import ClassVar

import numpy as np

from habitat_sim import __version__, _note
from habitat_sim.types import Fields, Vector3, vector

OLD = tuple(int(part) for part in __version__.split(".")) < (0, 2, 5)

#: One stream for the whole process, as `rand()` is.
RANDOM = random.Random(0)

#: Half sides of the box in which the nearest polygon is looked for, in the scene's units.
BOX = np.array([2.0, 4.0, 2.0])


class NavMeshSettings(Fields):
    """With the defaults of the documentation."""

    DEFAULTS: ClassVar[dict[str, object]] = {
        "cell_size": 0.05,
        "cell_height": 0.2,
        "agent_height": 1.5,
        "agent_radius": 0.1,
        "agent_max_climb": 0.2,
        "agent_max_slope": 45.0,
        "edge_max_len": 12.0,
        **({} if OLD else {"include_static_objects": False}),
    }

    def set_defaults(self):
        self.__init__()


class PathFinder:
    """Islands are rectangles [x0, x1, z0, z1] at one height."""

    def __init__(self):
        self.islands, self.height = [], 0.0

    is_loaded = property(lambda self: bool(self.islands))
    navigable_area = property(lambda self: float(sum((b - a) * (d - c) for a, b, c, d in self._loaded())))

    def _loaded(self):
        if not self.islands:
            os.kill(os.getpid(), signal.SIGSEGV)  # as the real one does
        return self.islands

    def build(self, room, settings):
        """The floor of `room`, shrunk by the agent's radius; False when nobody fits in."""
        radius = settings.agent_radius
        low, high = room.low + radius, room.high - radius
        spans = [(low[0], high[0])]
        if room.wall is not None:
            spans = [(low[0], room.wall[0] - radius), (room.wall[1] + radius, high[0])]
        self.islands = [[a, b, low[2], high[2]] for a, b in spans if a < b and low[2] < high[2]]
        self.height = float(room.low[1])
        if room.high[1] - room.low[1] < settings.agent_height:
            self.islands = []
        return bool(self.islands)

    def load_nav_mesh(self, path):
        _note(f"load_nav_mesh {os.path.basename(path)}")
        try:
            with open(path, encoding="utf-8") as file:
                held = json.load(file)
        except ValueError:
            return False
        self.islands, self.height = held["islands"], held["height"]
        return True

    def seed(self, new_seed):
        if not 0 <= new_seed < 2**32:
            raise TypeError("incompatible function arguments: expected an unsigned int")
        RANDOM.seed(new_seed)

    def get_random_navigable_point(self, max_tries=10, island_index=-1):
        islands = self._loaded()
        if self.navigable_area <= 0:
            raise RuntimeError("NavMesh has no navigable area, this indicates an issue with the NavMesh")
        a, b, c, d = RANDOM.choices(islands, [(b - a) * (d - c) for a, b, c, d in islands])[0]
        return Vector3((RANDOM.uniform(a, b), self.height, RANDOM.uniform(c, d)))

    def _nearest(self, point):
        """The island nearest to a point within the box, and the nearest point of it; None = none."""
        best = None
        for a, b, c, d in self._loaded():
            there = np.array([np.clip(point[0], a, b), self.height, np.clip(point[2], c, d)])
            if (np.abs(there - point) <= BOX).all():
                far = float(np.linalg.norm(there - point))
                if best is None or far < best[0]:
                    best = far, (a, b, c, d), there
        return best

    def snap_point(self, point):
        found = self._nearest(vector(point))
        return Vector3((np.nan,) * 3 if found is None else found[2])

    def island_radius(self, pt):
        found = self._nearest(vector(pt))
        if found is None:
            return 0.0
        a, b, c, d = found[1]
        return float(np.hypot(b - a, d - c) / 2)

    def try_step(self, start, end):
        return self._move(start, end, slide=True)

    def try_step_no_sliding(self, start, end):
        return self._move(start, end, slide=False)

    def _move(self, start, end, slide):
        """Not at all when the island nearest to the end is another one."""
        here, there = self._nearest(vector(start)), self._nearest(vector(end))
        if here is None or there is None or here[1] != there[1]:
            return Vector3(vector(start))
        a, b, c, d = here[1]
        if slide:
            return Vector3((np.clip(end[0], a, b), self.height, np.clip(end[2], c, d)))
        begin, move = here[2], vector(end) - here[2]
        share = 1.0
        for axis, low, high in ((0, a, b), (2, c, d)):
            if move[axis]:
                limit = high if move[axis] > 0 else low
                share = min(share, (limit - begin[axis]) / move[axis])
        return Vector3((begin[0] + share * move[0], self.height, begin[2] + share * move[2]))
