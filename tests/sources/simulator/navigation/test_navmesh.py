"""Navigation meshes: read from bytes written by the layout, walked on, without their roofs."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator.navigation import rooms
from simulator.navigation.navmesh_files import both, grid, write

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import Body, SceneFile
from mimic_wds.sources.simulator.navigation.base import make_floor
from mimic_wds.sources.simulator.navigation.navmesh import parse
from mimic_wds.sources.simulator.navigation.polygons import PolygonFloor

#: Six corners: 3 x 3 m without the quarter at high x and z, as two polygons that share a side.
L_SHAPE = (
    [(0, 0, 0), (3, 0, 0), (3, 0, 1), (1, 0, 1), (1, 0, 3), (0, 0, 3), (0, 0, 1)],
    [[0, 6, 3, 2, 1], [6, 5, 4, 3]],
)


def floor_of(shape, **options):
    return PolygonFloor(parse(write(*shape, **options)))


@pytest.mark.parametrize("version", [1, 2])
def test_a_square_has_its_area_and_radius(version):
    floor = floor_of(([(0, 0, 0), (0, 0, 4), (4, 0, 4), (4, 0, 0)], [[0, 1, 2, 3]]), version=version)
    assert floor.area_m2 == pytest.approx(16)
    assert [i.radius_m for i in floor.islands] == [pytest.approx(np.sqrt(8))]


def test_corners_count_once_for_each_polygon_that_has_them():
    floor = floor_of(L_SHAPE)
    assert floor.area_m2 == pytest.approx(3 + 2)
    vertices = np.array(L_SHAPE[0], float)
    counted = np.concatenate([vertices[corners] for corners in L_SHAPE[1]])
    assert len(counted) == 9
    radius = np.linalg.norm(vertices - counted.mean(axis=0), axis=1).max()
    assert floor.islands[0].radius_m == pytest.approx(radius)
    once = np.linalg.norm(vertices - vertices.mean(axis=0), axis=1).max()
    assert abs(radius - once) > 0.01  # or the test could not tell


def test_islands_are_what_neighbours_join():
    floor = floor_of(both(grid(2, 3), grid(4, 4, at=(10, 1, 0))))
    assert [i.area_m2 for i in floor.islands] == [pytest.approx(16), pytest.approx(6)]
    assert floor.island(np.array([12.5, 1.2, 0.5])) == 0
    assert floor.island(np.array([0.5, 0.0, 0.5])) == 1
    assert floor.island(np.array([0.5, 0.6, 0.5])) == -1
    assert floor.island(np.array([5.0, 0.0, 0.5])) == -1
    assert floor.island_radius(np.array([0.5, 0.0, 0.5])) == floor.islands[1].radius_m > 0
    assert floor.island_radius(np.array([5.0, 0.0, 0.5])) == 0


def test_random_points_are_uniform_over_polygons_of_unlike_size():
    corners = [(0, 0, 0), (0, 0, 1), (1, 0, 1), (1, 0, 0), (4, 0, 1), (4, 0, 0)]
    floor = floor_of((corners, [[0, 1, 2, 3], [3, 2, 4, 5]]))
    rng = np.random.default_rng(2)
    points = np.array([floor.random_point(rng) for _ in range(4000)])
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 2], bins=(8, 2), range=((0, 4), (0, 1)))
    assert ((counts - 250) ** 2 / 250).sum() < 37.7  # chi squared, 15 degrees, p = 0.001
    assert (floor.random_point(np.random.default_rng(2)) == points[0]).all()


def test_heights_come_from_the_detail():
    square = [(0, 0, 0), (0, 0, 2), (2, 0, 2), (2, 0, 0)]
    own = [(1.0, 0.5, 1.0)]  # a hill in the middle
    floor = floor_of((square, [[0, 1, 2, 3]]), details={0: (own, [(0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)])})
    assert floor.snap(np.array([1.0, 0.3, 1.0]))[1] == pytest.approx(0.5)
    assert floor.snap(np.array([0.5, 0.3, 1.0]))[1] == pytest.approx(0.25)
    assert floor.step(np.array([1.0, 0.5, 1.0]), np.array([1.5, 0, 1.0]))[1] == pytest.approx(0.25)


def test_a_walk_crosses_neighbours_and_stops_at_the_border():
    floor = floor_of(L_SHAPE)
    a, b = np.array([0.5, 0, 2.5]), np.array([2.5, 0, 0.5])
    assert floor.step(a, np.array([0.6, 0, 0.1])) == pytest.approx([0.6, 0, 0.1])
    corner = floor.step(a, b + np.array([0.5, 0, 0]))  # cuts the inner corner
    assert corner[[0, 2]] == pytest.approx([1, 2.5 - 2 * 0.2], abs=1e-3)
    assert floor.step(a, np.array([0.5, 0, 99])) == pytest.approx([0.5, 0, 3], abs=1e-3)
    outside = np.array([2.5, 0, 2.5])
    assert (floor.step(outside, a) == outside).all()
    nowhere = np.full(3, np.nan)
    assert floor.snap(nowhere) is None
    assert (floor.step(a, nowhere) == a).all()


def test_snap_prefers_the_nearest_storey():
    floor = floor_of(both(grid(3, 3), grid(2, 2, at=(0.5, 2.5, 0.5))))
    assert floor.snap(np.array([1.0, 1.0, 1.0])) == pytest.approx([1, 0, 1])
    assert floor.snap(np.array([1.0, 1.6, 1.0])) == pytest.approx([1, 2.5, 1])
    assert floor.snap(np.array([-1.0, 0.1, 1.0])) == pytest.approx([0, 0, 1], abs=1e-6)
    assert floor.snap(np.array([-2.5, 0.0, 1.0])) is None
    assert floor.snap(np.array([1.0, -4.5, 1.0])) is None


def test_tiny_polygons_and_connections_through_the_air_are_no_floor():
    vertices, squares = grid(3, 1)
    vertices += [(1.0, 0, 1.000001), (2.0, 0, 1.000001)]
    squares += [[5, 8, 9, 6]]
    floor = floor_of((vertices, squares), kinds=[0, 1, 0, 0])
    assert [i.area_m2 for i in floor.islands] == [pytest.approx(1)] * 2


PLACE = st.tuples(st.floats(-1, 7), st.just(0.0), st.floats(-1, 7)).map(np.array)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.sets(st.integers(0, 24)), PLACE, PLACE, st.sampled_from([1, 2]))
def test_what_is_written_is_read_and_walks_stay_on_it(columns, rows, holes, a, b, version):
    vertices, squares = grid(columns, rows, height=lambda x, z: 0.1 * x)
    squares = [square for n, square in enumerate(squares) if n not in holes]
    if not squares:
        with pytest.raises(SceneError, match="without any floor"):
            floor_of((vertices, squares), version=version)
        return
    read = parse(write(vertices, squares, version=version))
    assert read.vertices == pytest.approx(np.array(vertices), abs=1e-6)
    assert read.corners[:, :4].tolist() == squares
    assert (read.corners[:, 4:] == -1).all()
    floor = PolygonFloor(read)
    assert floor.area_m2 == pytest.approx(len(squares))
    start = floor.snap(a)
    if start is None or floor.island(start) < 0:
        return
    end = floor.step(start, b)
    assert floor.island(end) == floor.island(start)
    assert end[1] == pytest.approx(0.1 * end[0], abs=1e-6)
    cells = {tuple(np.array(vertices)[s[0]][[0, 2]].astype(int)) for s in squares}
    on = start[[0, 2]] + np.linspace(0, 1, 50)[:, None] * (end - start)[[0, 2]]
    assert all(any(np.all((p >= np.array(c) - 1e-6) & (p <= np.array(c) + 1 + 1e-6)) for c in cells) for p in on)


def test_bytes_that_are_no_navigation_mesh_say_so():
    good = write(*grid(2, 2))
    with pytest.raises(ValueError, match=r"x.navmesh: not a navigation mesh"):
        parse(b"glTF" + good[4:], "x.navmesh")
    with pytest.raises(ValueError, match="version 1 or 2"):
        parse(good[:4] + struct.pack("<i", 3) + good[8:])
    with pytest.raises(ValueError, match="tile is not Detour's"):
        parse(good[:104] + b"XXXX" + good[108:])
    with pytest.raises(ValueError, match="not finite"):
        parse(good[:204] + struct.pack("<f", np.nan) + good[208:])


def test_every_truncation_is_noticed():
    good = write(*grid(2, 2))
    for length in range(len(good)):
        with pytest.raises(ValueError, match="cut short or damaged"):
            parse(good[:length])


@pytest.mark.parametrize("at", [8, 100, *range(104 + 24, 104 + 48, 4)])
@pytest.mark.parametrize("value", [-1, 2**31 - 1, 10**6])
def test_hostile_counts_ask_for_no_memory(at, value):
    good = write(*grid(2, 2))
    with pytest.raises(ValueError, match="cut short or damaged"):
        parse(good[:at] + struct.pack("<i", value) + good[at + 4 :])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_are_an_error_or_a_floor(data):
    good = bytearray(write(*grid(2, 2)))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        floor = PolygonFloor(parse(bytes(good)))
    except ValueError:
        return
    rng = np.random.default_rng(0)
    point = floor.random_point(rng)
    floor.step(point, point + 1)
    floor.snap(point)


def roofed_house():
    """A room of 6 x 5 m with a roof, and the mesh of its floor and of the roof."""
    scene = rooms.mesh(rooms.room((0, 0, 0), (6, 2.6, 5)), rooms.box((-0.2, -0.3, -0.2), (6.2, 2.8, 5.2)))
    return scene, write(*both(grid(4, 3, at=(1, 0, 1)), grid(6, 5, at=(0, 2.8, 0))))


def test_roofs_of_a_navigation_mesh_are_left_out(tmp_path):
    scene, data = roofed_house()
    path = tmp_path / "house.navmesh"
    path.write_bytes(data)
    file = SceneFile(path="house.glb", navmesh=str(path))
    floor = make_floor(scene, file, Body())
    assert [i.area_m2 for i in floor.islands] == [pytest.approx(12)]
    rng = np.random.default_rng(0)
    assert all(floor.random_point(rng)[1] == pytest.approx(0) for _ in range(50))
    assert floor.island(np.array([3.0, 2.8, 2.0])) == -1
    everything = make_floor(scene, file, Body(), open_sky=True)
    assert [i.area_m2 for i in everything.islands] == [pytest.approx(30), pytest.approx(12)]


def test_a_yard_keeps_its_navigation_mesh(tmp_path):
    path = tmp_path / "yard.navmesh"
    path.write_bytes(write(*grid(4, 3)))
    yard = rooms.mesh(rooms.level(0, 0, 4, 3))
    assert make_floor(yard, SceneFile(path="yard.glb", navmesh=str(path)), Body()).area_m2 == pytest.approx(12)


def test_random_points_are_below_the_covered_part(tmp_path):
    path = tmp_path / "porch.navmesh"
    path.write_bytes(write(*grid(4, 4)))
    porch = rooms.mesh(rooms.level(0, 0, 4, 4), rooms.level(0, 0, 4, 2, y=2.5))
    floor = make_floor(porch, SceneFile(path="porch.glb", navmesh=str(path)), Body())
    rng = np.random.default_rng(0)
    points = np.array([floor.random_point(rng) for _ in range(200)])
    assert points[:, 2].max() < 2.1
    assert floor.step(np.array([1.0, 0, 1]), np.array([1.0, 0, 3])) == pytest.approx([1, 0, 3])


@pytest.mark.parametrize("content", [None, b"", b"no mesh", write([(0, 0, 0)], [])])
def test_a_navigation_mesh_that_is_of_no_use_is_a_scene_error(tmp_path, content):
    path = tmp_path / "broken.navmesh"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SceneError, match=r"broken\.navmesh: "):
        make_floor(roofed_house()[0], SceneFile(path="house.glb", navmesh=str(path)), Body())


def test_without_a_navigation_mesh_the_floor_is_found():
    scene, _ = roofed_house()
    floor = make_floor(scene, SceneFile(path="house.glb"), Body())
    assert floor.area_m2 == pytest.approx(5.75 * 4.75, rel=0.01)
    with pytest.raises(SceneError, match=r"^empty\.glb: "):
        make_floor(rooms.mesh(), SceneFile(path="empty.glb"), Body())
