"""Fabrics: colours, stripes, checks, dots, prints, noise and photographs, painted in metres on the cloth."""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from drape.errors import DataError
from drape.mannequin.raster import bilinear

Array32 = np.ndarray  # float32
PATTERNS = (
    "plain", "stripes", "pinstripes", "bands", "check", "plaid", "dots", "gradient", "blocks", "shape", "letters",
    "melange", "camouflage", "raglan",
)  # fmt: skip
ODDS = np.array([0.20, 0.12, 0.04, 0.06, 0.05, 0.08, 0.06, 0.05, 0.06, 0.08, 0.08, 0.04, 0.04, 0.04])
PALETTE = np.array([
    (0.95, 0.95, 0.93), (0.90, 0.87, 0.80), (0.14, 0.14, 0.16), (0.25, 0.26, 0.29), (0.55, 0.56, 0.58),
    (0.13, 0.18, 0.33), (0.17, 0.32, 0.58), (0.36, 0.58, 0.80), (0.62, 0.78, 0.90), (0.10, 0.45, 0.47),
    (0.16, 0.36, 0.24), (0.42, 0.58, 0.36), (0.50, 0.50, 0.27), (0.73, 0.80, 0.55), (0.93, 0.80, 0.30),
    (0.90, 0.62, 0.20), (0.86, 0.42, 0.20), (0.75, 0.22, 0.18), (0.58, 0.12, 0.16), (0.88, 0.45, 0.45),
    (0.93, 0.68, 0.66), (0.85, 0.36, 0.56), (0.55, 0.25, 0.48), (0.40, 0.30, 0.58), (0.70, 0.62, 0.82),
    (0.60, 0.42, 0.28), (0.78, 0.62, 0.45), (0.38, 0.25, 0.18), (0.30, 0.70, 0.66), (0.82, 0.20, 0.30),
])  # fmt: skip
WORDS = (
    "DRAPE", "HELLO", "NORTH", "WILD", "24", "SUN", "OK", "LAB", "RIVER", "77", "MOON", "AZUR", "CITY", "YES",
    "ECHO", "03", "K2", "PLAY",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fabric:
    """A pattern with its colours; `scale` is its period in metres, `photo` a path for photo textures."""

    pattern: str
    colours: tuple[tuple[float, float, float], ...]
    scale: float
    angle: float = 0.0
    seed: int = 0
    word: str = ""
    photo: Path | None = field(default=None)
    crop: float = 0.4


def sample_fabric(rng: np.random.Generator, textures: tuple[Path, ...] = ()) -> Fabric:
    """A tasteful fabric; with `textures`, two in five are cut from one of these photographs."""
    first = int(rng.integers(len(PALETTE)))
    distance = np.linalg.norm(PALETTE - PALETTE[first], axis=1)
    others = rng.choice(np.flatnonzero(distance > 0.35), 3, replace=False)
    colours = np.clip(PALETTE[[first, *others]] + rng.normal(0, 0.025, (4, 3)), 0.05, 0.97)
    pattern = str(rng.choice(PATTERNS, p=ODDS / ODDS.sum()))
    photo = None
    if textures and rng.uniform() < 0.4:
        pattern, photo = "photo", textures[int(rng.integers(len(textures)))]
    return Fabric(
        pattern=pattern,
        colours=tuple((float(r), float(g), float(b)) for r, g, b in colours),
        scale=float(np.exp(rng.uniform(np.log(0.03), np.log(0.11)))),
        angle=float(rng.choice([0.0, 0.0, 0.0, np.pi / 2, np.pi / 4])),
        seed=int(rng.integers(2**31)),
        word=str(rng.choice(WORDS)),
        photo=photo,
        crop=float(rng.uniform(0.25, 0.42)),
    )


def find_textures(folder: Path) -> tuple[Path, ...]:
    """The photographs in a folder, sorted by name.  Raises DataError where there are none."""
    if not folder.is_dir():
        raise DataError(
            f"no texture folder at {folder}: expected a folder of JPEG or PNG photographs. Check --textures."
        )
    found = tuple(sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")))
    if not found:
        raise DataError(
            f"the texture folder {folder} holds no .jpg, .png or .webp file. Put photographs there, or leave it out."
        )
    return found


def paint(fabric: Fabric, x: Array32, y: Array32) -> Array32:
    """Colours (n, 3) in [0, 1] at places on the cloth in metres: x from its middle line, y up."""
    c = np.array(fabric.colours, np.float32)
    ca, sa = np.cos(fabric.angle), np.sin(fabric.angle)
    u, v = (ca * x + sa * y) / fabric.scale, (-sa * x + ca * y) / fabric.scale
    p = fabric.pattern
    if p == "photo":
        return _photo(fabric, x, y)
    if p == "stripes":
        return _mix(c[0], c[1], _edge(np.abs(v % 1.0 - 0.5) - 0.25, fabric.scale))
    if p == "pinstripes":
        return _mix(c[0], c[1], _edge(0.12 - np.abs(u % 1.0 - 0.5), fabric.scale))
    if p == "bands":
        wide = _edge(np.abs((v / 2.6) % 1.0 - 0.5) - 0.30, 2.6 * fabric.scale)
        thin = _edge(0.06 - np.abs((v / 2.6 + 0.5) % 1.0 - 0.5), 2.6 * fabric.scale)
        return _mix(_mix(c[0], c[1], wide), c[2], thin)
    if p == "check":
        return _mix(c[0], c[1], 0.5 * (np.abs(u % 1.0 - 0.5) < 0.25) + 0.5 * (np.abs(v % 1.0 - 0.5) < 0.25))
    if p == "plaid":
        base = _mix(c[0], c[1], 0.45 * (np.abs((u / 1.6) % 1 - 0.5) < 0.2) + 0.45 * (np.abs((v / 1.6) % 1 - 0.5) < 0.2))
        line = np.maximum(np.abs((u / 1.6 + 0.5) % 1 - 0.5) < 0.035, np.abs((v / 1.6 + 0.5) % 1 - 0.5) < 0.035)
        return _mix(base, c[2], 0.7 * line)
    if p == "dots":
        row = np.floor(v / 0.87)
        du, dv = (u + 0.5 * (row % 2)) % 1.0 - 0.5, (v - row * 0.87) - 0.435
        return _mix(c[0], c[1], _edge(0.26 - np.hypot(du, dv), fabric.scale))
    if p == "gradient":
        return _mix(c[0], c[1], np.clip((y - 0.88) / 0.52, 0, 1))
    if p == "blocks":
        return np.where((y > 1.22)[:, None], c[0], np.where((y > 1.06)[:, None], c[1], c[2])).astype(np.float32)
    if p == "melange":
        return _mix(c[0], 0.5 * (c[0] + c[1]), _noise(fabric.seed, x / 0.012, y / 0.004))
    if p == "camouflage":
        n = _noise(fabric.seed, x / 0.07, y / 0.05) + 0.4 * _noise(fabric.seed + 1, x / 0.03, y / 0.025)
        return c[np.digitize(n, [0.50, 0.70, 0.88])]
    base = np.broadcast_to(c[0], (len(x), 3)).astype(np.float32)
    if p in ("shape", "letters"):
        size = 0.11 if p == "shape" else 0.14
        tx, ty = (x + size) / (2 * size) * 96, (1.235 - y + size) / (2 * size) * 96
        inside = (np.abs(x) < size) & (np.abs(y - 1.235) < size)
        stamp = bilinear(_stamp(p, fabric.word, fabric.seed % 6), tx.astype(np.float32), ty.astype(np.float32))[:, 0]
        return _mix(base, c[1], stamp * inside)
    return base


def sleeve_fabric(fabric: Fabric) -> Fabric:
    """The fabric of the sleeves: the same, but prints stay on the chest and raglan sleeves change colour."""
    if fabric.pattern == "raglan":
        return Fabric(pattern="plain", colours=fabric.colours[1:] + fabric.colours[:1], scale=fabric.scale)
    if fabric.pattern in ("shape", "letters", "blocks"):
        return Fabric(pattern="plain", colours=fabric.colours, scale=fabric.scale)
    return fabric


def _mix(a: Array32, b: Array32, t: Array32) -> Array32:
    t = np.asarray(t, np.float32)[:, None]
    return (a * (1 - t) + b * t).astype(np.float32)


def _edge(d: Array32, period: float) -> Array32:
    """A soft step about 4 mm wide for a signed distance in periods."""
    return np.clip(d * period / 0.004 + 0.5, 0.0, 1.0)


def _noise(seed: int, x: Array32, y: Array32) -> Array32:
    """Smooth value noise in [0, 1]."""
    table = np.random.Generator(np.random.PCG64(seed)).random((64, 64), np.float32)
    table = np.pad(table, (0, 1), mode="wrap")[..., None]
    return bilinear(table, (x % 64 + 0.5).astype(np.float32), (y % 64 + 0.5).astype(np.float32))[:, 0]


@lru_cache(maxsize=256)
def _stamp(kind: str, word: str, which: int) -> Array32:
    """A print (96, 96, 1) in [0, 1]: a shape or a word."""
    side = 384
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    if kind == "letters":
        font = ImageFont.load_default(size=100)
        left, top, right, bottom = draw.textbbox((0, 0), word, font=font)
        size = min(300, int(100 * 330 / max(right - left, bottom - top)))
        font = ImageFont.load_default(size=size)
        draw.text((side // 2, side // 2), word, fill=255, font=font, anchor="mm", stroke_width=4)
    else:
        _draw_shape(draw, which, side)
    small = image.resize((96, 96), Image.Resampling.BOX)
    return (np.asarray(small, np.float32) / 255.0)[..., None]


def _draw_shape(draw: ImageDraw.ImageDraw, which: int, side: int) -> None:
    """Disc, ring, star, triangle, heart or mountain."""
    c, r = side / 2, side * 0.38
    if which == 0:
        draw.ellipse((c - r, c - r, c + r, c + r), fill=255)
    elif which == 1:
        draw.ellipse((c - r, c - r, c + r, c + r), outline=255, width=48)
    elif which == 2:
        angles = np.arange(10) * np.pi / 5
        radii = np.where(np.arange(10) % 2 == 0, r, 0.42 * r)
        draw.polygon([(c + q * np.sin(a), c - q * np.cos(a)) for a, q in zip(angles, radii, strict=True)], fill=255)
    elif which == 3:
        draw.polygon([(c, c - r), (c + r, c + 0.8 * r), (c - r, c + 0.8 * r)], fill=255)
    elif which == 4:
        t = np.linspace(0, 2 * np.pi, 60)
        hx, hy = 16 * np.sin(t) ** 3, 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        draw.polygon([(c + a * r / 16, c - b * r / 16) for a, b in zip(hx, hy, strict=True)], fill=255)
    else:
        peaks = ((-1.0, 0.6), (-0.3, -0.6), (0.1, 0.0), (0.4, -0.3), (1.0, 0.6))
        draw.polygon([(c + a * r, c + b * r) for a, b in peaks], fill=255)


@lru_cache(maxsize=2048)
def _crop(path: Path, fraction: float) -> Array32:
    """The middle `fraction` of a photograph, (n, n, 3) in [0, 1], at most 192 pixels wide."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (640, 640))
            half = fraction * min(image.size) / 2
            x, y = image.width / 2, image.height / 2
            side = int(min(192, max(16, 2 * half)))
            box = (x - half, y - half, x + half, y + half)
            crop = image.convert("RGB").resize((side, side), Image.Resampling.BOX, box=box)
            return np.asarray(crop, np.float32) / 255.0
    except OSError as error:
        raise DataError(
            f"cannot read the texture {path}: {error}. Remove the file or choose another --textures folder."
        ) from error


def _photo(fabric: Fabric, x: Array32, y: Array32) -> Array32:
    """The crop laid over the trunk once, mirrored beyond its edges."""
    assert fabric.photo is not None
    image = _crop(fabric.photo, fabric.crop)
    side = len(image)
    u, v = (x + 0.30) / 0.60, (1.47 - y) / 0.60
    u, v = (1 - np.abs(1 - w % 2.0) for w in (u, v))
    return bilinear(image, (u * side).astype(np.float32), (v * side).astype(np.float32))
