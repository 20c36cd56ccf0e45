"""A stand-in for habitat-sim: the part of its Python API that habitat_worker.py uses, above analytic rooms.

It takes the place of habitat-sim where that cannot be installed, so that the worker and its protocol can be run for
real. It follows the documented names, types, defaults and errors (https://aihabitat.org/docs/habitat-sim), written from
the documentation. **It is not habitat-sim, and passing these tests is no evidence of how habitat-sim behaves.**

A scene file is JSON in the place of a mesh: {"room": [low, high], "wall": [x0, x1] or absent, "ceiling": true},
corners in the file's own axes; or a .glb file with that as the extras of a node. It is taken as z up when it is called
.glb, like habitat-sim does.

Environment variables of its own: STAND_IN_VERSION (default 0.3.3), STAND_IN_LOG (a file that gets a line for each
call), STAND_IN_NOISE (print to fd 1 everywhere), STAND_IN_CUDA_DEVICES (default 0).
"""

import os

__version__ = os.environ.get("STAND_IN_VERSION", "0.3.3")


def _note(text: str) -> None:
    """A line for the test that looks on, and noise such as graphics libraries make on the standard output."""
    if os.environ.get("STAND_IN_LOG"):
        with open(os.environ["STAND_IN_LOG"], "a", encoding="utf-8") as file:
            file.write(f"{text}\n")
    if os.environ.get("STAND_IN_NOISE"):
        os.write(1, b"PluginManager::Manager: duplicate static plugin\n")
        print("a line of Python's own")


_note(f"import {os.environ.get('MAGNUM_LOG')} {os.environ.get('HABITAT_SIM_LOG')}")

from habitat_sim import agent  # noqa: E402
from habitat_sim.agent import AgentState  # noqa: E402
from habitat_sim.nav import NavMeshSettings, PathFinder  # noqa: E402
from habitat_sim.simulator import (  # noqa: E402
    CameraSensorSpec,
    Configuration,
    SensorType,
    Simulator,
    SimulatorConfiguration,
)

__all__ = [
    "AgentState",
    "CameraSensorSpec",
    "Configuration",
    "NavMeshSettings",
    "PathFinder",
    "SensorType",
    "Simulator",
    "SimulatorConfiguration",
    "agent",
]
