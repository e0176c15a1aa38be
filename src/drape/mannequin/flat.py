"""The cloth on the table: albedo (what the warp shows) and the product photo (shaded, on near-white)."""

from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np

from drape.mannequin import raster
from drape.mannequin.cloth import TRAITS, ClothMesh, Cut, build_cloth
from drape.mannequin.fabric import Array32, Fabric, paint, sleeve_fabric
from drape.mannequin.rest import smoothstep
from drape.mannequin.seeds import stream

DETAIL = 2  # samples per cloth pixel along each axis; `raster.halve` is written for it


@dataclass(frozen=True, kw_only=True)
class Cloth:
    """A cloth: its cut, its fabric, and a second colour index for collar and ribs."""

    cut: Cut
    fabric: Fabric
    trim: int  # 0: as the fabric; 1: second colour
    details: int  # bits: buttons' colour, chest pocket, drawstring, neck label
    seed: int  # of its folds on the table


@dataclass(frozen=True)
class FlatCloth:
    """A cloth laid flat at (hc, wc); arrays are DETAIL times finer where 'fine' is written."""

    mesh: ClothMesh
    texture: Array32  # (v, 2) fine pixel coordinates of each vertex
    albedo: Array32  # (fine h, fine w, 3), filled beyond the outline so that sampling at the edge is safe
    back: Array32  # (v, 3) unshaded colour of each vertex seen from behind or inside
    depth: Array32  # (fine h, fine w) height in the pile, -inf where there is table
    image: Array32  # (hc, wc, 3) the product photo
    mask: Array32  # (hc, wc) share of the pixel that is cloth
    pixels_per_metre: float


@lru_cache(maxsize=3)
def lay_flat(cloth: Cloth, size: tuple[int, int]) -> FlatCloth:
    """The cloth filling a picture of `size` (height, width); the last three are kept."""
    rng = stream(cloth.seed, "table")
    mesh = build_cloth(cloth.cut)
    height, width = size[0] * DETAIL, size[1] * DETAIL
    kept = mesh.flat[mesh.keep > 0]
    low, high = kept.min(0), kept.max(0)
    scale = float(min(0.92 * width / (high[0] - low[0]), 0.92 * height / (high[1] - low[1])))
    middle = 0.5 * (low + high)
    x = (mesh.flat[:, 0] - middle[0]) * scale + 0.5 * width
    y = (middle[1] - mesh.flat[:, 1]) * scale + 0.5 * height
    points = np.stack([x, y, mesh.flat[:, 2]], 1).astype(np.float32)
    hits = raster.fill(points, mesh.triangles, mesh.keep, (height, width))
    traits = raster.interpolate(hits.triangle, hits.weights, mesh.triangles, mesh.traits)
    inside = hits.triangle >= 0
    albedo = np.zeros((height, width, 3), np.float32)
    named = dict(zip(TRAITS, np.ascontiguousarray(traits[inside].T), strict=True))
    rows, columns = np.nonzero(inside)
    u = ((np.arange(width) + 0.5 - 0.5 * width) / scale + middle[0]).astype(np.float32)
    v = (middle[1] - (np.arange(height) + 0.5 - 0.5 * height) / scale).astype(np.float32)
    named |= {"u": u[columns], "v": v[rows]}
    albedo[inside] = design(cloth, named)
    photo = albedo * _table_shade(named, u, v, inside, hits.depth, rng)[..., None]
    image, mask = _photograph(photo, inside, rng)
    back = _back_colours(cloth, mesh)
    return FlatCloth(mesh, points[:, :2], _spread(albedo, inside), back, hits.depth, image, mask, scale)


def cloth_texture(flat: FlatCloth) -> Array32:
    """The unshaded cloth at the size of its picture, (hc, wc, 3): what the warp coordinates point into."""
    return raster.halve(flat.albedo)


def design(cloth: Cloth, t: dict[str, Array32]) -> Array32:
    """Unshaded colours (n, 3) from the traits of n places on a cloth."""
    cut, fabric = cloth.cut, cloth.fabric
    sleeve = (t["share"] > 0.5) & (t["piece"] == 0)
    rgb = paint(fabric, t["u"], t["v"])
    other = sleeve_fabric(fabric)
    along, across = t["along"][sleeve], t["across"][sleeve]
    if other.pattern == "photo":
        rgb[sleeve] = paint(other, across + 0.2, 1.42 - along)
    else:
        rgb[sleeve] = paint(other, across, 1.38 - along)
    trim = np.array(fabric.colours[1], np.float32) if cloth.trim else None
    cuff = np.where(t["cuff"] < 0.9, t["cuff"], 1.0)
    piece = t["piece"] > 0
    band = 0.018 if cut.neckline not in ("turtle", "collar") else 0.0
    edge = (~piece) & (t["neck"] < band)
    if cut.rib:
        edge |= (~piece) & (np.minimum(t["hem"], cuff) < cut.rib)
    if trim is not None:
        rgb[edge | (piece & (cut.kind == "polo"))] = trim
    ribs = edge if cut.rib else np.zeros_like(edge)
    wave = np.sin(np.where(sleeve, t["across"], t["u"]) * (2 * np.pi / 0.011))
    rgb[ribs] *= (0.93 + 0.06 * wave[ribs])[:, None]
    rgb *= _seams(cut, t, cuff, edge)[:, None]
    _closures(cloth, t, rgb, piece)
    inner = (t["side"] < 0) & ~piece
    rgb[inner] = rgb[inner] * 0.72
    return np.clip(rgb, 0.0, 1.0)


def _seams(cut: Cut, t: dict[str, Array32], cuff: Array32, edge: np.ndarray) -> Array32:
    """Darkening along the armhole, hems and the edge of the ribbing."""
    line = np.ones_like(cuff)
    plain = t["piece"] == 0
    if cut.sleeve > 0:
        line -= 0.16 * np.exp(-(((t["share"] - 0.5) / 0.07) ** 2)) * plain
    hem = np.minimum(t["hem"], cuff)
    offset = cut.rib if cut.rib else 0.020
    line -= 0.14 * np.exp(-(((hem - offset) / 0.0022) ** 2)) * plain
    if cut.neckline not in ("turtle", "collar"):
        line -= 0.14 * np.exp(-(((t["neck"] - 0.018) / 0.0022) ** 2)) * plain
    line -= 0.10 * np.exp(-((np.minimum(hem, t["neck"]) / 0.003) ** 2)) * plain
    line -= 0.18 * np.exp(-(((t["neck"] - 0.03) / 0.004) ** 2)) * ~plain * (t["piece"] == 1)
    return line.astype(np.float32)


def _closures(cloth: Cloth, t: dict[str, Array32], rgb: Array32, piece: np.ndarray) -> None:
    """Plackets, buttons, pockets and drawstrings, painted in place."""
    kind, x, y = cloth.cut.kind, t["x"], t["y"]
    front = (t["side"] > 0) & ~piece & (t["share"] < 0.5)
    button = np.array((0.92, 0.9, 0.86) if cloth.details & 1 else (0.2, 0.18, 0.17), np.float32)
    if kind in ("shirt", "polo"):
        low = cloth.cut.hem if kind == "shirt" else 1.22
        placket = front & (np.abs(x) < 0.016) & (y > low)
        edge = np.exp(-(((np.abs(x) - 0.016) / 0.0022) ** 2)) * (front & (y > low))
        rgb[placket] = np.minimum(rgb[placket] * 1.04, 1.0)
        rgb *= (1.0 - 0.28 * edge)[:, None]
        pitch = 0.075 if kind == "shirt" else 0.055
        distance = np.hypot(x, (y - 1.345 + 0.5 * pitch) % pitch - 0.5 * pitch)
        dot = np.clip((0.0078 - distance) / 0.003, 0, 1) * (front & (y > low) & (y < 1.36))
        rgb[:] = rgb * (1 - dot[:, None]) + button * dot[:, None]
    if kind == "shirt" and cloth.details & 2:
        box = np.maximum(np.abs(x - 0.075) - 0.042, np.abs(y - 1.235) - 0.050)
        rgb *= (1.0 - 0.25 * np.exp(-((box / 0.0025) ** 2)) * front)[:, None]
    if kind == "hoodie":
        half = 0.125 - 0.45 * np.clip(y - (cloth.cut.hem + cloth.cut.rib + 0.07), 0, 1)
        box = np.maximum(np.abs(x) - half, np.abs(y - cloth.cut.hem - cloth.cut.rib - 0.08) - 0.075)
        rgb *= (1.0 - 0.30 * np.exp(-((box / 0.003) ** 2)) * front - 0.035 * ((box < 0) & front))[:, None]
        cord = np.exp(-(((np.abs(x) - 0.030 - 0.05 * (1.38 - y)) / 0.0034) ** 2)) * (front & (y > 1.25) & (y < 1.42))
        tint = np.array(cloth.fabric.colours[1], np.float32) if cloth.trim else button
        rgb[:] = rgb * (1 - cord[:, None]) + tint * cord[:, None]


def _back_colours(cloth: Cloth, mesh: ClothMesh) -> Array32:
    """The unshaded fabric at each vertex without prints and closures: what is seen of back and inside."""
    t = dict(zip(TRAITS, mesh.traits.T, strict=True))
    t |= {"u": mesh.flat[:, 0].astype(np.float32), "v": mesh.flat[:, 1].astype(np.float32)}
    plain = Cloth(cut=cloth.cut, fabric=sleeve_fabric(cloth.fabric), trim=cloth.trim, details=0, seed=0)
    if cloth.fabric.pattern in ("raglan", "blocks"):
        plain = Cloth(cut=cloth.cut, fabric=cloth.fabric, trim=cloth.trim, details=0, seed=0)
    t["side"] = np.ones_like(t["side"])
    kinds = Cut(**{**cloth.cut.__dict__, "kind": "tee" if cloth.cut.kind != "polo" else "polo"})
    rgb = design(Cloth(cut=kinds, fabric=plain.fabric, trim=plain.trim, details=0, seed=0), t)
    return rgb


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _spread(albedo: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Albedo continued four pixels beyond the outline, so that bilinear reads at the edge see cloth only."""
    height, width = inside.shape
    image, known = albedo.copy(), inside.copy()
    for axis in range(2):
        seen = known.copy()
        for y in range(height):
            for x in range(width):
                if seen[y, x]:
                    continue
                for step in range(1, 5):
                    before = (y, x - step) if axis == 0 else (y - step, x)
                    after = (y, x + step) if axis == 0 else (y + step, x)
                    row, column = -1, -1
                    if before[0] >= 0 and before[1] >= 0 and seen[before[0], before[1]]:
                        row, column = before
                    elif after[0] < height and after[1] < width and seen[after[0], after[1]]:
                        row, column = after
                    if row >= 0:
                        image[y, x] = image[row, column]
                        known[y, x] = True
                        break
    return image


def _table_shade(
    t: dict[str, Array32], u: Array32, v: Array32, inside: np.ndarray, depth: Array32, rng: np.random.Generator
) -> Array32:
    """Soft light on the table: rounded edges, gentle folds, the hollow of the neck; u, v: metres of columns, rows."""
    fold = np.zeros(inside.shape, np.float32)
    for _ in range(5):
        angle, phase, pitch = rng.uniform(-0.5, 0.5), rng.uniform(0, 6.3), rng.uniform(0.05, 0.14)
        a = u * (np.cos(angle) / pitch * 6.28) + phase
        b = v * (np.sin(angle) / pitch * 6.28)
        rows = np.exp(-(((v - rng.uniform(0.9, 1.4)) / 0.13) ** 2))
        columns = np.exp(-(((u - rng.uniform(-0.25, 0.25)) / 0.12) ** 2))
        # rows * columns * sin(a + b) as two outer products
        fold += np.outer(rows * np.cos(b), columns * np.sin(a)) + np.outer(rows * np.sin(b), columns * np.cos(a))
    rounded = 1.0 - 0.16 * (1 - smoothstep(depth[inside] - np.where(t["share"] > 0.5, -0.005, -0.003), 0.0, 0.05))
    shade = np.ones(inside.shape, np.float32)
    shade[inside] = (rounded + 0.05 * fold[inside]) * np.where(t["side"] < 0, 0.9, 1.0)
    return shade


def _photograph(photo: Array32, inside: np.ndarray, rng: np.random.Generator) -> tuple[Array32, Array32]:
    """Reduce to cloth pixels over a near-white table with a soft shadow."""
    table = np.float32(rng.uniform(0.95, 0.975))
    share = raster.halve(inside[..., None])
    shadow = share[..., 0]
    for _ in range(2):
        shadow = _blur(shadow)
    shadow = np.roll(shadow, 1, 0)
    ground = table * (1.0 - 0.10 * shadow[..., None])
    image = raster.halve(photo * inside[..., None]) + ground * (1 - share)
    return np.clip(image, 0, 1).astype(np.float32), share[..., 0]


def _blur(image: Array32) -> Array32:
    """A small separable binomial blur with a black border."""
    for axis in (0, 1):
        image = 0.25 * (np.roll(image, 1, axis) + np.roll(image, -1, axis)) + 0.5 * image
    return image
