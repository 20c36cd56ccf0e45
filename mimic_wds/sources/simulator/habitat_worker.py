"""Drives habitat-sim for `habitat.py`, as a process of its own: habitat-sim's packages want a Python of their own.

One file that needs nothing of this package: Python 3.9 or later, numpy and habitat_sim (v0.2.4 to v0.3.4; API as in
https://aihabitat.org/docs/habitat-sim). It is run as ``PYTHON habitat_worker.py`` and talks over its standard input and
output until the input ends. Where habitat_sim can be imported, `Session` is used without a process.

A message is 4 magic bytes, the header's length (uint32), the payload's length (uint64, both little endian), a JSON
header, and the bytes of arrays, whose [dtype, shape] are in the header's "arrays". Requests have a "command" and its
arguments; the first is "hello" with the protocol's version and the settings of `Session`. Replies have a "result", or
an "error" with its "kind" (scene = of the scene, missing = habitat_sim is, code = anything else) and "message".

Points are 3 numbers x, y, z and poses 4 x 4, camera to world with OpenGL's axes: metres, y up.
"""

from __future__ import annotations

import json
import os
import platform
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Sequence
from typing import IO, Any

if __name__ == "__main__":
    # The modules beside this file are part of a package: they must not answer to "import base".
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != os.path.dirname(os.path.abspath(__file__))]

import numpy as np

#: Both sides must have the same.
PROTOCOL = 1

MAGIC = b"\x89hab"
HEAD = struct.Struct("<4sIQ")

#: Bytes: what is longer is no message of ours.
MAX_HEADER, MAX_PAYLOAD = 2**20, 2**31

#: What a session can be asked.
COMMANDS = ("load", "random_point", "island_radius", "snap", "step", "render", "close")

#: Metres: the largest pieces that a step is taken in (the length of habitat-sim's own, `ActuationSpec(amount=0.25)`),
#: and the smallest, which is how far from a wall it may stop.
PIECE_M, LEAST_M = 0.25, 0.01


class ProtocolError(Exception):
    """What arrived is no message."""


class SceneFault(Exception):
    """A scene that cannot be used; the next one may be."""


def send(stream: IO[bytes], header: dict[str, Any], arrays: Iterable[np.ndarray] = ()) -> None:
    """Write a message."""
    parts = [np.ascontiguousarray(array) for array in arrays]
    text = json.dumps({**header, "arrays": [[part.dtype.str, list(part.shape)] for part in parts]}).encode()
    stream.write(HEAD.pack(MAGIC, len(text), sum(part.nbytes for part in parts)) + text)
    for part in parts:
        stream.write(part.data)
    stream.flush()


def parse_head(data: bytes) -> tuple[int, int]:
    """Lengths in bytes of the header and of the payload that follow. Raises ProtocolError."""
    magic, header, payload = HEAD.unpack(data)
    if magic != MAGIC or header > MAX_HEADER or payload > MAX_PAYLOAD:
        raise ProtocolError(f"unexpected bytes {data!r}")
    return header, payload


def parse_body(header: bytes, payload: bytearray) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The header and the arrays, which share the memory of `payload`. Raises ProtocolError."""
    try:
        fields = json.loads(header)
        arrays, offset = [], 0
        for dtype, shape in fields.pop("arrays"):
            count = int(np.prod(shape, dtype=np.int64))
            arrays.append(np.frombuffer(payload, dtype, count, offset).reshape(shape))
            offset += arrays[-1].nbytes
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"malformed message: {error}") from None
    return fields, arrays


def receive(stream: IO[bytes]) -> dict[str, Any] | None:
    """The header of the next request, None at the end of the stream."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    header, payload = parse_head(head)
    return parse_body(stream.read(header), bytearray(stream.read(payload)))[0]


class Session:
    """One simulator, kept from scene to scene: opening it takes seconds. Not for more than one thread.

    Raises ImportError when habitat_sim is missing.
    """

    def __init__(
        self,
        *,
        size: Sequence[int],  # (height, width)
        hfov_deg: float,
        depth: bool,
        gpu: int | None,  # None = the first EGL device, which may be the CPU
        body: dict[str, float],  # height_m, radius_m, climb_m, slope_deg
        sliding: bool = False,  # see `step`
    ) -> None:
        # Read when habitat_sim is imported.
        os.environ.setdefault("MAGNUM_LOG", "quiet")
        os.environ.setdefault("HABITAT_SIM_LOG", "quiet")
        import habitat_sim

        self._api: Any = habitat_sim
        self._size, self._hfov_deg, self._depth = [int(side) for side in size], float(hfov_deg), depth
        self._gpu = -1 if gpu is None else int(gpu)
        self._body = body
        self._sliding = sliding
        self._sim: Any = None

    def versions(self) -> dict[str, Any]:
        """The answer to "hello"."""
        habitat_sim = str(getattr(self._api, "__version__", "unknown"))
        return {"protocol": PROTOCOL, "habitat_sim": habitat_sim, "python": platform.python_version()}

    def handle(self, command: str, arguments: dict[str, Any]) -> tuple[Any, list[np.ndarray]]:
        """Do what a request asks: its result, and the arrays of a picture."""
        if command not in COMMANDS:
            raise ValueError("unknown command {!r}; known: {}".format(command, ", ".join(COMMANDS)))
        result = getattr(self, command)(**arguments)
        return (None, result) if command == "render" else (result, [])

    def load(self, scene: dict[str, Any]) -> None:
        """Open a scene, a `SceneFile` as a dict. Raises SceneFault when it is not there, broken, or has no floor."""
        for key in ("path", "navmesh", "stage_config"):
            if scene[key] and not os.path.isfile(scene[key]):
                raise SceneFault(f"{scene[key]}: no such file")
        with tempfile.TemporaryDirectory(prefix="mimic-wds-") as folder:
            self._open(scene, stage(scene, folder))
        self._find_floor(scene)

    def random_point(self, seed: int) -> list[float] | None:
        """A point of the floor, the same for the same seed on the same machine: `rand()` of the C library draws it."""
        self._floor.seed(seed % 2**32)
        return numbers(self._floor.get_random_navigable_point())

    def island_radius(self, point: Sequence[float]) -> float:
        """Radius of the floor that `point` is nearest to; 0 when none is near."""
        return float(self._floor.island_radius(vector(point)))

    def snap(self, point: Sequence[float]) -> list[float] | None:
        """The nearest point of the floor, None when none is near."""
        return numbers(self._floor.snap_point(vector(point)))

    def step(self, start: Sequence[float], end: Sequence[float]) -> list[float] | None:
        """Where one gets to that walks from `start` straight towards `end`, and stops where the floor does.

        PathFinder's own step does not move at all when the floor nearest to its end is another island, behind a wall
        say. Pieces of it do, smaller and smaller ones up to the wall. With sliding it is one step of PathFinder's,
        which slides along walls, as habitat-sim's agents do by default (`SimulatorConfiguration.allow_sliding`).
        """
        here, there = vector(start), vector(end)
        if self._sliding:
            return numbers(self._floor.try_step(here, there))
        ahead = (there - here) * np.array([1, 0, 1], np.float32)
        left = float(np.linalg.norm(ahead))
        ahead /= max(left, 1e-9)
        piece = PIECE_M
        while piece >= LEAST_M and left > 1e-4:
            asked = min(piece, left)
            before, here = here, vector(self._floor.try_step_no_sliding(here, here + np.float32(asked) * ahead))
            moved = float(np.linalg.norm((here - before)[[0, 2]]))
            left -= moved
            if moved < 0.5 * asked:
                piece /= 2
        return numbers(here)

    def render(self, pose: Sequence[Sequence[float]]) -> list[np.ndarray]:
        """(H, W, 3) uint8 RGB, and with `depth` (H, W) float32 metres along the optical axis, 0 = nothing there."""
        assert self._sim is not None, "load a scene first"
        camera = np.array(pose, np.float64)
        position = camera[:3, 3].astype(np.float32)
        state = self._api.AgentState(position=position, rotation=quaternion(camera[:3, :3]))
        # The sensors have no offset, so the agent's pose is that of the camera.
        self._sim.get_agent(0).set_state(state, reset_sensors=True, infer_sensor_states=True)
        seen = self._sim.get_sensor_observations()
        pictures = [np.ascontiguousarray(seen["color"][..., :3])]
        if self._depth:
            pictures.append(np.array(seen["depth"], np.float32))
        return pictures

    def close(self) -> None:
        """Close the simulator, as has to be done before another one is opened in the same process."""
        if self._sim is not None:
            self._sim.close()
            self._sim = None

    def _open(self, scene: dict[str, Any], scene_id: str) -> None:
        """Make `scene_id` the simulator's scene. After an error the next scene gets a new simulator."""
        configuration = self._configuration(scene, scene_id)
        try:
            if self._sim is None:
                self._sim = self._api.Simulator(configuration)
            else:
                self._sim.reconfigure(configuration)
        except (RuntimeError, ValueError, OSError) as error:
            self.close()
            raise SceneFault("{}: habitat-sim cannot load it: {}".format(scene["name"], error)) from None
        except BaseException:
            self.close()
            raise

    def _configuration(self, scene: dict[str, Any], scene_id: str) -> Any:
        settings = self._api.SimulatorConfiguration()
        settings.scene_id = scene_id
        if scene["stage_config"]:
            settings.scene_dataset_config_file = scene["stage_config"]
        settings.gpu_device_id = self._gpu
        settings.enable_physics = False
        settings.load_semantic_mesh = False
        settings.allow_sliding = self._sliding
        kinds = {"color": self._api.SensorType.COLOR}
        if self._depth:
            kinds["depth"] = self._api.SensorType.DEPTH
        agent = self._api.agent.AgentConfiguration()
        agent.height = self._body["height_m"]
        agent.radius = self._body["radius_m"]
        agent.sensor_specifications = [self._sensor(name, kind) for name, kind in kinds.items()]
        return self._api.Configuration(settings, [agent])

    def _sensor(self, name: str, kind: Any) -> Any:
        """A pinhole camera at the agent's own place: the defaults are 1.5 m above it."""
        sensor = self._api.CameraSensorSpec()
        sensor.uuid, sensor.sensor_type = name, kind
        sensor.resolution = self._size
        sensor.hfov = self._hfov_deg
        # Floats: whole numbers raise TypeError.
        sensor.position = [0.0, 0.0, 0.0]
        sensor.orientation = [0.0, 0.0, 0.0]
        return sensor

    def _find_floor(self, scene: dict[str, Any]) -> None:
        """The mesh that is named, else the one that the data set's configuration names, else a new one."""
        finder = self._sim.pathfinder
        if scene["navmesh"]:
            if not finder.load_nav_mesh(scene["navmesh"]):
                raise SceneFault("{}: habitat-sim cannot read this navigation mesh".format(scene["navmesh"]))
        elif not (scene["stage_config"] and finder.is_loaded) and not self._new_floor():
            raise SceneFault("{}: nowhere to walk: no navigation mesh can be made".format(scene["name"]))
        # Asking an empty PathFinder for a point ends the process.
        if not finder.is_loaded or not finder.navigable_area > 0:
            raise SceneFault("{}: nowhere to walk: its navigation mesh is empty".format(scene["name"]))

    def _new_floor(self) -> bool:
        """Make a navigation mesh for the body; False when there is none."""
        settings = self._api.NavMeshSettings()
        settings.set_defaults()
        settings.agent_height, settings.agent_radius = self._body["height_m"], self._body["radius_m"]
        settings.agent_max_climb, settings.agent_max_slope = self._body["climb_m"], self._body["slope_deg"]
        # Up to v0.2.4 there is a third argument, later a field of the settings: left alone, both leave objects out.
        return bool(self._sim.recompute_navmesh(self._sim.pathfinder, settings))

    @property
    def _floor(self) -> Any:
        assert self._sim is not None, "load a scene first"
        return self._sim.pathfinder


def vector(point: Any) -> np.ndarray:
    """(3,) float32 of a list of numbers, a `magnum.Vector3`, or what older versions return."""
    return np.array([point[0], point[1], point[2]], np.float32)


def numbers(point: Any) -> list[float] | None:
    """A point for a reply; None for the not-a-number that stands for none."""
    place = [float(value) for value in vector(point)]
    return place if np.isfinite(place).all() else None


def stage(scene: dict[str, Any], folder: str) -> str:
    """What habitat-sim is to open: the file itself where its defaults suit, else a stage configuration in `folder`.

    Bare .glb files have z up and y in front for habitat-sim, all others y up, unless a configuration beside them says
    otherwise (docs, "Using JSON files to configure attributes"). With a data set's configuration that one says it.
    """
    path = os.path.realpath(scene["path"])
    stem, suffix = os.path.splitext(path)
    bare = suffix.lower() == ".glb" and scene["up"] == "z" and not os.path.exists(stem + ".stage_config.json")
    if scene["stage_config"] or bare:
        return path
    up, front = ([0, 1, 0], [0, 0, -1]) if scene["up"] == "y" else ([0, 0, 1], [0, 1, 0])
    # A name that no other scene has: habitat-sim keeps configurations by name. Assets are looked for from its folder.
    written = os.path.join(os.path.realpath(folder), os.path.basename(stem) + ".stage_config.json")
    with open(written, "w", encoding="utf-8") as file:
        json.dump({"render_asset": os.path.relpath(path, os.path.dirname(written)), "up": up, "front": front}, file)
    return written


def quaternion(rotation: np.ndarray) -> list[float]:
    """A rotation matrix (3, 3) as x, y, z, w of unit length. Raises ValueError when it is none."""
    r = rotation
    if not np.allclose(r @ r.T, np.eye(3), atol=1e-4) or np.linalg.det(r) < 0:
        raise ValueError(f"a camera's pose must be a rotation and a translation, got {r.tolist()}")
    # 4 q q^T of the quaternion q; its longest row is q but for its length.
    a, b, c = r[0, 1] + r[1, 0], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1]
    x, y, z = r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]
    outer = np.array([[0, a, b, x], [a, 0, c, y], [b, c, 0, z], [x, y, z, 0]], np.float64)
    signs = np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]])
    outer[range(4), range(4)] = 1 + signs @ np.diag(r)
    q = outer[np.argmax(np.diag(outer))]
    return [float(value) for value in q / np.linalg.norm(q)]


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer requests until they end."""
    session = None
    try:
        while True:
            request = receive(requests)
            if request is None:
                return
            try:
                if session is None:
                    session, result = hello(**request)
                    reply: tuple[dict[str, Any], list[np.ndarray]] = {"result": result}, []
                else:
                    result, arrays = session.handle(request.pop("command"), request)
                    reply = {"result": result}, arrays
            except Exception as error:
                reply = {"error": describe(error)}, []
            send(replies, *reply)
    finally:
        if session is not None:
            session.close()


def hello(command: str, protocol: int, settings: dict[str, Any]) -> tuple[Session | None, dict[str, Any]]:
    """The session that the first request asks for, and the answer; no session when it is of another protocol."""
    if command != "hello":
        raise ValueError(f"the first command must be 'hello', got {command!r}")
    if protocol != PROTOCOL:
        return None, {"protocol": PROTOCOL}
    session = Session(**settings)
    return session, session.versions()


def describe(error: Exception) -> dict[str, str]:
    """An exception, as a reply has it."""
    if isinstance(error, SceneFault):
        return {"kind": "scene", "message": str(error)}
    if isinstance(error, ImportError):
        return {"kind": "missing", "message": str(error)}
    return {"kind": "code", "message": "".join(traceback.format_exception(type(error), error, error.__traceback__))}


def end_with_parent(parent: int) -> None:
    """End this process when its parent has: a fork of the parent may hold our input open."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    """Serve standard input and output. Whatever else writes to the output, libraries in C included, goes to stderr."""
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    with os.fdopen(os.dup(0), "rb") as requests, os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        try:
            serve(requests, replies)
        except BrokenPipeError:
            os._exit(1)


if __name__ == "__main__":
    main()
