"""Pictures: shade what the rasteriser found, resolve samples to pixels, read off labels and the warp."""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from drape.mannequin import raster
from drape.mannequin.anatomy import ELBOW
from drape.mannequin.fabric import Array32
from drape.mannequin.flat import DETAIL, Cloth, FlatCloth
from drape.mannequin.scene import Person, backdrop, face_paint
from drape.mannequin.stage import CLOTH, FACE, HAIR, LOWER, SKIN, Stage, assemble, skeleton_of, skin_parts, worn_parts

SAMPLES = 2  # per pixel along each axis
SHADOW_REACH = 0.16  # metres that a shadow or occlusion reaches in the picture


@dataclass(frozen=True)
class View:
    """A person in a cloth, at (h, w)."""

    image: Array32  # (h, w, 3) in [0, 1]
    albedo: Array32  # (h, w, 3) the same without light
    parse: NDArray[np.uint8]  # (h, w) CIHP ids; any share of cloth makes a pixel cloth
    cloth_share: Array32  # (h, w)
    warp: Array32  # (h, w, 2) cloth coordinates x, y in [0, 1]; NaN where no flat pixel is shown
    joints: dict[str, tuple[float, float]]  # pixels


def render(person: Person, cloth: Cloth, flat: FlatCloth, size: tuple[int, int]) -> View:
    """The person in the cloth."""
    fine = (size[0] * SAMPLES, size[1] * SAMPLES)
    skeleton = skeleton_of(person)
    parts = skin_parts(person, skeleton, cloth.cut) + worn_parts(person, skeleton, flat, cloth.cut)
    stage = assemble(person, parts, skeleton, fine)
    hits = raster.fill(stage.points, stage.triangles, stage.keep, fine)
    values = np.concatenate([stage.colour, stage.normals, stage.place, stage.flat], 1)
    v = raster.interpolate(hits.triangle, hits.weights, stage.triangles, values)
    material = raster.nearest(hits.triangle, hits.weights, stage.triangles, stage.material)
    inside = hits.triangle >= 0
    albedo, shown = _albedo(person, flat, v, material, inside)
    shade = _shade(person, v, material, inside, hits.depth, person.zoom * fine[0])
    label = np.where(inside, raster.nearest(hits.triangle, hits.weights, stage.triangles, stage.label), 0)
    share = _reduce(inside[..., None].astype(np.float32))
    ground = backdrop(person.backdrop, size) * (1 - share)
    joints = {k: (x / SAMPLES, y / SAMPLES) for k, (x, y) in stage.joints.items()}
    is_cloth = inside & (material == CLOTH)
    return View(
        image=np.clip(_reduce(albedo * shade) + ground, 0, 1),
        albedo=np.clip(_reduce(albedo) + ground, 0, 1),
        parse=_majority(label, is_cloth),
        cloth_share=_reduce(is_cloth[..., None].astype(np.float32))[..., 0],
        warp=_resolve_warp(v[..., 6:8], shown, flat),
        joints=joints,
    )


def body_parts(person: Person, size: tuple[int, int]) -> NDArray[np.uint8]:
    """DensePose parts (h, w) of the body as if undressed, so that they tell nothing about the cloth."""
    skeleton = skeleton_of(person)
    stage = assemble(person, skin_parts(person, skeleton, None), skeleton, size)
    hits = raster.fill(stage.points, stage.triangles, stage.keep, size)
    return raster.nearest(hits.triangle, hits.weights, stage.triangles, stage.densepose)


def _albedo(person: Person, flat: FlatCloth, v: Array32, material: NDArray[np.uint8], inside: NDArray[np.bool_]) -> tuple[Array32, NDArray[np.bool_]]:
    """Unshaded colours, and which samples show the flat picture."""
    albedo = v[..., :3] * inside[..., None]
    face = inside & (material == FACE) & (v[..., 8] > 0.0)
    paint = face_paint(person)
    x, y = v[face][:, 6] * paint.shape[1], v[face][:, 7] * paint.shape[0]
    strength = np.clip(v[face][:, 8:9] / 0.03, 0, 1)
    albedo[face] = albedo[face] * (1 - strength) + strength * raster.bilinear(paint, x, y)
    cloth = inside & (material == CLOTH)
    at = v[cloth]
    x, y = at[:, 6], at[:, 7]
    rows = np.clip(y.astype(np.int64), 0, flat.depth.shape[0] - 1)
    columns = np.clip(x.astype(np.int64), 0, flat.depth.shape[1] - 1)
    on_top = (at[:, 11] > 0.0) & (at[:, 10] > flat.depth[rows, columns] - 0.02) & np.isfinite(flat.depth[rows, columns])
    colour = raster.bilinear(flat.albedo, x, y)
    albedo[cloth] = np.where(on_top[:, None], colour, at[:, :3])
    shown = np.zeros_like(cloth)
    shown[cloth] = on_top
    return albedo, shown


def _shade(person: Person, v: Array32, material: NDArray[np.uint8], inside: NDArray[np.bool_], depth: Array32, scale: float) -> Array32:
    """Light on each sample (h, w, 3): a soft key light, sky, folds, contact shadows."""
    light = np.array(person.light, np.float32)
    n = v[..., 3:6] / np.maximum(np.linalg.norm(v[..., 3:6], axis=-1, keepdims=True), 1e-6)
    facing = n @ light
    folds = fold_slopes(person.fold_seed)
    bump = np.zeros(inside.shape, np.float32)
    cloth = inside & ((material == CLOTH) | (material == LOWER))
    slope = raster.bilinear(folds, (v[cloth][:, 8] + 0.75) * 100, (1.60 - v[cloth][:, 9]) * 100)
    bump[cloth] = (slope[:, 0] * light[0] - slope[:, 1] * light[1]) * np.where(material[cloth] == CLOTH, 1.0, 0.5)
    wrap = 0.35 + 0.5 * person.softness
    key = np.clip((facing + bump * 0.8 + wrap) / (1 + wrap), 0, 1)
    shadow, hollow = _occlusion(depth, inside, light, np.float32(scale))
    ambient = 0.40 + 0.22 * person.softness
    level = ambient * (0.86 + 0.14 * n[..., 1]) * hollow + (1.12 - ambient) * key * shadow
    shine = np.clip(n @ _half_way(light), 0, 1)
    level = level + np.where(material == HAIR, 0.22, np.where((material == SKIN) | (material == FACE), 0.05, 0.0)) * shine**18
    warm = np.array([1 + person.warmth, 1.0, 1 - person.warmth], np.float32)
    rgb = level[..., None] * warm
    skin = inside & ((material == SKIN) | (material == FACE))
    rgb[skin] = rgb[skin] ** np.array([0.80, 1.0, 1.08], np.float32)
    return np.where(inside[..., None], rgb, 1.0).astype(np.float32)


def _half_way(light: Array32) -> Array32:
    half = light + np.array([0, 0, 1], np.float32)
    return half / np.linalg.norm(half)


def fold_slopes(seed: int) -> Array32:
    """Slopes (110, 150, 2) of a height field of folds over rest coordinates, a centimetre per cell."""
    rng = np.random.Generator(np.random.PCG64(seed))
    y, x = np.meshgrid(1.60 - (np.arange(110) + 0.5) / 100, (np.arange(150) + 0.5) / 100 - 0.75, indexing="ij")
    height = np.zeros((110, 150))
    for side in (-1, 1):
        for _ in range(3):  # from the armpit across the chest
            _ridge(height, x, y, side * 0.15, 1.28, side * rng.uniform(-0.02, 0.10), rng.uniform(1.05, 1.22), rng)
        for _ in range(2):  # around the elbow
            cx, cy = side * (ELBOW[0] + rng.normal(0, 0.02)), ELBOW[1] + rng.normal(0, 0.02)
            _ridge(height, x, y, cx - side * 0.045, cy - 0.05, cx + side * 0.045, cy + 0.05, rng)
        _ridge(height, x, y, side * 0.16, 1.02, side * rng.uniform(-0.02, 0.08), rng.uniform(0.95, 1.10), rng)
    for _ in range(4):  # about the waist and hem
        cx, cy = rng.uniform(-0.12, 0.12), rng.uniform(0.90, 1.12)
        _ridge(height, x, y, cx, cy, cx + rng.uniform(-0.10, 0.10), cy + rng.uniform(-0.10, 0.10), rng)
    down, right = np.gradient(height, 0.01)
    return np.stack([-right, -down], -1).astype(np.float32)


def _ridge(height: np.ndarray, x: np.ndarray, y: np.ndarray, x0: float, y0: float, x1: float, y1: float, rng: np.random.Generator) -> None:
    """Add a tapering ridge from one place to another, in place."""
    dx, dy = x1 - x0, y1 - y0
    length2 = dx * dx + dy * dy + 1e-9
    t = np.clip(((x - x0) * dx + (y - y0) * dy) / length2, 0, 1)
    distance2 = (x - x0 - t * dx) ** 2 + (y - y0 - t * dy) ** 2
    width = rng.uniform(0.009, 0.016)
    height += rng.uniform(0.4, 1.0) * 0.009 * (1 - 0.6 * t) * np.exp(-distance2 / width**2)


@numba.njit(cache=True, nogil=True)
def _occlusion(depth, inside, light, scale):
    """Screen-space contact shadow towards the light and ambient hollows, each (h, w) in [0, 1]."""
    height, width = depth.shape
    shadow = np.ones((height, width), np.float32)
    hollow = np.ones((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            if not inside[y, x]:
                continue
            z = depth[y, x]
            blocked = 0.0
            for k in range(1, 9):
                s = 0.018 * k
                sx, sy = int(x + light[0] * s * scale + 0.5), int(y - light[1] * s * scale + 0.5)
                if sx < 0 or sy < 0 or sx >= width or sy >= height or not inside[sy, sx]:
                    continue
                rise = depth[sy, sx] - (z + light[2] * s)
                if rise > 0.006:
                    blocked = max(blocked, min(1.0, (rise - 0.006) / 0.02) * (1.15 - s / 0.16))
            shadow[y, x] = 1.0 - 0.55 * min(1.0, blocked)
            total = 0.0
            for k in range(8):
                angle = 0.785398 * k + 0.4
                for r in range(1, 3):
                    reach = 0.022 * r
                    sx = int(x + np.cos(angle) * reach * scale + 0.5)
                    sy = int(y + np.sin(angle) * reach * scale + 0.5)
                    if sx < 0 or sy < 0 or sx >= width or sy >= height or not inside[sy, sx]:
                        continue
                    rise = depth[sy, sx] - z
                    if rise > 0.004:
                        total += min(1.0, (rise - 0.004) / reach) * max(0.0, 1.0 - rise / 0.25)
            hollow[y, x] = 1.0 - 0.55 * min(1.0, total / 9.0)
    return shadow, hollow


def _reduce(image: Array32) -> Array32:
    """Box average of SAMPLES x SAMPLES samples."""
    h, w, c = image.shape
    return image.reshape(h // SAMPLES, SAMPLES, w // SAMPLES, SAMPLES, c).mean((1, 3))


@numba.njit(cache=True, nogil=True)
def _majority(label, is_cloth):
    """The commonest label of each 2 x 2 block; a block with any cloth is cloth (5)."""
    height, width = label.shape[0] // 2, label.shape[1] // 2
    result = np.zeros((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            best, votes = 0, 0
            for i in range(4):
                row, column = 2 * y + i // 2, 2 * x + i % 2
                if is_cloth[row, column]:
                    best, votes = 5, 5
                    continue
                count = 0
                for j in range(4):
                    if label[2 * y + j // 2, 2 * x + j % 2] == label[row, column]:
                        count += 1
                if count > votes:
                    best, votes = label[row, column], count
            result[y, x] = best
    return result


def _resolve_warp(texture: Array32, shown: NDArray[np.bool_], flat: FlatCloth) -> Array32:
    """Cloth coordinates in [0, 1] of each pixel whose samples mostly show the flat cloth."""
    h, w = shown.shape[0] // SAMPLES, shown.shape[1] // SAMPLES
    blocks = texture.reshape(h, SAMPLES, w, SAMPLES, 2).transpose(0, 2, 1, 3, 4).reshape(h, w, -1, 2)
    valid = shown.reshape(h, SAMPLES, w, SAMPLES).transpose(0, 2, 1, 3).reshape(h, w, -1)
    first = np.take_along_axis(blocks, valid.argmax(-1)[..., None, None], 2)
    near = valid & (np.abs(blocks - first).max(-1) < 4.0 * DETAIL)
    count = near.sum(-1)
    mean = (blocks * near[..., None]).sum(2) / np.maximum(count, 1)[..., None]
    size = np.array([flat.depth.shape[1], flat.depth.shape[0]], np.float32)
    return np.where((count >= 2)[..., None], mean / size, np.nan).astype(np.float32)
