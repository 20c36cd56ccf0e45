"""Stand-in: habitat_sim.Simulator and its configurations."""

import enum
import json
import os
from typing import ClassVar

import numpy as np

from habitat_sim import _note
from habitat_sim.agent import Agent
from habitat_sim.nav import OLD, NavMeshSettings, PathFinder
from habitat_sim.room import Room
from habitat_sim.types import Fields


class SensorType(enum.Enum):
    """Those that are used."""

    COLOR = 1
    DEPTH = 2


class CameraSensorSpec(Fields):
    """A pinhole camera."""

    DEFAULTS: ClassVar[dict[str, object]] = {
        "uuid": "",
        "sensor_type": SensorType.COLOR,
        "resolution": [84, 84],
        "position": [0.0, 1.5, 0.0],
        "orientation": [0.0, 0.0, 0.0],
        "hfov": 90.0,
        "near": 0.01,
        "far": 1000.0,
    }
    VECTORS: ClassVar[tuple[str, ...]] = ("position", "orientation")


class SimulatorConfiguration(Fields):
    """Those fields that matter here."""

    DEFAULTS: ClassVar[dict[str, object]] = {
        "scene_id": "",
        "scene_dataset_config_file": "default",
        "gpu_device_id": 0,
        "random_seed": 0,
        "enable_physics": False,
        "allow_sliding": True,
        "frustum_culling": True,
        "load_semantic_mesh": True,
    }


class Configuration:
    """sim_cfg and agents."""

    def __init__(self, sim_cfg, agents):
        self.sim_cfg, self.agents = sim_cfg, agents

    def __eq__(self, other):
        return vars(self) == vars(other)

    __hash__ = None


#: Stage configurations are kept by name, whatever happens to their files.
_STAGES = {}


class Simulator:
    """One at a time in a process: a second one ends it, as two graphics contexts can."""

    _open = 0

    def __init__(self, config):
        devices = int(os.environ.get("STAND_IN_CUDA_DEVICES", "0"))
        device = config.sim_cfg.gpu_device_id
        _note(f"open gpu {device}")
        if device >= devices:
            text = f"unable to find CUDA device {device} among 1 EGL devices in total"
            os.write(2, f"Platform::WindowlessEglApplication::tryCreateContext(): {text}\n".encode())
            os.write(2, b"WindowlessContext: Unable to create windowless context\n")
            os.abort()
        if Simulator._open:
            os.write(2, b"GL::Context: another context is current\n")
            os.abort()
        Simulator._open += 1
        self._closed = False
        self.config = None
        try:
            self._configure(config)
        except BaseException:
            self.close()
            raise

    def reconfigure(self, config):
        _note("reconfigure")
        if config != self.config:
            self._configure(config)

    def _configure(self, config):
        self.config = config
        settings = config.sim_cfg
        if settings.scene_dataset_config_file != "default":
            _note(f"data set {os.path.basename(settings.scene_dataset_config_file)}")
        asset, frame, navmesh = stage_of(settings.scene_id)
        self.room = Room.read(asset, *frame)
        self.pathfinder = PathFinder()
        if settings.scene_dataset_config_file != "default":
            with open(settings.scene_dataset_config_file, encoding="utf-8") as file:
                navmesh = json.load(file).get("navmesh", navmesh)
        if os.path.exists(navmesh):
            self.pathfinder.load_nav_mesh(navmesh)
        elif OLD:
            self.recompute_navmesh(self.pathfinder, NavMeshSettings())
        self.agents = [Agent(agent) for agent in config.agents]

    def recompute_navmesh(self, *arguments):
        """(pathfinder, settings), up to v0.2.4 also include_static_objects=False."""
        if len(arguments) > (3 if OLD else 2):
            raise TypeError("recompute_navmesh(): incompatible function arguments")
        finder, settings = arguments[:2]
        numbers = [settings.cell_size, settings.agent_height, settings.agent_radius, settings.agent_max_climb]
        _note("recompute_navmesh " + " ".join(f"{number:g}" for number in numbers))
        return finder.build(self.room, settings)

    def get_agent(self, agent_id):
        return self.agents[agent_id]

    def get_sensor_observations(self, agent_ids=0):
        agent = self.agents[agent_ids]
        seen = {}
        for sensor in agent.configuration.sensor_specifications:
            if np.any(sensor.position) or np.any(sensor.orientation):
                raise NotImplementedError("sensors with an offset")
            color, depth = self.room.draw(agent.pose(), sensor.resolution, sensor.hfov, sensor.near, sensor.far)
            seen[sensor.uuid] = color if sensor.sensor_type is SensorType.COLOR else depth
        _note("render")
        return seen

    def close(self, destroy=True):
        if not self._closed:
            _note("close")
            self._closed = True
            Simulator._open -= 1

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def stage_of(scene_id):
    """(asset, (up, front), navmesh) of a path: a stage configuration, or an asset, which one beside it may describe."""
    if not scene_id.endswith(".stage_config.json"):
        beside = os.path.splitext(scene_id)[0] + ".stage_config.json"
        if os.path.exists(beside):
            return stage_of(beside)
        z_up = scene_id.endswith(".glb")
        frame = ([0, 0, 1], [0, 1, 0]) if z_up else ([0, 1, 0], [0, 0, -1])
        return scene_id, frame, os.path.splitext(scene_id)[0] + ".navmesh"
    if scene_id not in _STAGES:
        with open(scene_id, encoding="utf-8") as file:
            _STAGES[scene_id] = json.load(file)
    stage = _STAGES[scene_id]
    folder = os.path.dirname(scene_id)
    navmesh = os.path.join(folder, stage["nav_asset"]) if "nav_asset" in stage else ""
    return os.path.join(folder, stage["render_asset"]), (stage["up"], stage["front"]), navmesh
