"""Pictures: shade what the rasteriser found, resolve samples to pixels, read off labels and the warp."""

from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from drape.mannequin import raster
from drape.mannequin.fabric import Array32
from drape.mannequin.flat import DETAIL, Cloth, FlatCloth
from drape.mannequin.light import fold_slopes, paint_samples, rays
from drape.mannequin.scene import Person, backdrop, face_paint
from drape.mannequin.stage import assemble, dressed_parts, undressed_parts

SAMPLES = 2  # per pixel along each axis; the reductions below are written for it


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
    stage = assemble(person, dressed_parts(person, flat, cloth.cut), fine)
    hits = raster.fill(stage.points, stage.triangles, stage.keep, fine)
    values = np.concatenate([stage.colour, stage.normals, stage.place, stage.flat], 1)
    light = np.array(person.light)
    probes = rays(light, person.zoom * fine[0])
    face, folds = face_paint(person, int(np.clip(size[0] // 2, 64, 256))), _folds(person.fold_seed)
    albedo, shaded, texture, shown, is_cloth = paint_samples(
        hits.triangle, hits.weights, hits.depth, stage.triangles, values, stage.material,
        flat.albedo, flat.depth, face, folds, light, person.softness, person.warmth, probes,
    )  # fmt: skip
    label = raster.nearest(hits.triangle, hits.weights, stage.triangles, stage.label)
    ground = backdrop(person.backdrop, size) * (1 - raster.halve((hits.triangle >= 0)[..., None]))
    return View(
        image=np.clip(raster.halve(shaded) + ground, 0, 1),
        albedo=np.clip(raster.halve(albedo) + ground, 0, 1),
        parse=_majority(label, is_cloth),
        cloth_share=raster.halve(is_cloth[..., None])[..., 0],
        warp=_resolve_warp(texture, shown) / np.array(flat.depth.shape[::-1], np.float32),
        joints={k: (x / SAMPLES, y / SAMPLES) for k, (x, y) in stage.joints.items()},
    )


_folds = lru_cache(maxsize=4)(fold_slopes)


def body_parts(person: Person, size: tuple[int, int]) -> NDArray[np.uint8]:
    """DensePose parts (h, w) of the body as if undressed, so that they tell nothing about the cloth."""
    stage = assemble(person, undressed_parts(person), size)
    hits = raster.fill(stage.points, stage.triangles, stage.keep, size)
    return raster.nearest(hits.triangle, hits.weights, stage.triangles, stage.densepose)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _majority(label: np.ndarray, is_cloth: np.ndarray) -> np.ndarray:
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


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _resolve_warp(texture: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Fine flat coordinates (h, w, 2) of each pixel of which two or more samples show one place of the flat cloth."""
    h, w = shown.shape[0] // 2, shown.shape[1] // 2
    result = np.full((h, w, 2), np.nan, np.float32)
    for y in range(h):
        for x in range(w):
            count, sx, sy, fx, fy = 0, 0.0, 0.0, 0.0, 0.0
            for i in range(4):
                row, column = 2 * y + i // 2, 2 * x + i % 2
                if not shown[row, column]:
                    continue
                u, v = texture[row, column, 0], texture[row, column, 1]
                if count == 0:
                    fx, fy = u, v
                if abs(u - fx) < 4.0 * DETAIL and abs(v - fy) < 4.0 * DETAIL:
                    count, sx, sy = count + 1, sx + u, sy + v
            if count >= 2:
                result[y, x, 0], result[y, x, 1] = sx / count, sy / count
    return result
