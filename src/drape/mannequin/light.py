"""Colour and light of every sample in one pass over the picture: texture, folds, soft light, contact shadows."""

from typing import NamedTuple

import numba
import numpy as np

from drape.mannequin.anatomy import ELBOW

SHADOW_REACH = 0.16  # metres in the picture plane that a shadow or hollow can reach
FACE, HAIR, LOWER, CLOTH = 1, 2, 3, 4  # materials; 0 is skin
COLUMNS = 12  # colour 3, normal 3, texture 2, rest place 2, height in the flat pile, side


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _read(image: np.ndarray, x: float, y: float, out: np.ndarray) -> None:
    """Bilinear read of (h, w, c) at pixel coordinates into `out`."""
    height, width, channels = image.shape
    fx = min(max(x - 0.5, 0.0), width - 1.001)
    fy = min(max(y - 0.5, 0.0), height - 1.001)
    x0, y0 = int(fx), int(fy)
    tx, ty = fx - x0, fy - y0
    for k in range(channels):
        top = image[y0, x0, k] * (1 - tx) + image[y0, x0 + 1, k] * tx
        bottom = image[y0 + 1, x0, k] * (1 - tx) + image[y0 + 1, x0 + 1, k] * tx
        out[k] = top * (1 - ty) + bottom * ty


class Rays(NamedTuple):
    """Where occluders are looked for: steps in samples and, for each, what the nearness there is compared with."""

    towards: np.ndarray  # (8, 2) int: dx, dy along the light
    rise: np.ndarray  # (8,) how much nearer the ray is by then, metres
    strength: np.ndarray  # (8,)
    around: np.ndarray  # (16, 2) int: dx, dy on two rings
    reach: np.ndarray  # (16,) radius of the ring, metres


def rays(light: np.ndarray, scale: float) -> Rays:
    """The probes for a direction of light at `scale` samples per metre."""
    s = 0.018 * np.arange(1, 9)
    towards = np.rint(np.stack([light[0] * s * scale, -light[1] * s * scale], 1)).astype(np.int64)
    turns, reach = np.repeat(0.785398 * np.arange(8) + 0.4, 2), np.tile([0.022, 0.044], 8)
    around = np.rint(np.stack([np.cos(turns), np.sin(turns)], 1) * reach[:, None] * scale).astype(np.int64)
    return Rays(towards, light[2] * s, 1.15 - s / SHADOW_REACH, around, reach)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _occlusion(depth: np.ndarray, x: int, y: int, rays: Rays) -> tuple[float, float]:
    """(shadow, hollow) in [0, 1]: blocked key light, and sky hidden by nearer surfaces around."""
    height, width = depth.shape
    z = depth[y, x]
    blocked, total = 0.0, 0.0
    for k in range(rays.towards.shape[0]):
        sx, sy = x + rays.towards[k, 0], y + rays.towards[k, 1]
        if sx < 0 or sy < 0 or sx >= width or sy >= height:
            continue
        rise = depth[sy, sx] - z - rays.rise[k]
        if rise > 0.006:
            blocked = max(blocked, min(1.0, (rise - 0.006) / 0.02) * rays.strength[k])
    for k in range(rays.around.shape[0]):
        sx, sy = x + rays.around[k, 0], y + rays.around[k, 1]
        if sx < 0 or sy < 0 or sx >= width or sy >= height:
            continue
        rise = depth[sy, sx] - z
        if rise > 0.004 and rise < 0.25:
            total += min(1.0, (rise - 0.004) / rays.reach[k]) * (1.0 - 4.0 * rise)
    return 1.0 - 0.55 * min(1.0, blocked), 1.0 - 0.55 * min(1.0, total / 9.0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _level(
    v: np.ndarray,
    material: int,
    folds: np.ndarray,
    slope: np.ndarray,
    light: np.ndarray,
    half: np.ndarray,
    softness: float,
) -> tuple[float, float, float]:
    """(key, ambient, shine) of a sample before shadows."""
    norm = np.sqrt(v[3] ** 2 + v[4] ** 2 + v[5] ** 2) + 1e-6
    nx, ny, nz = v[3] / norm, v[4] / norm, v[5] / norm
    if material == CLOTH and nz < 0.0:  # the inside of a sheet
        nx, ny, nz = -nx, -ny, -nz
    bump = 0.0
    if material >= LOWER:
        _read(folds, (v[8] + 0.75) * 100, (1.60 - v[9]) * 100, slope)
        bump = (slope[0] * light[0] - slope[1] * light[1]) * (0.8 if material == CLOTH else 0.4)
    wrap = 0.35 + 0.5 * softness
    key = min(1.0, max(0.0, (nx * light[0] + ny * light[1] + nz * light[2] + bump + wrap) / (1.0 + wrap)))
    glint = max(0.0, nx * half[0] + ny * half[1] + nz * half[2])
    glint = glint * glint
    glint = (glint * glint * glint) ** 3
    shine = 0.22 if material == HAIR else (0.05 if material < HAIR else 0.0)
    return key, 0.86 + 0.14 * ny, shine * glint


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _colour(
    v: np.ndarray, material: int, flat_albedo: np.ndarray, flat_depth: np.ndarray, face: np.ndarray, rgb: np.ndarray
) -> bool:
    """Unshaded colour into `rgb`; true if the sample shows the flat picture."""
    if material == FACE and v[8] > 0.0:
        _read(face, v[6] * face.shape[1], v[7] * face.shape[0], rgb)
        strength = min(1.0, v[8] / 0.03)
        for k in range(3):
            rgb[k] = v[k] + strength * (rgb[k] - v[k])
        return False
    if material == CLOTH and v[11] > 0.0:
        row = min(max(int(v[7]), 0), flat_depth.shape[0] - 1)
        column = min(max(int(v[6]), 0), flat_depth.shape[1] - 1)
        pile = flat_depth[row, column]
        if pile > -1e3 and v[10] > pile - 0.02:
            _read(flat_albedo, v[6], v[7], rgb)
            return True
    for k in range(3):
        rgb[k] = v[k]
    return False


@numba.njit(cache=True, nogil=True, error_model="numpy")
def paint_samples(
    triangle: np.ndarray,
    weights: np.ndarray,
    depth: np.ndarray,
    triangles: np.ndarray,
    values: np.ndarray,
    material: np.ndarray,
    flat_albedo: np.ndarray,
    flat_depth: np.ndarray,
    face: np.ndarray,
    folds: np.ndarray,
    light: np.ndarray,
    softness: float,
    warmth: float,
    rays: Rays,
) -> tuple[np.ndarray, ...]:
    """(albedo, shaded (h, w, 3), texture (h, w, 2), shown, is_cloth) of every sample; black where nothing is hit."""
    height, width = triangle.shape
    albedo = np.zeros((height, width, 3), np.float32)
    shaded = np.zeros((height, width, 3), np.float32)
    texture = np.zeros((height, width, 2), np.float32)
    shown = np.zeros((height, width), np.bool_)
    is_cloth = np.zeros((height, width), np.bool_)
    v, rgb, slope = np.zeros(COLUMNS), np.zeros(3), np.zeros(2)
    half = light + np.array([0.0, 0.0, 1.0])
    half /= np.sqrt((half**2).sum())
    warm = np.array([1.0 + warmth, 1.0, 1.0 - warmth])
    tint = np.array([0.80, 1.0, 1.08])  # light scatters red through skin
    dark = 0.40 + 0.22 * softness
    for y in range(height):
        for x in range(width):
            t = triangle[y, x]
            if t < 0:
                continue
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            for k in range(COLUMNS):
                v[k] = (
                    weights[y, x, 0] * values[a, k] + weights[y, x, 1] * values[b, k] + weights[y, x, 2] * values[c, k]
                )
            kind = material[a]
            shown[y, x] = _colour(v, kind, flat_albedo, flat_depth, face, rgb)
            is_cloth[y, x] = kind == CLOTH
            texture[y, x, 0], texture[y, x, 1] = v[6], v[7]
            shadow, hollow = _occlusion(depth, x, y, rays)
            key, sky, shine = _level(v, kind, folds, slope, light, half, softness)
            level = dark * sky * hollow + (1.12 - dark) * key * shadow + shine
            for k in range(3):
                lit = level * warm[k]
                if kind <= FACE:
                    lit = lit ** tint[k]
                albedo[y, x, k] = rgb[k]
                shaded[y, x, k] = rgb[k] * lit
    return albedo, shaded, texture, shown, is_cloth


def fold_slopes(seed: int) -> np.ndarray:
    """Slopes (110, 150, 2) of a height field of folds over rest coordinates, a centimetre per cell."""
    rng = np.random.Generator(np.random.PCG64(seed))
    ridges = []

    def ridge(x0: float, y0: float, x1: float, y1: float) -> None:
        ridges.append((x0, y0, x1, y1, rng.uniform(0.009, 0.016), rng.uniform(0.4, 1.0) * 0.009))

    for side in (-1, 1):
        for _ in range(3):  # from the armpit across the chest
            ridge(side * 0.15, 1.28, side * rng.uniform(-0.02, 0.10), rng.uniform(1.05, 1.22))
        for _ in range(2):  # around the elbow
            x, y = side * (ELBOW[0] + rng.normal(0, 0.02)), ELBOW[1] + rng.normal(0, 0.02)
            ridge(x - side * 0.045, y - 0.05, x + side * 0.045, y + 0.05)
        ridge(side * 0.16, 1.02, side * rng.uniform(-0.02, 0.08), rng.uniform(0.95, 1.10))
    for _ in range(4):  # about the waist and hem
        x, y = rng.uniform(-0.12, 0.12), rng.uniform(0.90, 1.12)
        ridge(x, y, x + rng.uniform(-0.10, 0.10), y + rng.uniform(-0.10, 0.10))
    return _slopes(np.array(ridges))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _slopes(ridges: np.ndarray) -> np.ndarray:
    """Minus the gradient of the sum of tapering ridges (x0, y0, x1, y1, width, height)."""
    result = np.zeros((110, 150, 2), np.float32)
    for i in range(ridges.shape[0]):
        x0, y0, x1, y1, width, tall = ridges[i]
        dx, dy = x1 - x0, y1 - y0
        length2 = dx * dx + dy * dy + 1e-9
        margin = 3.0 * width
        column0 = max(0, int((min(x0, x1) - margin + 0.75) * 100))
        column1 = min(150, int((max(x0, x1) + margin + 0.75) * 100) + 1)
        row0 = max(0, int((1.60 - max(y0, y1) - margin) * 100))
        row1 = min(110, int((1.60 - min(y0, y1) + margin) * 100) + 1)
        for row in range(row0, row1):
            for column in range(column0, column1):
                x, y = (column + 0.5) / 100 - 0.75, 1.60 - (row + 0.5) / 100
                t = min(1.0, max(0.0, ((x - x0) * dx + (y - y0) * dy) / length2))
                ex, ey = x - x0 - t * dx, y - y0 - t * dy
                bump = tall * (1.0 - 0.6 * t) * np.exp(-(ex * ex + ey * ey) / width**2)
                result[row, column, 0] += 2.0 * ex / width**2 * bump
                result[row, column, 1] -= 2.0 * ey / width**2 * bump
    return result
