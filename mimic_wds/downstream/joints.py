"""People's joints as heat maps and back, as ViTPose (arXiv 2204.12484) trains and scores: unbiased data processing.

Lengths are counted from pixel centre to pixel centre (arXiv 1911.07524), so a picture of 192 pixels is 191 wide, and a
heat map of 48 has a stride of 191 / 47. Points are (x, y), sizes (width, height); J joints, maps (J, h, w).
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mimic_wds.downstream.metrics.bootstrap import Floats

#: Pictures and heat maps, (width, height).
INPUT, MAP = (192, 256), (48, 64)

#: Of the Gaussians in heat-map pixels; they end three of it from the pixel that is nearest to the joint.
SIGMA = 2.0

#: COCO's joints after left and right are exchanged: eyes, ears, shoulders, elbows, wrists, hips, knees, ankles.
MIRRORED = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)

#: COCO's spread of each joint, as pycocotools has them.
OKS_SIGMAS = np.array(
    [
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ]
)

#: Window of the blur before maxima are refined, and what its values are clipped to.
BLUR, LEAST, MOST = 11, 0.001, 50.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """The part of an image that a person is looked for in."""

    centre: Floats  #: (2,)
    size: Floats  #: (2,) width and height in pixels


def frame_of(box: tuple[float, float, float, float], padding: float = 1.25) -> Frame:
    """The frame around a box (x, y, width, height): of the input's aspect, then larger by `padding`.

    Raises ValueError for a box without area.
    """
    x, y, width, height = box
    if not (width > 0 and height > 0):
        raise ValueError(f"the box {box} has no area")
    aspect = INPUT[0] / INPUT[1]
    wide, high = max(width, aspect * height), max(height, width / aspect)
    return Frame(centre=np.array([x + width / 2, y + height / 2]), size=padding * np.array([wide, high]))


def warp_matrix(frame: Frame, rotation_deg: float = 0.0) -> Floats:
    """(2, 3): takes pixels of the image to those of the input, the frame's corners to its; for cv2.warpAffine."""
    angle = math.radians(rotation_deg)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    scale = np.diag((np.array(INPUT) - 1) / frame.size)
    shift = scale @ (frame.size / 2 - turn @ frame.centre)
    return np.hstack([scale @ turn, shift[:, None]])


def encode(joints: Floats, visible: NDArray[np.integer]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Heat maps (J, h, w) and weights (J,) of joints (J, 2) in pixels of the input; `visible` is COCO's, 0 = not given.

    Hidden joints count as much as seen ones. Those not given, or whose whole window lies outside, weigh nothing.
    """
    width, height = MAP
    maps, weights = np.zeros((len(joints), height, width), np.float32), np.zeros(len(joints), np.float32)
    radius = round(3 * SIGMA)
    columns, rows = np.arange(width), np.arange(height)
    for joint, (x, y) in enumerate(to_map(joints)):
        nearest_x, nearest_y = math.floor(x + 0.5), math.floor(y + 0.5)
        inside = -radius <= nearest_x < width + radius and -radius <= nearest_y < height + radius
        if visible[joint] == 0 or not inside:
            continue
        along = np.where(abs(columns - nearest_x) <= radius, np.exp(-((columns - x) ** 2) / (2 * SIGMA**2)), 0)
        down = np.where(abs(rows - nearest_y) <= radius, np.exp(-((rows - y) ** 2) / (2 * SIGMA**2)), 0)
        maps[joint], weights[joint] = np.outer(down, along), 1.0
    return maps, weights


def decode(maps: NDArray[np.float32], frame: Frame) -> tuple[Floats, Floats]:
    """Joints (J, 2) in pixels of the image, and their scores (J,), the maxima of heat maps (J, h, w).

    Each maximum is refined by one Newton step on the logarithm of the blurred map (DARK, arXiv 1910.06278).
    """
    scores = maps.reshape(len(maps), -1).max(axis=1).astype(np.float64)
    found = np.array([refine(one) for one in maps])
    return found * frame.size / (np.array(MAP) - 1) + frame.centre - frame.size / 2, scores


def refine(heat: NDArray[np.float32]) -> Floats:
    """Where a heat map (h, w) is largest, to fractions of a pixel: (2,)."""
    row, col = np.unravel_index(int(heat.argmax()), heat.shape)
    blurred = cv2.GaussianBlur(heat, (BLUR, BLUR), 0).astype(np.float64)
    logs = np.pad(np.log(np.clip(blurred, LEAST, MOST)), 1, mode="edge")
    f = logs[row : row + 3, col : col + 3]  # around the maximum, which is f[1, 1]
    gradient = np.array([f[1, 2] - f[1, 0], f[2, 1] - f[0, 1]]) / 2
    dxx, dyy = f[1, 2] - 2 * f[1, 1] + f[1, 0], f[2, 1] - 2 * f[1, 1] + f[0, 1]
    dxy = (f[2, 2] - f[1, 2] - f[2, 1] + 2 * f[1, 1] - f[1, 0] - f[0, 1] + f[0, 0]) / 2
    hessian = np.array([[dxx, dxy], [dxy, dyy]]) + np.finfo(np.float32).eps * np.eye(2)
    return np.array([col, row], np.float64) - np.linalg.solve(hessian, gradient)


def to_map(joints: Floats) -> Floats:
    """Pixels of the input (..., 2) to those of the heat maps."""
    return joints * (np.array(MAP) - 1) / (np.array(INPUT) - 1)


def merge_mirrored(maps: NDArray[np.float32], mirrored: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of heat maps (J, h, w) and those of the mirrored picture, turned back; no shift between them."""
    return np.asarray((maps + mirrored[list(MIRRORED), :, ::-1]) / 2, np.float32)


def person_score(box_score: float, joint_scores: Floats, least: float = 0.2) -> float:
    """The box's score times the mean of the joints' scores above `least`; 0 if there are none."""
    counted = joint_scores[joint_scores > least]
    return box_score * float(counted.mean()) if len(counted) else 0.0


def oks(joints: Floats, others: Floats, area: float, other_areas: Floats) -> Floats:
    """Similarity (N,) in [0, 1] of joints (J, 2) to N others (N, J, 2), by the mean of both areas in pixels squared."""
    squared = ((others - joints) ** 2).sum(axis=-1)
    spread = 2 * (2 * OKS_SIGMAS) ** 2 * ((area + other_areas) / 2)[:, None]
    similar: Floats = np.exp(-squared / spread).mean(axis=-1)
    return similar


def suppress(joints: Floats, scores: Floats, areas: Floats, most: float = 0.9) -> list[int]:
    """Which of N people (N, J, 2) of one image stay, best first: none is more alike a better one than `most`."""
    order, kept = list(np.argsort(-scores, kind="stable")), list[int]()
    while order:
        best = int(order.pop(0))
        kept.append(best)
        alike = oks(joints[best], joints[order], float(areas[best]), areas[order])
        order = [number for number, similar in zip(order, alike, strict=True) if similar <= most]
    return kept
