"""Furnished rooms as .obj files with textures full of detail, for whole builds of 3D scenes."""

from pathlib import Path

import cv2
import numpy as np
from simulator.navigation.rooms import box, room


def detailed(seed, side=512):
    """A texture with blobs of all sizes: SIFT finds plenty."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((side, side, 3), np.float32)
    for cells in (8, 16, 32, 64, 128):
        coarse = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_NEAREST) / 5
    return cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def furnished(size_m=(8.0, 2.8, 7.0)):
    """Triangles (T, 3, 3) of a room with three boxes in it, facing the viewer inside; y up, metres."""
    x, _, z = size_m
    boxes = [((1.0, 0, 1.0), (1.8, 0.8, 2.2)), ((x - 1.6, 0, z - 2), (x - 0.8, 1.1, z - 1)), ((3.5, 0, 3), (4, 2, 3.6))]
    return np.concatenate([room((0, 0, 0), size_m), *(box(low, high) for low, high in boxes)])


def write_room(path: Path, triangles=None, *, z_up=False, units_per_m=1.0):
    """Write triangles as an .obj with a texture for every six of them, laid on at two metres; returns the path."""
    triangles = furnished() if triangles is None else triangles
    path.parent.mkdir(parents=True, exist_ok=True)
    lines, number = [f"mtllib {path.stem}.mtl"], 1
    for i, corners in enumerate(triangles):
        if i % 6 == 0:
            lines.append(f"usemtl m{i // 6}")
        drop = int(np.abs(np.cross(corners[1] - corners[0], corners[2] - corners[0])).argmax())
        for corner in corners:
            u, v = np.delete(corner, drop) / 2
            place = (corner[0], -corner[2], corner[1]) if z_up else corner
            lines += [f"v {' '.join(f'{units_per_m * c:.6f}' for c in place)}", f"vt {u:.6f} {v:.6f}"]
        lines.append("f " + " ".join(f"{number + k}/{number + k}" for k in range(3)))
        number += 3
    path.write_text("\n".join(lines) + "\n")
    materials = []
    for m in range(-(-len(triangles) // 6)):
        cv2.imwrite(str(path.with_name(f"{path.stem}-{m}.png")), detailed(m))
        materials += [f"newmtl m{m}", f"map_Kd {path.stem}-{m}.png"]
    path.with_suffix(".mtl").write_text("\n".join(materials) + "\n")
    return path
