"""Which way is up, what lies beside a scene, and real scenes with trimesh as a second opinion."""

import json

import cv2
import numpy as np
import pytest
from gltf_files import SQUARE, SQUARE_TRIANGLES, Gltf

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator import raster
from mimic_wds.sources.simulator.base import SceneFile
from mimic_wds.sources.simulator.scene_files import load_mesh, scene_file


@pytest.fixture
def scene(tmp_path):
    """A scene file, not read here."""
    return Gltf().write(tmp_path / "NAME.glb")


def beside(path, name, content=""):
    file = path.parent / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file)


def test_z_up_is_turned_as_habitat_sim_does(tmp_path):
    gltf = Gltf()
    gltf.node(gltf.mesh(SQUARE + np.float32([0, 0, 5]), SQUARE_TRIANGLES))
    path = str(gltf.write(tmp_path / "a.glb"))
    x, y, z = load_mesh(SceneFile(path=path)).vertices.T
    turned = load_mesh(SceneFile(path=path, up="z", scale_m=2.0)).vertices
    # up +z becomes +y, front +y becomes -z
    np.testing.assert_array_equal(turned, 2 * np.stack([x, z, -y], axis=1))


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_turned_and_scaled_copies_are_the_same_mesh(tmp_path, suffix):
    trimesh = pytest.importorskip("trimesh")
    rng = np.random.default_rng(3)
    ball = trimesh.creation.icosphere(subdivisions=3)
    ball.vertices *= rng.uniform(1, 8, 3)
    ball.export(tmp_path / f"plain{suffix}")
    turn = np.eye(4)
    turn[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]  # y up to z up
    ball.apply_transform(turn)
    ball.apply_scale(100.0)  # centimetres
    ball.export(tmp_path / f"other{suffix}")
    plain = load_mesh(SceneFile(path=str(tmp_path / f"plain{suffix}")))
    other = load_mesh(SceneFile(path=str(tmp_path / f"other{suffix}"), up="z", scale_m=0.01))
    np.testing.assert_allclose(other.vertices, plain.vertices, atol=1e-5)
    np.testing.assert_array_equal(other.triangles, plain.triangles)
    np.testing.assert_array_equal(other.textures[0], plain.textures[0])


@pytest.mark.parametrize("z_up_by_default", [True, False])
def test_without_configuration_the_data_set_decides(scene, z_up_by_default):
    usual = "z" if z_up_by_default else "y"
    other = "y" if z_up_by_default else "z"
    assert scene_file(scene, up="auto", z_up_by_default=z_up_by_default).up == usual
    assert scene_file(scene, up=other, z_up_by_default=z_up_by_default).up == other


@pytest.mark.parametrize("name", ["NAME.stage_config.json", "something_else.stage_config.json"])
def test_a_stage_configuration_overrides_it(scene, name):
    beside(
        scene, name, {"render_asset": "NAME.glb", "up": [0, 1, 0], "front": [0, 0, -1], "nav_asset": "nav/a.navmesh"}
    )
    navmesh = beside(scene, "nav/a.navmesh")
    found = scene_file(scene, up="auto", z_up_by_default=True)
    assert (found.up, found.navmesh) == ("y", navmesh)
    assert scene_file(scene, up="z", z_up_by_default=True) == SceneFile(path=str(scene), up="z")


def test_a_configuration_of_another_scene_is_not_taken(scene):
    beside(scene, "other.stage_config.json", {"render_asset": "other.glb", "up": [0, 0, 1]})
    assert scene_file(scene).up == "y"


@pytest.mark.parametrize(
    ("name", "files", "taken"),
    [
        ("A.glb", ["A.navmesh"], "A.navmesh"),
        ("A.basis.glb", ["A.basis.navmesh", "A.navmesh"], "A.basis.navmesh"),
        ("A.glb", ["A.basis.navmesh", "A.navmesh"], "A.navmesh"),
        ("A.glb", ["A.basis.navmesh"], "A.basis.navmesh"),
        ("A.glb", ["B.navmesh"], ""),
    ],
)
def test_the_navigation_mesh_beside_a_scene(tmp_path, name, files, taken):
    path = tmp_path / name
    for file in files:
        beside(path, file)
    assert scene_file(path, z_up_by_default=True).navmesh == (str(tmp_path / taken) if taken else "")


def test_a_navigation_mesh_of_other_axes_or_units_is_not_used(scene):
    beside(scene, "NAME.navmesh")
    assert scene_file(scene, z_up_by_default=True).navmesh
    assert not scene_file(scene, up="y", z_up_by_default=True).navmesh
    assert not scene_file(scene, scale_m=0.01).navmesh
    beside(scene, "NAME.stage_config.json", {"up": [0, 1, 0], "front": [1, 0, 0]})
    assert not scene_file(scene).navmesh


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "cannot be read as JSON"),
        ([], "expected a JSON object"),
        ({"up": [1, 0, 0]}, r"has up = \[1, 0, 0\]; only"),
        ({"up": "y"}, "has up = 'y'; only"),
    ],
)
def test_broken_configurations(scene, config, message):
    beside(scene, "NAME.stage_config.json", config)
    with pytest.raises(SceneError, match=message):
        scene_file(scene)


@pytest.mark.parametrize(
    ("name", "message"), [("a.fbx", "is no scene file; expected .glb"), ("a.glb", "cannot be read: No such file")]
)
def test_files_that_are_not_there_or_of_another_kind(tmp_path, name, message):
    with pytest.raises(SceneError, match=message):
        load_mesh(SceneFile(path=str(tmp_path / name)))


REAL = [
    "apartment/apartment",
    "living_room/living_room",
    "vr_gallery/vr_gallery",
    "minimal/simple_room",
    "minimal/plane",
]


@pytest.mark.parametrize("name", REAL)
def test_real_scenes_agree_with_trimesh(shared_data, name):
    trimesh = pytest.importorskip("trimesh")
    path = shared_data / "scenes" / f"{name}.glb"
    mesh, scene = load_mesh(SceneFile(path=str(path))), trimesh.load(path, process=False)
    whole = scene.to_mesh()
    corners = mesh.vertices[mesh.triangles].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    empty = len(whole.faces) - len(mesh.triangles)
    assert 0 <= empty <= 20
    assert np.count_nonzero(whole.area_faces < 1e-8) >= empty
    np.testing.assert_allclose([mesh.vertices.min(0), mesh.vertices.max(0)], whole.bounds, atol=1e-6)
    assert areas.sum() == pytest.approx(whole.area, rel=1e-6)
    colours = trimesh_area_by_colour(scene)
    assert colours is None or area_by_colour(mesh, areas) == pytest.approx(colours, rel=1e-4, abs=1e-6)


def area_by_colour(mesh, areas):
    """Square metres by mean colour of the texture, colours rounded to 8 steps: what is where, roughly."""
    total = {}
    for number, texture in enumerate(mesh.textures):
        key = key_of(texture)
        total[key] = total.get(key, 0) + areas[mesh.texture_ids == number].sum()
    return total


def trimesh_area_by_colour(scene):
    total = {}
    for name in scene.graph.nodes_geometry:
        transform, geometry = scene.graph[name]
        mesh = scene.geometry[geometry].copy().apply_transform(transform)
        material = mesh.visual.material if mesh.visual.kind == "texture" else None
        if material is None:  # trimesh gives no material to meshes without texture coordinates
            return None
        factor = np.array([255, 255, 255] if material.baseColorFactor is None else material.baseColorFactor[:3]) / 255
        plain = material.baseColorTexture
        texture = np.full((1, 1, 3), 255) if plain is None else np.asarray(plain.convert("RGB"))
        key = key_of(np.rint(texture * factor))
        total[key] = total.get(key, 0) + mesh.area
    return total


def key_of(texture):
    return tuple((texture.reshape(-1, 3).mean(0) // 8).astype(int).tolist())


def test_classes_of_a_real_scene(shared_data):
    mesh = load_mesh(SceneFile(path=str(shared_data / "scenes/living_room/living_room.glb")))
    assert {"sofa", "floor", "wall paint", "curtain", "table", "bookshelf"} <= set(mesh.semantic_names)
    floor = mesh.vertices[mesh.triangles[mesh.semantic_ids == mesh.semantic_names.index("floor")]]
    sofa = mesh.vertices[mesh.triangles[mesh.semantic_ids == mesh.semantic_names.index("sofa")]]
    assert np.ptp(floor[..., 1]) < 0.2
    assert 0.4 < np.ptp(sofa[..., 1]) < 1.5
    assert np.count_nonzero(mesh.semantic_ids < 0) > 0  # the pictures' frames have plain names


@pytest.mark.parametrize("name", ["00_0", "00_4", "01_2"])
def test_pictures_of_a_real_scene(shared_data, name):
    """Those that a ray caster made of this scene with light, with their depth."""
    folder = shared_data / "scenes/living_room"
    views = json.loads((folder / "views_gt/cameras.json").read_text())
    mesh = load_mesh(SceneFile(path=str(folder / "living_room.glb")))
    pose = np.array(views["views"][name]) @ np.diag([1.0, -1, -1, 1])  # to OpenGL's camera axes
    camera = raster.Camera(pose, 2 * np.degrees(np.arctan(128 / views["K"][0][0])), (256, 256))
    renderer = raster.Renderer(mesh)
    picture, depth = renderer.render(camera, supersample=True)
    truth = cv2.imread(str(folder / f"views_gt/rgb/{name}.jpg")).mean(-1)
    metres = cv2.imread(str(folder / f"views_gt/depth/{name}.png"), cv2.IMREAD_UNCHANGED) / 1000
    both = (metres > 0) & (depth > 0)
    assert both.mean() > 0.95
    assert np.median(np.abs(depth - metres)[both]) < 0.01
    triangles, _ = renderer.visibility(camera)
    on_pictures = np.array([texture.size > 3 for texture in mesh.textures])[mesh.texture_ids[triangles]]
    assert np.corrcoef(picture[on_pictures].mean(-1), truth[on_pictures])[0, 1] > 0.9
