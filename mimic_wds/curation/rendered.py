"""What depth and poses of rendered views say of a pair: its true overlap, and what is stored of them."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mimic_wds.geometry.covisibility import covisibility
from mimic_wds.geometry.patches import PatchGrid
from mimic_wds.geometry.truth import PosedDepth, true_overlap
from mimic_wds.pairs import Camera, DropReason, Image, Overlap, PairTruth
from mimic_wds.storage.maps import encode_depth

#: OpenCV's camera axes (x right, y down, z forward) to OpenGL's (x right, y up, looking along -z).
TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


class RenderedView(Protocol):
    """A view at the size of the data set, and what is known of it."""

    @property
    def image(self) -> Image:
        """(H, W, 3)."""
        ...

    @property
    def camera(self) -> Camera | None:
        """Where it was taken."""
        ...

    @property
    def depth(self) -> NDArray[np.float32] | None:
        """(H, W) metres."""
        ...


def measure_truth(view0: RenderedView, view1: RenderedView, grid: PatchGrid) -> Overlap | DropReason:
    """The overlap by depth and poses; there is no homography (zeros), and no inliers (-1)."""
    posed0, posed1 = _posed(view0), _posed(view1)
    if posed0 is None or posed1 is None:
        return DropReason.NO_DEPTH
    truth = true_overlap(posed0, posed1, grid)
    return Overlap(
        ratio=truth.ratio, corr_0to1=truth.corr_0to1, H_0to1=np.zeros((3, 3)), num_matches=-1, num_inliers=-1
    )


def pair_truth(view0: RenderedView, view1: RenderedView) -> PairTruth:
    """What is stored of the cameras of a pair."""
    camera0, camera1 = view0.camera, view1.camera
    if camera0 is None or camera1 is None or view0.depth is None or view1.depth is None:
        return PairTruth(camera0=camera0, camera1=camera1)
    measured = covisibility(
        view0.depth, camera0.pose @ TO_OPENGL, view1.depth, camera1.pose @ TO_OPENGL, camera0.intrinsics
    )
    return PairTruth(camera0=camera0, camera1=camera1, covisibility=measured)


def depth_maps(view0: RenderedView, view1: RenderedView) -> dict[str, bytes]:
    """Depth of both views as it is stored; zeros where the source knows none."""
    unknown = np.zeros(view0.image.shape[:2], np.float32)
    depths = (view.depth if view.depth is not None else unknown for view in (view0, view1))
    return {f"{number}.depth.png": encode_depth(depth) for number, depth in enumerate(depths)}


def _posed(view: RenderedView) -> PosedDepth | None:
    """Depth with its camera, in the convention of `geometry.truth`: its pixel centres lie half a pixel further."""
    if view.camera is None or view.depth is None:
        return None
    K = view.camera.intrinsics + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return PosedDepth(depth_m=view.depth.astype(np.float64), K=K, camera_to_world=view.camera.pose)
