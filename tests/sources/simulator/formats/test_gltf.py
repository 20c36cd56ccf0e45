"""glTF files written byte by byte, with the exact mesh that they must give."""

import base64
import json
import logging
import struct

import cv2
import numpy as np
import pytest
from gltf_files import SQUARE, SQUARE_TRIANGLES, SQUARE_UV, Gltf, square

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator import raster
from mimic_wds.sources.simulator.base import SceneFile
from mimic_wds.sources.simulator.formats.gltf import class_of, unrolled
from mimic_wds.sources.simulator.formats.gltf_materials import uv_matrix
from mimic_wds.sources.simulator.scene_files import load_mesh

#: Red, green / blue, white.
CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)


def png(image=CORNERS, ending=".png"):
    return cv2.imencode(ending, np.ascontiguousarray(image[..., ::-1]))[1].tobytes()


def load(gltf, folder, name="scene.glb", **more):
    return load_mesh(SceneFile(path=str(gltf.write(folder / name)), **more))


@pytest.mark.parametrize("name", ["scene.glb", "scene.gltf"])
def test_a_square_with_a_picture(tmp_path, name):
    mesh = load(square(png()), tmp_path, name)
    np.testing.assert_array_equal(mesh.vertices, SQUARE)
    np.testing.assert_array_equal(mesh.triangles, SQUARE_TRIANGLES)
    np.testing.assert_array_equal(mesh.uv, SQUARE_UV)
    np.testing.assert_array_equal(mesh.texture_ids, [0, 0])
    np.testing.assert_array_equal(mesh.textures[0], CORNERS)
    assert [a.dtype for a in (mesh.vertices, mesh.triangles, mesh.uv)] == [np.float32, np.int32, np.float32]
    assert mesh.colors is None
    assert mesh.semantic_ids is None


def test_each_corner_of_the_picture_lands_where_gltf_says(tmp_path):
    mesh = load(square(png(CORNERS.repeat(64, 0).repeat(64, 1))), tmp_path)
    camera = raster.Camera(raster.pose((0.5, 0.5, 1.0)), 50.0, (64, 64))
    picture, depth = raster.Renderer(mesh).render(camera)
    assert (depth > 0).all()
    seen = [picture[y, x] for y, x in ((5, 5), (5, 58), (58, 5), (58, 58))]
    np.testing.assert_array_equal(seen, CORNERS.reshape(4, 3))


def test_factors_are_folded_into_the_picture_and_pictures_are_shared(tmp_path):
    gltf = Gltf()
    texture = gltf.texture(png())
    for factor in (None, (1, 1, 1, 1), (0.5, 0.25, 1, 1)):
        gltf.node(gltf.mesh(SQUARE, SQUARE_TRIANGLES, uv=SQUARE_UV, material=gltf.material(texture, factor)))
    gltf.node(gltf.mesh(SQUARE, SQUARE_TRIANGLES, material=gltf.material(factor=(0.2, 0.4, 0.6, 1))))
    gltf.node(gltf.mesh(SQUARE, SQUARE_TRIANGLES))
    mesh = load(gltf, tmp_path)
    np.testing.assert_array_equal(mesh.texture_ids, [0, 0, 0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(mesh.textures[1], [[[128, 0, 0], [0, 64, 0]], [[0, 0, 255], [128, 64, 255]]])
    np.testing.assert_array_equal(mesh.textures[2], [[[51, 102, 153]]])
    np.testing.assert_array_equal(mesh.textures[3], [[[255, 255, 255]]])


def test_nodes_carry_their_transforms_down(tmp_path):
    gltf = Gltf()
    mesh = gltf.mesh(SQUARE, SQUARE_TRIANGLES)
    turn = [0, 0, np.sqrt(0.5), np.sqrt(0.5)]  # 90 degrees about z
    inner = gltf.node(mesh, translation=[1, 2, 3], rotation=turn, scale=[2, 3, 4])
    outer = np.eye(4)
    outer[:3, :] = [[0, 0, 1, 10], [1, 0, 0, 0], [0, 1, 0, 0]]
    root = gltf.node(children=[inner], matrix=outer.T.ravel().tolist())
    gltf.node(mesh, translation=[500, 0, 0])  # not in the scene
    gltf.json |= {"scene": 1, "scenes": [{"nodes": []}, {"nodes": [root]}]}
    x, y, z = SQUARE.T
    inside = np.stack([1 - 3 * y, 2 + 2 * x, 3 + 4 * z])
    expected = np.stack([inside[2] + 10, inside[0], inside[1]], axis=1)
    np.testing.assert_allclose(load(gltf, tmp_path).vertices, expected, atol=1e-6)


def test_a_mirrored_node_keeps_its_front(tmp_path):
    gltf = Gltf()
    gltf.node(gltf.mesh(SQUARE, SQUARE_TRIANGLES), scale=[-1, 1, 1])
    mesh = load(gltf, tmp_path)
    a, b, c = np.moveaxis(mesh.vertices[mesh.triangles], 1, 0)
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()


def test_texture_coordinates_as_the_material_asks(tmp_path):
    gltf = Gltf()
    transform = {"KHR_texture_transform": {"offset": [0.25, 0.5], "scale": [2, 3], "texCoord": 1}}
    plain = gltf.material(gltf.texture(png()))
    gltf.json["materials"][plain]["pbrMetallicRoughness"]["baseColorTexture"]["extensions"] = transform
    second = gltf.array(np.round(SQUARE_UV * 65535), "u2", normalized=True)
    gltf.node(gltf.mesh(SQUARE, SQUARE_TRIANGLES, uv=np.full((4, 2), 9.0), material=plain, TEXCOORD_1=second))
    expected = SQUARE_UV * (2, 3) + (0.25, 0.5)
    np.testing.assert_allclose(load(gltf, tmp_path).uv, expected, atol=1e-6)


def test_texture_transform_of_the_extensions_own_example():
    # "utilizes only the lower left quadrant of the source image, rotated clockwise 90 degrees"
    matrix = uv_matrix({"offset": [0, 1], "rotation": np.pi / 2, "scale": [0.5, 0.5]})
    corners = np.c_[SQUARE_UV, np.ones(4)] @ matrix.T
    np.testing.assert_allclose(corners, [[0, 1], [0, 0.5], [0.5, 0.5], [0.5, 1]], atol=1e-12)


def test_specular_glossiness_takes_the_place_of_the_other_description(tmp_path):
    gltf = Gltf()
    texture = gltf.texture(png())
    described = {"diffuseFactor": [0, 1, 1, 1], "diffuseTexture": {"index": texture}}
    material = gltf.material(factor=(1, 0, 0, 1), extensions={"KHR_materials_pbrSpecularGlossiness": described})
    gltf.node(gltf.mesh(SQUARE, SQUARE_TRIANGLES, uv=SQUARE_UV, material=material))
    np.testing.assert_array_equal(load(gltf, tmp_path).textures[0], CORNERS * np.array([0, 1, 1], np.uint8))


@pytest.mark.parametrize(
    ("values", "dtype", "more"),
    [
        ([[255, 0, 51, 7]] * 4, "u1", {"normalized": True}),
        ([[65535, 0, 13107]] * 4, "u2", {"normalized": True}),
        ([[1.5, -1, 0.2]] * 4, "f4", {}),
    ],
)
def test_vertex_colours(tmp_path, values, dtype, more):
    gltf = Gltf()
    gltf.node(gltf.mesh(SQUARE, SQUARE_TRIANGLES, COLOR_0=gltf.array(values, dtype, **more)))
    gltf.node(gltf.mesh(SQUARE, SQUARE_TRIANGLES))
    mesh = load(gltf, tmp_path)
    np.testing.assert_array_equal(mesh.colors, [[255, 0, 51]] * 4 + [[255, 255, 255]] * 4)


@pytest.mark.parametrize("index_type", ["u1", "u2", "u4"])
def test_indices_of_every_width(tmp_path, index_type):
    gltf = Gltf()
    gltf.node(gltf.mesh(SQUARE, SQUARE_TRIANGLES, index_type=index_type))
    np.testing.assert_array_equal(load(gltf, tmp_path).triangles, SQUARE_TRIANGLES)


def test_strips_fans_and_lists_without_indices(tmp_path):
    np.testing.assert_array_equal(unrolled(np.arange(5), 5), [[0, 1, 2], [1, 3, 2], [2, 3, 4]])
    np.testing.assert_array_equal(unrolled(np.arange(5), 6), [[1, 2, 0], [2, 3, 0], [3, 4, 0]])
    np.testing.assert_array_equal(unrolled(np.arange(7), 4), [[0, 1, 2], [3, 4, 5]])
    assert unrolled(np.arange(2), 5).shape == (0, 3)
    gltf = Gltf()
    gltf.node(gltf.mesh(SQUARE[[0, 3, 1, 2]], mode=5))
    gltf.node(gltf.mesh(SQUARE[[0, 3, 2, 1]], mode=6))
    gltf.node(gltf.mesh(SQUARE[SQUARE_TRIANGLES.ravel()]))
    gltf.node(gltf.mesh(SQUARE, [0, 1, 2, 3], mode=1))  # lines
    mesh = load(gltf, tmp_path)
    assert len(mesh.triangles) == 6
    a, b, c = np.moveaxis(mesh.vertices[mesh.triangles], 1, 0)
    np.testing.assert_allclose(np.cross(b - a, c - a), [[0, 0, 1]] * 6, atol=1e-6)  # all face the same way


def test_interleaved_and_sparse_and_quantised_arrays(tmp_path):
    gltf = Gltf()
    rows = np.zeros(4, np.dtype([("uv", "<f4", 2), ("at", "<i2", 3), ("pad", "<u2")]))
    rows["uv"], rows["at"] = SQUARE_UV, SQUARE * 100
    view = gltf.view(rows.tobytes(), byteStride=16)
    places = gltf.append(
        "accessors", {"bufferView": view, "byteOffset": 8, "componentType": 5122, "count": 4, "type": "VEC3"}
    )
    uv = gltf.append("accessors", {"bufferView": view, "componentType": 5126, "count": 4, "type": "VEC2"})
    sparse = {
        "count": 1,
        "indices": {"bufferView": gltf.view(struct.pack("<H", 2)), "componentType": 5123},
        "values": {"bufferView": gltf.view(struct.pack("<3h", 700, 0, 0))},
    }
    gltf.json["accessors"][places]["sparse"] = sparse
    indices = gltf.array(SQUARE_TRIANGLES.ravel(), "u2")
    attributes = {"POSITION": places, "TEXCOORD_0": uv}
    material = gltf.material(gltf.texture(png()))
    primitive = {"attributes": attributes, "indices": indices, "material": material}
    gltf.node(gltf.append("meshes", {"primitives": [primitive]}), scale=[0.01] * 3)
    gltf.json["extensionsRequired"] = ["KHR_mesh_quantization"]
    mesh = load(gltf, tmp_path)
    expected = SQUARE.copy()
    expected[2] = (7, 0, 0)
    np.testing.assert_allclose(mesh.vertices, expected, atol=1e-6)
    np.testing.assert_array_equal(mesh.uv, SQUARE_UV)


def test_vertices_shared_by_primitives_are_not_copied_to_each(tmp_path):
    gltf = Gltf()
    points = np.random.default_rng(0).uniform(size=(300, 3))
    shared = gltf.array(points)
    indices = [gltf.array(np.arange(i, i + 3), "u2") for i in range(0, 300, 3)]
    primitives = [{"attributes": {"POSITION": shared}, "indices": i} for i in indices]
    gltf.node(gltf.append("meshes", {"primitives": primitives}))
    mesh = load(gltf, tmp_path)
    assert mesh.vertices.shape == (300, 3)
    np.testing.assert_array_equal(mesh.vertices[mesh.triangles].reshape(-1, 3), points.astype(np.float32))


def test_names_of_nodes_are_classes_if_they_have_slashes(tmp_path):
    assert [class_of(n) for n in ("sofa/sofa_03/0", "room/Floor/3", "room/Wall paint/1", "Cube.001", "")] == [
        "sofa", "floor", "wall paint", "", "",
    ]  # fmt: skip
    gltf = Gltf()
    for name in ("sofa/a", "Cube.001", "room/Floor/3", "sofa/b"):
        gltf.node(gltf.mesh(SQUARE, SQUARE_TRIANGLES), name=name)
    mesh = load(gltf, tmp_path)
    assert mesh.semantic_names == ("sofa", "floor")
    np.testing.assert_array_equal(mesh.semantic_ids, [0, 0, -1, -1, 1, 1, 0, 0])


@pytest.mark.parametrize(
    ("more", "left"),
    [
        ({"alphaMode": "BLEND"}, 0),
        ({"alphaMode": "MASK"}, 0),
        ({"alphaMode": "MASK", "alphaCutoff": 0.0}, 2),
        ({}, 2),
    ],
)
def test_only_what_is_wholly_invisible_is_left_out(tmp_path, more, left):
    gltf = Gltf()
    gltf.node(gltf.mesh(SQUARE, SQUARE_TRIANGLES, material=gltf.material(factor=(1, 1, 1, 0), **more)))
    gltf.node(gltf.mesh(SQUARE + 5, SQUARE_TRIANGLES))
    assert len(load(gltf, tmp_path).triangles) == left + 2


def test_alpha_is_dropped_and_jpegs_keep_their_rows(tmp_path):
    rgba = np.dstack([CORNERS[..., ::-1], np.zeros((2, 2), np.uint8)])
    np.testing.assert_array_equal(load(square(cv2.imencode(".png", rgba)[1].tobytes()), tmp_path).textures[0], CORNERS)
    # A JPEG that says in its EXIF data that it should be turned: texture coordinates know nothing of that.
    tall = np.zeros((32, 16, 3), np.uint8)
    tall[:16] = 200
    jpeg = cv2.imencode(".jpg", tall)[1].tobytes()
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    texture = load(square(turned, "image/jpeg"), tmp_path).textures[0]
    assert texture.shape == (32, 16, 3)
    assert texture[:12].min() > 190 > 10 > texture[20:].max()


def test_huge_pictures_are_reduced(tmp_path, caplog):
    wide = np.zeros((2, 9000, 3), np.uint8)
    wide[:, 4500:] = 255
    mesh = load(square(png(wide)), tmp_path)
    assert mesh.textures[0].shape == (1, 4500, 3)
    assert "9000 x 2, reduced to 4500 x 1" in caplog.text
    assert mesh.textures[0][0, 2249].max() == 0
    assert mesh.textures[0][0, 2250].min() == 255


def test_pictures_in_files_and_in_the_text(tmp_path):
    gltf = square(png())
    (tmp_path / "a picture.png").write_bytes(png(CORNERS[::-1]))
    gltf.json["images"][0] = {"uri": "a%20picture.png"}
    np.testing.assert_array_equal(load(gltf, tmp_path, "a.gltf").textures[0], CORNERS[::-1])
    gltf.json["images"][0] = {"uri": "data:image/png;base64," + base64.b64encode(png()).decode()}
    np.testing.assert_array_equal(load(gltf, tmp_path, "b.gltf").textures[0], CORNERS)


@pytest.mark.parametrize("image", [{"uri": "nowhere.png"}, None])
def test_a_missing_or_broken_picture_is_grey(tmp_path, caplog, image):
    gltf = square(b"no picture")
    if image is not None:
        gltf.json["images"][0] = image
    mesh = load(gltf, tmp_path)
    np.testing.assert_array_equal(mesh.textures[0], [[[128, 128, 128]]])
    assert "image 0" in caplog.text
    assert "grey instead" in caplog.text


def test_a_picture_without_texture_coordinates_gives_its_mean(tmp_path, caplog):
    gltf = Gltf()
    gltf.node(gltf.mesh(SQUARE, SQUARE_TRIANGLES, material=gltf.material(gltf.texture(png()))))
    mesh = load(gltf, tmp_path)
    np.testing.assert_array_equal(mesh.textures[0], [[[128, 128, 128]]])
    np.testing.assert_array_equal(mesh.uv, np.zeros((4, 2)))
    assert "no texture coordinates" in caplog.text


def test_broken_triangles_are_left_out_and_counted(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    gltf = Gltf()
    points = np.concatenate([SQUARE, [[np.nan, 0, 0], [np.inf, 0, 0], [0.5, 0.5, 0], [5, 5, 5]]])
    bad = [[0, 1, 4], [0, 1, 5], [0, 0, 1], [1, 3, 6], [0, 1, 99]]
    gltf.node(gltf.mesh(points, np.concatenate([SQUARE_TRIANGLES, bad])))
    mesh = load(gltf, tmp_path)
    np.testing.assert_array_equal(mesh.triangles, SQUARE_TRIANGLES)
    np.testing.assert_array_equal(mesh.vertices, SQUARE)  # nothing uses the others
    assert "1 with a vertex number out of range, 2 with a vertex that is not finite, 2 without area" in caplog.text


def _text_edit(change):
    def damage(gltf):
        change(gltf.json)
        return gltf.glb()

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda g: b"", "is no binary glTF file, it is empty"),
        (lambda g: b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (lambda g: b"<!DOCTYPE html><html>", "a download that failed"),
        (lambda g: b"ply\nformat ascii 1.0\n", "but a PLY file"),
        (lambda g: json.dumps(g.json).encode(), "but JSON"),
        (lambda g: g.glb()[:-10], "is cut short"),
        (lambda g: g.glb()[:15], "is cut short"),
        (lambda g: struct.pack("<4sII", b"glTF", 2, 20) + bytes(8), "without its JSON part"),
        (lambda g: b"glTF" + struct.pack("<I", 1) + g.glb()[8:], "glTF 1"),
        (_text_edit(lambda j: j.update(asset={"version": "1.0"})), "no glTF 2 file"),
        (_text_edit(lambda j: j.update(nodes=[])), "holds no triangles"),
        (_text_edit(lambda j: j["nodes"][0].update(mesh=7)), "is damaged glTF: IndexError"),
        (_text_edit(lambda j: j["meshes"][0].update(primitives=3)), "is damaged glTF: TypeError"),
        (_text_edit(lambda j: j.update(nodes=[{"children": [0]}], scenes=[{"nodes": [0]}])), "their own children"),
        (_text_edit(lambda j: j["accessors"][0].update(count=500)), "accessor 0 is longer"),
        (_text_edit(lambda j: j["bufferViews"][1].update(byteLength=5000)), "is cut short: buffer view 1"),
        (_text_edit(lambda j: j["accessors"][1].update(count=3)), "texture coordinates of shape"),
        (_text_edit(lambda j: j.update(extensionsRequired=["KHR_draco_mesh_compression"])), "Draco"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_say_why(tmp_path, damage, message):
    path = tmp_path / "broken.glb"
    path.write_bytes(damage(square(png())))
    with pytest.raises(SceneError, match=message) as caught:
        load_mesh(SceneFile(path=str(path)))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gltf_without_its_data(tmp_path):
    path = square(png()).write(tmp_path / "a.gltf")
    (tmp_path / "data of it.bin").unlink()
    with pytest.raises(SceneError, match=r"a\.gltf: its data data%20of%20it\.bin cannot be read: No such file"):
        load_mesh(SceneFile(path=str(path)))
