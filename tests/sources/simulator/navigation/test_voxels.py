"""Floors found in triangles: rooms of known areas, steps, ramps, furniture, roofs, broken meshes."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator.navigation import rooms
from simulator.navigation.rooms import box, finer, level, mesh, quad, room, turned, without_floor

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import Body
from mimic_wds.sources.simulator.navigation import kernels
from mimic_wds.sources.simulator.navigation.voxels import flood

BODY = Body()

#: Metres that cells keep from walls: the radius, and the half cell that makes sure of it.
MARGIN = 0.125


def within(width, depth):
    """The area of a bare room of this size."""
    return pytest.approx((width - 2 * MARGIN) * (depth - 2 * MARGIN), rel=0.01)


def taken(width, depth):
    """What a thing of this size takes from the floor: the place it stands on, and all round it."""
    return width * depth + 2 * (width + depth) * MARGIN + np.pi * MARGIN**2


def areas(floor):
    return [island.area_m2 for island in floor.islands]


def test_a_room_with_a_pillar_has_the_area_that_a_body_can_reach():
    floor = flood(mesh(room((0, 0, 0), (10, 3, 10)), box((4, 0, 4), (5, 3, 5))), BODY)
    exact = 9.8**2 - (1 + 4 * 0.1 + np.pi * 0.1**2)  # for a point that keeps the radius
    assert areas(floor) == [pytest.approx(exact, rel=0.015)]
    assert areas(floor) == [pytest.approx(9.75**2 - taken(1, 1), rel=0.002)]
    assert floor.area_m2 == pytest.approx(floor.islands[0].area_m2)


@pytest.mark.parametrize("size", [(10, 10), (6, 3), (2.5, 8)])
def test_radius_of_a_rectangle_is_half_its_diagonal(size):
    floor = flood(mesh(room((0, 0, 0), (size[0], 3, size[1]))), BODY)
    half = np.hypot(size[0] - 0.2, size[1] - 0.2) / 2
    assert floor.islands[0].radius_m == pytest.approx(half, abs=0.08)  # a cell each way
    assert floor.island_radius(np.array([1.0, 0, 1.0])) == floor.islands[0].radius_m
    assert floor.island_radius(np.array([1.0, 9, 1.0])) == 0


@pytest.mark.parametrize("angle", [0, 10, 26.6, 45, 61.3])
@pytest.mark.parametrize("cuts", [0, 4])
def test_areas_do_not_depend_on_how_a_scene_is_turned_or_cut_up(angle, cuts):
    parts = np.concatenate([room((0, 0, 0), (5, 3, 4)), box((2, 0, 1), (2.6, 1, 3.1))])
    floor = flood(mesh(turned(finer(parts, cuts), angle)), BODY)
    assert floor.area_m2 == pytest.approx(4.75 * 3.75 - taken(0.6, 2.1), rel=0.025)


def two_rooms(door):
    """Rooms of 4 x 4 m with a wall of 10 cm between, and a doorway of 0.9 x 2 m in it or none."""
    walls = [box((4, 0, 0), (4.1, 3, 1.5)), box((4, 0, 2.4), (4.1, 3, 4)), box((4, 2, 1.5), (4.1, 3, 2.4))]
    wall = [*walls] if door else [box((4, 0, 0), (4.1, 3, 4))]
    return mesh(room((0, 0, 0), (8.1, 3, 4)), *wall)


def test_a_door_joins_two_rooms():
    assert areas(flood(two_rooms(False), BODY)) == [within(4, 4)] * 2
    assert areas(flood(two_rooms(True), BODY)) == [pytest.approx(2 * 3.75**2 + 0.65 * 0.35, rel=0.01)]


def test_nobody_fits_through_a_door_that_is_too_low_or_too_narrow():
    assert len(areas(flood(two_rooms(True), Body(height_m=2.1)))) == 2
    assert len(areas(flood(two_rooms(True), Body(radius_m=0.5)))) == 2


def stairs(rise, steps):
    """A lower room, steps of 0.28 m, and an upper room as wide as the stairs; x goes up."""
    top = rise * steps
    solids = [box((4 + 0.28 * k, -0.1, 0), (4 + 0.28 * (k + 1), rise * (k + 1), 3)) for k in range(steps - 1)]
    upper = box((4 + 0.28 * (steps - 1), -0.1, 0), (12, top, 3))
    return mesh(without_floor((0, 0, 0), (12, top + 3, 3)), level(0, 0, 4, 3), *solids, upper)


def test_stairs_join_if_each_step_can_be_climbed():
    low, high = np.array([1.0, 0, 1.5]), np.array([11.0, 0, 1.5])
    floor = flood(stairs(0.18, 9), BODY)
    assert len(floor.islands) == 1
    assert floor.step(low, high) == pytest.approx([11, 9 * 0.18, 1.5], abs=0.01)
    assert floor.step(floor.step(low, high), low) == pytest.approx(low, abs=0.01)
    steep = flood(stairs(0.3, 6), BODY)
    assert len(steep.islands) == 2
    reached = steep.step(low, high)
    assert reached[0] < 4
    assert reached[1] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("slope_deg", "islands"), [(40, 1), (44, 1), (46, 2), (50, 2)])
def test_a_ramp_joins_up_to_45_degrees(slope_deg, islands):
    run = 2 / np.tan(np.radians(slope_deg))
    ramp = quad((3, 0, 0), (3, 0, 3), (3 + run, 2, 3), (3 + run, 2, 0))
    shell = without_floor((0, 0, 0), (10, 6, 3))
    floor = flood(mesh(shell, level(0, 0, 3, 3), ramp, level(3 + run, 0, 10, 3, y=2)), BODY)
    assert len(floor.islands) == islands
    if islands == 1:
        middle = floor.step(np.array([1.0, 0, 1.5]), np.array([3 + run / 2, 0, 1.5]))
        assert middle[1] == pytest.approx(1, abs=0.005)  # the slope's own height


def table(at, top=0.7):
    """A top of 2 x 1.2 m and 3 cm on four legs of 4 cm."""
    x, z = at
    legs = [box((x + a, 0, z + b), (x + a + 0.04, top, z + b + 0.04)) for a in (0, 1.96) for b in (0, 1.16)]
    return np.concatenate([box((x, top, z), (x + 2, top + 0.03, z + 1.2)), *legs])


def test_neither_the_top_of_a_table_nor_the_room_below_is_floor():
    floor = flood(mesh(room((0, 0, 0), (5, 3, 5)), table((1.5, 2))), BODY)
    assert areas(floor) == [pytest.approx(4.75**2 - taken(2, 1.2), rel=0.01)]
    assert floor.island(np.array([2.5, 0.73, 2.6])) == -1
    assert floor.island(np.array([2.5, 0, 2.6])) == -1
    assert floor.island(np.array([1.0, 0, 1.0])) == 0


def test_a_bed_in_a_corner_is_no_floor_but_a_raised_room_is():
    bed = box((0, -0.1, 0), (2, 0.5, 1.8))
    assert len(areas(flood(mesh(room((0, 0, 0), (5, 3, 5)), bed), BODY))) == 1
    raised = [box((5, -0.1, 0), (8, 0.3, 2.5)), box((4.9, -0.1, 0), (5, 3, 0.7)), box((4.9, -0.1, 1.6), (5, 3, 5))]
    floor = flood(mesh(room((0, 0, 0), (8, 3, 5)), *raised, box((5, -0.1, 2.5), (8, 3, 5))), BODY)
    assert areas(floor)[1] == pytest.approx(2.75 * 2.25, rel=0.05)


def test_a_thick_table_leg_anywhere_is_walked_round():
    rng = np.random.default_rng(5)
    poles = [np.array([x, z]) + rng.uniform(0, 1, 2) for x in range(1, 8, 2) for z in range(1, 8, 2)]
    legs = [box((x, 0, z), (x + 0.03, 2, z + 0.03)) for x, z in poles]
    floor = flood(mesh(room((0, 0, 0), (9, 3, 9)), *legs), BODY)
    for x, z in poles:
        start = np.array([x - 0.5, 0, z + 0.015])
        assert x - floor.step(start, start + np.array([1, 0, 0]))[0] == pytest.approx(0.1, abs=0.06)


def house(ceiling_m=0.2):
    """A room of 6 x 5 m with a roof that is `ceiling_m` thick."""
    return np.concatenate([room((0, 0, 0), (6, 2.6, 5)), box((-0.2, -0.3, -0.2), (6.2, 2.6 + ceiling_m, 5.2))])


def test_a_roof_is_no_floor_unless_asked_for():
    assert areas(flood(mesh(house()), BODY)) == [within(6, 5)]
    both = flood(mesh(house()), BODY, open_sky=True)
    assert areas(both) == [pytest.approx(6.2 * 5.2, rel=0.03), within(6, 5)]
    assert both.island(np.array([3, 2.8, 2.5])) == 0


def test_a_room_without_ceiling_is_floor_and_a_log_line(caplog):
    open_room = room((0, 0, 0), (6, 2.6, 5))
    open_room = open_room[~(open_room[:, :, 1] == 2.6).all(axis=1)]
    with caplog.at_level(logging.INFO):
        floor = flood(mesh(open_room), BODY, name="yard")
    assert areas(floor) == [within(6, 5)]
    assert "yard: hardly any floor has something overhead" in caplog.text


def test_one_walks_below_a_hole_in_the_ceiling_but_starts_elsewhere():
    holed = room((0, 0, 0), (6, 3, 5))
    holed = holed[~(holed[:, :, 1] == 3).all(axis=1)]
    ceiling = [((0, 0), (6, 2)), ((0, 3), (6, 5)), ((0, 2), (2, 3)), ((3, 2), (6, 3))]
    sheets = [quad((a, 3, b), (c, 3, b), (c, 3, d), (a, 3, d)) for (a, b), (c, d) in ceiling]
    floor = flood(mesh(holed, *sheets), BODY)
    assert floor.step(np.array([1, 0, 2.5]), np.array([5, 0, 2.5])) == pytest.approx([5, 0, 2.5], abs=1e-6)
    rng = np.random.default_rng(0)
    points = np.array([floor.random_point(rng) for _ in range(1000)])
    below = ((points[:, [0, 2]] > (2.05, 2.05)) & (points[:, [0, 2]] < (2.95, 2.95))).all(axis=1)
    assert not below.any()
    assert floor.area_m2 == pytest.approx(5.75 * 4.75 - 1, rel=0.01)


@pytest.mark.parametrize("flipped", ["all", "half", "one room"])
def test_floors_that_face_down_count_where_triangles_are_not_wound_alike(flipped):
    parts = finer(rooms.corners_of(two_rooms(True)), 2)
    x = parts[:, :, 0].mean(axis=1)
    which = {"all": x > -1, "half": np.random.default_rng(3).random(len(parts)) < 0.5, "one room": x < 4}[flipped]
    upright = flood(mesh(parts), BODY)
    parts[which] = parts[which][:, ::-1]
    assert flood(mesh(parts), BODY).area_m2 == pytest.approx(upright.area_m2, rel=0.001)


def test_what_faces_down_within_a_wall_is_no_floor():
    shell = box((0, 0, 0), (8, 3, 4))  # seen from outside: its floor faces down
    inner = room((1, 0.001, 0.2), (7.8, 2.9, 3.8))
    assert areas(flood(mesh(shell, inner), BODY)) == [within(6.8, 3.6)]


def test_gaps_between_walls_are_no_floor():
    gap = room((10, 0, 0), (10.5, 3, 8))  # 0.5 m wide, facing up, and of more than a square metre
    assert areas(flood(mesh(room((0, 0, 0), (8, 3, 4)), gap), BODY)) == [within(8, 4)]


def test_storeys_are_islands_of_their_own():
    floor = flood(mesh(room((0, 0, 0), (6, 2.6, 5)), room((0, 2.8, 0), (6, 5.4, 4))), BODY)
    assert areas(floor) == [within(6, 5), within(6, 4)]
    assert floor.island(np.array([3, 0.1, 2])) == 0
    assert floor.island(np.array([3, 2.9, 2])) == 1
    assert floor.island(np.array([3, 1.5, 2])) == -1
    assert floor.snap(np.array([3, 1.2, 2])) == pytest.approx([3, 0, 2], abs=1e-6)
    assert floor.snap(np.array([3, 2.0, 2])) == pytest.approx([3, 2.8, 2], abs=1e-6)


def test_heights_are_those_of_the_triangles():
    rng = np.random.default_rng(1)
    n = 41
    grid = np.stack(np.meshgrid(np.linspace(0, 4, n), np.linspace(0, 4, n), indexing="ij"), -1)
    y = rng.uniform(-0.03, 0.03, (n, n)) + 0.1 * grid[:, :, 0]
    p = np.stack([grid[:, :, 0], y, grid[:, :, 1]], -1)
    a, b, c, d = p[:-1, :-1], p[:-1, 1:], p[1:, 1:], p[1:, :-1]
    ground = np.concatenate([np.stack([a, b, c], 2).reshape(-1, 3, 3), np.stack([a, c, d], 2).reshape(-1, 3, 3)])
    ceiling = quad((0, 3, 0), (4, 3, 0), (4, 3, 4), (0, 3, 4))
    scene = mesh(ground, ceiling)
    floor = flood(scene, BODY)
    triangles = rooms.corners_of(scene)
    for _ in range(300):
        point = floor.random_point(rng)
        assert np.abs(rooms.hits(triangles, point) - point[1]).min() < 1e-5


def test_random_points_are_uniform_and_the_same_for_the_same_seed():
    floor = flood(mesh(room((0, 0, 0), (6, 3, 4))), BODY)
    rng = np.random.default_rng(0)
    points = np.array([floor.random_point(rng) for _ in range(4000)])
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 2], bins=(6, 4), range=((0.15, 5.85), (0.15, 3.85)))
    expected = len(points) / counts.size
    assert ((counts - expected) ** 2 / expected).sum() < 49.7  # chi squared, 23 degrees, p = 0.001
    again = np.random.default_rng(0)
    assert all((floor.random_point(again) == point).all() for point in points[:50])


@pytest.fixture(scope="module")
def furnished():
    pillars = [turned(box((x, 0, z), (x + 0.3, 3, z + 0.5)), 30 * x, (x, 0, z)) for x in (1.5, 3, 4.5) for z in (1, 3)]
    scene = mesh(room((0, 0, 0), (6, 3, 5)), *pillars, box((2.2, 0, 2.2), (3.7, 0.15, 2.9)))
    return flood(scene, BODY), rooms.section(rooms.corners_of(scene), 1.0)


PLACE = st.tuples(st.floats(-1, 7), st.just(0.0), st.floats(-1, 6)).map(np.array)


@settings(max_examples=200, deadline=None)
@given(PLACE, PLACE)
def test_walks_stay_on_the_floor_and_go_back(furnished, a, b):
    floor, walls = furnished
    start = floor.snap(a)
    end = floor.step(start, b)
    assert floor.island(end) == floor.island(start) == 0
    assert not rooms.passes(walls, start[[0, 2]], end[[0, 2]])
    assert rooms.distance_to(walls, end[[0, 2]]) >= 0.1 - 0.025
    asked, gone = (b - start)[[0, 2]], (end - start)[[0, 2]]
    assert np.linalg.norm(gone) <= np.linalg.norm(asked) + 1e-9
    assert abs(gone[0] * asked[1] - gone[1] * asked[0]) < 1e-6  # along the way asked for
    back = floor.step(end, start)
    assert np.linalg.norm(back[[0, 2]] - start[[0, 2]]) < 1e-3 or np.linalg.norm(gone) < 1e-3
    assert floor.step(start, start) == pytest.approx(start)


@settings(max_examples=100, deadline=None)
@given(PLACE)
def test_snap_finds_the_nearest_place(furnished, a):
    floor, _ = furnished
    found = floor.snap(a)
    assert floor.island(found) == 0
    rng = np.random.default_rng(0)
    others = np.array([floor.random_point(rng) for _ in range(50)])
    assert np.linalg.norm(found - a) <= np.linalg.norm(others - a, axis=1).min() + 0.05
    assert floor.snap(found) == pytest.approx(found, abs=2e-4)


def test_what_is_not_on_the_floor_goes_nowhere(furnished):
    floor, _ = furnished
    outside = np.array([20.0, 0, 20])
    assert floor.snap(outside) is None
    assert (floor.step(outside, outside + 1) == outside).all()
    nowhere = np.full(3, np.nan)
    assert floor.snap(nowhere) is None
    assert floor.island(nowhere) == -1
    start = np.array([0.5, 0, 0.5])
    assert (floor.step(start, nowhere) == start).all()
    assert floor.step(start, np.array([0.5, 0, 1e9]))[2] == pytest.approx(4.9, abs=0.06)


def test_broken_triangles_are_passed_over():
    bad = np.array([[[0, 0, 0], [np.nan, 1, 1], [1, 1, 0]], [[1, 1, 1]] * 3, [[0, 1, 0], [2, 1, 0], [4, 1, 0]]])
    bad = np.concatenate([bad, [[[0, 0, 0], [np.inf, 1, 1], [1, 1, 0]]]])
    with np.errstate(invalid="ignore"):
        floor = flood(mesh(room((0, 0, 0), (4, 3, 4)), bad), BODY)
    assert areas(floor) == areas(flood(mesh(room((0, 0, 0), (4, 3, 4))), BODY))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "no triangles with an area"),
        ([np.full((4, 3, 3), np.nan)], "no triangles with an area"),
        ([np.zeros((4, 3, 3))], "no triangles with an area"),
        ([quad((0, 0, 0), (4, 0, 0), (4, 3, 0), (0, 3, 0))], "nowhere to walk"),
        ([room((0, 0, 0), (5, 1.2, 5))], "nowhere to walk"),
        ([room((0, 0, 0), (0.05, 0.03, 0.05))], "nowhere to walk"),
        ([1000 * room((0, 0, 0), (5, 3, 5))], "units look wrong"),
        ([1e30 * room((0, 0, 0), (5, 3, 5))], "units look wrong"),
        ([room((0, 0, 0), (5, 3, 5)), box((0, 1e7, 0), (1, 1e7 + 9, 1))], "units look wrong"),
    ],
)
def test_scenes_without_floor_say_so(parts, message):
    with pytest.raises(SceneError, match=f"^here.glb: .*{message}"):
        flood(mesh(*parts), BODY, name="here.glb")


COORDINATE = st.one_of(st.floats(-6, 6, width=32), st.sampled_from([0.0, 2.0, np.nan, np.inf]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[COORDINATE] * 9), max_size=12), st.booleans())
def test_triangles_thrown_together_are_a_floor_or_an_error(corners, in_a_room):
    parts = [np.array(corners).reshape(-1, 3, 3)] + in_a_room * [room((-4, 0, -4), (4, 3, 4))]
    try:
        floor = flood(mesh(*parts), BODY)
    except SceneError:
        return
    rng = np.random.default_rng(0)
    for _ in range(5):
        point = floor.random_point(rng)
        assert floor.island(point) >= 0
        assert floor.island(floor.step(point, point + rng.normal(0, 2, 3))) == floor.island(point)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0.6, 9.4)] * 9), min_size=1, max_size=4))
def test_every_voxel_that_a_triangle_meets_in_the_crosses_is_solid(corners):
    scene = mesh(np.array(corners).reshape(-1, 3, 3))
    kinds = kernels.classify(scene.vertices, scene.triangles, 0.7)
    shape = (10, 10, 1)
    solid, _, _ = kernels.voxelise(scene.vertices, scene.triangles, kinds, np.zeros(3), np.ones(3), shape)
    bits = np.unpackbits(solid.view(np.uint8).reshape(10, 10, 8), axis=-1, bitorder="little").astype(bool)
    triangles = rooms.corners_of(scene)[kinds > 0]
    rng = np.random.default_rng(0)
    met = np.zeros_like(bits)
    for triangle in triangles:  # points of the triangle that lie on the crosses' planes, by dense sampling of its cuts
        for axis in (0, 2):
            for plane in np.arange(0.5, 10):
                line = cut_by(triangle, axis, plane)
                if line is not None:
                    points = line[0] + rng.random((200, 1)) * (line[1] - line[0])
                    met[tuple(np.floor(points[:, [2, 0, 1]]).astype(int).T)] = True
    assert bits[met].all()
    low = np.floor(triangles.min(axis=1)).min(axis=0, initial=99).astype(int)
    assert not bits[:, :, : max(low[1], 0)].any()


def cut_by(triangle, axis, plane):
    """The two ends of a triangle's cut by a plane, None when there is none."""
    ends = []
    for a, b in ((0, 1), (1, 2), (2, 0)):
        p, q = triangle[a], triangle[b]
        if (p[axis] - plane) * (q[axis] - plane) < 0:
            ends.append(p + (plane - p[axis]) / (q[axis] - p[axis]) * (q - p))
    return ends if len(ends) == 2 else None
