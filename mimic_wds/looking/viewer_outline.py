"""Where the frame of one view lies in the other."""

import numpy as np
from numpy.typing import NDArray

#: What is nearer to the line at infinity than this is cut off (homogeneous w, relative to the largest of the corners).
NEAR = 1e-3


def outline(homography: NDArray[np.float64], size: tuple[int, int]) -> list[tuple[float, float]]:
    """The polygon (x, y) that the frame of a picture becomes under a (3, 3) homography; [] if nothing of it is seen.

    `size` is (height, width). Pixel centres are whole numbers, so the frame reaches from -0.5 on. What lies behind the
    camera (w <= 0) is cut off.
    """
    height, width = size
    corners = [(-0.5, -0.5), (width - 0.5, -0.5), (width - 0.5, height - 0.5), (-0.5, height - 0.5)]
    points = np.array([(x, y, 1.0) for x, y in corners]) @ homography.T
    if points[:, 2].sum() < 0:  # a homography is known up to its sign; most of the frame is before the camera
        points = -points
    least = NEAR * np.abs(points[:, 2]).max()
    kept: list[NDArray[np.float64]] = []
    for here, there in zip(points, np.roll(points, -1, axis=0), strict=True):
        if here[2] >= least:
            kept.append(here)
        if (here[2] >= least) != (there[2] >= least):
            kept.append(here + (there - here) * (least - here[2]) / (there[2] - here[2]))
    return [(float(x / w), float(y / w)) for x, y, w in kept]
