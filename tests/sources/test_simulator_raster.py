"""The rasteriser against a ray caster, against geometry worked out by hand, and against itself."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from mimic_wds.sources.simulator.mipmaps import build, mip_chain
from mimic_wds.sources.simulator.raster import (
    Camera,
    Mesh,
    Renderer,
    cell_boxes,
    in_sight,
    members,
    pose,
    sort_in_cells,
)

pytest.importorskip("numba", reason="rendering needs numba: pip install 'mimic-wds[sim]'")

SIZE = (48, 64)


def triangle_soup(rng: np.random.Generator, num: int, spread_m: float) -> Mesh:
    """Triangles all round the origin, some of them behind it and some through its plane z = 0."""
    centres = rng.uniform(-spread_m, spread_m, (num, 1, 3))
    vertices = (centres + rng.uniform(-1.5, 1.5, (num, 3, 3))).reshape(-1, 3).astype(np.float32)
    return Mesh(
        vertices=vertices,
        triangles=np.arange(3 * num, dtype=np.int32).reshape(-1, 3),
        uv=rng.uniform(0, 1, (3 * num, 2)).astype(np.float32),
        texture_ids=np.zeros(num, np.int32),
        textures=(np.full((4, 4, 3), 128, np.uint8),),
    )


def plane(corner, right, down, texture: np.ndarray, repeats: float = 1.0) -> Mesh:
    """One textured rectangle: its top left corner and its two edges."""
    corner, right, down = (np.array(v, float) for v in (corner, right, down))
    vertices = np.array([corner, corner + right, corner + right + down, corner + down], np.float32)
    return Mesh(
        vertices=vertices,
        triangles=np.array([[0, 2, 1], [0, 3, 2]], np.int32),
        uv=np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * np.float32(repeats),
        texture_ids=np.zeros(2, np.int32),
        textures=(texture,),
    )


def checkerboard(squares: int, square_px: int) -> np.ndarray:
    dark = np.indices((squares, squares)).sum(axis=0) % 2
    return np.repeat(np.kron(dark, np.ones((square_px, square_px)))[..., None] * 255, 3, axis=2).astype(np.uint8)


def smooth_noise(seed: int, side: int = 256) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    blurred = cv2.GaussianBlur(noise, (0, 0), 4, borderType=cv2.BORDER_WRAP).astype(float)
    return np.clip((blurred - 128) * 6 + 128, 0, 255).astype(np.uint8)


def pixel_rays(camera: Camera) -> np.ndarray:
    """World directions (H, W, 3) through the pixels' centres, one metre deep: from the pose alone."""
    height, width = camera.size
    focal = width / 2 / np.tan(np.radians(camera.hfov_deg / 2))
    x, y = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
    local = np.stack([x / focal, -y / focal, -np.ones_like(x)], axis=-1)
    return local @ camera.pose[:3, :3].T


def cast(mesh: Mesh, camera: Camera, near_m: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Nearest triangle and depth of every pixel, by intersecting every ray with every triangle (Cramer's rule)."""
    rays, origin = pixel_rays(camera), camera.pose[:3, 3]
    best = np.full(camera.size, np.inf)
    ids = np.full(camera.size, -1)
    for n, corners in enumerate(mesh.vertices[mesh.triangles].astype(float)):
        edge1, edge2, back = corners[1] - corners[0], corners[2] - corners[0], origin - corners[0]
        p = np.cross(rays, edge2)
        determinant = p @ edge1
        with np.errstate(divide="ignore", invalid="ignore"):
            a = (p @ back) / determinant
            b = (rays @ np.cross(back, edge1)) / determinant
            t = (np.cross(back, edge1) @ edge2) / determinant
        hit = (a >= 0) & (b >= 0) & (a + b <= 1) & (t >= near_m) & (t < best)
        best[hit], ids[hit] = t[hit], n
    return ids, np.where(np.isfinite(best), best, 0)


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_a_ray_caster(seed):
    rng = np.random.default_rng(seed)
    mesh = triangle_soup(rng, *[(40, 1.0), (200, 3.0)][seed % 2])
    camera = Camera(pose(rng.uniform(-0.5, 0.5, 3), *rng.uniform(-180, 180, 3)), rng.uniform(40, 110), SIZE)
    ids, depth = Renderer(mesh).visibility(camera)
    want_ids, want_depth = cast(mesh, camera)
    same = ids == want_ids
    assert (want_ids >= 0).mean() > 0.2
    assert same.mean() >= 0.995
    hit = same & (ids >= 0)
    np.testing.assert_allclose(depth[hit], want_depth[hit], rtol=1e-3, atol=1e-4)
    assert (depth[ids < 0] == 0).all()


def test_depth_of_a_tilted_plane_is_the_analytic_one():
    camera = Camera(pose((0.3, 1.5, -0.2), 25, -10, 4), 75, SIZE)
    wall = plane((-50, 50, -4), (100, 0, 0), (0, -100, 0), checkerboard(4, 8))
    depth = Renderer(wall).render(camera)[1]
    want = (-4 - camera.pose[2, 3]) / pixel_rays(camera)[..., 2]  # depth is along the optical axis: rays are 1 m deep
    np.testing.assert_allclose(depth, want, rtol=1e-5)


def test_a_floor_that_passes_under_the_camera_fills_the_lower_half():
    floor = plane((-500, 0, -500), (1000, 0, 0), (0, 0, 1000), checkerboard(2, 4))
    camera = Camera(pose((0, 1.5, 0)), 90, SIZE)
    depth = Renderer(floor).render(camera)[1]
    down = -pixel_rays(camera)[..., 1]
    want = np.where(down > 1.5 / 500, 1.5 / np.maximum(down, 1e-9), 0)
    np.testing.assert_allclose(depth, want, rtol=1e-4)
    assert (depth[24:] > 0).all()
    assert (depth[:24] == 0).all()


@pytest.mark.parametrize(("distance_m", "seen"), [(0.0099, False), (0.0101, True)])
def test_the_near_plane_is_at_one_centimetre(distance_m, seen):
    wall = plane((-1, 1, -distance_m), (2, 0, 0), (0, -2, 0), checkerboard(2, 4))
    depth = Renderer(wall).render(Camera(pose((0, 0, 0)), 75, SIZE))[1]
    assert ((depth > 0) == seen).all()


def test_what_is_behind_the_camera_is_not_drawn():
    wall = plane((-1, 1, 2), (2, 0, 0), (0, -2, 0), checkerboard(2, 4))
    colours, depth = Renderer(wall).render(Camera(pose((0, 0, 0)), 75, SIZE))
    assert not depth.any()
    assert not colours.any()


@pytest.mark.parametrize(
    ("angles", "forward", "right"),
    [
        ((0, 0, 0), (0, 0, -1), (1, 0, 0)),
        ((90, 0, 0), (-1, 0, 0), (0, 0, -1)),
        ((0, 90, 0), (0, 1, 0), (1, 0, 0)),
        ((0, 0, 90), (0, 0, -1), (0, 1, 0)),
    ],
)
def test_pose_angles(angles, forward, right):
    matrix = pose((1, 2, 3), *angles)
    np.testing.assert_allclose(-matrix[:3, 2], forward, atol=1e-12)
    np.testing.assert_allclose(matrix[:3, 0], right, atol=1e-12)
    np.testing.assert_array_equal(matrix[:3, 3], (1, 2, 3))


def test_turning_left_moves_the_picture_right():
    dot = plane((-0.05, 0.05, -2), (0.1, 0, 0), (0, -0.1, 0), np.full((4, 4, 3), 255, np.uint8))
    renderer = Renderer(dot)

    def column(yaw_deg: float) -> float:
        hit = renderer.render(Camera(pose((0, 0, 0), yaw_deg), 75, SIZE))[1] > 0
        return float(np.nonzero(hit)[1].mean())

    focal = Camera(pose((0, 0, 0)), 75, SIZE).focal
    assert column(0) == pytest.approx(31.5, abs=0.3)
    assert column(10) == pytest.approx(31.5 + focal * np.tan(np.radians(10)), abs=0.6)


def test_a_checkerboard_is_sampled_at_the_right_places():
    board = plane((-1, 1, -2), (2, 0, 0), (0, -2, 0), checkerboard(8, 32))
    camera = Camera(pose((0, 0, 0)), 60, (200, 240))
    colours, depth = Renderer(board).render(camera)
    rows, columns = np.divmod(np.arange(64), 8)
    centres = np.stack([-1 + (columns + 0.5) / 4, 1 - (rows + 0.5) / 4, np.full(64, -2.0)], axis=1)
    rays = camera.to_rays(centres)
    x, y = np.rint(rays[:, :2] / rays[:, 2:]).astype(int).T
    np.testing.assert_array_equal(colours[y, x, 0], 255 * ((rows + columns) % 2))
    left = camera.to_rays(np.array([[-1.0, 0.0, -2.0]]))[0]
    assert (depth[100] > 0).argmax() == np.ceil(left[0] / left[2])  # the first pixel centre right of the board's edge


def test_colours_of_a_magnified_texture_are_bilinear():
    texture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    wall = plane((-1, 1, -1), (2, 0, 0), (0, -2, 0), texture, repeats=1)
    camera = Camera(pose((0, 0, 0)), 60, (96, 96))
    colours = Renderer(wall).render(camera)[0]
    rays = pixel_rays(camera)
    x, y = (rays[..., 0] + 1) / 2 * 8 - 0.5, (1 - rays[..., 1]) / 2 * 8 - 0.5  # texel coordinates, whole = centres
    want = cv2.remap(texture, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    assert np.abs(colours.astype(int) - want).max() <= 4  # OpenCV interpolates in steps of 1/32


def test_a_far_checkerboard_is_grey():
    board = plane((-200, 200, -40), (400, 0, 0), (0, -400, 0), checkerboard(8, 16), repeats=400)
    colours = Renderer(board).render(Camera(pose((0, 0, 0), 20, 10), 75, SIZE))[0]
    assert np.abs(colours.astype(float) - 127.5).max() <= 3


def test_a_grazing_floor_neither_flickers_nor_blurs():
    floor = plane((-20, 0, -40), (40, 0, 0), (0, 0, 45), smooth_noise(1), repeats=20)
    renderer, camera = Renderer(floor), Camera(pose((0, 0.5, 0), 15), 75, SIZE)
    colours = renderer.render(camera)[0].astype(float)
    height, width = SIZE
    fine = renderer.render(Camera(camera.pose, 75, (12 * height, 12 * width)))[0]
    want = fine.reshape(height, 12, width, 12, 3).mean(axis=(1, 3))
    rows = slice(height // 2 + 1, None)  # below the horizon
    assert cv2.PSNR(colours[rows], want[rows]) > 30


def test_supersampling_smooths_edges_and_keeps_depth():
    mesh, camera = triangle_soup(np.random.default_rng(3), 40, 2.0), Camera(pose((0, 0, 0)), 75, SIZE)
    renderer = Renderer(mesh)
    plain, depth = renderer.render(camera)
    smooth, smooth_depth = renderer.render(camera, supersample=True)
    np.testing.assert_array_equal(depth, smooth_depth)
    fine = renderer.render(camera.twice())[0].astype(float)
    want = fine.reshape(48, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(smooth - want).max() <= 0.5
    assert set(np.unique(plain)) == {0, 128}
    assert set(np.unique(smooth)) >= {0, 32, 64, 96, 128}


def test_two_views_of_a_wall_are_related_by_its_homography():
    wall = plane((-8, 6, -3), (16, 0, 0), (0, -12, 0), smooth_noise(2), repeats=4)
    cameras = [Camera(pose((0, 0, 0), 8, -4), 75, (240, 320)), Camera(pose((0.5, 0.2, -0.6), -9, 5, 6), 75, (240, 320))]
    views = [Renderer(wall).render(camera, supersample=True)[0] for camera in cameras]

    def wall_to_picture(camera: Camera) -> np.ndarray:
        """(3, 3): takes (x, y, 1) on the wall z = -3 to the picture; built from the pose alone."""
        focal = 160 / np.tan(np.radians(37.5))
        K = np.array([[focal, 0, 159.5], [0, focal, 119.5], [0, 0, 1]])
        world_to_camera = np.diag((1, -1, -1)) @ camera.pose[:3, :3].T
        onto_wall = np.array([[1, 0, 0], [0, 1, 0], [0, 0, -3.0]]) - np.outer(camera.pose[:3, 3], (0, 0, 1))
        return K @ world_to_camera @ onto_wall

    H_0to1 = wall_to_picture(cameras[1]) @ np.linalg.inv(wall_to_picture(cameras[0]))
    warped = cv2.warpPerspective(views[0], H_0to1, (320, 240), flags=cv2.INTER_CUBIC)
    seen = cv2.warpPerspective(np.full((240, 320), 255, np.uint8), H_0to1, (320, 240)) == 255
    seen = cv2.erode(seen.astype(np.uint8), np.ones((5, 5))).astype(bool)
    assert seen.mean() > 0.4
    error = np.mean((warped[seen].astype(float) - views[1][seen]) ** 2)
    assert 10 * np.log10(255**2 / error) > 30


def test_shared_edges_leave_no_gap():
    rng = np.random.default_rng(5)
    xs, ys = np.meshgrid(np.linspace(-3, 3, 12), np.linspace(-3, 3, 12))
    vertices = np.stack([xs, ys, rng.uniform(-2.5, -1.5, xs.shape)], axis=-1).reshape(-1, 3).astype(np.float32)
    first = (np.arange(11)[:, None] * 12 + np.arange(11)).reshape(-1, 1)
    triangles = np.concatenate([first + np.array([0, 1, 13]), first + np.array([0, 13, 12])]).astype(np.int32)
    mesh = Mesh(vertices, triangles, vertices[:, :2], np.zeros(len(triangles), np.int32), (checkerboard(2, 4),))
    assert (Renderer(mesh).render(Camera(pose((0, 0, 0), 3, 2), 75, (240, 320)))[1] > 0).all()


def test_the_same_picture_every_time_and_from_threads():
    mesh, camera = triangle_soup(np.random.default_rng(7), 200, 3.0), Camera(pose((0, 0, 0), 40), 90, SIZE)
    renderer = Renderer(mesh)
    colours, depth = renderer.render(camera)
    with ThreadPoolExecutor(2) as pool:
        others = [*pool.map(lambda _: renderer.render(camera), range(4)), Renderer(mesh).render(camera)]
    for other_colours, other_depth in others:
        np.testing.assert_array_equal(colours, other_colours)
        np.testing.assert_array_equal(depth, other_depth)


def test_culling_never_drops_a_visible_triangle():
    rng = np.random.default_rng(11)
    mesh = triangle_soup(rng, 300, 6.0)
    order, starts = sort_in_cells(mesh)
    assert sorted(order) == list(range(300))
    boxes = cell_boxes(mesh.vertices[mesh.triangles[order]], starts)
    camera = Camera(pose((0, 0, 0), 70, 10), 60, SIZE)
    drawn = set(order[members(starts, np.flatnonzero(in_sight(boxes, camera)))])
    assert set(np.unique(cast(mesh, camera)[0])) - {-1} <= drawn
    assert len(drawn) < 200


def test_mip_levels_are_means():
    texture = np.random.default_rng(0).integers(0, 256, (16, 4, 3), dtype=np.uint8)
    levels = mip_chain(texture)
    assert [level.shape[:2] for level in levels] == [(16, 4), (8, 2), (4, 1), (2, 1), (1, 1)]
    np.testing.assert_allclose(levels[1], texture.reshape(8, 2, 2, 2, 3).mean(axis=(1, 3)), atol=0.5)
    np.testing.assert_allclose(levels[-1][0, 0], texture.mean(axis=(0, 1)), atol=0.5)


def test_textures_lie_one_after_the_other():
    textures = [np.full((4, 8, 3), 10, np.uint8), np.full((3, 5, 3), 20, np.uint8)]
    mips = build(textures)
    np.testing.assert_array_equal(mips.sizes, [[8, 4], [4, 4]])  # 5 x 3 is resampled to 4 x 4
    assert mips.offsets.tolist() == [[0, 96, 120, 126], [129, 177, 189, 189]]
    assert len(mips.texels) == 129 + 3 * (16 + 4 + 1)
    assert (mips.texels[:129] == 10).all()
    assert (mips.texels[129:] == 20).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uv": np.zeros((3, 2), np.float32)}, "uv has shape"),
        ({"triangles": np.array([[0, 1, 4], [0, 1, 2]], np.int32)}, "triangles must be 0..3, got 0..4"),
        ({"texture_ids": np.array([0, 1], np.int32)}, "texture_ids must be 0..0"),
    ],
)
def test_a_mesh_that_does_not_fit_together_is_refused(change, message):
    good = plane((0, 0, -1), (1, 0, 0), (0, -1, 0), checkerboard(2, 4))
    parts = {name: getattr(good, name) for name in Mesh.__slots__} | change
    with pytest.raises(ValueError, match=message):
        Mesh(**parts)


def test_textures_of_the_wrong_kind_are_refused():
    with pytest.raises(ValueError, match="texture 0 is float64 with shape"):
        build([np.zeros((4, 4, 3))])
    with pytest.raises(ValueError, match="at least one texture"):
        build([])


@pytest.mark.parametrize("bad", [{"hfov_deg": 180.0}, {"size": (0, 10)}])
def test_impossible_cameras_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Camera(**{"pose": np.eye(4), "hfov_deg": 75.0, "size": SIZE} | bad)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_numba_is_only_imported_by_what_renders():
    code = "import sys; from mimic_wds.sources.simulator import film, house, walk; print('numba' in sys.modules)"
    assert run_python(code).stdout.strip() == "False"


def test_a_missing_numba_is_reported_with_the_command():
    code = """if True:
        import sys
        sys.modules["numba"] = None  # as if it were not installed
        import numpy as np
        from mimic_wds.sources.simulator.raster import Mesh, Renderer
        ids = np.zeros((1, 3), np.int32)
        Renderer(Mesh(np.zeros((1, 3)), ids, np.zeros((1, 2)), ids[0, :1], (np.zeros((1, 1, 3), np.uint8),)))
    """
    assert "ImportError: rendering needs the package numba; install it with: pip install 'mimic-wds[sim]'" in (
        run_python(code).stderr
    )


def test_compiles_also_where_the_machine_code_cannot_be_kept():
    from mimic_wds.sources.simulator.kernels import compiled

    names: dict = {}
    exec("def add_one(x):\n    return x + 1\n", names)  # it has no file, so numba knows no place for its cache
    assert compiled(names["add_one"])(2) == 3
