"""Why a pair was kept or dropped, as one page: its steps in order, each with a figure (after figures 4 to 7 of MIMIC,
arXiv 2306.15128). Figures are two views side by side under vector graphics.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mimic_wds.looking.charts import PALETTE
from mimic_wds.looking.page import data_uri, render_page
from mimic_wds.looking.shown import Shown
from mimic_wds.looking.viewer_outline import outline
from mimic_wds.pairs import Image

#: Pixels between the views of a figure.
GAP = 8

#: Blue for what is agreed on, orange for what is not, purple for what comes second.
AGREED, OTHER, SECOND = PALETTE[0], PALETTE[1], PALETTE[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of what a build does."""

    title: str
    told: str  #: what came out, with its numbers
    figure: Markup = field(default_factory=Markup)
    caption: str = ""
    failed: bool = False  #: the pair was dropped here


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """Everything that the page says."""

    names: tuple[str, str]  #: of the views
    kept: bool
    verdict: str  #: "kept", or the drop reason
    why: str  #: in a sentence
    advice: str  #: what could be changed, or ""
    steps: Sequence[Step]
    sample: Shown | None = None  #: the pair as it would be stored


def explain_page(explained: Explained) -> str:
    """The page."""
    return render_page(f"{explained.names[0]} and {explained.names[1]}", "explain.html", "blend.js", one=explained)


def side_by_side(image0: Image, image1: Image, marks: Markup, told: str) -> Markup:
    """Two views (H, W, 3) of one size as SVG, view 1 right of view 0, under `marks`; `told` is read out."""
    height, width = image0.shape[:2]
    pictures = Markup("").join(
        Markup('<image href="{}" x="{}" y="0" width="{}" height="{}"/>').format(_jpeg(image), x, width, height)
        for image, x in ((image0, 0), (image1, width + GAP))
    )
    return Markup('<svg class="pair" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        2 * width + GAP, height, told, pictures, marks
    )


def keypoint_marks(points0: NDArray[np.float32], points1: NDArray[np.float32], width: int) -> Markup:
    """A ring around each keypoint (N, 2) of both views, `width` pixels wide."""
    rings = [
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.5" fill="none" stroke="{}" stroke-width="0.8"/>').format(
            x + shift, y, OTHER
        )
        for points, shift in ((points0, 0), (points1, width + GAP))
        for x, y in points
    ]
    return Markup("").join(rings)


def match_lines(
    points0: NDArray[np.float32], points1: NDArray[np.float32], width: int, inliers: NDArray[np.bool_] | None = None
) -> Markup:
    """A line for each match, points (M, 2) twice: all alike, or the inliers (M,) full and blue, others dashed."""
    agreed = np.zeros(len(points0), bool) if inliers is None else inliers
    lines = []
    for (x0, y0), (x1, y1), good in sorted(
        zip(points0.tolist(), points1.tolist(), agreed.tolist(), strict=True), key=lambda match: match[2]
    ):
        dashes = "" if good or inliers is None else "3 2"
        lines.append(
            Markup(
                '<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="{}" stroke-width="0.7" '
                'stroke-dasharray="{}"/>'
            ).format(x0, y0, x1 + width + GAP, y1, AGREED if good else OTHER, dashes)
        )
    return Markup("").join(lines)


def frame_marks(H_0to1: NDArray[np.float64], size: tuple[int, int]) -> Markup:
    """The frame of view 0 in view 1 and that of view 1 in view 0, as the homography takes them."""
    _, width = size
    polygons = []
    for H, shift in ((H_0to1, width + GAP), (np.linalg.inv(H_0to1), 0)):
        points = " ".join(f"{x + shift:.1f},{y:.1f}" for x, y in outline(np.asarray(H, np.float64), size))
        clip = f"view{int(shift > 0)}"
        polygons.append(
            Markup(
                '<clipPath id="{}"><rect x="{}" y="0" width="{}" height="{}"/></clipPath><polygon points="{}" '
                'fill="{}" fill-opacity="0.15" stroke="{}" stroke-width="2" clip-path="url(#{})"/>'
            ).format(clip, shift, width, size[0], points, AGREED, AGREED, clip)
        )
    return Markup("").join(polygons)


def patch_marks(corr: NDArray[np.int16], is_out: NDArray[np.bool_], patch: int, cols: int, shift: int) -> Markup:
    """The patches of a view: blue with a place of their own, dark out of the other view, purple where another is."""
    cells = []
    for number, (place, out) in enumerate(zip(corr.tolist(), is_out.tolist(), strict=True)):
        row, col = divmod(number, cols)
        colour, opacity = (AGREED, 0.45) if place >= 0 else ("#000", 0.55) if out else (SECOND, 0.7)
        cells.append(
            Markup(
                '<rect x="{}" y="{}" width="{}" height="{}" fill="{}" fill-opacity="{}" stroke="#fff" '
                'stroke-width="0.4"/>'
            ).format(col * patch + shift, row * patch, patch, patch, colour, opacity)
        )
    return Markup("").join(cells)


def _jpeg(image: Image) -> str:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return data_uri(data.tobytes())
