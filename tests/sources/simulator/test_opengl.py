"""What OpenGL draws against formulas and the numba rasteriser; contexts, threads, forks, and memory given back."""

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from drawn_meshes import BACKENDS, SIZE, cameras, needs_opengl, psnr, room, smooth_texture, solid, wall
from hypothesis import given
from hypothesis import strategies as st

from mimic_wds.sources.simulator import opengl
from mimic_wds.sources.simulator.opengl import GLRenderer, SharedContext, by_texture_and_cell, runs
from mimic_wds.sources.simulator.raster import Camera, Mesh, pose
from mimic_wds.sources.simulator.raster import Renderer as NumbaRenderer
from mimic_wds.sources.simulator.renderers import make_renderer

TILTED = Camera(pose((0.2, -0.1, 0.3), 25, 12, -8), 80, SIZE)


@pytest.fixture
def draw():
    """Makes renderers that are closed in the end."""
    made = []

    def make(mesh, **options):
        made.append(GLRenderer(mesh, **options))
        return made[-1]

    yield make
    for renderer in made:
        renderer.close()


def on_wall(camera, depth_m=2.0):
    """Where the rays of all pixels meet the plane z = -depth_m: points (H, W, 3), and their depths (H, W)."""
    rows, columns = np.indices(camera.size)
    rays = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ np.linalg.inv(camera.intrinsics).T
    directions = (rays * (1, -1, -1)) @ camera.pose[:3, :3].T
    depth = (-depth_m - camera.pose[2, 3]) / directions[..., 2]
    return camera.pose[:3, 3] + depth[..., None] * directions, depth


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_pixel_shows_the_point_that_the_intrinsics_say(backend):
    """Red grows to the right, green upwards; half a pixel would shift the means by a quarter of a grey."""
    colors = np.array([(0, 255, 0), (255, 255, 0), (255, 0, 0), (0, 0, 0)], np.uint8)
    renderer = make_renderer(wall(half_m=6.0, textures=(solid(255),), colors=colors), backend=backend)
    colour, depth = renderer.render(TILTED)
    renderer.close()
    points, expected = on_wall(TILTED)
    assert (depth > 0).all()
    assert np.abs(depth / expected - 1).max() < 1e-6
    assert np.ptp(expected) > 1.0  # the wall is seen at an angle
    for channel, greys in ((0, 255 * (points[..., 0] + 6) / 12), (1, 255 * (points[..., 1] + 6) / 12)):
        off = colour[..., channel] - greys
        assert np.abs(off).max() < 0.75
        assert abs(off.mean()) < 0.05
    rows, columns = np.gradient(colour[..., 1].astype(float)), np.gradient(colour[..., 0].astype(float))
    assert abs(rows[0].mean()) > 0.25  # of green, from row to row
    assert abs(columns[1].mean()) > 0.25


def chequered(squares=16, texels=8):
    return np.kron(np.indices((squares, squares)).sum(axis=0) % 2, np.ones((texels, texels)))[..., None].repeat(3, -1)


@needs_opengl
@pytest.mark.parametrize(
    ("texture", "turns", "near", "least_db"),
    [
        pytest.param(None, 1.0, 0.98, 48, id="smooth"),
        pytest.param((255 * chequered()).astype(np.uint8), 1.0, 0.92, 43, id="chequered"),
        pytest.param((255 * chequered()).astype(np.uint8), 3.3, 0.84, 40, id="chequered-repeated"),
    ],
)
def test_with_one_probe_the_rasteriser_filters_as_opengl_does(draw, texture, turns, near, least_db):
    """Both trilinear, by the longer side of a pixel's footprint; drivers have 8 bits for a place between texels."""
    mesh = room()
    mesh = replace(mesh, uv=turns * mesh.uv - 1.7, textures=mesh.textures if texture is None else 6 * (texture,))
    gl, numba = draw(mesh), NumbaRenderer(mesh)
    for camera in cameras():
        (colour, depth), (other, other_depth) = gl.render(camera), numba.render(camera, max_probes=1)
        assert np.mean(np.abs(colour.astype(int) - other).max(axis=-1) <= 2) >= near
        assert psnr(colour, other) > least_db
        assert np.mean(np.abs(depth / other_depth - 1) < 2e-6) > 0.999  # the others lie on the edges of the box


@needs_opengl
def test_real_scans_are_filtered_alike(draw, shared_data):
    from mimic_wds.sources.simulator.base import SceneFile
    from mimic_wds.sources.simulator.scene_files import load_mesh

    for scene in ("living_room", "vr_gallery", "apartment"):
        mesh = load_mesh(SceneFile(path=str(shared_data / "scenes" / scene / f"{scene}.glb")))
        middle = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
        gl, numba = draw(mesh), NumbaRenderer(mesh)
        for yaw in (10, 190):
            camera = Camera(pose(middle, yaw), 90, (256, 256))
            (colour, depth), (other, other_depth) = gl.render(camera), numba.render(camera, max_probes=1)
            assert psnr(colour, other) > 38
            assert np.mean(np.abs(depth - other_depth) <= 1e-5 * np.maximum(1, other_depth)) > 0.999


@needs_opengl
def test_depth_is_as_good_far_from_the_origin(draw):
    """Two kilometres away vertices themselves are 0.1 mm apart; the way from the camera to them adds nothing."""
    offset = np.array([2000.0, 0.0, -1500.0])
    mesh = wall(half_m=6.0, textures=(solid(255),))
    far = replace(mesh, vertices=(mesh.vertices + offset).astype(np.float32))
    camera = replace(TILTED, pose=pose(np.float32(TILTED.pose[:3, 3] + offset), 25, 12, -8))
    shifted = replace(camera, pose=pose(camera.pose[:3, 3] - offset, 25, 12, -8))
    depth = draw(far).render(camera)[1]
    assert np.abs(depth / on_wall(shifted)[1] - 1).max() < 2e-6


@needs_opengl
def test_what_is_out_of_sight_is_not_missed(draw, monkeypatch):
    rng = np.random.default_rng(3)
    corners = rng.uniform(-12, 12, (2000, 1, 3)) + rng.uniform(-1, 1, (2000, 3, 3))
    mesh = Mesh(
        vertices=corners.reshape(-1, 3).astype(np.float32),
        triangles=np.arange(6000, dtype=np.int32).reshape(-1, 3),
        uv=rng.uniform(0, 1, (6000, 2)).astype(np.float32),
        texture_ids=rng.integers(0, 3, 2000).astype(np.int32),
        textures=tuple(smooth_texture(number) for number in range(3)),
    )
    renderer = draw(mesh)
    culled = [renderer.render(camera) for camera in cameras()]
    shares = []
    monkeypatch.setattr(opengl, "in_sight", lambda boxes, camera: shares.append(1) or np.ones(len(boxes), bool))
    for camera, (colour, depth) in zip(cameras(), culled, strict=True):
        everything = renderer.render(camera)
        np.testing.assert_array_equal(everything[0], colour)
        np.testing.assert_array_equal(everything[1], depth)
    assert shares


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.booleans()), max_size=30))
def test_runs_hold_the_visible_groups_and_no_others(groups):
    groups = sorted(groups, key=lambda group: group[0])
    textures = np.array([g[0] for g in groups], np.int64)
    starts = np.concatenate([[0], np.cumsum([g[1] for g in groups])]).astype(np.int64)
    drawn = runs(textures, starts, np.array([g[2] for g in groups], bool))
    expected = [(g[0], t) for g, start in zip(groups, starts, strict=False) if g[2] for t in range(start, start + g[1])]
    assert [(texture, t) for texture, first, last in drawn for t in range(first, last)] == expected
    assert all(a[0] != b[0] or a[2] < b[1] for a, b in pairwise(drawn))  # and none could be joined


@needs_opengl
def test_many_materials_stay_apart(draw):
    """A wall of 20 x 20 tiles, each with a texture of its own."""
    number = 20
    rows, columns = np.divmod(np.arange(number**2), number)
    lefts, tops = columns / number * 4 - 2, 2 - rows / number * 4
    size = 4 / number
    corners = [[(x, y), (x + size, y), (x + size, y - size), (x, y - size)] for x, y in zip(lefts, tops, strict=True)]
    flat = np.array(corners).reshape(-1, 2)
    triangles = np.array([(0, 3, 2), (0, 2, 1)]) + 4 * np.arange(number**2)[:, None, None]
    shades = np.random.default_rng(1).integers(0, 256, (number**2, 3)).astype(np.uint8)
    mesh = Mesh(
        vertices=np.column_stack([flat, np.full(len(flat), -2)]).astype(np.float32),
        triangles=triangles.reshape(-1, 3).astype(np.int32),
        uv=np.zeros((len(flat), 2), np.float32),
        texture_ids=np.repeat(np.arange(number**2), 2).astype(np.int32),
        textures=tuple(shade.reshape(1, 1, 3) for shade in shades),
    )
    camera = Camera(np.eye(4), 90, (200, 200))
    colour, _ = draw(mesh).render(camera)
    np.testing.assert_array_equal(colour[5::10, 5::10].reshape(-1, 3), shades)


@needs_opengl
def test_a_mesh_of_more_than_65536_vertices_is_whole(draw):
    number = 300
    x, z = np.meshgrid(np.linspace(-3, 3, number + 1), np.linspace(-5, -1, number + 1), indexing="ij")
    vertices = np.stack([x, -1 + 0.2 * np.sin(3 * x) * np.cos(2 * z), z], axis=-1).reshape(-1, 3).astype(np.float32)
    corner = (np.arange(number)[:, None] * (number + 1) + np.arange(number)).ravel()
    quads = corner[:, None] + np.array([0, 1, number + 2, number + 1])
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)
    nothing = np.zeros(len(triangles), np.int32)
    mesh = Mesh(vertices, triangles, np.zeros((len(vertices), 2), np.float32), nothing, (solid(255),))
    camera = Camera(pose((0, 0, 0), 5, -20), 80, SIZE)
    depth, expected = draw(mesh).render(camera)[1], NumbaRenderer(mesh).render(camera)[1]
    assert np.mean(depth > 0) > 0.4
    assert np.mean(np.abs(depth - expected) < 1e-4) > 0.995


@needs_opengl
def test_a_texture_beyond_the_drivers_limit_is_made_smaller(draw):
    with opengl.shared_context().turn() as gl:
        largest = int(gl.info["GL_MAX_TEXTURE_SIZE"])
    strip = np.linspace(0, 255, largest + 1000).astype(np.uint8)[None, :, None].repeat(3, -1)
    camera = Camera(np.eye(4), 90, SIZE)
    colour, depth = draw(wall(half_m=3.0, textures=(strip,))).render(camera)
    points, _ = on_wall(camera)
    inside = (depth > 0) & (np.abs(points[..., 0]) < 2.8)  # where it repeats, black meets white
    assert inside.mean() > 0.9
    assert np.abs(colour[..., 0] - 255 * (points[..., 0] + 3) / 6)[inside].max() < 2


@needs_opengl
def test_multisampling_and_anisotropy_draw_nearer_to_the_truth(draw):
    """The truth: 64 samples a pixel. Depth stays that of the pixel's centre."""
    floor = {"textures": ((255 * chequered()).astype(np.uint8),), "half_m": 2.0}
    camera = Camera(pose((0.3, -1.2, -1.95), 10, 60), 90, SIZE)  # along the wall, close to it
    plain, better = draw(wall(**floor)), draw(wall(**floor), samples=4, anisotropy=16.0)
    fine = Camera(camera.pose, camera.hfov_deg, (8 * SIZE[0], 8 * SIZE[1]))
    truth = plain.render(fine)[0].reshape(SIZE[0], 8, SIZE[1], 8, 3).mean(axis=(1, 3))
    (colour, depth), (smooth, same) = plain.render(camera), better.render(camera)
    assert 0.2 < np.mean(depth > 0) < 0.9
    np.testing.assert_array_equal(depth, same)
    assert psnr(smooth, truth) > psnr(colour, truth) + 1.5


@needs_opengl
def test_pictures_are_the_callers_own(draw):
    renderer, camera = draw(room()), next(cameras())
    colour, depth = renderer.render(camera)
    before = colour.copy(), depth.copy()
    renderer.render(Camera(np.eye(4), 60, SIZE))
    np.testing.assert_array_equal(colour, before[0])
    np.testing.assert_array_equal(depth, before[1])
    colour[:], depth[:] = 0, 0
    np.testing.assert_array_equal(renderer.render(camera)[0], before[0])


@needs_opengl
def test_renderers_on_two_contexts_draw_by_turns(draw, monkeypatch):
    """As of two graphics cards: calls go to the context that was made current last, so each has to make its own so."""
    camera = Camera(np.eye(4), 90, SIZE)
    red = draw(wall(textures=(solid((255, 0, 0)),)))
    second = SharedContext(0)
    monkeypatch.setattr(opengl, "shared_context", lambda device: second)
    blue = draw(wall(textures=(solid((0, 0, 255)),)))
    for _ in range(2):
        assert red.render(camera)[0][48, 64].tolist() == [255, 0, 0]
        assert blue.render(camera)[0][48, 64].tolist() == [0, 0, 255]


@needs_opengl
def test_the_first_device_is_device_0_and_there_is_no_device_1000():
    assert opengl.shared_context() is opengl.shared_context(0)
    with pytest.raises(opengl.NoContext, match="1000"):
        opengl.shared_context(1000)
    assert opengl.driver()  # the failed attempt broke nothing


@needs_opengl
def test_threads_take_turns(draw):
    renderers, views = [draw(room()), draw(wall(textures=(smooth_texture(4),)))], list(cameras(4))
    alone = [[renderer.render(camera) for camera in views] for renderer in renderers]
    with ThreadPoolExecutor(4) as pool:
        work = [(r, c) for _ in range(3) for r in range(2) for c in range(4)]
        found = list(pool.map(lambda job: renderers[job[0]].render(views[job[1]]), work))
    for (r, c), (colour, depth) in zip(work, found, strict=True):
        np.testing.assert_array_equal(colour, alone[r][c][0])
        np.testing.assert_array_equal(depth, alone[r][c][1])


def use_the_parents(renderer, queue):
    try:
        renderer.render(Camera(np.eye(4), 90, SIZE))
    except opengl.NoContext as error:
        queue.put(str(error))
    renderer.close()


@needs_opengl
def test_a_forked_child_leaves_its_parents_renderer_alone(draw):
    renderer, camera = draw(wall(textures=(solid(200),))), Camera(np.eye(4), 90, SIZE)
    before = renderer.render(camera)[0]
    method = multiprocessing.get_context("fork")
    queue = method.Queue()
    process = method.Process(target=use_the_parents, args=(renderer, queue))
    process.start()
    assert "make it in the process that draws" in queue.get(timeout=60)
    process.join(10)
    assert process.exitcode == 0
    np.testing.assert_array_equal(renderer.render(camera)[0], before)


def draw_in_worker(seed):
    renderer = GLRenderer(room())
    found = renderer.render(list(cameras())[seed])
    renderer.close()
    return os.getpid(), *found


@needs_opengl
def test_a_spawned_worker_draws_the_same(draw):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pid, colour, depth = pool.apply(draw_in_worker, (2,))
    assert pid != os.getpid()
    here = draw(room()).render(list(cameras())[2])
    np.testing.assert_array_equal(colour, here[0])
    np.testing.assert_array_equal(depth, here[1])


@needs_opengl
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_closing_gives_the_memory_back():
    """40 scenes with a texture of 21 MiB each: kept, they would be 850 MiB on the CPU's renderer."""

    def resident_mib():
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    mesh = wall(textures=(np.zeros((2048, 2048, 3), np.uint8),))
    start = resident_mib()
    for _ in range(40):
        renderer = GLRenderer(mesh)
        renderer.render(Camera(np.eye(4), 90, (256, 256)))
        renderer.close()
    assert resident_mib() - start < 300


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_a_mesh_without_triangles_nothing_is_seen(backend):
    empty = replace(wall(textures=(solid(9),)), triangles=np.empty((0, 3), np.int32), texture_ids=np.empty(0, np.int32))
    renderer = make_renderer(empty, backend=backend)
    colour, depth = renderer.render(Camera(np.eye(4), 90, SIZE))
    renderer.close()
    assert not colour.any()
    assert not depth.any()


def test_groups_hold_one_texture_and_one_cell():
    mesh = room()
    order, starts, textures = by_texture_and_cell(mesh)
    assert sorted(order) == list(range(len(mesh.triangles)))
    cells = np.floor(mesh.vertices[mesh.triangles].mean(axis=1) / opengl.CELL_M)
    kinds = set()
    for number, (first, last) in enumerate(pairwise(starts)):
        members = order[first:last]
        assert (mesh.texture_ids[members] == textures[number]).all()
        assert (cells[members] == cells[members[0]]).all()
        kinds.add((textures[number], *cells[members[0]]))
    assert len(kinds) == len(textures)
    assert (np.diff(textures) >= 0).all()


NAMES = """
from mimic_wds.sources.simulator import opengl
opengl.LIBGL = {names}
try:
    print(opengl.driver())
except opengl.NoContext as error:
    print("NoContext", error)
"""


@needs_opengl
def test_the_egl_library_alone_is_enough():
    """Where neither libGL nor libOpenGL is installed, EGL's own library gives the functions."""
    code = NAMES.format(names=("libNoSuchGL.so.9", "libNeitherGL.so.9", "libEGL.so.1"))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == opengl.driver()


def test_each_library_that_is_missing_is_named():
    code = NAMES.format(names=("libNoSuchGL.so.9", "libNeitherGL.so.9"))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("NoContext")
    if not result.stdout.startswith("NoContext the package moderngl") and "EGL" not in result.stdout:
        assert "libNoSuchGL.so.9" in result.stdout
        assert "libNeitherGL.so.9" in result.stdout
