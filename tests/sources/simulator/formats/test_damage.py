"""Whatever happens to a file's bytes, loading it gives a mesh that can be drawn, or a SceneError."""

import cv2
import numpy as np
import pytest
from gltf_files import SQUARE, SQUARE_TRIANGLES, SQUARE_UV, square
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import SceneFile
from mimic_wds.sources.simulator.scene_files import load_mesh

PICTURE = cv2.imencode(".png", np.arange(48, dtype=np.uint8).reshape(4, 4, 3))[1].tobytes()


def glb():
    return square(PICTURE).glb()


def obj():
    lines = [f"v {x:g} {y:g} {z:g}" for x, y, z in SQUARE] + [f"vt {u:g} {v:g}" for u, v in SQUARE_UV]
    lines += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in triangle) for triangle in SQUARE_TRIANGLES]
    return "\n".join(lines).encode()


def ply(kind):
    lines = ["ply", f"format {kind} 1.0", "element vertex 4", *(f"property float {a}" for a in "xyz")]
    lines += ["element face 3", "property list uchar int vertex_indices", "end_header", ""]
    polygons = [*SQUARE_TRIANGLES.tolist(), [0, 1, 2, 3]]
    if kind == "ascii":
        rows = [*SQUARE.tolist(), *([len(p), *p] for p in polygons)]
        return "\n".join(lines).encode() + "\n".join(" ".join(map(str, row)) for row in rows).encode()
    faces = b"".join(bytes([len(p)]) + np.array(p, "<i4").tobytes() for p in polygons)
    return "\n".join(lines).encode() + SQUARE.tobytes() + faces


FILES = {
    "a.glb": glb(),
    "a.obj": obj(),
    "a.ply": ply("ascii"),
    "b.ply": ply("binary_little_endian"),
}


def attempt(path):
    """The mesh, or the message of the error."""
    try:
        return load_mesh(SceneFile(path=str(path), up="z"))
    except SceneError as error:
        return str(error)


@pytest.mark.parametrize("name", FILES)
def test_whole_files_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    assert len(load_mesh(SceneFile(path=str(tmp_path / name))).triangles) in (2, 4)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files(tmp_path, name, data):
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    keep = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path / name
    path.write_bytes(bytes(content[:keep]))
    mesh = attempt(path)
    if isinstance(mesh, str):
        assert str(path) in mesh
        assert "\n" not in mesh
        return
    assert np.isfinite(mesh.vertices).all()
    assert np.isfinite(mesh.uv).all()
    assert len(mesh.triangles) > 0
    assert mesh.triangles.max() < len(mesh.vertices)
