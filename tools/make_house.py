#!/usr/bin/env python3
"""Write a small furnished house as a scene file whose parts are named: to mine pairs from, and to render labels of.

    python tools/make_house.py houses/one.glb --seed 1
    mimic-shard build --source mesh houses --out shards/houses
    mimic-shard render-labels houses --out shards/labels

The house of the demo: five rooms; another seed draws other wallpapers, carpets and small things, --mirror exchanges
left and right. Its parts are floor, ceiling, wall and furniture. Needs no download: `pip install 'mimic-wds[demo]'`.
"""

import argparse
import json
import struct
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.sources.simulator.builder import Builder
from mimic_wds.sources.simulator.house import HEIGHT_M, add_shell, build_house
from mimic_wds.sources.simulator.materials import load_textures
from mimic_wds.sources.simulator.raster import Mesh
from mimic_wds.storage.files import atomic_write

PARTS = ("floor", "ceiling", "wall", "furniture")


def main() -> int:
    """Write the file; returns the exit code."""
    args = parse_args()
    try:
        mesh = build_house(args.seed).mesh
    except ImportError as error:
        print(f"make_house: {error}", file=sys.stderr)
        return 1
    shell = Builder(load_textures(args.seed))
    add_shell(shell)
    parts = parts_of(mesh, len(shell.mesh().triangles))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(args.out) as file:
        file.write(as_glb(mirrored(mesh) if args.mirror else mesh, parts))
    counts = ", ".join(f"{int((parts == number).sum())} of {name}" for number, name in enumerate(PARTS))
    print(f"{args.out}: {len(mesh.triangles)} triangles ({counts})")
    return 0


def parts_of(mesh: Mesh, num_shell: int) -> NDArray[np.int64]:
    """Which of PARTS each triangle (T,) is; the first `num_shell` are floors, ceilings and walls."""
    corners = mesh.vertices[mesh.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = np.abs(normal[:, 1]) > 0.9 * np.linalg.norm(normal, axis=1)
    height = corners[:, :, 1].mean(axis=1)
    in_shell = np.arange(len(corners)) < num_shell
    low, high = flat & (height < 0.01), flat & (height > HEIGHT_M - 0.01)
    return np.where(in_shell, np.where(low, 0, np.where(high, 1, 2)), 3)


def mirrored(mesh: Mesh) -> Mesh:
    """Left and right exchanged; triangles keep their outer side."""
    return Mesh(
        mesh.vertices * np.float32([-1, 1, 1]),
        mesh.triangles[:, ::-1].copy(),
        mesh.uv,
        mesh.texture_ids,
        mesh.textures,
    )


def as_glb(mesh: Mesh, parts: NDArray[np.int64]) -> bytes:
    """glTF 2.0 in one file: a node per part and texture, named by the part."""
    binary, views, accessors, meshes, nodes = bytearray(), [], [], [], []

    def view(data: bytes) -> int:
        binary.extend(b"\0" * (-len(binary) % 4))
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)})
        binary.extend(data)
        return len(views) - 1

    def accessor(values: NDArray[np.generic], component: int, kind: str, **more: object) -> int:
        accessors.append({"bufferView": view(values.tobytes()), "componentType": component, "count": len(values),
                          "type": kind, **more})  # fmt: skip
        return len(accessors) - 1

    for number, name in enumerate(PARTS):
        for texture in np.unique(mesh.texture_ids[parts == number]).tolist():
            rows = mesh.triangles[(parts == number) & (mesh.texture_ids == texture)]
            used, indices = np.unique(rows, return_inverse=True)
            points = mesh.vertices[used].astype("<f4")
            bounds = {"min": points.min(0).tolist(), "max": points.max(0).tolist()}
            attributes = {
                "POSITION": accessor(points, 5126, "VEC3", **bounds),
                "TEXCOORD_0": accessor(mesh.uv[used].astype("<f4"), 5126, "VEC2"),
            }
            place = accessor(indices.ravel().astype("<u4"), 5125, "SCALAR")
            meshes.append({"primitives": [{"attributes": attributes, "indices": place, "material": texture}]})
            nodes.append({"mesh": len(meshes) - 1, "name": f"{name}/{texture}"})  # "CLASS/number"
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    jpegs = [cv2.imencode(".jpg", picture[..., ::-1], quality)[1].tobytes() for picture in mesh.textures]
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes)))}],
        "nodes": nodes,
        "meshes": meshes,
        "images": [{"bufferView": view(jpeg), "mimeType": "image/jpeg"} for jpeg in jpegs],
        "textures": [{"source": number} for number in range(len(jpegs))],
        "materials": [
            {"pbrMetallicRoughness": {"baseColorTexture": {"index": number}}} for number in range(len(jpegs))
        ],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    binary.extend(b"\0" * (-len(binary) % 4))
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.glb", help="the file to write")
    parser.add_argument("--seed", type=int, default=0, help="another seed: other wallpapers and things (default: 0)")
    parser.add_argument("--mirror", action="store_true", help="exchange left and right")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
