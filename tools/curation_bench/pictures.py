"""What the benchmark is run on: pictures of a folder or made up, pairs of them, a rendered location, a video file."""

import importlib.util
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np

from curation_bench.sides import CRITERIA, Pair
from mimic_wds.curation.fitting import fit_image
from mimic_wds.pairs import Image, SceneError, View
from mimic_wds.sources.images import Images
from mimic_wds.sources.video import Video

#: Views that are taken from one folder or video, and frames between those of a video.
VIEWS_OF_A_SCENE, VIDEO_STEP = 24, 3

#: Neighbours so many views apart are pairs.
GAPS = (1, 2, 4, 8)

#: A location of a 3D scene: three rings of eight views; the first ring is tried with both others (MIMIC, app. C.1).
RING, HEADS, TAILS = 8, 8, 16

#: The test video: 480p, a key frame every GOP frames where PyAV encodes it; OpenCV's writer always uses 12.
VIDEO_SIZE, FPS, GOP, CV2_GOP = (848, 480), 30, 250, 12


def read_scenes(folder: str) -> list[list[Image]]:
    """The first views of every video and of every folder of photographs below `folder`, at their own size."""
    scenes: list[list[Image]] = []
    for source in (Video(paths=(folder,), every_frames=VIDEO_STEP), Images(paths=(folder,))):
        try:
            found = source.scenes()
        except ValueError:  # none of this kind here
            continue
        for scene in found:
            try:
                views = (view for view in source.views(scene) if isinstance(view, View))
                scenes.append([view.image for view in islice(views, VIEWS_OF_A_SCENE)])
            except SceneError as error:
                print(f"left out: {error}")
    if not any(scenes):
        raise ValueError(f"{folder}: no photographs and no videos here")
    return [scene for scene in scenes if scene]


def made_up_scenes() -> list[list[Image]]:
    """Random detail at three scales, seen by a camera that moves over it."""
    scenes = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        layers = [cv2.resize(rng.random((n, n, 3), np.float32), (900, 900)) for n in (30, 90, 300)]
        plane = (np.mean(layers, axis=0) * 255).astype(np.uint8)
        moves = [np.array([[1, 0.002 * i, -25 * i], [0, 1, -15 * i], [0, 1e-5 * i, 1]]) for i in range(15)]
        scenes.append([cv2.warpPerspective(plane, H, (480, 480)) for H in moves])
    return scenes


def collect_pairs(scenes: Sequence[Sequence[Image]], limit: int) -> list[Pair]:
    """Neighbours at several gaps and jittered crops of neighbours, at 224 x 224; `limit` of them, evenly."""
    rng = np.random.default_rng(0)
    pairs: list[Pair] = []
    for scene in scenes:
        for gap in GAPS:
            pairs += [
                (fit_image(a, CRITERIA), fit_image(b, CRITERIA)) for a, b in zip(scene, scene[gap:], strict=False)
            ]
        pairs += [(jittered(image, rng), jittered(image, rng)) for image in scene]
        pairs += [(jittered(a, rng), jittered(b, rng)) for a, b in pairwise(scene)]
    chosen = rng.permutation(len(pairs))[:limit]
    return [pairs[i] for i in sorted(chosen)]


def jittered(image: Image, rng: np.random.Generator) -> Image:
    """A random part of an image, 55 to 95 % of each side, at 224 x 224."""
    height, width = (int(side * rng.uniform(0.55, 0.95)) for side in image.shape[:2])
    top, left = (
        int(rng.integers(0, side - part + 1)) for side, part in zip(image.shape, (height, width), strict=False)
    )
    return fit_image(np.ascontiguousarray(image[top : top + height, left : left + width]), CRITERIA)


def rendered_location(number: int) -> list[Image]:
    """Three rings of eight views, 0.7 m apart, in the house of the simulator; empty where that cannot be built."""
    try:
        from mimic_wds.sources.simulator.house import build_house
        from mimic_wds.sources.simulator.raster import Camera, Renderer, pose

        house = build_house(number)
    except ImportError as error:
        print(f"no rendered location ({error}); frames of a scene instead")
        return []
    rng, renderer = np.random.default_rng(number), Renderer(house.mesh)
    x, z = house.stops[number % len(house.stops)]
    views = []
    for ring in range(1 + TAILS // RING):
        for k in range(RING):
            camera = Camera(pose((x, 1.5, z), 45 * k + 60 * ring, 0), 90, (256, 256))
            views.append(renderer.render(camera)[0][16:240, 16:240])
        heading = rng.uniform(0, 2 * np.pi)
        x, z = x + 0.7 * np.sin(heading), z - 0.7 * np.cos(heading)
    return views


def write_pan(path: Path, picture: Image, seconds: int) -> int:
    """A camera that moves over a picture, as a video file; returns the distance of its key frames."""
    plane = cv2.resize(picture, (1600, 900), interpolation=cv2.INTER_CUBIC)[..., ::-1]
    width, height = VIDEO_SIZE
    steps = np.arange(seconds * FPS)
    lefts, tops = (370 + 370 * np.sin(steps / 200)).astype(int), (200 + 200 * np.sin(steps / 311)).astype(int)
    frames = (np.ascontiguousarray(plane[y : y + height, x : x + width]) for x, y in zip(lefts, tops, strict=True))
    if importlib.util.find_spec("av"):
        import av

        with av.open(str(path), "w") as file:
            stream = file.add_stream("libx264", rate=FPS, options={"g": str(GOP), "sc_threshold": "0"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for frame in frames:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
            file.mux(stream.encode())
        return GOP
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), FPS, VIDEO_SIZE)
    for frame in frames:
        writer.write(frame)
    writer.release()
    return CV2_GOP


def at_least(count: int, scenes: Sequence[Sequence[Image]], number: int) -> list[Image]:
    """`count` views of one scene, of the next ones too when it has fewer."""
    views = [image for scene in [*scenes[number % len(scenes) :], *scenes] for image in scene]
    return views[:count]
