"""The rasteriser's loops, compiled by numba. Import this module only when something is rendered.

All geometry is in the camera's *ray space*: q = (x d, y d, d), where (x, y) is a point's place in the picture in
pixels (whole numbers are pixel centres) and d its depth. In this space everything a triangle needs is linear: with
Q the matrix of its three corners, a quantity that is a0, a1, a2 at the corners has a / d = (a0, a1, a2) Q^-1 (x, y, 1)
at pixel (x, y). With a = 1 that is the inverse depth, with a = u or v the texture coordinate; the rows of Q^-1 itself
are the edge functions, positive inside. So no triangle is cut at the near plane: pixels nearer than it are passed over.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

try:
    import numba
except ImportError as error:
    raise ImportError("rendering needs the package numba; install it with: pip install 'mimic-wds[sim]'") from error

F = TypeVar("F", bound=Callable[..., object])

#: Metres: nothing nearer is drawn (as habitat-sim does).
NEAR_M = 0.01

#: Pixels by which a triangle is widened, so that rounding leaves no gap along a shared edge.
EDGE_SLACK = 1e-6


def compiled(function: F) -> F:
    """Compile `function` on its first call; keep the machine code on disk where there is a place to write it."""
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # numba found no folder that it may write to
        return cast(F, numba.njit(nogil=True, error_model="numpy")(function))


@compiled
def set_up(q: NDArray[np.float64], uv: NDArray[np.float64], out: NDArray[np.float64]) -> bool:
    """Write the linear forms of one triangle to `out` (6, 3): three edges, inverse depth, u / d, v / d.

    q (3, 3) are the corners in ray space, one a row; uv (3, 2). Returns False when it is seen edge-on.
    """
    for i in range(3):
        a, b = q[(i + 1) % 3], q[(i + 2) % 3]
        out[i, 0] = a[1] * b[2] - a[2] * b[1]
        out[i, 1] = a[2] * b[0] - a[0] * b[2]
        out[i, 2] = a[0] * b[1] - a[1] * b[0]
    determinant = q[0, 0] * out[0, 0] + q[0, 1] * out[0, 1] + q[0, 2] * out[0, 2]
    largest = 0.0
    for i in range(3):
        for k in range(3):
            largest = max(largest, abs(out[i, k] * q[i, k]))
    if abs(determinant) <= 1e-12 * largest:
        return False
    for k in range(3):
        for i in range(3):
            out[i, k] /= determinant
        out[3, k] = out[0, k] + out[1, k] + out[2, k]
        out[4, k] = out[0, k] * uv[0, 0] + out[1, k] * uv[1, 0] + out[2, k] * uv[2, 0]
        out[5, k] = out[0, k] * uv[0, 1] + out[1, k] * uv[1, 1] + out[2, k] * uv[2, 1]
    return True


@compiled
def screen_box(q: NDArray[np.float64], width: int, height: int) -> tuple[int, int, int, int]:
    """The pixels (x0, y0, x1, y1), ends excluded, that hold the part of a triangle beyond the near plane."""
    low_x, low_y, high_x, high_y = np.inf, np.inf, -np.inf, -np.inf
    for i in range(3):
        a, b = q[i], q[(i + 1) % 3]
        if a[2] >= NEAR_M:
            x, y = a[0] / a[2], a[1] / a[2]
            low_x, low_y, high_x, high_y = min(low_x, x), min(low_y, y), max(high_x, x), max(high_y, y)
        if (a[2] < NEAR_M) != (b[2] < NEAR_M):
            t = (NEAR_M - a[2]) / (b[2] - a[2])
            x, y = (a[0] + t * (b[0] - a[0])) / NEAR_M, (a[1] + t * (b[1] - a[1])) / NEAR_M
            low_x, low_y, high_x, high_y = min(low_x, x), min(low_y, y), max(high_x, x), max(high_y, y)
    if not (low_x < width and low_y < height and high_x > -1 and high_y > -1):
        return 0, 0, 0, 0
    return (
        int(max(0.0, np.ceil(low_x - EDGE_SLACK))),
        int(max(0.0, np.ceil(low_y - EDGE_SLACK))),
        int(min(width - 1.0, np.floor(high_x + EDGE_SLACK))) + 1,
        int(min(height - 1.0, np.floor(high_y + EDGE_SLACK))) + 1,
    )


@compiled
def row_span(form: NDArray[np.float64], slack: NDArray[np.float64], y: int, x0: int, x1: int) -> tuple[int, int]:
    """The pixels [x0, x1) of row y that lie inside the three edges of a triangle, widened by `slack` (3,)."""
    low, high = float(x0), float(x1 - 1)
    for i in range(3):
        slope = form[i, 0]
        value = form[i, 1] * y + form[i, 2] + slack[i]
        if slope > 0.0:
            low = max(low, np.ceil(-value / slope))
        elif slope < 0.0:
            high = min(high, np.floor(-value / slope))
        elif value < 0.0:
            return 0, 0
    return (int(low), int(high) + 1) if low <= high else (0, 0)


@compiled
def is_back(q: NDArray[np.float64]) -> bool:
    """Whether the corners (3, 3), in ray space with y down, go round clockwise for the viewer."""
    a, b, c = q[0], q[1], q[2]
    return (
        a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0])
    ) > 0


@compiled
def rasterise(
    vertices: NDArray[np.float32],
    position: NDArray[np.float64],
    to_rays: NDArray[np.float64],
    triangles: NDArray[np.int32],
    uv: NDArray[np.float32],
    visible: NDArray[np.int64],
    size: tuple[int, int],
    cull_backs: bool,
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    """Find the nearest triangle of every pixel.

    vertices (V, 3) are in the world, and less `position` (3,) times `to_rays` (3, 3) in ray space; triangles (T, 3)
    with uv (V, 2); `visible` are the rows of `triangles` to draw; size is (height, width); with cull_backs triangles
    whose corners go round clockwise are not drawn. Returns ids (H, W), a place in `visible` or -1; inverse depth
    (H, W), 0 where nothing was hit; and the linear forms (len(visible), 6, 3) for `shade`. Of equal depths the first
    drawn stays.
    """
    height, width = size
    ids = np.full((height, width), -1, np.int32)
    inverse = np.zeros((height, width))
    forms = np.empty((len(visible), 6, 3))
    q, corners, slack = np.empty((3, 3)), np.empty((3, 2)), np.empty(3)
    for n in range(len(visible)):
        for i in range(3):
            corner = triangles[visible[n], i]
            x = vertices[corner, 0] - position[0]
            y = vertices[corner, 1] - position[1]
            z = vertices[corner, 2] - position[2]
            for k in range(3):
                q[i, k] = to_rays[k, 0] * x + to_rays[k, 1] * y + to_rays[k, 2] * z
            corners[i, 0], corners[i, 1] = uv[corner, 0], uv[corner, 1]
        if q[0, 2] < NEAR_M and q[1, 2] < NEAR_M and q[2, 2] < NEAR_M:
            continue
        x0, y0, x1, y1 = screen_box(q, width, height)
        if x0 >= x1 or y0 >= y1 or not set_up(q, corners, forms[n]):
            continue
        if cull_backs and is_back(q):
            continue
        for i in range(3):
            slack[i] = EDGE_SLACK * np.sqrt(forms[n, i, 0] ** 2 + forms[n, i, 1] ** 2)
        slope, down, start = forms[n, 3]
        for row in range(y0, y1):
            begin, end = row_span(forms[n], slack, row, x0, x1)
            for column in range(begin, end):
                value = slope * column + (down * row + start)
                if inverse[row, column] < value <= 1 / NEAR_M:
                    inverse[row, column] = value
                    ids[row, column] = n
    return ids, inverse, forms


@compiled
def bilinear(
    texels: NDArray[np.uint8], offset: int, width: int, height: int, u: float, v: float
) -> tuple[float, float, float]:
    """The colour at (u, v) of the level that begins at `offset` and has width x height texels."""
    x, y = u * width - 0.5, v * height - 0.5
    left, top = np.floor(x), np.floor(y)
    fx, fy = x - left, y - top
    column0, row0 = np.int64(left) & (width - 1), np.int64(top) & (height - 1)
    column1, row1 = (column0 + 1) & (width - 1), (row0 + 1) & (height - 1)
    a = np.uint64(offset + 3 * (row0 * width + column0))
    b = np.uint64(offset + 3 * (row0 * width + column1))
    c = np.uint64(offset + 3 * (row1 * width + column0))
    d = np.uint64(offset + 3 * (row1 * width + column1))
    one, two = np.uint64(1), np.uint64(2)  # unsigned: numba need not ask whether an index counts from the end
    wa, wb, wc, wd = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    red = wa * texels[a] + wb * texels[b] + wc * texels[c] + wd * texels[d]
    green = wa * texels[a + one] + wb * texels[b + one] + wc * texels[c + one] + wd * texels[d + one]
    blue = wa * texels[a + two] + wb * texels[b + two] + wc * texels[c + two] + wd * texels[d + two]
    return red, green, blue


@compiled
def shade(
    ids: NDArray[np.int32],
    inverse: NDArray[np.float64],
    forms: NDArray[np.float64],
    texture_ids: NDArray[np.int32],
    texels: NDArray[np.uint8],
    sizes: NDArray[np.int64],
    offsets: NDArray[np.int64],
    max_probes: int,
) -> NDArray[np.uint8]:
    """Look up the texture of every pixel: (H, W, 3) uint8, black where nothing was hit.

    ids, inverse and forms come from `rasterise`, texture_ids (len(visible),) says the texture of each triangle.
    The pixel's footprint in the texture follows from the exact derivatives of (u, v): up to `max_probes` probes lie
    along its longer axis, each trilinear at the level that fits what one probe has to cover.
    """
    height, width = ids.shape
    colours = np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            n = ids[y, x]
            if n < 0:
                continue
            form, texture = forms[n], texture_ids[n]
            tex_w, tex_h = sizes[texture, 0], sizes[texture, 1]
            depth = 1 / inverse[y, x]
            u = (form[4, 0] * x + form[4, 1] * y + form[4, 2]) * depth
            v = (form[5, 0] * x + form[5, 1] * y + form[5, 2]) * depth
            right_u, right_v = (form[4, 0] - u * form[3, 0]) * depth, (form[5, 0] - v * form[3, 0]) * depth
            down_u, down_v = (form[4, 1] - u * form[3, 1]) * depth, (form[5, 1] - v * form[3, 1]) * depth
            longer = np.sqrt((right_u * tex_w) ** 2 + (right_v * tex_h) ** 2)
            shorter = np.sqrt((down_u * tex_w) ** 2 + (down_v * tex_h) ** 2)
            step_u, step_v = right_u, right_v
            if longer < shorter:
                longer, shorter = shorter, longer
                step_u, step_v = down_u, down_v
            probes = max_probes
            if longer < max_probes * shorter:
                probes = max(1, int(np.ceil(longer / shorter - 1e-6)))
            level = min(max(0.0, np.log2(max(longer / probes, 1e-12))), offsets.shape[1] - 1.0)
            level0 = int(level)
            between = level - level0
            offset0, wide0, high0 = offsets[texture, level0], max(1, tex_w >> level0), max(1, tex_h >> level0)
            red, green, blue = 0.0, 0.0, 0.0
            for i in range(probes):
                t = (i + 0.5) / probes - 0.5
                at_u, at_v = u + t * step_u, v + t * step_v
                r, g, b = bilinear(texels, offset0, wide0, high0, at_u, at_v)
                if between > 0:
                    offset1, wide1, high1 = offsets[texture, level0 + 1], max(1, wide0 >> 1), max(1, high0 >> 1)
                    r1, g1, b1 = bilinear(texels, offset1, wide1, high1, at_u, at_v)
                    r, g, b = r + between * (r1 - r), g + between * (g1 - g), b + between * (b1 - b)
                red, green, blue = red + r, green + g, blue + b
            colours[y, x, 0] = int(red / probes + 0.5)
            colours[y, x, 1] = int(green / probes + 0.5)
            colours[y, x, 2] = int(blue / probes + 0.5)
    return colours


@compiled
def tint(
    colours: NDArray[np.uint8],
    ids: NDArray[np.int32],
    inverse: NDArray[np.float64],
    forms: NDArray[np.float64],
    triangles: NDArray[np.int32],
    visible: NDArray[np.int64],
    colors: NDArray[np.uint8],
) -> None:
    """Multiply every pixel of `colours` (H, W, 3) by the colours (V, 3) of its triangle's corners, in perspective.

    ids, inverse and forms come from `rasterise`; a corner's weight at a pixel is its edge function times the depth.
    """
    height, width = ids.shape
    for y in range(height):
        for x in range(width):
            n = ids[y, x]
            if n < 0:
                continue
            corners = triangles[visible[n]]
            for channel in range(3):
                value = 0.0
                for i in range(3):
                    weight = (forms[n, i, 0] * x + forms[n, i, 1] * y + forms[n, i, 2]) / inverse[y, x]
                    value += weight * colors[corners[i], channel]
                value = min(max(value, 0.0), 255.0)
                colours[y, x, channel] = int(colours[y, x, channel] * value / 255 + 0.5)
