"""Small glTF files written by hand, byte by byte as the specification has it."""

import json
import struct
from pathlib import Path

import numpy as np

_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
_COMPONENTS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}


class Gltf:
    """A file in the making: `json` may be edited at will."""

    def __init__(self):
        self.json = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": [], "nodes": [], "meshes": []}
        self.binary = bytearray()

    def view(self, data: bytes, **more) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        self.json["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data), **more})
        self.binary += data
        return len(self.json["bufferViews"]) - 1

    def array(self, values, dtype="f4", **more) -> int:
        table = np.asarray(values, "<" + dtype)
        table = table.reshape(len(table), -1)
        accessor = {
            "bufferView": self.view(table.tobytes()),
            "componentType": _COMPONENTS[dtype],
            "count": len(table),
            "type": _TYPES[table.shape[1] if table.size else 1],
        }
        self.json["accessors"].append({**accessor, **more})
        return len(self.json["accessors"]) - 1

    def append(self, kind: str, entry: dict) -> int:
        self.json.setdefault(kind, []).append(entry)
        return len(self.json[kind]) - 1

    def texture(self, data: bytes, mime="image/png", extension="") -> int:
        image = self.append("images", {"bufferView": self.view(data), "mimeType": mime})
        entry = {"source": image}
        return self.append("textures", {"extensions": {extension: entry}} if extension else entry)

    def material(self, texture: int | None = None, factor=None, **more) -> int:
        colour = {} if texture is None else {"baseColorTexture": {"index": texture}}
        colour |= {} if factor is None else {"baseColorFactor": list(factor)}
        return self.append("materials", {"pbrMetallicRoughness": colour, **more})

    def mesh(self, vertices, indices=None, *, uv=None, material=None, mode=None, index_type="u2", **attributes) -> int:
        primitive = {"attributes": {"POSITION": self.array(vertices), **attributes}}
        if uv is not None:
            primitive["attributes"]["TEXCOORD_0"] = self.array(uv)
        if indices is not None:
            primitive["indices"] = self.array(np.ravel(indices), index_type)
        primitive |= {} if material is None else {"material": material}
        primitive |= {} if mode is None else {"mode": mode}
        return self.append("meshes", {"primitives": [primitive]})

    def node(self, mesh: int | None = None, **more) -> int:
        return self.append("nodes", {**({} if mesh is None else {"mesh": mesh}), **more})

    def glb(self) -> bytes:
        self.json["buffers"] = [{"byteLength": len(self.binary)}]
        text = json.dumps(self.json).encode()
        text += b" " * (-len(text) % 4)
        binary = bytes(self.binary) + b"\0" * (-len(self.binary) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def write(self, path: Path) -> Path:
        """As `.glb`, or as `.gltf` with a `.bin` beside it."""
        if path.suffix == ".glb":
            path.write_bytes(self.glb())
        else:
            self.json["buffers"] = [{"byteLength": len(self.binary), "uri": "data%20of%20it.bin"}]
            path.with_name("data of it.bin").write_bytes(bytes(self.binary))
            path.write_text(json.dumps(self.json))
        return path


#: A unit square in the plane z = 0, its corners in the order top left, top right, bottom right, bottom left.
SQUARE = np.array([[0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]], np.float32)
SQUARE_UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
SQUARE_TRIANGLES = np.array([[0, 3, 2], [0, 2, 1]])


def square(texture: bytes, mime="image/png", extension="") -> Gltf:
    """A file with the square and one picture on it, upright."""
    gltf = Gltf()
    material = gltf.material(gltf.texture(texture, mime, extension), extensions={"KHR_materials_unlit": {}})
    gltf.node(gltf.mesh(SQUARE, SQUARE_TRIANGLES, uv=SQUARE_UV, material=material))
    return gltf
