"""The published overlap algorithm, written out point by point: slow, and the oracle of the vectorised one.

One projection and one comparison at a time, dictionaries and a running count, as the paper's appendix C describes it.
Points behind the horizon are "out" (the one deliberate difference, see `mimic_wds.geometry.overlap`).
"""

import cv2
import numpy as np


def label_of(H, point, size, patch):
    x, y = (float(v) for v in point)
    if H[2, 0] * x + H[2, 1] * y + H[2, 2] <= 0:
        return "out"
    mapped = cv2.perspectiveTransform(np.array([[[x, y]]], np.float32), H)[0, 0]
    if mapped[0] < 0 or mapped[1] < 0 or mapped[0] >= size or mapped[1] >= size:
        return "out"
    return int(mapped[1]) // patch * (size // patch) + int(mapped[0]) // patch


def one_way(H, points, size, patch):
    found = {}
    for index, patch_points in enumerate(points):
        counts, best, best_count = {}, None, 0
        for point in patch_points:
            label = label_of(H, point, size, patch)
            counts[label] = counts.get(label, 0) + 1
            if counts[label] > best_count:
                best, best_count = label, counts[label]
        if best != "out" and best not in found.values():
            found[index] = best
    return found


def literal_map(H, points0, points1, size=224, patch=16):
    """The kept map 0 -> 1 as a dictionary, and the sizes of both directions."""
    forward = one_way(H, points0, size, patch)
    backward = one_way(np.linalg.inv(H), points1, size, patch)
    if len(forward) < len(backward):
        return forward, (len(forward), len(backward))
    return {value: key for key, value in backward.items()}, (len(forward), len(backward))
