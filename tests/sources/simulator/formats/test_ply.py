"""PLY files in all three encodings, written as the format says; trimesh's own files as a second opinion."""

import cv2
import numpy as np
import pytest
from gltf_files import SQUARE, SQUARE_UV
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import SceneFile
from mimic_wds.sources.simulator.scene_files import load_mesh

FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
NAMES = {"f4": "float", "f8": "double", "u1": "uchar", "u2": "ushort", "i4": "int", "u4": "uint"}


def ply(elements, kind="binary_little_endian", comments=()):
    """A file: elements are (name, {property: (dtype, values)}); a list property has its count's type in front."""
    lines, body = ["ply", f"format {kind} 1.0", *(f"comment {c}" for c in comments)], b""
    for name, columns in elements:
        count = len(next(iter(columns.values()))[1])
        lines.append(f"element {name} {count}")
        for column, (dtype, _) in columns.items():
            first, _, second = dtype.partition(" ")
            what = f"list {NAMES[first]} {NAMES[second]}" if second else NAMES[first]
            lines.append(f"property {what} {column}")
        for row in range(count):
            for dtype, values in columns.values():
                first, _, second = dtype.partition(" ")
                cells = (
                    [(first, len(values[row])), *((second, v) for v in values[row])]
                    if second
                    else [(first, values[row])]
                )
                if kind == "ascii":
                    body += " ".join(repr(np.dtype(t).type(v).item()) for t, v in cells).encode() + b" "
                else:
                    body += b"".join(np.array(v, FORMATS[kind] + t).tobytes() for t, v in cells)
            body += b"\n" if kind == "ascii" else b""
    return "\n".join([*lines, "end_header", ""]).encode() + body


def vertices(points=SQUARE, **more):
    return "vertex", {
        **{axis: ("f4", column) for axis, column in zip("xyz", np.transpose(points), strict=True)},
        **more,
    }


def faces(*polygons, count="u1", **more):
    return "face", {"vertex_indices": (f"{count} i4", polygons), **more}


def load(data, folder, **more):
    (folder / "scene.ply").write_bytes(data)
    return load_mesh(SceneFile(path=str(folder / "scene.ply"), **more))


COLORS = {name: ("u1", [10 * i + shift for i in range(4)]) for shift, name in enumerate(("red", "green", "blue"))}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("count", ["u1", "i4"])
@pytest.mark.parametrize("polygons", [[(0, 3, 2, 1)], [(0, 3, 2), (0, 2, 1)], [(0, 3, 2), (0, 3, 2, 1), (1, 0, 2), ()]])
def test_triangles_quads_and_both_in_every_encoding(tmp_path, kind, count, polygons):
    data = ply([vertices(**COLORS), faces(*polygons, count=count)], kind)
    mesh = load(data, tmp_path)
    expected = [(p[0], p[k], p[k + 1]) for p in polygons for k in range(1, len(p) - 1)]
    np.testing.assert_array_equal(mesh.triangles, expected)
    np.testing.assert_array_equal(mesh.vertices, SQUARE)
    np.testing.assert_array_equal(mesh.colors, [[10 * i, 10 * i + 1, 10 * i + 2] for i in range(4)])
    np.testing.assert_array_equal(mesh.textures[0], [[[255, 255, 255]]])


@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=30),
    kind=st.sampled_from(sorted(FORMATS)),
    count=st.sampled_from(["u1", "u2", "i4"]),
)
@settings(max_examples=40, deadline=None)
def test_any_mix_of_polygons_gives_their_fans(tmp_path_factory, sizes, kind, count):
    rng = np.random.default_rng(sum(sizes))
    points = rng.uniform(size=(8, 3)).astype(np.float32)
    polygons = [tuple(rng.permutation(8)[:size].tolist()) for size in sizes]
    objects = list(range(len(sizes)))
    data = ply([vertices(points), faces(*polygons, count=count, object_id=("i4", objects))], kind)
    expected = [((p[0], p[k], p[k + 1]), n) for n, p in enumerate(polygons) for k in range(1, len(p) - 1)]
    folder = tmp_path_factory.mktemp("ply")
    if not expected:
        with pytest.raises(SceneError, match="holds no triangles"):
            load(data, folder)
        return
    mesh = load(data, folder)
    corners = points[np.array([triangle for triangle, _ in expected])]
    np.testing.assert_array_equal(mesh.vertices[mesh.triangles], corners)
    named = [mesh.semantic_names[i] for i in mesh.semantic_ids]
    assert named == [f"object {n}" for _, n in expected]


def test_colours_of_other_types(tmp_path):
    names = ("red", "green", "blue")
    shares = {name: ("f4", [0.0, 0.2, 1.0, 7.0]) for name in names}
    wide = {name: ("u2", [0, 51 * 257, 65535, 257]) for name in names}
    square = faces((0, 3, 2, 1))
    np.testing.assert_array_equal(load(ply([vertices(**shares), square]), tmp_path).colors[:, 0], [0, 51, 255, 255])
    np.testing.assert_array_equal(load(ply([vertices(**wide), square]), tmp_path).colors[:, 1], [0, 51, 255, 1])


def test_a_picture_on_vertices_or_corners_is_turned_the_right_way_up(tmp_path):
    corners = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    cv2.imwrite(str(tmp_path / "a picture.png"), corners[..., ::-1])
    s, t = SQUARE_UV.T
    comments = ("TextureFile a picture.png",)
    by_vertex = load(ply([vertices(s=("f4", s), t=("f4", 1 - t)), faces((0, 3, 2, 1))], comments=comments), tmp_path)
    np.testing.assert_array_equal(by_vertex.uv, SQUARE_UV)
    np.testing.assert_array_equal(by_vertex.textures[0], corners)
    polygon = (0, 3, 2, 1)
    texcoord = ("u1 f4", [np.c_[s, 1 - t][list(polygon)].ravel()])
    data = ply([vertices(**COLORS), faces(polygon, texcoord=texcoord)], comments=comments)
    by_corner = load(data, tmp_path)
    places = by_corner.vertices[by_corner.triangles].reshape(-1, 3)
    np.testing.assert_array_equal(by_corner.uv[by_corner.triangles].reshape(-1, 2), places[:, :2] * (1, -1) + (0, 1))


def test_elements_before_and_after_are_passed_over(tmp_path):
    camera = ("camera", {"names": ("u1 u1", [b"ab", b""]), "f": ("f8", [1.0, 2.0])})
    data = ply([camera, vertices(), faces((0, 3, 2)), ("edge", {"a": ("i4", [1])})])
    np.testing.assert_array_equal(load(data, tmp_path).triangles, [[0, 2, 1]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ply([vertices()]), r"points only \(4 vertex\)"),
        (ply([vertices(), faces((0, 1, 2))])[:-3], "cut short or damaged: element face"),
        (ply([vertices(), faces((0, 1, 2), (0, 1, 2, 3))])[:-3], "cut short or damaged: element face"),
        (ply([vertices(), faces((0, 1, 2))], "ascii")[:-6], "cut short or damaged: element face"),
        (ply([vertices(), faces((0, 1, 2))], "ascii").replace(b"0.0", b"zero"), "cut short or damaged: element vertex"),
        (ply([vertices()])[:100], "cut short or damaged|header"),
        (b"ply\nformat ascii 1.0\nelement face many\nend_header\n", "PLY header line 'element face many'"),
        (b"ply\nformat ebcdic 1.0\nend_header\n", "names no known format"),
        (b"ply\n" + b"comment\n" * 2000, "does not end"),
        (b"glTF\2\0\0\0", "is no PLY file, but binary glTF"),
        (b"", "is no PLY file, it is empty"),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path, data, message):
    with pytest.raises(SceneError, match=message):
        load(data, tmp_path)


def test_files_of_trimesh(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(subdivisions=2)
    ball.visual.vertex_colors = np.random.default_rng(0).integers(0, 256, (len(ball.vertices), 4), np.uint8)
    for encoding in ("ascii", "binary"):
        mesh = load(trimesh.exchange.ply.export_ply(ball, encoding=encoding), tmp_path)
        np.testing.assert_allclose(mesh.vertices, ball.vertices, atol=1e-6)
        np.testing.assert_array_equal(mesh.triangles, ball.faces)
        np.testing.assert_array_equal(mesh.colors, ball.visual.vertex_colors[:, :3])
