"""A writer of `.navmesh` files, byte by byte: what the tests read back."""

import struct

BORDER, OTHER_TILE = 0, 0x8000


def write(vertices, polygons, *, version=2, details=(), kinds=None):
    """A file of one tile. polygons: rows of `vertices` in order; details: {polygon: (own vertices, triangles)}.

    Neighbours follow from shared sides. A polygon without detail gets the fan from its first corner.
    """
    data = struct.pack("<iii", int.from_bytes(b"MSET", "big"), version, 1)
    data += struct.pack("<3f2f2i", 0, 0, 0, 50, 50, 1, 1 << 16)
    if version == 2:
        settings = (0.05, 0.2, 1.5, 0.1, 0.2, 45, 20, 20, 12, 1.3, 6, 6, 1)
        data += struct.pack("<13f4?", *settings, True, True, True, False)
    tile = write_tile(vertices, polygons, dict(details), kinds or [0] * len(polygons))
    return data + struct.pack("<Ii", 1, len(tile)) + tile


def write_tile(vertices, polygons, details, kinds):
    beyond = {}
    for number, corners in enumerate(polygons):
        for a, b in zip(corners, [*corners[1:], corners[0]], strict=True):
            beyond[(a, b)] = number + 1
    body = b"".join(struct.pack("<3f", *v) for v in vertices)
    for corners, kind in zip(polygons, kinds, strict=True):
        sides = zip(corners, [*corners[1:], corners[0]], strict=True)
        neighbours = [beyond.get((b, a), BORDER) for a, b in sides]
        pad = [0] * (6 - len(corners))
        body += struct.pack("<I6H6HHBB", 0xFFFFFFFF, *corners, *pad, *neighbours, *pad, 1, len(corners), kind << 6 | 1)
    num_links = 2
    body += bytes(12 * num_links)
    detail_vertices, triangles, entries = [], [], b""
    for number, corners in enumerate(polygons):
        own, rows = details.get(number, ([], [(0, k, k + 1) for k in range(1, len(corners) - 1)]))
        entries += struct.pack("<IIBBxx", len(detail_vertices), len(triangles), len(own), len(rows))
        detail_vertices += own
        triangles += rows
    body += entries
    body += b"".join(struct.pack("<3f", *v) for v in detail_vertices)
    body += b"".join(struct.pack("<4B", *t, 0) for t in triangles)
    counts = (len(polygons), len(vertices), num_links, len(polygons), len(detail_vertices), len(triangles))
    header = struct.pack("<2i4i", int.from_bytes(b"DNAV", "big"), 7, 0, 0, 0, 0)
    header += struct.pack("<6i", *counts) + struct.pack("<3i", 4, 0, len(polygons))
    header += struct.pack("<10f", 1.5, 0.1, 0.2, 0, 0, 0, 50, 5, 50, 20)
    assert len(header) == 100
    return header + body + bytes(4 * 16)  # the tree of boxes


def grid(columns, rows, size=1.0, at=(0.0, 0.0, 0.0), height=lambda x, z: 0.0):
    """Vertices and square polygons of a grid of squares, x by z."""
    x0, y0, z0 = at
    place = [(x0 + size * i, z0 + size * j) for j in range(rows + 1) for i in range(columns + 1)]
    vertices = [(x, y0 + height(x, z), z) for x, z in place]
    wide = columns + 1
    squares = [
        [j * wide + i, (j + 1) * wide + i, (j + 1) * wide + i + 1, j * wide + i + 1]
        for j in range(rows)
        for i in range(columns)
    ]
    return vertices, squares


def both(first, second):
    """Two sets of vertices and polygons in one."""
    shift = len(first[0])
    return first[0] + second[0], first[1] + [[n + shift for n in corners] for corners in second[1]]
