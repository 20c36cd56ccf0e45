"""Floors of real scenes: points stand on floors, indoors, with head room, away from walls; walks never pass a wall."""

import numpy as np
import pytest
import trimesh
from simulator.navigation import rooms

from mimic_wds.sources.simulator.base import Body
from mimic_wds.sources.simulator.navigation.voxels import flood

BODY = Body()

#: Metres: heights at which walls are looked for, above what can be stepped over.
HEIGHTS = (0.3, 0.75, 1.2)

#: Name, whether z is up, and area and radius of the largest island as measured, as a warning when they change.
INDOORS = [
    ("living_room/living_room", 25.0, 4.17),
    ("apartment/apartment", 23.6, 5.08),
    ("vr_gallery/vr_gallery", 47.8, 6.90),
]


def triangles_of(path, up="y"):
    """The triangles (T, 3, 3) of a file, y up."""
    scene = trimesh.load(path, process=False, force="mesh")
    corners = np.asarray(scene.triangles, np.float64)
    return corners if up == "y" else corners @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])


@pytest.fixture(scope="module", params=INDOORS, ids=[name for name, *_ in INDOORS])
def scene(request, shared_data):
    name, area, radius = request.param
    triangles = triangles_of(shared_data / "scenes" / f"{name}.glb")
    return triangles, flood(rooms.mesh(triangles), BODY), area, radius


def walls_at(triangles, y):
    """What stands in the way of a body whose foot is at y: cuts of the scene at several heights, in plan."""
    return np.concatenate([rooms.section(triangles, y + height) for height in HEIGHTS])


def test_areas_and_radii_are_as_measured(scene):
    _, floor, area, radius = scene
    assert floor.islands[0].area_m2 == pytest.approx(area, rel=0.01)
    assert floor.islands[0].radius_m == pytest.approx(radius, rel=0.02)


def test_points_stand_on_a_floor_indoors_with_head_room(scene):
    triangles, floor, *_ = scene
    rng = np.random.default_rng(0)
    for _ in range(150):
        point = floor.random_point(rng)
        above = rooms.hits(triangles, point) - point[1]
        assert np.abs(above).min() < 0.02
        assert not ((above > 0.2) & (above < 1.5)).any()
        assert above.max() > 1.5
        assert floor.island(point) >= 0


def test_points_keep_away_from_walls(scene):
    triangles, floor, *_ = scene
    walls = walls_at(triangles, 0.0)
    rng = np.random.default_rng(1)
    points = [floor.random_point(rng) for _ in range(500)]
    assert all(abs(point[1]) < 0.05 for point in points if floor.island(point) == 0)
    away = [rooms.distance_to(walls, point[[0, 2]]) for point in points if abs(point[1]) < 0.05]
    assert min(away) >= BODY.radius_m - 0.025


def test_walks_never_pass_walls(scene):
    triangles, floor, *_ = scene
    walls = walls_at(triangles, 0.0)
    rng = np.random.default_rng(2)
    blocked, moved = 0, 0.0
    point = floor.random_point(rng)
    for number in range(1500):
        if number % 50 == 0:
            point = floor.random_point(rng)
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 3)
        way = length * np.array([np.sin(angle), 0, np.cos(angle)])
        reached = floor.step(point, point + way)
        assert not rooms.passes(walls, point[[0, 2]], reached[[0, 2]])
        assert floor.island(reached) == floor.island(point)
        blocked += rooms.passes(walls, point[[0, 2]], (point + way)[[0, 2]])
        moved += np.linalg.norm(reached - point)
        point = reached
    assert blocked > 100  # or the test shows nothing
    assert moved > 300


@pytest.mark.parametrize("angle", [17.0, 33.3, 45.0])
def test_turned_copies_have_the_same_areas(scene, angle):
    triangles, floor, area, _ = scene
    copy = flood(rooms.mesh(rooms.turned(triangles, angle)), BODY)
    part_of_it_is_below_thin_beams = abs(area - 47.8) < 0.1  # the gallery's glass roof: its panes are not in the file
    assert copy.area_m2 == pytest.approx(floor.area_m2, rel=0.03 if part_of_it_is_below_thin_beams else 0.02)
    assert copy.islands[0].radius_m == pytest.approx(floor.islands[0].radius_m, rel=0.02)


def test_floors_open_to_the_sky(shared_data):
    folder = shared_data / "scenes" / "minimal"
    simple = flood(rooms.mesh(triangles_of(folder / "simple_room.glb", up="z")), BODY)
    assert simple.islands[0].area_m2 == pytest.approx(103, rel=0.01)
    hills = triangles_of(folder / "stage_floor1.glb")
    floor = flood(rooms.mesh(hills), BODY)
    assert floor.area_m2 == pytest.approx(20 * 20, rel=0.03)
    rng = np.random.default_rng(0)
    for _ in range(200):
        point = floor.random_point(rng)
        assert np.abs(rooms.hits(hills, point) - point[1]).min() < 1e-4
