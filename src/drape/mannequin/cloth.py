"""Upper-body clothes: what is cut away, how the cloth hangs, and how it lies flat.

One rest-pose surface (`anatomy.clothed`) serves every cloth; a kind of cloth is a set of cuts (hem,
sleeves, neckline) in rest coordinates plus pieces such as collar and hood.  Laid flat, each vertex has a
place on the cloth picture, and that place is its texture coordinate on the person: the warp is exact.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drape.mannequin.anatomy import ARM_ANGLE, MIRROR, SHOULDER, TRUNK_WIDTH, TRUNK_Y, clothed, rest_mesh
from drape.mannequin.implicit import Array
from drape.mannequin.raster import vertex_normals
from drape.mannequin.rest import REST_FRAME, Rest, facts, facts_of, smoothstep

NECKLINES = {  # half width, depth of the front below y = 1.455, exponent, depth of the back
    "crew": (0.080, 0.052, 2.6, 0.030),
    "wide": (0.112, 0.062, 2.8, 0.038),
    "scoop": (0.098, 0.108, 2.6, 0.040),
    "v": (0.084, 0.145, 1.15, 0.030),
    "square": (0.092, 0.100, 7.0, 0.045),
    "collar": (0.062, 0.085, 1.2, 0.018),
    "turtle": (0.30, -0.040, 2.0, -0.040),
}


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The shape of a cloth; lengths in metres on the rest figure."""

    kind: str
    neckline: str
    sleeve: float  # along the arm from the shoulder joint; 0 = none
    hem: float  # height above the floor
    hem_curve: float  # how much higher the hem is at the sides
    ease: float  # distance from the body at the hem
    flare: float  # extra ease of the sleeve
    rib: float  # height of ribbing at hem and cuffs; 0 = none
    flat_angle: float  # of the sleeves on the cloth picture, from the vertical


@dataclass(frozen=True)
class ClothMesh:
    """Vertices of a cloth with everything a picture needs; v vertices."""

    rest: Rest  # with ease; v positions
    triangles: NDArray[np.int32]
    flat: Array  # (v, 3) metres on the table; z is the height in the pile
    keep: Array  # (v,) negative where cut away
    traits: NDArray[np.float32]  # (v, len(TRAITS))


TRAITS = ("x", "y", "along", "across", "share", "hem", "cuff", "neck", "side", "piece")


class Rule(NamedTuple):
    """What a kind of cloth may look like; lengths in metres."""

    odds: float
    necklines: tuple[str, ...]
    sleeve: tuple[float, float]
    ease: tuple[float, float]


RULES = {
    "tank": Rule(0.13, ("scoop", "v", "square", "crew"), (0.0, 0.0), (0.0, 0.016)),
    "tee": Rule(0.25, ("crew", "crew", "crew", "v", "scoop", "wide"), (0.115, 0.25), (0.002, 0.030)),
    "longsleeve": Rule(0.16, ("crew", "crew", "v", "scoop", "wide", "turtle", "square"), (0.50, 0.535), (0.0, 0.014)),
    "shirt": Rule(0.14, ("collar",), (0.505, 0.535), (0.008, 0.028)),
    "polo": Rule(0.10, ("collar",), (0.16, 0.235), (0.004, 0.02)),
    "sweater": Rule(0.11, ("crew", "crew", "turtle", "v"), (0.50, 0.54), (0.008, 0.032)),
    "hoodie": Rule(0.11, ("crew",), (0.515, 0.54), (0.016, 0.036)),
}


def sample_cut(rng: np.random.Generator, kind: str | None = None) -> Cut:
    """A cloth of a random (or the given) kind."""
    kind = kind or str(rng.choice(list(RULES), p=[rule.odds for rule in RULES.values()]))
    rule = RULES[kind]
    length = float(rng.uniform(*rule.sleeve))
    if kind in ("longsleeve", "sweater") and rng.uniform() < 0.2:
        length = float(rng.uniform(0.33, 0.44))
    if kind == "shirt" and rng.uniform() < 0.25:
        length = float(rng.uniform(0.20, 0.26))
    crop = kind in ("tank", "tee", "longsleeve", "sweater") and rng.uniform() < 0.12
    amount = float(rng.uniform(*rule.ease))
    return Cut(
        kind=kind,
        neckline=str(rng.choice(rule.necklines)),
        sleeve=length,
        hem=float(rng.uniform(0.98, 1.03) if crop else rng.uniform(0.862, 0.925)),
        hem_curve=float(rng.uniform(0.02, 0.05) if kind == "shirt" else 0.0),
        ease=amount,
        flare=float(rng.uniform(0.2, 0.9)) * amount,
        rib=float(rng.uniform(0.035, 0.055)) if kind in ("sweater", "hoodie") else 0.0,
        flat_angle=float(np.deg2rad(rng.uniform(-2, 8) if length > 0.3 else rng.uniform(22, 46))),
    )


@lru_cache(maxsize=1)
def _base_normals() -> Array:
    """Outward normals of the uncut surface."""
    mesh = rest_mesh("top")
    return vertex_normals(mesh.vertices.astype(np.float32), mesh.triangles).astype(float)


def margins(rest: Rest, cut: Cut) -> tuple[Array, Array, Array]:
    """Signed distances (n,) to hem, cuffs and neckline at rest positions: positive on the cloth."""
    x, y = np.abs(rest.p[:, 0]), rest.p[:, 1]
    hem = y - cut.hem - cut.hem_curve * smoothstep(x, 0.05, 0.17)
    if cut.sleeve > 0:
        cuff = np.where(rest.share > 0.5, cut.sleeve - rest.arm[:, 0], 1.0)
    else:
        cuff = np.interp(y, [1.22, 1.285, 1.36, 1.43], [0.21, 0.158, 0.134, 0.126]) - x
    width, depth, power, back = NECKLINES[cut.neckline]
    front = smoothstep(rest.side, -0.35, 0.35)
    bottom = 1.455 - (depth * front + back * (1.0 - front))
    neck = (bottom + (1.455 - bottom) * (x / width) ** power - y) * (0.75 if cut.neckline == "v" else 0.95)
    return hem, cuff, neck


def covered(rest: Rest, cut: Cut) -> Array:
    """How deep below the cloth a rest position of the body lies, along the surface; negative outside."""
    return np.minimum.reduce(margins(rest, cut))


def build_cloth(cut: Cut) -> ClothMesh:
    """The mesh of a cloth, cut and eased on the rest figure."""
    base = facts_of("top")
    p, share, arm = base.p, base.share, base.arm
    hem, cuff, neck = margins(base, cut)
    ease = cut.ease * (0.25 + 0.75 * smoothstep(-p[:, 1], -1.33, -0.95)) * (1 - smoothstep(p[:, 1], 1.30, 1.42))
    loose = (0.3 * cut.ease + cut.flare) * smoothstep(arm[:, 0], 0.02, 0.22)
    total = (
        ease * (1 - share)
        + loose * share
        + (0.012 * smoothstep(p[:, 1], 1.40, 1.46) if cut.neckline == "turtle" else 0.0)
    )
    if cut.rib:
        gather = np.minimum(hem, np.where(cuff < 0.9, cuff, 1.0))
        total = total * (0.45 + 0.55 * smoothstep(gather, cut.rib - 0.01, cut.rib + 0.03))
    shift = _base_normals() * total[:, None]
    mirrored = shift * np.where(p[:, :1] < 0, MIRROR, 1.0)
    rest = base._replace(p=p + shift, arm=arm + mirrored @ REST_FRAME)
    traits = np.stack([p[:, 0], p[:, 1], arm[:, 0], arm[:, 1], share, hem, cuff, neck, base.side, np.zeros(len(p))], 1)
    flat = _flat(p, total, share, arm, cut)
    keep = np.minimum.reduce([hem, cuff, neck])
    mesh = ClothMesh(rest, rest_mesh("top").triangles, flat, keep, traits.astype(np.float32))
    for piece in {"shirt": (_collar(),), "polo": (_collar(),), "hoodie": (_hood(),)}.get(cut.kind, ()):
        mesh = _join(mesh, piece)
    return mesh


def _unroll(t: Array) -> Array:
    """From the seen half width (0..1) towards the arc length around a half cylinder (0..1), keeping the sign."""
    t = np.clip(t, -1.0, 1.0)
    return 0.45 * t + 0.55 * np.arcsin(t) * (2 / np.pi)


def _flat(p: Array, ease: Array, share: Array, arm: Array, cut: Cut) -> Array:
    """Places on the table: the trunk unrolled, the sleeves unrolled and swung to `flat_angle`."""
    half = np.interp(p[:, 1], TRUNK_Y, TRUNK_WIDTH)
    half = np.where(
        p[:, 1] > 1.31,
        0.166,
        np.maximum(half, np.interp(p[:, 1], [0.76, 0.9, 1.06, 1.24], [0.176, 0.172, 0.148, 0.152])),
    )
    half = np.maximum(half + 0.009, 0.0)
    trunk = np.stack([1.14 * (half + ease) * _unroll(p[:, 0] / half), p[:, 1]], 1)
    radius = np.interp(arm[:, 0], [0.0, 0.285, 0.535], [0.071, 0.055, 0.046])
    across = 1.22 * (radius + ease) * _unroll(arm[:, 1] / radius)
    sleeve = _sleeve_line(arm[:, 0], across, cut.flat_angle) * np.where(p[:, :1] < 0, [-1, 1], 1)
    mix = (share * smoothstep(arm[:, 0], -0.05, 0.04))[:, None]
    xy = trunk * (1 - mix) + sleeve * mix
    return np.concatenate([xy, p[:, 2:]], 1)


def _sleeve_line(along: Array, across: Array, angle: float) -> Array:
    """Places (n, 2) on a left sleeve that leaves the shoulder at the rest angle and bends down to `angle`."""
    t = np.linspace(-0.15, 0.65, 161)
    turn = ARM_ANGLE + (angle - ARM_ANGLE) * smoothstep(t, -0.04, 0.20)
    step = t[1] - t[0]
    x, y = np.cumsum(np.sin(turn)) * step, -np.cumsum(np.cos(turn)) * step
    x, y = x - np.interp(0.0, t, x), y - np.interp(0.0, t, y)
    a = np.interp(along, t, turn)
    centre = np.stack([np.interp(along, t, x) + 1.14 * SHOULDER[0], np.interp(along, t, y) + SHOULDER[1]], 1)
    return centre + across[:, None] * np.stack([np.cos(a), np.sin(a)], 1)


def _join(a: ClothMesh, b: ClothMesh) -> ClothMesh:
    return ClothMesh(
        Rest(*(np.concatenate(pair) for pair in zip(a.rest, b.rest, strict=True))),
        np.concatenate([a.triangles, b.triangles + len(a.keep)]).astype(np.int32),
        np.concatenate([a.flat, b.flat]),
        np.concatenate([a.keep, b.keep]),
        np.concatenate([a.traits, b.traits]),
    )


def _sheet(points: Array, piece: float) -> ClothMesh:
    """A piece from a grid of points (rows, columns, 3)."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1].ravel(), index[1:, :-1].ravel(), index[1:, 1:].ravel(), index[:-1, 1:].ravel()
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]).astype(np.int32)
    p = points.reshape(-1, 3)
    v = np.tile(np.linspace(0, 1, columns), rows)
    edge = np.minimum(v, 1 - v) * 0.06
    ones = np.ones(len(p))
    side = np.clip((p[:, 2] + 0.02) / 0.02, -1.0, 1.0)
    traits = np.stack([p[:, 0], p[:, 1], 0 * ones, 0 * ones, 0 * ones, ones, ones, edge + 0.03, side, piece * ones], 1)
    flat = np.stack([p[:, 0] * 1.12, p[:, 1], p[:, 2] + 0.05], 1)  # pieces lie on top
    rest = facts(np.minimum(p, [9.0, 1.465, 9.0]))._replace(p=p)
    return ClothMesh(rest, triangles, flat, ones, traits.astype(np.float32))


def _off_cloth(p: Array, distance: float) -> Array:
    """Push points out of the close top until they are `distance` above it."""
    for _ in range(4):
        d = clothed(p)
        gradient = np.stack([(clothed(p + e) - d) / 1e-3 for e in np.eye(3) * 1e-3], 1)
        norm2 = np.maximum((gradient**2).sum(1), 0.25)
        p = p + (np.maximum(distance - d, 0.0) / norm2)[:, None] * gradient
    return p


def _fall(x: Array, y: Array, z: Array, highest: Array, distance: float) -> Array:
    """Heights at which points come to rest when they fall from `highest`: `distance` above the cloth, or at `y`."""
    levels = highest + np.linspace(0.0, 1.0, 80).reshape(-1, 1, 1) * (y - highest)
    p = np.stack(np.broadcast_arrays(x, levels, z), -1)
    blocked = clothed(p.reshape(-1, 3)).reshape(levels.shape) < distance
    first = np.where(blocked.any(0), np.maximum(blocked.argmax(0) - 1, 0), len(levels) - 1)
    return np.take_along_axis(levels, first[None], 0)[0]


@lru_cache(maxsize=1)
def _collar() -> ClothMesh:
    """A turned-down collar: a sheet from the neck over its fold to two points in front."""
    turn = np.linspace(0.0, 1.0, 49)
    rows = np.linspace(0.0, 1.0, 7)
    t, r = np.meshgrid(turn, rows)
    gap = 0.10 + 0.34 * r
    angle = gap + (2 * np.pi - 2 * gap) * t
    back = 0.5 - 0.5 * np.cos(angle)
    point = np.exp(-(((np.minimum(angle, 2 * np.pi - angle) - gap) / 0.45) ** 2))
    x = (0.068 + 0.036 * r) * np.sin(angle)
    z = -0.014 + (0.070 + 0.030 * r) * np.cos(angle)
    over = np.sin(angle) ** 2  # the shoulders, which the collar climbs
    fold = 1.438 + 0.038 * back + 0.020 * over
    low = fold * (1 - r) + (1.408 + 0.018 * back - 0.042 * point) * r
    bulge = 0.012 * np.sin(np.pi * r)
    around = smoothstep(1.0 - np.cos(angle), 0.25, 0.75)  # the points lie on the chest, the rest on the shoulders
    y = low + bulge
    y = y + around * (_fall(x, y, z, fold + bulge, 0.009) - y)
    p = _off_cloth(np.stack([x, y, z], -1).reshape(-1, 3), 0.010)
    return _sheet(p.reshape(*t.shape, 3), 1.0)


@lru_cache(maxsize=1)
def _hood() -> ClothMesh:
    """A hood that lies behind the neck and meets in front."""
    angle = np.linspace(0.0, 2 * np.pi, 49)
    around = np.linspace(0.0, 2 * np.pi, 17)
    a, o = np.meshgrid(angle, around)
    back = 0.5 - 0.5 * np.cos(a)
    thick, tall = 0.013 + 0.022 * back + 0.010 * np.sin(a) ** 2, 0.018 + 0.032 * back + 0.012 * np.sin(a) ** 2
    ring_x, ring_z = 0.080 + 0.012 * back, 0.076 + 0.024 * back
    x = (ring_x + thick * np.cos(o)) * np.sin(a)
    z = -0.014 + (ring_z + thick * np.cos(o)) * np.cos(a)
    y = 1.408 + 0.052 * back + 0.022 * np.sin(a) ** 2 + tall * np.sin(o)
    return _sheet(np.stack([x, y, z], -1), 2.0)
