"""OpenGL and the numba rasteriser draw the same pictures; what happens where there is no OpenGL."""

import logging
import multiprocessing
import subprocess
import sys
from dataclasses import replace

import numba
import numpy as np
import pytest
from drawn_meshes import BACKENDS, SIZE, cameras, needs_opengl, psnr, room, smooth_texture, wall

from mimic_wds.sources.simulator import opengl
from mimic_wds.sources.simulator.raster import Camera, pose
from mimic_wds.sources.simulator.raster import Renderer as NumbaRenderer
from mimic_wds.sources.simulator.renderers import _choose, choose, make_renderer, renderer_name


@needs_opengl
def test_both_draw_the_same_room():
    mesh = room()
    gl, numba = make_renderer(mesh, backend="opengl"), make_renderer(mesh, backend="numba")
    for camera in cameras():
        (colour, depth), (colour_n, depth_n) = gl.render(camera), numba.render(camera)
        off = np.abs(colour.astype(int) - colour_n.astype(int)).max(axis=-1)
        assert np.mean(off <= 2) > 0.9
        assert psnr(colour, colour_n) > 30
        same = np.abs(depth - depth_n) < 1e-4
        assert np.mean(same) > 0.995  # the others lie on the edge of the box
        assert depth.min() > 0
    gl.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wall_has_its_texture_and_depth_where_the_camera_says(backend):
    texture = np.zeros((2, 2, 3), np.uint8)
    texture[0, 0], texture[0, 1], texture[1, 0], texture[1, 1] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
    renderer = make_renderer(wall(textures=(texture,)), backend=backend)
    camera = Camera(np.eye(4), 90, SIZE)
    colour, depth = renderer.render(camera)
    renderer.close()
    x, y = (camera.to_rays(np.array([[-1.5, 1.5, -2.0]])) / 2.0)[0, :2]  # the corner top left
    inside = np.zeros(SIZE, bool)
    inside[int(np.ceil(y)) : SIZE[0] - int(np.ceil(y)), int(np.ceil(x)) : SIZE[1] - int(np.ceil(x))] = True
    assert depth[inside] == pytest.approx(2.0, rel=1e-6)
    assert not depth[~inside].any()
    assert not colour[~inside].any()
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):  # the middles of the four texels
        point = np.array([[-0.75 + 1.5 * right, 0.75 - 1.5 * down, -2.0]])
        column, row = np.rint((camera.to_rays(point) / 2.0)[0, :2]).astype(int)
        assert (
            np.abs(colour[row, column].astype(int) - texture[down, right]).max() <= 255 * 0.04
        )  # pixels lie up to half a pixel off


@pytest.mark.parametrize("backend", BACKENDS)
def test_backs_are_seen_unless_they_are_culled(backend):
    mesh = wall(textures=(smooth_texture(1),))
    behind = Camera(pose((0, 0, -4), 180), 90, SIZE)
    front = Camera(np.eye(4), 90, SIZE)
    for cull, seen in ((False, True), (True, False)):
        renderer = make_renderer(mesh, backend=backend, cull_backs=cull)
        assert renderer.render(behind)[1].any() == seen
        assert renderer.render(front)[1].any()
        renderer.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_colours_of_vertices_multiply_the_texture_in_perspective(backend):
    texture = np.full((1, 1, 3), (255, 128, 255), np.uint8)
    shades = np.array(
        [(0, 255, 255), (255, 255, 255), (255, 255, 255), (0, 255, 255)], np.uint8
    )  # red grows to the right
    mesh = wall(half_m=4.0, textures=(texture,), colors=shades)
    tilted = Camera(pose((0, 0, 0), 30), 60, SIZE)
    renderer = make_renderer(mesh, backend=backend)
    colour, depth = renderer.render(tilted)
    renderer.close()
    assert (colour[..., 1] == 128).all()
    row = SIZE[0] // 2
    columns = np.arange(0, SIZE[1], 16)
    rays = np.linalg.inv(tilted.intrinsics) @ np.stack([columns, np.full_like(columns, row), np.ones_like(columns)])
    points = tilted.pose[:3, :3] @ (rays * depth[row, columns] * [[1], [-1], [-1]])
    expected = 255 * (points[0] + 4) / 8
    assert colour[row, columns, 0] == pytest.approx(expected, abs=1.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_supersampling_averages_and_leaves_depth_alone(backend):
    mesh = room()
    plain, fine = make_renderer(mesh, backend=backend), make_renderer(mesh, backend=backend, supersample=True)
    for camera in cameras(2):
        (colour, depth), (smooth, same) = plain.render(camera), fine.render(camera)
        wide = plain.render(camera.twice())[0].astype(float)
        means = (wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]) / 4
        assert np.abs(smooth - means).max() <= 0.5
        assert np.array_equal(depth, same)
        assert colour.shape == smooth.shape
    plain.close()
    fine.close()


@needs_opengl
def test_two_renderers_draw_by_turns():
    red, blue = (
        make_renderer(wall(textures=(np.full((1, 1, 3), c, np.uint8),)), backend="opengl")
        for c in ((255, 0, 0), (0, 0, 255))
    )
    camera = Camera(np.eye(4), 90, SIZE)
    for _ in range(2):
        assert red.render(camera)[0][48, 64].tolist() == [255, 0, 0]
        assert blue.render(camera)[0][48, 64].tolist() == [0, 0, 255]
    red.close()
    red.close()
    assert blue.render(camera)[0][48, 64].tolist() == [0, 0, 255]
    blue.close()


def draw_once(queue):
    renderer = make_renderer(wall(textures=(np.full((1, 1, 3), 200, np.uint8),)))
    queue.put((type(renderer).__name__, int(renderer.render(Camera(np.eye(4), 90, SIZE))[0].max())))


@needs_opengl
def test_a_process_forked_from_one_that_draws_leaves_opengl_alone():
    """Mesa's threads are not there after a fork: the first picture would be waited for without end."""
    choose("auto")
    method = multiprocessing.get_context("fork")
    queue = method.Queue()
    process = method.Process(target=draw_once, args=(queue,))
    process.start()
    assert queue.get(timeout=60) == ("Renderer", 200)
    process.join(10)
    assert process.exitcode == 0


WITHOUT = """
import logging
logging.basicConfig(format="%(levelname)s %(message)s")
import numpy as np
from mimic_wds.sources.simulator import opengl
from mimic_wds.sources.simulator.raster import Mesh
from mimic_wds.sources.simulator.renderers import make_renderer
opengl.LIBEGL = "libNoSuchEGL.so.9"
opengl.LIBGL = ("libNoSuchGL.so.9",)
mesh = Mesh(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32), np.zeros((3, 2), np.float32),
            np.zeros(1, np.int32), (np.zeros((1, 1, 3), np.uint8),))
print(type(make_renderer(mesh)).__module__, type(make_renderer(mesh)).__module__)
try:
    make_renderer(mesh, backend="opengl")
except ValueError as error:
    print(error)
"""


def test_without_opengl_numba_draws_and_the_log_says_so_once():
    result = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    drawn, message = result.stdout.splitlines()
    assert drawn == " ".join(["mimic_wds.sources.simulator.raster"] * 2)
    assert message.startswith("no OpenGL here")
    assert "apt install libegl1 libgl1-mesa-dri" in message
    warnings = [line for line in result.stderr.splitlines() if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert "drawing with numba" in warnings[0]


WITH_NOTHING = """
import sys
sys.modules["moderngl"] = sys.modules["numba"] = None  # as if they were not installed
from mimic_wds.sources.simulator.renderers import choose
for backend in ("auto", "opengl"):
    try:
        choose(backend)
    except ValueError as error:
        print(error)
"""


def test_with_no_package_installed_the_message_has_the_command():
    result = subprocess.run([sys.executable, "-c", WITH_NOTHING], capture_output=True, text=True, check=True)
    auto, forced = result.stdout.splitlines()
    assert auto == "rendering needs packages: pip install 'mimic-wds[sim]'"
    assert "moderngl is missing; install it with: pip install 'mimic-wds[sim]'" in forced


@needs_opengl
def test_auto_is_opengl_and_says_what_draws(caplog):
    _choose.cache_clear()
    with caplog.at_level(logging.INFO):
        assert choose("auto") == "opengl"
    assert "drawing with OpenGL on" in caplog.text
    assert renderer_name("auto") == f"opengl {opengl.driver()}"
    assert renderer_name("numba") == f"numba {numba.__version__}"


def test_a_mesh_checks_what_it_is_given():
    good = wall(textures=(smooth_texture(0),))
    assert isinstance(make_renderer(good, backend="numba"), NumbaRenderer)
    for changes, message in (
        ({"colors": np.zeros((3, 3), np.uint8)}, "colors has shape"),
        ({"semantic_ids": np.array([0, 1], np.int32), "semantic_names": ("wall",)}, r"semantic_ids must be -1\.\.0"),
        ({"texture_ids": np.array([0, 1], np.int32)}, r"texture_ids must be 0\.\.0"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(good, **changes)


@needs_opengl
def test_real_scenes_agree(shared_data):
    """Depth to 1e-5, colours by PSNR: OpenGL filters like habitat-sim, numba along the longer axis of a pixel, too."""
    from mimic_wds.sources.simulator.base import SceneFile
    from mimic_wds.sources.simulator.scene_files import load_mesh

    for scene, least in (("living_room", 35), ("vr_gallery", 35), ("apartment", 28)):
        mesh = load_mesh(SceneFile(path=str(shared_data / "scenes" / scene / f"{scene}.glb")))
        middle = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
        renderers = [make_renderer(mesh, backend=b) for b in ("opengl", "numba")]
        for yaw in (10, 100, 190, 280):
            camera = Camera(pose(middle, yaw), 90, (256, 256))
            (colour, depth), (colour_n, depth_n) = (renderer.render(camera) for renderer in renderers)
            both = (depth > 0) & (depth_n > 0)
            assert np.mean((depth > 0) == (depth_n > 0)) > 0.9999
            assert np.quantile(np.abs(depth / np.where(both, depth_n, 1) - 1)[both], 0.99) < 1e-5
            assert psnr(colour, colour_n) > least
        renderers[0].close()
