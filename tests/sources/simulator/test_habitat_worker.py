"""The process that runs habitat-sim, with a stand-in for habitat_sim (see habitat_stand_in/habitat_sim/__init__.py).

The worker is run for real, as a process of its own; habitat-sim itself is not, so nothing here covers it.
"""

import ast
import gc
import importlib.util
import io
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from habitat_rooms import LENS, STAND_IN, WORKER, Interpreter, calls, gone, process, write
from hypothesis import given
from hypothesis import strategies as st

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator import habitat_worker
from mimic_wds.sources.simulator.base import SceneFile
from mimic_wds.sources.simulator.habitat import HabitatSimulator
from mimic_wds.sources.simulator.raster import pose


@pytest.fixture
def simulator(habitat_python: Interpreter) -> Iterator[HabitatSimulator]:
    held = HabitatSimulator(LENS, python=habitat_python())
    yield held
    held.close()


# The worker's file


def test_worker_is_one_file_for_python_3_9():
    tree = ast.parse(WORKER.read_text(), feature_version=(3, 9))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module).split(".")[0])
    assert found - sys.stdlib_module_names == {"numpy", "habitat_sim"}
    # Annotations of later Python are fine as long as they are not evaluated.
    assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)


def test_modules_beside_the_worker_are_not_imported_by_it(habitat_python, tmp_path):
    """The package's folder has a base.py, an agent.py, ...; the environment may have others of these names."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "habitat_sim.py").write_text("import sys\nraise ImportError('|'.join(sys.path))\n")
    with pytest.raises(ValueError, match="cannot be imported") as caught:
        HabitatSimulator(LENS, python=habitat_python(modules=modules))
    assert str(modules) in str(caught.value)
    assert str(WORKER.parent) not in str(caught.value).split("cannot be imported")[1]


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_quaternion_is_that_of_the_matrix(numbers):
    x, y, z, w = q = np.array(numbers) / np.linalg.norm(numbers)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + 2 * w * cross + 2 * cross @ cross
    found = np.array(habitat_worker.quaternion(rotation))
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-12)
    assert abs(found @ q) == pytest.approx(1, abs=1e-9)


def test_quaternion_of_a_turn_is_the_documented_one():
    """(0, sin a/2, 0, cos a/2); in front of the camera is then (-0.707, 0, -0.707)."""
    turned = pose(np.zeros(3), 45.0)
    np.testing.assert_allclose(turned[:3, :3] @ [0, 0, -1], [-np.sqrt(0.5), 0, -np.sqrt(0.5)], atol=1e-12)
    np.testing.assert_allclose(habitat_worker.quaternion(turned[:3, :3]), [0, 0.382683, 0, 0.923880], atol=1e-6)


@pytest.mark.parametrize("matrix", [np.diag([1.0, 1, -1]), 2 * np.eye(3)])
def test_quaternion_refuses_what_is_no_rotation(matrix):
    with pytest.raises(ValueError, match="must be a rotation"):
        habitat_worker.quaternion(matrix)


def test_message_comes_back_as_it_was():
    arrays = [np.arange(24, dtype=np.uint8).reshape(2, 4, 3), np.float32([[0.5, np.nan]]), np.zeros((0, 3))]
    stream = io.BytesIO()
    habitat_worker.send(stream, {"result": None, "text": "é"}, arrays)
    data = stream.getvalue()
    header, payload = habitat_worker.parse_head(data[: habitat_worker.HEAD.size])
    body = data[habitat_worker.HEAD.size :]
    assert len(body) == header + payload
    fields, found = habitat_worker.parse_body(body[:header], bytearray(body[header:]))
    assert fields == {"result": None, "text": "é"}
    for one, other in zip(arrays, found, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    with pytest.raises(habitat_worker.ProtocolError):
        habitat_worker.parse_head(b"I am another one")
    with pytest.raises(habitat_worker.ProtocolError):
        habitat_worker.parse_body(b'{"arrays": [["|u1", [9]]]}', bytearray(3))


# The process


def test_noise_on_the_output_does_no_harm(habitat_python, tmp_path):
    simulator = HabitatSimulator(LENS, python=habitat_python(STAND_IN_NOISE="1"))
    simulator.load(write(tmp_path))
    assert simulator.render(pose(np.array([0.0, 2.0, 0.0]), 0.0)).image.shape == (48, 64, 3)
    simulator.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [("abort", r"signal 6; it printed last:\nCORRADE_INTERNAL_ASSERT"), ("segfault", "signal 11; it printed nothing")],
)
def test_a_scene_that_ends_the_process_is_one_error(simulator, tmp_path, content, message):
    bad, good = write(tmp_path, content, "bad.glb"), write(tmp_path)
    with pytest.raises(SceneError, match=r"bad\.glb: habitat-sim's process was ended by " + message):
        simulator.load(bad)
    simulator.load(good)
    assert simulator.snap(np.zeros(3)) is not None


def test_worker_that_was_killed_is_started_again_by_load(simulator, tmp_path):
    scene = write(tmp_path)
    simulator.load(scene)
    point, first = simulator.random_point(3), process(simulator).pid
    os.kill(first, signal.SIGKILL)
    with pytest.raises(SceneError, match="ended by signal 9"):
        simulator.random_point(3)
    with pytest.raises(SceneError, match="load a scene to start it again"):
        simulator.random_point(3)
    simulator.load(scene)
    np.testing.assert_array_equal(simulator.random_point(3), point)
    assert process(simulator).pid != first


def test_gpu_numbers(habitat_python, tmp_path, habitat_log):
    """None is -1: habitat-sim ends the process when it is told of a CUDA device that there is not."""
    scene = write(tmp_path)
    for python, gpu in ((habitat_python(), None), (habitat_python(STAND_IN_CUDA_DEVICES="2"), 1)):
        simulator = HabitatSimulator(LENS, python=python, gpu=gpu)
        simulator.load(scene)
        simulator.close()
    assert calls(habitat_log, "open") == ["open gpu -1", "open gpu 1"]
    simulator = HabitatSimulator(LENS, python=habitat_python(), gpu=1)
    with pytest.raises(ValueError, match=r"no graphics device \(gpu_device_id 1\)") as caught:
        simulator.load(scene)
    assert not isinstance(caught.value, SceneError)
    assert "unable to find CUDA device 1 among 1 EGL devices" in str(caught.value)
    assert "libEGL_nvidia" in str(caught.value)
    simulator.close()


def test_slow_worker_is_given_up(habitat_python, tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(
        f"import sys, time; sys.path.insert(0, {str(WORKER.parent)!r})\n"
        "import habitat_worker as w\n"
        "w.Session.snap = lambda self, point: time.sleep(1000)\n"
        "w.main()\n"
    )
    simulator = HabitatSimulator(LENS, python=habitat_python(worker=f"'{script}'"), timeout_s=3)
    simulator.load(write(tmp_path))
    pid = process(simulator).pid
    with pytest.raises(SceneError, match="no answer to 'snap' within 3 s"):
        simulator.snap(np.zeros(3))
    assert gone(pid)
    simulator.close()


def test_bugs_are_told_with_their_place(simulator, tmp_path):
    simulator.load(write(tmp_path))
    with pytest.raises(RuntimeError, match=r"(?s)habitat_worker\.py failed:.*in quaternion.*must be a rotation"):
        simulator.render(np.diag([1.0, 1, -1, 1]))
    assert simulator.random_point(0) is not None


@pytest.mark.skipif(importlib.util.find_spec("habitat_sim") is not None, reason="habitat_sim is installed")
def test_missing_habitat_sim_gives_the_commands(tmp_path):
    commands = (
        r"conda create -n habitat python=3\.9.*habitat-sim headless -c conda-forge -c aihabitat.*--habitat-python"
    )
    with pytest.raises(ValueError, match=r"(?s)No module named 'habitat_sim'.*" + commands):
        HabitatSimulator(LENS, python=sys.executable)
    with pytest.raises(ValueError, match=r"(?s)not installed for this Python.*" + commands):
        HabitatSimulator(LENS)
    with pytest.raises(ValueError, match=r"(?s)absent: no such Python interpreter.*" + commands):
        HabitatSimulator(LENS, python=str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("program", "message"),
    [("/bin/echo", ""), ("/bin/false", "exited with 1")],
)
def test_programs_that_are_no_python(program, message):
    with pytest.raises(ValueError, match=f"{program}: cannot run habitat-sim: .*{message}"):
        HabitatSimulator(LENS, python=program)


def test_other_version_of_the_protocol_is_one_message(habitat_python, tmp_path):
    other = tmp_path / "habitat_worker.py"
    other.write_text(WORKER.read_text().replace("PROTOCOL = 1", "PROTOCOL = 7"))
    with pytest.raises(ValueError, match="speaks protocol 7, expected 1") as caught:
        HabitatSimulator(LENS, python=habitat_python(worker=f"'{other}'"))
    assert "Traceback" not in str(caught.value)


def test_collected_simulators_leave_no_process(habitat_python, tmp_path):
    simulator = HabitatSimulator(LENS, python=habitat_python())
    simulator.load(write(tmp_path))
    held = process(simulator)
    assert os.getsid(held.pid) != os.getsid(0), "Ctrl-C would reach the worker"
    del simulator
    gc.collect()
    assert held.returncode == 0


PARENT = """
import os, sys, time
from mimic_wds.sources.simulator.base import Lens
from mimic_wds.sources.simulator.habitat import HabitatSimulator
from mimic_wds.sources.simulator.habitat_units import in_metres
simulator = HabitatSimulator(Lens(), python=sys.argv[1])
child = os.fork() if sys.argv[2] == "fork" else -1
if child:
    print(simulator._link._worker._process.pid, child, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("fork", ["", "fork"])
def test_killed_parent_leaves_no_orphan(habitat_python, fork):
    """Also when a fork of it, which has the worker's input open, lives on."""
    command = [sys.executable, "-c", textwrap.dedent(PARENT), habitat_python(), fork]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker, child = (int(word) for word in parent.stdout.readline().split())
        assert Path(f"/proc/{worker}").exists()
        parent.kill()
        assert gone(worker)
        if fork:
            os.kill(child, signal.SIGKILL)


def _point_in_a_pool(python: str, scene: SceneFile, seed: int) -> list[float]:
    simulator = HabitatSimulator(LENS, python=python)
    simulator.load(scene)
    point = simulator.random_point(seed)
    simulator.close()
    assert point is not None
    return point.tolist()


def test_works_in_pools_of_processes(habitat_python, simulator, tmp_path):
    scene, python = write(tmp_path), habitat_python()
    simulator.load(scene)
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        futures = [pool.submit(_point_in_a_pool, python, scene, seed) for seed in range(3)]
        assert [f.result() for f in futures] == [simulator.random_point(seed).tolist() for seed in range(3)]


# The stand-in is as strict as habitat-sim's documentation


def stand_in(code: str) -> SimpleNamespace:
    """Run code with the stand-in."""
    environment = {**os.environ, "PYTHONPATH": str(STAND_IN)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    return SimpleNamespace(code=done.returncode, printed=done.stderr)


def test_stand_in_is_strict():
    crash = stand_in("import habitat_sim; habitat_sim.PathFinder().get_random_navigable_point()")
    assert crash.code == -signal.SIGSEGV
    whole = stand_in("import habitat_sim; habitat_sim.CameraSensorSpec().position = [0, 1.1, 0]")
    assert "TypeError" in whole.printed
    unknown = stand_in("import habitat_sim; habitat_sim.SimulatorConfiguration().gpu_device = 1")
    assert "AttributeError" in unknown.printed
    length = stand_in("import habitat_sim; habitat_sim.AgentState([0.0] * 3, [0.0, 0.0, 0.0, 1.1])")
    assert "not a unit quaternion" in length.printed
