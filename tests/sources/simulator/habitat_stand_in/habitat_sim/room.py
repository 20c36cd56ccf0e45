"""Stand-in: a room in the shape of a box, and its picture by ray casting."""

import json
import os
import signal
import struct

import numpy as np


class Room:
    """World: y up. low, high: (3,) corners; wall: None or the span [x0, x1] that it fills from side to side."""

    def __init__(self, low, high, wall, ceiling):
        self.low, self.high, self.wall, self.ceiling = low, high, wall, ceiling

    @classmethod
    def read(cls, path, up, front):
        """Turn the file's `up` to +y and its `front` to -z. Raises RuntimeError when it cannot be read."""
        with open(path, "rb") as file:
            data = file.read()
        text = glb_json(data) if data.startswith(b"glTF") else data.decode()
        if text == "abort":
            os.write(2, b"CORRADE_INTERNAL_ASSERT_UNREACHABLE at GenericDrawable.cpp\n")
            os.abort()
        if text == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        try:
            held = json.loads(text)
        except ValueError:
            raise RuntimeError("Trade::AbstractImporter::openFile(): cannot open file") from None
        to_world = np.array([np.cross(front, up), up, -np.array(front)], np.float64)
        scale = 1.0
        if "nodes" in held:
            scale, held = room_node(held)
        corners = scale * np.array(held["room"], np.float64) @ to_world.T
        wall = None if held.get("wall") is None else [scale * x for x in held["wall"]]
        return cls(corners.min(0), corners.max(0), wall, held.get("ceiling", True))

    def draw(self, pose, resolution, hfov_deg, near, far):
        """RGBA (H, W, 4) uint8 and depth (H, W) float32 along the optical axis, 0 = nothing; pinhole, square pixels."""
        height, width = resolution
        focal = width / 2 / np.tan(np.radians(hfov_deg) / 2)
        x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
        # With z = -1 in front, the distance along a ray is the depth.
        rays = np.stack([x / focal, -y / focal, -np.ones_like(x)], -1) @ pose[:3, :3].T
        depth, axis = self._first_hit(pose[:3, 3], rays)
        depth = np.where((depth >= near) & (depth <= far), depth, 0)
        points = pose[:3, 3] + depth[..., None] * rays
        rgba = np.zeros((height, width, 4), np.uint8)
        rgba[..., :3], rgba[..., 3] = self._texture(points, axis), 255
        rgba[depth == 0] = 0
        return rgba, depth.astype(np.float32)

    def _first_hit(self, eye, rays):
        """Depth of the inside of the box, or of the wall; and which axis the plane is across."""
        planes = [(axis, side[axis]) for axis in range(3) for side in (self.low, self.high)]
        if not self.ceiling:
            planes.remove((1, self.high[1]))
        if self.wall is not None:
            planes += [(0, x) for x in self.wall]
        depth, hit = np.full(rays.shape[:2], np.inf), np.full(rays.shape[:2], -1)
        for axis, place in planes:
            with np.errstate(divide="ignore", invalid="ignore"):
                t = (place - eye[axis]) / rays[..., axis]
                points = eye + t[..., None] * rays
            others = [a for a in range(3) if a != axis]
            margin = 1e-9 * np.abs(self.high - self.low)
            inside = (points >= self.low - margin) & (points <= self.high + margin)
            nearer = (t > 0) & inside[..., others].all(-1) & (t < depth)
            depth[nearer], hit[nearer] = t[nearer], axis
        return np.where(np.isfinite(depth), depth, 0), hit

    def _texture(self, points, axis):
        """Colour of the place: squares of half a metre, of another colour on each axis."""
        metres = points + 0.123  # sides at whole numbers are not on a border of the texture
        squares = (np.floor(metres * 2).sum(-1) % 2)[..., None]
        base = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]], np.float64)[axis]
        shade = 1 - 0.1 * np.abs(metres - np.floor(metres))
        return np.round(base * (0.5 + 0.5 * squares) * shade).astype(np.uint8)


def glb_json(data):
    """The JSON chunk of a .glb file of the right length."""
    _, _, size, length, _ = struct.unpack("<4sIII4s", data[:20])
    if size != len(data):
        raise RuntimeError("Trade::GltfImporter: file too short")
    return data[20 : 20 + length].decode()


def room_node(gltf):
    """(scale, room) of a chain of nodes that ends in one whose extras are a room."""
    (number,), scale = gltf["scenes"][0]["nodes"], 1.0
    while True:
        node = gltf["nodes"][number]
        scale *= node.get("scale", [1.0])[0]
        if "children" not in node:
            return scale, node["extras"]
        (number,) = node["children"]
