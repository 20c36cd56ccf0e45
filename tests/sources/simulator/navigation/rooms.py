"""Meshes of rooms whose floors are known, and what an independent look at a mesh says about a place."""

import numpy as np

from mimic_wds.sources.simulator.raster import Mesh

#: Triangles of a box with corners numbered 4x + 2y + z, seen from outside.
BOX = np.array(
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ]
)  # fmt: skip


def box(low, high):
    """Triangles (12, 3, 3) of a solid box, facing outwards."""
    picks = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)])
    corners = np.array([low, high], float)[picks, np.arange(3)]
    return corners[BOX]


def room(low, high):
    """The same seen from within: floor facing up, ceiling down, walls inwards."""
    return box(low, high)[:, ::-1]


def without_floor(low, high):
    """A room of which the floor is missing."""
    triangles = room(low, high)
    return triangles[~(triangles[:, :, 1] == low[1]).all(axis=1)]


def level(x0, z0, x1, z1, y=0.0):
    """A level sheet that faces up."""
    return quad((x0, y, z0), (x0, y, z1), (x1, y, z1), (x1, y, z0))


def quad(a, b, c, d):
    """Two triangles, seen from where the corners go round to the left."""
    return np.array([[a, b, c], [a, c, d]], float)


def finer(triangles, times):
    """Each triangle cut into four, `times` over."""
    for _ in range(times):
        a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        triangles = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    return triangles


def turned(triangles, degrees, about=(0.0, 0.0, 0.0)):
    """Turned about the vertical line through a point."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (triangles - about) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T + about


def mesh(*parts):
    """A mesh of triangles (T, 3, 3)."""
    triangles = np.concatenate([np.empty((0, 3, 3)), *parts]).astype(np.float32)
    number = len(triangles)
    return Mesh(
        triangles.reshape(-1, 3),
        np.arange(3 * number, dtype=np.int32).reshape(-1, 3),
        np.zeros((3 * number, 2), np.float32),
        np.zeros(number, np.int32),
        (np.zeros((1, 1, 3), np.uint8),),
    )


def corners_of(scene):
    """The triangles (T, 3, 3) of a mesh in float64."""
    return scene.vertices[scene.triangles].astype(np.float64)


def hits(triangles, point):
    """Heights at which the vertical line through a point meets triangles: plane by plane, then a test of all sides."""
    x, _, z = point
    near = (triangles[:, :, [0, 2]].min(axis=1) <= (x + 1e-9, z + 1e-9)).all(axis=1)
    near &= (triangles[:, :, [0, 2]].max(axis=1) >= (x - 1e-9, z - 1e-9)).all(axis=1)
    t = triangles[near]
    normal = np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0])
    t, normal = t[np.abs(normal[:, 1]) > 1e-12], normal[np.abs(normal[:, 1]) > 1e-12]
    y = t[:, 0, 1] - ((x - t[:, 0, 0]) * normal[:, 0] + (z - t[:, 0, 2]) * normal[:, 2]) / normal[:, 1]
    side = np.roll(t, -1, axis=1) - t
    turn = side[:, :, 0] * (z - t[:, :, 2]) - side[:, :, 2] * (x - t[:, :, 0])
    return y[(turn >= -1e-9).all(axis=1) | (turn <= 1e-9).all(axis=1)]


def section(triangles, height):
    """Where the horizontal plane at `height` cuts triangles: lines (S, 2, 2) in (x, z)."""
    above = triangles[:, :, 1] > height
    t = triangles[above.any(axis=1) & ~above.all(axis=1)]
    ends = []
    for a, b in ((0, 1), (1, 2), (2, 0)):
        crosses = (t[:, a, 1] > height) != (t[:, b, 1] > height)
        part = (height - t[:, a, 1]) / np.where(crosses, t[:, b, 1] - t[:, a, 1], 1)
        place = t[:, a] + part[:, None] * (t[:, b] - t[:, a])
        ends.append(np.where(crosses[:, None], place[:, [0, 2]], np.nan))
    ends = np.stack(ends, axis=1)
    picked = np.argsort(np.isnan(ends[:, :, 0]), axis=1, kind="stable")[:, :2]
    return np.take_along_axis(ends, picked[:, :, None], axis=1)


def distance_to(lines, place):
    """Distance of (x, z) to the nearest of lines (S, 2, 2)."""
    start, way = lines[:, 0], lines[:, 1] - lines[:, 0]
    along = np.clip(((place - start) * way).sum(axis=1) / np.maximum((way**2).sum(axis=1), 1e-18), 0, 1)
    return float(np.linalg.norm(start + along[:, None] * way - place, axis=1).min())


def passes(lines, start, end):
    """Whether the way from start to end, (x, z) each, crosses one of lines (S, 2, 2)."""

    def side(a, b, c):
        return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])

    a, b = lines[:, 0], lines[:, 1]
    apart = side(a, b, start) * side(a, b, end) < 0
    return bool((apart & (side(start, end, a) * side(start, end, b) < 0)).any())
