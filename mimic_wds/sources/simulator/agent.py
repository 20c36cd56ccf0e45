"""An agent on the floor of a scene: where it stands, which way it looks, and what it sees from there."""

from dataclasses import dataclass, replace

import numpy as np

from mimic_wds.sources.simulator.base import Picture, Point, Pose, Simulator
from mimic_wds.sources.simulator.raster import pose


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Agent:
    """Immutable: every move gives a new agent. Its heading is a turn to the left about y; at 0 it looks along -z."""

    point: Point  #: where its feet are
    heading_deg: float = 0.0
    eye_m: float = 1.5  #: height of its camera above its feet

    @property
    def camera(self) -> Pose:
        """Camera to world (4, 4), upright."""
        return pose(self.point + np.array([0, self.eye_m, 0]), self.heading_deg)

    def turned_right(self, angle_deg: float) -> "Agent":
        """The agent after a turn."""
        return replace(self, heading_deg=(self.heading_deg - angle_deg) % 360)

    def forward(self, simulator: Simulator, distance_m: float) -> "Agent":
        """The agent after a step along its heading, or as much of it as the floor allows."""
        angle = np.radians(self.heading_deg)
        ahead = np.array([-np.sin(angle), 0, -np.cos(angle)])
        return replace(self, point=simulator.step(self.point, self.point + distance_m * ahead))

    def look(self, simulator: Simulator) -> Picture:
        """What it sees."""
        return simulator.render(self.camera)
