"""The lists of classes of HM3D, Matterport3D and Replica, as their files look."""

import json

import cv2
import numpy as np
import pytest
from gltf_files import SQUARE, SQUARE_TRIANGLES, SQUARE_UV, square

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import SceneFile
from mimic_wds.sources.simulator.formats.semantics import by_colour
from mimic_wds.sources.simulator.scene_files import load_mesh

#: What the lower left and the upper right triangle of the square show.
COLOURS = np.array([[[1, 2, 3], [0x8B, 0x9F, 0x3C]], [[0xD0, 0x25, 0x90], [1, 2, 3]]], np.uint8)

HM3D = """HM3D Semantic Annotations
1,8B9F3C,"door frame",1
2,D02590,"Wall",1
3,000000,"wall",2
"""

HOUSE = """ASCII 1.1
H name label 1 0 1 5 4 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
C  0 4 wall#wall  1 wall 0 0 0 0 0
C  1 7 sofa_chair  3 chair 0 0 0 0 0
O  5 0 1  1.0 2.0 3.0  1 0 0  0 1 0  1 1 1  0 0 0 0 0 0 0 0
O  9 0 0  1.0 2.0 3.0  1 0 0  0 1 0  1 1 1  0 0 0 0 0 0 0 0
"""

REPLICA = {"classes": [{"id": 2, "name": "Wall"}, {"id": 7, "name": "chair"}], "id_to_label": [-1, 7, 7, 2]}


def classes(path):
    mesh = load_mesh(SceneFile(path=str(path)))
    return [mesh.semantic_names[i] if i >= 0 else None for i in mesh.semantic_ids]


def test_hm3d_colours(tmp_path):
    picture = COLOURS.repeat(32, 0).repeat(32, 1)
    png = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes()
    path = square(png).write(tmp_path / "TEE.semantic.glb")
    assert load_mesh(SceneFile(path=str(path))).semantic_ids is None
    (tmp_path / "TEE.semantic.txt").write_text(HM3D)
    assert classes(path) == ["wall", "door frame"]
    (tmp_path / "TEE.semantic.txt").write_text('1,ZZZZZZ,"door",1\n')
    with pytest.raises(SceneError, match=r"list of its classes is damaged: .*ZZZZZZ"):
        classes(path)


def test_colours_that_are_not_listed_and_coordinates_that_repeat(tmp_path):
    png = cv2.imencode(".png", np.ascontiguousarray(COLOURS[..., ::-1]))[1].tobytes()
    mesh = load_mesh(SceneFile(path=str(square(png).write(tmp_path / "a.glb"))))
    mesh.uv[:] += (3, -2)
    labelled = by_colour(mesh, {0xD02590: "wall"})
    np.testing.assert_array_equal(labelled.semantic_ids, [0, -1])
    np.testing.assert_array_equal(by_colour(mesh, {}).semantic_ids, [-1, -1])


def labelled_ply(path, objects):
    header = ["ply", "format ascii 1.0", "element vertex 4", *(f"property float {a}" for a in "xyz")]
    header += ["element face 2", "property list uchar int vertex_indices", "property int object_id", "end_header"]
    rows = [" ".join(map(str, point)) for point in SQUARE.tolist()]
    rows += [f"3 {' '.join(map(str, t))} {n}" for t, n in zip(SQUARE_TRIANGLES.tolist(), objects, strict=True)]
    path.write_text("\n".join([*header, *rows, ""]))
    return path


def test_matterport_objects(tmp_path):
    path = labelled_ply(tmp_path / "17DRP5sb8fy_semantic.ply", (9, 5))
    assert classes(path) == ["object 9", "object 5"]
    (tmp_path / "17DRP5sb8fy.house").write_text(HOUSE)
    assert classes(path) == ["wall", "chair"]
    assert classes(labelled_ply(path, (7, 5))) == [None, "chair"]


def test_replica_objects(tmp_path):
    path = labelled_ply(tmp_path / "mesh_semantic.ply", (3, 0))
    (tmp_path / "info_semantic.json").write_text(json.dumps(REPLICA))
    assert classes(path) == ["wall", None]
    (tmp_path / "info_semantic.json").write_text("{}")
    with pytest.raises(SceneError, match="list of its classes is damaged: 'classes'"):
        classes(path)


def test_the_square_is_what_the_tests_say():
    centres = SQUARE_UV[SQUARE_TRIANGLES].mean(axis=1)
    np.testing.assert_array_equal(np.floor(2 * centres), [[0, 1], [1, 0]])
