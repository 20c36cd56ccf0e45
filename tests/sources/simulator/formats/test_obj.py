"""OBJ files as programs write them, with the exact mesh that they must give; trimesh as a second opinion."""

import cv2
import numpy as np
import pytest
from gltf_files import SQUARE, SQUARE_UV
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import SceneFile
from mimic_wds.sources.simulator.formats import obj_text
from mimic_wds.sources.simulator.scene_files import load_mesh

CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)

POINTS = "".join(f"v {x:g} {y:g} {z:g}\n" for x, y, z in SQUARE)
#: OBJ counts v from the bottom.
TEXCOORDS = "".join(f"vt {u:g} {1 - v:g}\n" for u, v in SQUARE_UV)


def load(text, folder, mtl=None):
    if mtl is not None:
        (folder / "the materials.mtl").write_text(mtl)
        cv2.imwrite(str(folder / "a picture.png"), CORNERS[..., ::-1])
    (folder / "scene.obj").write_bytes(text.encode())
    return load_mesh(SceneFile(path=str(folder / "scene.obj")))


def corners(mesh):
    """Positions and texture coordinates of all corners."""
    return mesh.vertices[mesh.triangles].reshape(-1, 3), mesh.uv[mesh.triangles].reshape(-1, 2)


def test_a_square_with_a_picture(tmp_path):
    text = f"# made by hand\nmtllib the materials.mtl\n{POINTS}{TEXCOORDS}usemtl a b\nf 1/1 4/4 3/3 2/2\n"
    mesh = load(text, tmp_path, "newmtl a b\nKa 1 1 1\nKd 0 0 0\nmap_Kd -blendu on a picture.png\n")
    places, uv = corners(mesh)
    np.testing.assert_array_equal(places, SQUARE[[0, 3, 2, 0, 2, 1]])
    np.testing.assert_array_equal(uv, SQUARE_UV[[0, 3, 2, 0, 2, 1]])
    np.testing.assert_array_equal(mesh.textures[0], CORNERS)
    assert len(mesh.vertices) == 4


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "face",
    ["1/1/1 4/4/1 3/3/1", "1/1 4/4 3/3", "1//1 4//1 3//1", "1 4 3", "-4/-4 -1/-1 -2/-2", "1/1\t4/4 \\\n3/3"],
)
def test_every_way_to_write_a_corner(tmp_path, face, newline):
    text = f"mtllib the materials.mtl\n{POINTS}{TEXCOORDS}vn 0 0 1\nusemtl m\nf {face}"
    mesh = load(text.replace("\n", newline), tmp_path, "newmtl m\nmap_Kd a picture.png")
    places, uv = corners(mesh)
    np.testing.assert_array_equal(places, SQUARE[[0, 3, 2]])
    if "/" in face and "//" not in face:
        np.testing.assert_array_equal(uv, SQUARE_UV[[0, 3, 2]])
        np.testing.assert_array_equal(mesh.textures[0], CORNERS)
    else:
        np.testing.assert_array_equal(mesh.textures[0], [[[128, 128, 128]]])  # the picture's mean


def test_materials_colours_and_what_is_missing(tmp_path, caplog):
    uses = {"red": "1 2 3", "nowhere": "1 2 4", "half": "2 3 4", "red ": "1 3 4", "lost": "1 4 3"}
    faces = "".join(f"usemtl {name}\nf {face}\n" for name, face in uses.items())
    mtl = "newmtl red\nKd 1 0 0.2\nnewmtl half\nKd 0.5 0.5 0.5\nmap_Kd a picture.png\nnewmtl lost\nmap_Kd gone.png\n"
    mesh = load(f"f 1 3 2\nmtllib the materials.mtl\n{POINTS}{faces}", tmp_path, mtl)
    colours = [mesh.textures[i].reshape(-1, 3)[0].tolist() for i in mesh.texture_ids]
    assert colours == [[255] * 3, [255, 0, 51], [255, 0, 51], [255] * 3, [64] * 3, [128] * 3]
    assert "no material 'nowhere' in the materials.mtl, white instead" in caplog.text
    assert "gone.png cannot be read (No such file or directory), grey instead" in caplog.text
    caplog.clear()
    mesh = load(f"mtllib absent.mtl\n{POINTS}usemtl x\nf 1 2 3\n", tmp_path)
    np.testing.assert_array_equal(mesh.textures[0], [[[255, 255, 255]]])
    assert "absent.mtl cannot be read" in caplog.text


def test_vertex_colours(tmp_path):
    lines = "".join(f"v {x:g} {y:g} {z:g} {x:g} {y:g} 0.2\n" for x, y, z in SQUARE)
    mesh = load(lines + "f 1 2 3 4\n", tmp_path)
    np.testing.assert_array_equal(mesh.colors, np.c_[SQUARE[:, :2] * 255, np.full(4, 51)])


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_any_order_of_lines_and_any_size_of_blocks_give_the_same_mesh(tmp_path_factory, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    lines, points, expected = [], [], []
    for _ in range(data.draw(st.integers(5, 40))):
        if len(points) < 4 or rng.random() < 0.5:
            points.append(np.round(rng.uniform(-9, 9, 3), 4))
            lines.append("v " + " ".join(map(repr, points[-1].tolist())))
            continue
        polygon = rng.permutation(len(points))[: rng.integers(3, 5)]
        expected += [
            [points[polygon[0]], points[polygon[k]], points[polygon[k + 1]]] for k in range(1, len(polygon) - 1)
        ]
        back = rng.random() < 0.5
        ending = ["", "//1", "/7/1", "/7"][rng.integers(4)]
        lines.append("f " + " ".join(f"{p - len(points) if back else p + 1}{ending}" for p in polygon.tolist()))
    folder = tmp_path_factory.mktemp("obj")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(obj_text, "BLOCK_BYTES", data.draw(st.integers(1, 400)))
        if not expected:
            with pytest.raises(SceneError, match="holds no triangles"):
                load("\n".join(lines), folder)
            return
        mesh = load("\n".join(lines), folder)
    found = mesh.vertices[mesh.triangles]
    order = [np.lexsort(np.reshape(t, (-1, 9)).T) for t in (found, np.float32(expected))]
    np.testing.assert_array_equal(found[order[0]], np.float32(expected)[order[1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (POINTS + "f 1 2 x\n", "damaged: .*'x'"),
        (POINTS + "f 1 2\n", "the face 'f 1 2'"),
        (POINTS + "f 1/1 2 3\n", "the face 'f 1/1 2 3'"),
        ("v 1 two 3\n" + POINTS, "damaged: .*two"),
        ("v 1 2\n" + POINTS, "fewer than three numbers"),
        (POINTS, "holds no triangles$"),
        (POINTS + "f 1 2 9\nf 0 1 2\n", "2 with a vertex number out of range"),
        ("<html>\n", "no OBJ file with vertices, but HTML"),
        ("", "no OBJ file with vertices, it is empty"),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path, text, message):
    with pytest.raises(SceneError, match=message):
        load(text, tmp_path)


def test_files_of_trimesh(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(subdivisions=2)
    mesh = load(trimesh.exchange.obj.export_obj(ball), tmp_path)
    np.testing.assert_allclose(corners(mesh)[0], ball.triangles.reshape(-1, 3), atol=1e-6)
