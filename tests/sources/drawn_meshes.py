"""Meshes whose pictures are known: a wall, a room of boxes, random triangles; and whether there is OpenGL here."""

import cv2
import numpy as np
import pytest

from mimic_wds.sources.simulator import opengl
from mimic_wds.sources.simulator.raster import Camera, Mesh, pose

try:
    opengl.driver()
    no_opengl = ""
except opengl.NoContext as error:
    no_opengl = str(error)

needs_opengl = pytest.mark.skipif(bool(no_opengl), reason=f"no OpenGL: {no_opengl}")
BACKENDS = [pytest.param("opengl", marks=needs_opengl), "numba"]

SIZE = (96, 128)


def smooth_texture(seed, height=64, width=128):
    """Coarse noise, enlarged: without frequencies that ways of filtering would tell apart."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3)).astype(np.uint8)
    tiled = cv2.resize(np.tile(coarse, (3, 3, 1)), (3 * width, 3 * height), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(tiled[height : 2 * height, width : 2 * width])  # it goes on smoothly where it repeats


def quad(corners, number=0, uv=((0, 0), (1, 0), (1, 1), (0, 1))):
    """Corners (4, 3) counter-clockwise from the front, top left first downwards: as a dictionary of arrays."""
    return {
        "vertices": np.array(corners, np.float32),
        "triangles": np.array([(0, 3, 2), (0, 2, 1)], np.int32),
        "uv": np.array(uv, np.float32),
        "texture_ids": np.full(2, number, np.int32),
    }


def wall(depth_m=2.0, half_m=1.5, **changes):
    """A square wall straight ahead that faces the camera at the origin."""
    h = half_m
    return Mesh(**quad([(-h, h, -depth_m), (h, h, -depth_m), (h, -h, -depth_m), (-h, -h, -depth_m)]), **changes)


def room(half_m=2.0):
    """A closed box of six textured sides, seen from within, with a box in it."""
    parts, axes = [], np.eye(3)
    for number in range(6):
        axis, sign = number // 2, 1 if number % 2 else -1
        normal, a, b = sign * axes[axis], axes[(axis + 1) % 3], axes[(axis + 2) % 3]
        for scale, inward in ((half_m, 1), (0.4, -1)):
            centre = normal * scale + (inward < 0) * np.array([0.5, -1.2, -1.0])
            corners = [centre + scale * (x * a + y * b) for x, y in ((-1, 1), (1, 1), (1, -1), (-1, -1))]
            parts.append(quad(corners, number))
    starts = 4 * np.arange(len(parts), dtype=np.int32)
    return Mesh(
        vertices=np.concatenate([p["vertices"] for p in parts]),
        triangles=np.concatenate([p["triangles"] + start for p, start in zip(parts, starts, strict=True)]),
        uv=np.concatenate([p["uv"] for p in parts]),
        texture_ids=np.concatenate([p["texture_ids"] for p in parts]),
        textures=tuple(smooth_texture(number) for number in range(6)),
    )


def cameras(number=8):
    rng = np.random.default_rng(5)
    for _ in range(number):
        place = rng.uniform(-1, 1, 3) * (1, 0.5, 1) + (0, 0.5, 0.5)
        yield Camera(pose(place, rng.uniform(0, 360), rng.uniform(-30, 30)), 90, SIZE)


def solid(colour):
    """A texture of one colour, three numbers or a grey."""
    return np.full((1, 1, 3), colour, np.uint8)


def psnr(image0, image1):
    """Peak signal to noise ratio in dB."""
    return 10 * np.log10(255**2 / np.mean((np.asarray(image0, float) - image1) ** 2))
