"""A z-buffer in numba: triangles in, the nearest surface of each pixel out.

`fill` stores which triangle a pixel shows and where on it (barycentric); everything else (colour,
labels, texture coordinates) is looked up afterwards by `interpolate`, so each map comes from one pass.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


class Hits(NamedTuple):
    """What each pixel shows; `triangle` is -1 where nothing is."""

    triangle: I32  # (h, w)
    weights: F32  # (h, w, 3) barycentric
    depth: F32  # (h, w) larger is nearer


def fill(points: F32, triangles: I32, keep: F32, size: tuple[int, int]) -> Hits:
    """Rasterise `points` (v, 3: pixel x, pixel y, nearness); a fragment with interpolated `keep` < 0 is dropped.

    Pixel (row, column) is sampled at its centre (column + 0.5, row + 0.5).
    """
    height, width = size
    triangle = np.full((height, width), -1, np.int32)
    weights = np.zeros((height, width, 3), np.float32)
    depth = np.full((height, width), -np.inf, np.float32)
    _fill(points.astype(np.float32), triangles, keep.astype(np.float32), triangle, weights, depth)
    return Hits(triangle, weights, depth)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _fill(
    points: np.ndarray,
    triangles: np.ndarray,
    keep: np.ndarray,
    triangle: np.ndarray,
    weights: np.ndarray,
    depth: np.ndarray,
) -> None:
    height, width = triangle.shape
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ka, kb, kc = keep[a], keep[b], keep[c]
        if ka < 0.0 and kb < 0.0 and kc < 0.0:
            continue
        ax, ay, bx, by, cx, cy = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-9:
            continue
        x0 = max(0, int(np.ceil(min(ax, bx, cx) - 0.5)))
        x1 = min(width - 1, int(np.floor(max(ax, bx, cx) - 0.5)))
        y0 = max(0, int(np.ceil(min(ay, by, cy) - 0.5)))
        y1 = min(height - 1, int(np.floor(max(ay, by, cy) - 0.5)))
        inverse = 1.0 / area
        for y in range(y0, y1 + 1):
            py = y + 0.5
            for x in range(x0, x1 + 1):
                px = x + 0.5
                wb = ((px - ax) * (cy - ay) - (py - ay) * (cx - ax)) * inverse
                wc = ((bx - ax) * (py - ay) - (by - ay) * (px - ax)) * inverse
                wa = 1.0 - wb - wc
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                z = wa * points[a, 2] + wb * points[b, 2] + wc * points[c, 2]
                if z <= depth[y, x] or wa * ka + wb * kb + wc * kc < 0.0:
                    continue
                depth[y, x] = z
                triangle[y, x] = t
                weights[y, x, 0] = wa
                weights[y, x, 1] = wb
                weights[y, x, 2] = wc


@numba.njit(cache=True, nogil=True, error_model="numpy")
def interpolate(triangle: np.ndarray, weights: np.ndarray, triangles: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Vertex `values` (v, k) at each pixel, (h, w, k); zero where nothing is shown."""
    height, width = triangle.shape
    channels = values.shape[1]
    result = np.zeros((height, width, channels), np.float32)
    for y in range(height):
        for x in range(width):
            t = triangle[y, x]
            if t < 0:
                continue
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            wa, wb, wc = weights[y, x, 0], weights[y, x, 1], weights[y, x, 2]
            for k in range(channels):
                result[y, x, k] = wa * values[a, k] + wb * values[b, k] + wc * values[c, k]
    return result


@numba.njit(cache=True, nogil=True, error_model="numpy")
def nearest(triangle: np.ndarray, weights: np.ndarray, triangles: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label of the triangle's corner nearest to each pixel, (h, w); zero where nothing is shown."""
    height, width = triangle.shape
    result = np.zeros((height, width), labels.dtype)
    for y in range(height):
        for x in range(width):
            t = triangle[y, x]
            if t >= 0:
                corner = 0
                if weights[y, x, 1] > weights[y, x, corner]:
                    corner = 1
                if weights[y, x, 2] > weights[y, x, corner]:
                    corner = 2
                result[y, x] = labels[triangles[t, corner]]
    return result


@numba.njit(cache=True, nogil=True, error_model="numpy")
def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals, (v, 3)."""
    normals = np.zeros(vertices.shape, np.float32)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = (vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2])
        vx, vy, vz = (vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2])
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for v in (a, b, c):
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    for v in range(vertices.shape[0]):
        norm = np.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2) + 1e-12
        for k in range(3):
            normals[v, k] /= norm
    return normals


@numba.njit(cache=True, nogil=True, error_model="numpy")
def bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`image` (h, w, c) at pixel coordinates (0.5 is the centre of the first), edges repeated; (n, c)."""
    height, width, channels = image.shape
    result = np.zeros((x.shape[0], channels), np.float32)
    for i in range(x.shape[0]):
        fx = min(max(x[i] - 0.5, 0.0), width - 1.001)
        fy = min(max(y[i] - 0.5, 0.0), height - 1.001)
        x0, y0 = int(fx), int(fy)
        x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
        tx, ty = fx - x0, fy - y0
        for k in range(channels):
            top = image[y0, x0, k] * (1 - tx) + image[y0, x1, k] * tx
            bottom = image[y1, x0, k] * (1 - tx) + image[y1, x1, k] * tx
            result[i, k] = top * (1 - ty) + bottom * ty
    return result


@numba.njit(cache=True, nogil=True, error_model="numpy")
def halve(image: np.ndarray) -> np.ndarray:
    """Average of 2 x 2 samples, (h, w, c) float32."""
    h, w, c = image.shape[0] // 2, image.shape[1] // 2, image.shape[2]
    result = np.empty((h, w, c), np.float32)
    for y in range(h):
        for x in range(w):
            for k in range(c):
                upper = np.float32(image[2 * y, 2 * x, k]) + np.float32(image[2 * y, 2 * x + 1, k])
                lower = np.float32(image[2 * y + 1, 2 * x, k]) + np.float32(image[2 * y + 1, 2 * x + 1, k])
                result[y, x, k] = np.float32(0.25) * (upper + lower)
    return result
