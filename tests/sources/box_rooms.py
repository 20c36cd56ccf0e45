"""A simulator whose scene is a room with boxes, by ray casting: every depth is that of the formula. For tests only."""

import numpy as np

from mimic_wds.sources.simulator.base import Lens, Picture

#: The room, and what stands in it: lowest and highest corner in metres.
ROOM = ((-3.0, 0.0, -2.5), (3.0, 2.6, 2.5))
BOXES = (((-1.0, 0.0, -1.4), (0.2, 0.8, -0.5)), ((1.6, 0.0, 0.9), (2.4, 1.9, 1.7)))


class BoxRoom:
    """One room with boxes; what lies in `hole` (lowest and highest corner) is missing. The floor is a rectangle."""

    def __init__(self, lens=None, room=ROOM, boxes=BOXES, hole=None, margin_m=0.2):
        self.lens = lens or Lens(depth=True)
        self.room, self.boxes, self.hole, self.margin_m = (
            np.array(room),
            np.array(boxes).reshape(-1, 2, 3),
            hole,
            margin_m,
        )
        self.rendered = []  # poses, in order

    def load(self, scene):
        pass

    def close(self):
        pass

    def island_radius(self, point):
        return float(np.linalg.norm((self.room[1] - self.room[0])[[0, 2]]) / 2)

    def step(self, start, end):
        return end if self._free(end) else start

    def random_point(self, seed):
        rng = np.random.default_rng(seed)
        for _ in range(100):
            x, _, z = rng.uniform(self.room[0] + self.margin_m, self.room[1] - self.margin_m)
            if self._free(point := np.array([x, self.room[0, 1], z])):
                return point
        return None

    def snap(self, point):
        """The nearest point of the rectangle; None from more than a metre away, and inside a box."""
        inside = np.clip(point, self.room[0] + self.margin_m, self.room[1] - self.margin_m)
        inside[1] = self.room[0, 1]
        return inside if np.linalg.norm(inside - point) <= 1 and self._free(inside) else None

    def _free(self, point):
        low, high = self.boxes[:, 0] - self.margin_m, self.boxes[:, 1] + self.margin_m
        return not ((point > low) & (point < high))[:, [0, 2]].all(axis=1).any()

    def render(self, pose):
        self.rendered.append(pose)
        height, width = self.lens.size
        focal = width / 2 / np.tan(np.radians(self.lens.hfov_deg) / 2)
        rows, columns = np.indices((height, width))
        local = np.stack([(columns + 0.5 - width / 2) / focal, (height / 2 - rows - 0.5) / focal], -1)
        rays = np.concatenate([local, np.full((height, width, 1), -1.0)], -1) @ pose[:3, :3].T
        depth = self._depth(pose[:3, 3], rays)
        points = pose[:3, 3] + depth[..., None] * rays
        image = texture(points)
        if self.hole is not None:
            gone = ((points > np.array(self.hole[0])) & (points < np.array(self.hole[1]))).all(axis=-1)
            depth[gone], image[gone] = 0, 0
        return Picture(image=image, depth=depth.astype(np.float32) if self.lens.depth else None)

    def _depth(self, eye, rays):
        """Along the optical axis: the rays have length 1 along it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = np.fmax(*((wall - eye) / rays for wall in self.room)).min(axis=-1)
            for low, high in self.boxes:
                near, far = (low - eye) / rays, (high - eye) / rays
                enter, leave = np.fmin(near, far).max(axis=-1), np.fmax(near, far).min(axis=-1)
                depth = np.where((enter <= leave) & (enter > 0), np.minimum(depth, enter), depth)
        return depth


def texture(points):
    """Colours (..., 3) uint8 that are fixed to the world: a fine pattern of little cubes."""
    cells = np.floor(points / 0.07 + 0.5).astype(np.int64)
    mixed = (cells @ np.array([73856093, 19349663, 83492791])) & 0xFFFFFF
    return np.stack([mixed & 255, mixed >> 8 & 255, mixed >> 16 & 255], -1).astype(np.uint8)
