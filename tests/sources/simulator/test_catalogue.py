"""Data sets as they are downloaded, in miniature."""

from pathlib import Path

import pytest

from mimic_wds.sources.simulator import catalogue
from mimic_wds.sources.simulator.catalogue import find_scenes


def tree(root, *files):
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def listed(root, layout):
    return [(found.name, found.path.relative_to(root).as_posix()) for found in find_scenes(root, layout)]


HM3D = (
    "hm3d/minival/00800-TEEsavR23oF/TEEsavR23oF.basis.glb",
    "hm3d/minival/00800-TEEsavR23oF/TEEsavR23oF.basis.navmesh",
    "hm3d/minival/00800-TEEsavR23oF/TEEsavR23oF.glb",
    "hm3d/minival/00800-TEEsavR23oF/TEEsavR23oF.semantic.glb",
    "hm3d/minival/00800-TEEsavR23oF/TEEsavR23oF.semantic.txt",
    "hm3d/minival/00801-HaxA7YrQdEC/HaxA7YrQdEC.basis.glb",
    "hm3d/minival/00802-wcojb4TFT35/wcojb4TFT35.glb",
    "hm3d/hm3d_basis.scene_dataset_config.json",
)


@pytest.mark.parametrize(("decoder", "ending"), [(True, ".basis.glb"), (False, ".glb")])
def test_hm3d(tmp_path, monkeypatch, decoder, ending):
    monkeypatch.setattr(catalogue, "has_basis_decoder", lambda: decoder)
    root = tree(tmp_path, *HM3D)
    assert listed(root, "hm3d") == [
        ("00800-TEEsavR23oF", f"hm3d/minival/00800-TEEsavR23oF/TEEsavR23oF{ending}"),
        ("00801-HaxA7YrQdEC", "hm3d/minival/00801-HaxA7YrQdEC/HaxA7YrQdEC.basis.glb"),
        ("00802-wcojb4TFT35", "hm3d/minival/00802-wcojb4TFT35/wcojb4TFT35.glb"),
    ]
    semantic = [found.semantic and found.semantic.name for found in find_scenes(root, "hm3d")]
    assert semantic == ["TEEsavR23oF.semantic.glb", None, None]


def test_names_do_not_depend_on_where_the_data_set_lies(tmp_path):
    root = tree(tmp_path, *HM3D)
    deeper = [found.name for found in find_scenes(root / "hm3d/minival", "hm3d")]
    assert deeper == [found.name for found in find_scenes(root, "hm3d")]
    assert [found.name for found in find_scenes(root / "hm3d/minival/00801-HaxA7YrQdEC", "hm3d")] == deeper[1:2]


def test_gibson_of_habitat_and_in_its_original_folders(tmp_path):
    files = ("a/Ackermanville.glb", "a/Ackermanville.navmesh", "a/Adrian.glb")
    assert listed(tree(tmp_path / "flat", *files), "gibson") == [
        ("Ackermanville", "a/Ackermanville.glb"),
        ("Adrian", "a/Adrian.glb"),
    ]
    files = ("Allensville/mesh.obj", "Allensville/mesh_z_up.obj", "Allensville/camera_poses.csv", "Beach/mesh_z_up.obj")
    assert listed(tree(tmp_path / "original", *files), "gibson") == [
        ("Allensville", "Allensville/mesh_z_up.obj"),
        ("Beach", "Beach/mesh_z_up.obj"),
    ]


def test_matterport(tmp_path):
    house = "v1/tasks/mp3d/17DRP5sb8fy/17DRP5sb8fy"
    root = tree(tmp_path, *(house + end for end in (".glb", ".house", ".navmesh", "_semantic.ply")))
    assert listed(root, "matterport") == [("17DRP5sb8fy", f"{house}.glb")]
    assert find_scenes(root, "matterport")[0].semantic == root / f"{house}_semantic.ply"


def test_replica(tmp_path):
    files = (
        "apartment_0/mesh.ply",
        "apartment_0/habitat/mesh_semantic.ply",
        "apartment_0/habitat/mesh_preseg_semantic.ply",
        "room_0/habitat/mesh_semantic.ply",
        "office_0.glb",
    )
    root = tree(tmp_path, *files)
    assert listed(root, "replica") == [
        ("apartment_0", "apartment_0/mesh.ply"),
        ("office_0", "office_0.glb"),
        ("room_0", "room_0/habitat/mesh_semantic.ply"),
    ]
    assert find_scenes(root, "replica")[0].semantic == root / "apartment_0/habitat/mesh_semantic.ply"


def test_any_folder_of_meshes(tmp_path):
    root = tree(
        tmp_path / "mine", "b10.ply", "b9.GLB", "sub/c.obj", "sub/c.gltf", "sub/c.mtl", ".hidden/d.glb", "x.png"
    )
    assert listed(root, "mesh") == [
        ("mine/b9", "b9.GLB"),
        ("mine/b10", "b10.ply"),
        ("mine/sub/c.gltf", "sub/c.gltf"),
        ("mine/sub/c.obj", "sub/c.obj"),
    ]
    assert [found.name for found in find_scenes(root / "sub/c.obj", "mesh")] == ["c"]


@pytest.mark.parametrize("layout", sorted(catalogue.LAYOUTS))
def test_a_folder_of_something_else_is_described(tmp_path, layout):
    root = tree(tmp_path, "a.mp4", "b.mp4", "c/readme.txt")
    with pytest.raises(ValueError, match=r"no scene here; expected .*; found 2 \.mp4 and 1 \.txt files"):
        find_scenes(root, layout)
    with pytest.raises(ValueError, match=r"a\.mp4: is no scene file; expected .*; found 1 \.mp4 file"):
        find_scenes(root / "a.mp4", layout)


def test_real_scenes(shared_data):
    names = [found.name for found in find_scenes(Path(shared_data / "scenes"), "mesh")]
    assert len(names) == 6
    assert {"scenes/apartment/apartment", "scenes/minimal/simple_room"} < set(names)
