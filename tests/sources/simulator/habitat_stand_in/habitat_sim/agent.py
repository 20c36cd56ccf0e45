"""Stand-in: habitat_sim.agent."""

import numpy as np

from habitat_sim.types import check_state


class AgentConfiguration:
    """Plain Python there, too."""

    def __init__(self):
        self.height, self.radius = 1.5, 0.1
        self.sensor_specifications = []

    def __eq__(self, other):
        return vars(self) == vars(other)

    __hash__ = None


class AgentState:
    """position: 3 floats; rotation: a quaternion, here its x, y, z, w."""

    def __init__(self, position=None, rotation=None):
        self.position = np.zeros(3) if position is None else position
        self.rotation = [0.0, 0.0, 0.0, 1.0] if rotation is None else rotation
        check_state(self.position, self.rotation)


class Agent:
    """Holds the state."""

    def __init__(self, configuration):
        self.configuration = configuration
        self._state = AgentState()

    def set_state(self, state, reset_sensors=True, infer_sensor_states=True, is_initial=False):
        check_state(state.position, state.rotation)
        self._state = state

    def get_state(self):
        return self._state

    def pose(self):
        """(4, 4) float64, camera to world, of a sensor without offset."""
        x, y, z, w = (float(value) for value in self._state.rotation)
        to_world = np.eye(4)
        to_world[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        to_world[:3, 3] = np.asarray(self._state.position, np.float64)
        return to_world
