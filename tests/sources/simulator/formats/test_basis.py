"""Basis Universal textures made by a real encoder, in scenes as habitat-sim's converter and glTF's own tools write."""

import builtins
import struct

import numpy as np
import pytest
from basis_files import basis, ktx2
from gltf_files import square

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.base import SceneFile
from mimic_wds.sources.simulator.scene_files import load_mesh

#: Four fields of 16 x 32 texels: red, green / blue, white.
CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
PICTURE = CORNERS.repeat(16, 0).repeat(32, 1)


@pytest.fixture
def encoded():
    pytest.importorskip("opengl_basisu", reason="no decoder of Basis textures; pip install 'mimic-wds[basis]'")
    return ktx2


def load(data, mime, extension, folder, name="NAME.basis.glb"):
    gltf = square(data, mime, extension)
    gltf.json["extensionsUsed"] = gltf.json["extensionsRequired"] = [extension, "KHR_materials_unlit"]
    return load_mesh(SceneFile(path=str(gltf.write(folder / name))))


def test_hm3d_bottom_row_first(encoded, tmp_path):
    data = basis(encoded(PICTURE[::-1]), y_flipped=True)
    mesh = load(data, "image/x-basis", "GOOGLE_texture_basis", tmp_path)
    assert mesh.textures[0].shape == (32, 64, 3)
    np.testing.assert_allclose(mesh.textures[0], PICTURE.astype(int), atol=4)
    np.testing.assert_array_equal(mesh.uv, [[0, 0], [1, 0], [1, 1], [0, 1]])


def test_basis_top_row_first(encoded, tmp_path):
    data = basis(encoded(PICTURE), y_flipped=False)
    mesh = load(data, "image/x-basis", "GOOGLE_texture_basis", tmp_path)
    np.testing.assert_allclose(mesh.textures[0], PICTURE.astype(int), atol=4)


@pytest.mark.parametrize("codec", ["etc1s", "uastc"])
def test_ktx2(encoded, tmp_path, codec):
    mesh = load(encoded(PICTURE, codec), "image/ktx2", "KHR_texture_basisu", tmp_path)
    np.testing.assert_allclose(mesh.textures[0], PICTURE.astype(int), atol=4)


def test_ktx2_that_says_it_is_bottom_row_first(encoded, tmp_path):
    data = bytearray(encoded(PICTURE[::-1], "uastc"))
    start, length = struct.unpack_from("<II", data, 56)
    entry = b"KTXorientation\0ru\0"
    entry = struct.pack("<I", len(entry)) + entry + bytes(-len(entry) % 4)
    struct.pack_into("<I", data, 60, length + 32)
    struct.pack_into("<Q", data, 80, struct.unpack_from("<Q", data, 80)[0] + 32)  # where the pixels begin
    others = data[start : start + length]
    filler = struct.pack("<I", 32 - len(entry) - 4) + b"a\0" + bytes(32 - len(entry) - 6)
    data[start : start + length] = entry + others + filler
    mesh = load(bytes(data), "image/ktx2", "KHR_texture_basisu", tmp_path)
    np.testing.assert_allclose(mesh.textures[0], PICTURE.astype(int), atol=4)


@pytest.mark.parametrize("keep", [40, 0.7])
def test_a_broken_texture_is_grey(encoded, tmp_path, caplog, keep):
    data = encoded(PICTURE)
    cut = data[: keep if keep > 1 else int(len(data) * keep)]
    mesh = load(cut, "image/ktx2", "KHR_texture_basisu", tmp_path)
    np.testing.assert_array_equal(mesh.textures[0], [[[128, 128, 128]]])
    assert "image 0 cannot be decoded, grey instead" in caplog.text


@pytest.fixture
def _no_decoder(monkeypatch):
    """As on a machine without the extra."""
    imports = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "opengl_basisu":
            raise ImportError(name)
        return imports(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.usefixtures("_no_decoder")
def test_without_decoder_the_plain_file_beside_it_is_read(tmp_path):
    load_plain = square(b"no picture").write(tmp_path / "NAME.glb")
    assert load_plain.is_file()
    mesh = load(b"sB" + bytes(100), "image/x-basis", "GOOGLE_texture_basis", tmp_path)
    np.testing.assert_array_equal(mesh.textures[0], [[[128, 128, 128]]])


@pytest.mark.usefixtures("_no_decoder")
def test_without_decoder_and_plain_file_one_message_says_what_to_do(tmp_path):
    with pytest.raises(SceneError, match=r"pip install 'mimic-wds\[basis\]'.*NAME\.glb beside NAME\.basis\.glb"):
        load(b"sB" + bytes(100), "image/x-basis", "GOOGLE_texture_basis", tmp_path)
