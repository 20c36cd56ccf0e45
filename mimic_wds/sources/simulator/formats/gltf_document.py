"""The container of glTF 2.0: `.glb` or `.gltf`, its buffers, and arrays out of them (Khronos glTF 2.0, chapter 3)."""

import base64
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from mimic_wds.pairs import SceneError
from mimic_wds.sources.simulator.formats.contents import describe

#: An object of the JSON part.
Json: TypeAlias = dict[str, Any]

#: Ways to store geometry that are not read: a file that requires one of them is refused.
COMPRESSED = {
    "KHR_draco_mesh_compression": "Draco compression",
    "EXT_meshopt_compression": "meshopt compression",
    "KHR_meshopt_compression": "meshopt compression",
    "EXT_mesh_gpu_instancing": "instancing",
}

_DTYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_GLB, _JSON_CHUNK, _BIN_CHUNK = b"glTF", 0x4E4F534A, 0x004E4942


@dataclass(slots=True, kw_only=True, eq=False)
class Document:
    """An opened file. Numbers that name something are places in the lists of the JSON part, as everywhere in glTF."""

    path: Path
    json: Json
    binary: memoryview  #: the BIN chunk of a .glb
    _buffers: dict[int, memoryview] = field(default_factory=dict)

    def items(self, kind: str) -> list[Json]:
        """All objects of a kind: "nodes", "meshes", ..."""
        return self.json.get(kind) or []

    def view(self, number: int) -> memoryview:
        """The bytes of a buffer view. Raises SceneError when the file is too short."""
        view = self.json["bufferViews"][number]
        start, length = view.get("byteOffset", 0), view["byteLength"]
        buffer = self._buffer(view["buffer"])
        if start < 0 or start + length > len(buffer):
            raise SceneError(
                f"{self.path}: is cut short: buffer view {number} ends at byte {start + length} of {len(buffer)}"
            )
        return buffer[start : start + length]

    def array(self, number: int) -> NDArray[np.generic]:
        """An accessor (count, width) as stored; it may share the file's memory."""
        accessor = self.json["accessors"][number]
        values = self._dense(accessor, number)
        sparse = accessor.get("sparse")
        if sparse is None:
            return values
        values = values.copy()
        indices, places = sparse["indices"], sparse["count"]
        rows = self._strided(indices, _DTYPES[indices["componentType"]], places, 1, number).astype(np.int64)[:, 0]
        if places and rows.max() >= len(values):
            raise SceneError(f"{self.path}: accessor {number} replaces a value that it does not have")
        values[rows] = self._strided(sparse["values"], values.dtype.str, places, values.shape[1], number)
        return values

    def floats(self, number: int) -> NDArray[np.float32]:
        """An accessor (count, width) as float32; integers that stand for shares of 1 or -1..1 are taken as such."""
        values = self.array(number)
        if self.json["accessors"][number].get("normalized") and values.dtype.kind in "iu":
            top = np.float32(2 ** (8 * values.dtype.itemsize - (values.dtype.kind == "i")) - 1)
            return np.maximum(values.astype(np.float32) / top, np.float32(-1))
        return values.astype(np.float32, copy=False)

    def image(self, number: int) -> bytes | memoryview:
        """The encoded bytes of an image. Raises OSError when its file cannot be read."""
        image = self.json["images"][number]
        return self.view(image["bufferView"]) if "bufferView" in image else self._fetch(image["uri"])

    def _dense(self, accessor: Json, number: int) -> NDArray[np.generic]:
        dtype, width, count = _DTYPES[accessor["componentType"]], _WIDTHS[accessor["type"]], accessor["count"]
        if "bufferView" not in accessor:
            return np.zeros((count, width), dtype)
        return self._strided(accessor, dtype, count, width, number)

    def _strided(self, place: Json, dtype: str, count: int, width: int, number: int) -> NDArray[np.generic]:
        """`count` rows from where `place` says; the rows of interleaved data lie apart."""
        data, offset = self.view(place["bufferView"]), place.get("byteOffset", 0)
        row = np.dtype(dtype).itemsize * width
        stride = self.json["bufferViews"][place["bufferView"]].get("byteStride") or row
        if count < 0 or offset < 0 or (count and offset + (count - 1) * stride + row > len(data)):
            raise SceneError(f"{self.path}: accessor {number} is longer than its buffer view of {len(data)} bytes")
        if not count:
            return np.zeros((0, width), dtype)
        return np.ndarray((count, width), dtype, data, offset, (stride, np.dtype(dtype).itemsize))

    def _buffer(self, number: int) -> memoryview:
        if number not in self._buffers:
            uri = self.json["buffers"][number].get("uri")
            try:
                self._buffers[number] = self.binary if uri is None else memoryview(self._fetch(uri))
            except OSError as error:
                raise SceneError(f"{self.path}: its data {uri} cannot be read: {error.strerror}") from error
        return self._buffers[number]

    def _fetch(self, uri: str) -> bytes:
        """What a URI names: base64 data, or a file beside this one."""
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2])
        return (self.path.parent / unquote(uri)).read_bytes()


def open_document(path: Path) -> Document:
    """Open a `.glb` or `.gltf`. Raises SceneError when it is neither, cut short, or compressed in a way not read."""
    data = memoryview(path.read_bytes())
    if bytes(data[:4]) == _GLB:
        document = _open_glb(path, data)
    elif path.suffix.lower() == ".glb":
        raise SceneError(f"{path}: is no binary glTF file, {describe(bytes(data[:256]))}")
    else:
        document = Document(path=path, json=_parse(path, data), binary=memoryview(b""))
    missing = [what for name, what in COMPRESSED.items() if name in document.json.get("extensionsRequired", ())]
    if missing:
        raise SceneError(
            f"{path}: uses {' and '.join(missing)}, which is not read; save it again without (gltf-transform, Blender)"
        )
    return document


def _open_glb(path: Path, data: memoryview) -> Document:
    if len(data) < 20:
        raise SceneError(f"{path}: is cut short, {len(data)} bytes")
    version, length = struct.unpack("<II", data[4:12])
    if version != 2:
        raise SceneError(f"{path}: is glTF {version}, only glTF 2 is read")
    if length > len(data):
        raise SceneError(f"{path}: is cut short: {len(data)} bytes of {length}")
    chunks: dict[int, memoryview] = {}
    start = 12
    while start + 8 <= length:
        size, kind = struct.unpack("<II", data[start : start + 8])
        chunks.setdefault(kind, data[start + 8 : start + 8 + size])
        start += 8 + size
    if _JSON_CHUNK not in chunks:
        raise SceneError(f"{path}: is damaged: a .glb without its JSON part")
    return Document(path=path, json=_parse(path, chunks[_JSON_CHUNK]), binary=chunks.get(_BIN_CHUNK, memoryview(b"")))


def _parse(path: Path, data: memoryview) -> Json:
    try:
        content = json.loads(bytes(data).decode("utf-8-sig"))
    except ValueError as error:
        raise SceneError(f"{path}: is no glTF file, {describe(bytes(data[:256]))}: {error}") from error
    version = str(content.get("asset", {}).get("version", "")) if isinstance(content, dict) else ""
    if not version.startswith("2"):
        raise SceneError(f"{path}: is no glTF 2 file (asset.version is {version!r})")
    return dict(content)
