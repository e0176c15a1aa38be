"""Signed distances to simple solids, and the surface of a solid as a mesh.

Body, head, hands, hair and clothes are each described once, in the rest pose, as smooth unions of
these solids; `surface` turns a description into vertices and triangles.  Lengths are metres.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = np.ndarray  # float64
Field = Callable[[Array], Array]  # points (n, 3) -> signed distance (n,), negative inside


class Surface(NamedTuple):
    """A closed triangle mesh; triangles run counter-clockwise seen from outside."""

    vertices: Array  # (v, 3)
    triangles: NDArray[np.int32]  # (t, 3)


def round_cone(p: Array, a: Array, b: Array, radius_a: float, radius_b: float) -> Array:
    """Distance to a limb whose radius runs linearly from `a` to `b` (a tapered capsule)."""
    axis = b - a
    t = np.clip(((p - a) @ axis) / (axis @ axis), 0.0, 1.0)
    return np.linalg.norm(p - a - t[:, None] * axis, axis=1) - (radius_a + (radius_b - radius_a) * t)


def ellipsoid(p: Array, centre: Array, radii: Array) -> Array:
    """First-order distance to an axis-aligned ellipsoid: k0 (k0 - 1) / k1, exact on the surface."""
    q = p - centre
    k0 = np.linalg.norm(q / radii, axis=1)
    k1 = np.linalg.norm(q / radii**2, axis=1)
    return k0 * (k0 - 1.0) / np.maximum(k1, 1e-9)


def loft(p: Array, heights: Array, widths: Array, depths: Array, centres: Array, power: float = 2.3) -> Array:
    """Distance-like field of superelliptic sections stacked along y; all arrays are sampled at `heights`."""
    y = p[:, 1]
    a, b, c = (smooth_profile(y, heights, v) for v in (widths, depths, centres))
    q = (np.abs(p[:, 0] / a) ** power + np.abs((p[:, 2] - c) / b) ** power) ** (1.0 / power)
    side = (q - 1.0) * np.minimum(a, b)
    return np.maximum(side, np.maximum(y - heights[-1], heights[0] - y))


def smooth_profile(x: Array, knots: Array, values: Array) -> Array:
    """Cubic Hermite curve through (knots, values) with finite-difference slopes; constant outside."""
    slopes = np.gradient(values, knots)
    x = np.clip(x, knots[0], knots[-1])
    i = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    h = knots[i + 1] - knots[i]
    t = (x - knots[i]) / h
    left = (2 * t**3 - 3 * t**2 + 1) * values[i] + (t**3 - 2 * t**2 + t) * h * slopes[i]
    return left + (3 * t**2 - 2 * t**3) * values[i + 1] + (t**3 - t**2) * h * slopes[i + 1]


def union(k: float, *distances: Array) -> Array:
    """Polynomial smooth minimum; `k` is the blend radius."""
    result = distances[0]
    for d in distances[1:]:
        h = np.maximum(k - np.abs(result - d), 0.0) / k
        result = np.minimum(result, d) - h * h * k * 0.25
    return result


def cut(k: float, solid: Array, hole: Array) -> Array:
    """Smooth difference: `solid` without `hole`."""
    return -union(k, -solid, hole)


def surface(field: Field, low: Array, high: Array, step: float) -> Surface:
    """The zero set of `field` inside a box, by surface nets and two Newton steps onto the surface."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    shape = np.ceil((high - low) / step).astype(int) + 1
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    values = field(low + grid.reshape(-1, 3) * step).reshape(shape)
    index, cells = _cells(values)
    vertices = low + cells * step
    for _ in range(2):
        gradient = _gradient(field, vertices, 0.2 * step)
        norm2 = np.maximum((gradient**2).sum(1), 0.25)
        shift = field(vertices)[:, None] * gradient / norm2[:, None]
        vertices = vertices - np.clip(shift, -0.5 * step, 0.5 * step)
    return Surface(vertices, _faces(values, index))


def _gradient(field: Field, p: Array, h: float) -> Array:
    offsets = np.eye(3) * h
    return np.stack([(field(p + o) - field(p - o)) / (2 * h) for o in offsets], 1)


def _cells(values: Array) -> tuple[NDArray[np.int64], Array]:
    """One vertex for each cell that the surface crosses: the mean of its edge crossings, in grid units."""
    n = np.array(values.shape) - 1
    total, count = np.zeros((*n, 3)), np.zeros(tuple(n))
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        first = np.take(values, np.arange(n[axis]), axis)
        second = np.take(values, np.arange(1, n[axis] + 1), axis)
        crosses = (first < 0) != (second < 0)
        t = first / np.where(crosses, first - second, 1.0)
        for du in (0, 1):
            for dv in (0, 1):
                take = [slice(None)] * 3
                take[others[0]] = slice(du, du + n[others[0]])
                take[others[1]] = slice(dv, dv + n[others[1]])
                here, where = crosses[tuple(take)], t[tuple(take)]
                count += here
                total[..., axis] += here * where
                total[..., others[0]] += here * du
                total[..., others[1]] += here * dv
    used = count > 0
    index = np.full(tuple(n), -1, np.int64)
    index[used] = np.arange(used.sum())
    return index, np.argwhere(used) + total[used] / count[used][:, None]


def _faces(values: Array, index: NDArray[np.int64]) -> NDArray[np.int32]:
    """Two triangles for each grid edge that the surface crosses, through its four cells."""
    faces = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        moved = np.moveaxis(values, (axis, u, v), (0, 1, 2))
        cells = np.moveaxis(index, (axis, u, v), (0, 1, 2))
        first, second = moved[:-1, 1:-1, 1:-1], moved[1:, 1:-1, 1:-1]
        corners = [cells[:, :-1, :-1], cells[:, 1:, :-1], cells[:, 1:, 1:], cells[:, :-1, 1:]]
        for mask, order in (((first < 0) & (second >= 0), (0, 1, 2, 3)), ((first >= 0) & (second < 0), (0, 3, 2, 1))):
            a, b, c, d = (corners[k][mask] for k in order)
            faces += [np.stack([a, b, c], 1), np.stack([a, c, d], 1)]
    return np.concatenate(faces).astype(np.int32)
