"""People and their surroundings: everything about a picture except the cloth."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from drape.mannequin.anatomy import HAIR
from drape.mannequin.fabric import Array32
from drape.mannequin.poses import sample_figure, sample_pose
from drape.mannequin.rest import smoothstep
from drape.mannequin.rig import Figure, Pose

SKIN = np.array([
    (0.96, 0.82, 0.74), (0.93, 0.76, 0.65), (0.88, 0.69, 0.56), (0.80, 0.60, 0.46), (0.70, 0.50, 0.37),
    (0.57, 0.39, 0.28), (0.45, 0.30, 0.21), (0.36, 0.24, 0.18),
])  # fmt: skip
HAIR_COLOURS = np.array([
    (0.10, 0.08, 0.07), (0.16, 0.11, 0.08), (0.28, 0.18, 0.12), (0.40, 0.26, 0.16), (0.58, 0.40, 0.24),
    (0.78, 0.62, 0.40), (0.52, 0.22, 0.12), (0.55, 0.54, 0.54),
])  # fmt: skip
LOWER_COLOURS = np.array([
    (0.17, 0.23, 0.36), (0.28, 0.38, 0.54), (0.52, 0.61, 0.72), (0.11, 0.11, 0.13), (0.24, 0.24, 0.26),
    (0.62, 0.54, 0.43), (0.86, 0.84, 0.80), (0.36, 0.37, 0.27), (0.45, 0.20, 0.22), (0.70, 0.66, 0.62),
])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Person:
    """One person in one photograph, without the upper cloth."""

    figure: Figure
    pose: Pose
    skin: tuple[float, float, float]
    hair_style: str  # a key of anatomy.HAIR, or "bald"
    hair_colour: tuple[float, float, float]
    eyes: tuple[float, float, float]
    lips: float
    beard: float
    lower: str  # "trousers", "jeans", "skirt"
    lower_colour: tuple[float, float, float]
    light: tuple[float, float, float]  # direction towards the light
    softness: float
    warmth: float
    zoom: float  # pixels of height per metre at height 1
    centre: tuple[float, float]
    backdrop: int
    fold_seed: int


def _triple(v: np.ndarray) -> tuple[float, float, float]:
    r, g, b = np.clip(v, 0.02, 0.98)
    return float(r), float(g), float(b)


def sample_person(rng: np.random.Generator) -> Person:
    """Somebody, somewhere."""
    figure = sample_figure(rng)
    position = rng.uniform(0, len(SKIN) - 1)
    i = int(position)
    skin = SKIN[i] + (position - i) * (SKIN[min(i + 1, len(SKIN) - 1)] - SKIN[i])
    dark = position > 4.2
    hair = HAIR_COLOURS[int(rng.integers(3 if dark else len(HAIR_COLOURS)))]
    feminine = figure.bust > 0.014
    styles = (
        ["bob", "long", "bun", "tail", "side", "afro" if dark else "long"]
        if feminine
        else ["short", "crop", "short", "side", "afro" if dark else "short", "bald"]
    )
    lower = str(rng.choice(["jeans", "trousers", "skirt"], p=[0.4, 0.35, 0.25] if feminine else [0.5, 0.5, 0.0]))
    colours = LOWER_COLOURS[:3] if lower == "jeans" else LOWER_COLOURS
    light = np.array([rng.uniform(-0.8, 0.8), rng.uniform(0.25, 0.8), rng.uniform(0.6, 1.0)])
    light /= np.linalg.norm(light)
    person = Person(
        figure=figure,
        pose=sample_pose(rng, figure),
        skin=_triple(skin + rng.normal(0, 0.012, 3)),
        hair_style=str(rng.choice(styles)),
        hair_colour=_triple(hair * rng.uniform(0.85, 1.2)),
        eyes=_triple(
            np.array(
                [(0.25, 0.16, 0.10), (0.25, 0.16, 0.10), (0.25, 0.40, 0.58), (0.32, 0.42, 0.28)][
                    int(rng.integers(2 if dark else 4))
                ]
            )
        ),
        lips=float(rng.uniform(0.25, 0.85) if feminine else rng.uniform(0.1, 0.25)),
        beard=0.0 if feminine else float(max(0.0, rng.uniform(-0.6, 0.6))),
        lower=lower,
        lower_colour=_triple(
            colours[int(rng.integers(len(colours)))] * rng.uniform(0.85, 1.1) + rng.normal(0, 0.015, 3)
        ),
        light=(float(light[0]), float(light[1]), float(light[2])),
        softness=float(rng.uniform(0.35, 0.65)),
        warmth=float(rng.normal(0, 0.03)),
        zoom=float(rng.uniform(0.835, 0.90)),
        centre=(float(rng.normal(0, 0.015)), float(rng.uniform(1.185, 1.225))),
        backdrop=int(rng.integers(2**31)),
        fold_seed=int(rng.integers(2**31)),
    )
    return person


@lru_cache(maxsize=4)
def backdrop(seed: int, size: tuple[int, int]) -> Array32:
    """A studio wall, a gradient or a room, (h, w, 3) in [0, 1]."""
    rng = np.random.Generator(np.random.PCG64(seed))
    h, w = size
    y, x = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w * 0.75, indexing="ij")
    y, x = y.astype(np.float32), x.astype(np.float32)
    base = np.clip(rng.uniform(0.62, 0.93) + rng.normal(0, 0.035, 3), 0.3, 0.97)
    if rng.uniform() < 0.2:
        base = base * rng.uniform(0.45, 0.75)
    image = np.broadcast_to(base, (h, w, 3)).astype(np.float32).copy()
    glow = np.exp(-(((x - rng.uniform(0.1, 0.65)) / 0.45) ** 2) - ((y - rng.uniform(0.0, 0.7)) / 0.55) ** 2)
    image *= (0.90 + rng.uniform(0.05, 0.2) * glow)[..., None]
    style = rng.uniform()
    if style > 0.45:
        image *= (1.06 - rng.uniform(0.05, 0.25) * y)[..., None]
    if style > 0.62:
        _furnish(image, x, y, rng)
    return np.clip(image, 0.0, 1.0)


def _furnish(image: Array32, x: Array32, y: Array32, rng: np.random.Generator) -> None:
    """Out-of-focus things in a room: floor, window, frame, plant or shelf, in place."""
    soft = rng.uniform(0.006, 0.02)
    floor = rng.uniform(0.74, 0.95)
    tint = np.clip(image[-1, 0] * rng.uniform(0.55, 0.9) + rng.normal(0, 0.04, 3), 0.05, 0.95)
    _cover(image, smoothstep(y, floor - soft, floor + soft), tint)
    for _ in range(int(rng.integers(1, 4))):
        cx, cy = rng.uniform(0.0, 0.75), rng.uniform(0.0, 0.7)
        rx, ry = rng.uniform(0.05, 0.2), rng.uniform(0.06, 0.3)
        colour = np.clip(rng.uniform(0.25, 0.95) + rng.normal(0, 0.08, 3), 0.05, 0.97)
        if rng.uniform() < 0.65:
            distance = np.maximum(np.abs(x - cx) - rx, np.abs(y - cy) - ry)
        else:
            distance = (np.hypot((x - cx) / rx, (y - cy) / rx) - 1) * rx
        _cover(image, 0.8 * smoothstep(-distance, -soft, soft), colour)


def _cover(image: Array32, alpha: Array32, colour: np.ndarray) -> None:
    image += alpha[..., None].astype(np.float32) * (colour.astype(np.float32) - image)


@lru_cache(maxsize=4)
def face_paint(person: Person, side: int = 96) -> Array32:
    """Colours of the front of the head, (side * 5 / 4, side, 3): x in [-0.09, 0.09], y from 0.1125 down."""
    h, w = side * 5 // 4, side
    y, x = np.meshgrid(
        0.1125 - (np.arange(h) + 0.5) / h * 0.225, -0.09 + (np.arange(w) + 0.5) / w * 0.18, indexing="ij"
    )
    skin = np.array(person.skin)
    image = np.broadcast_to(skin, (h, w, 3)).astype(np.float32).copy()
    a = np.abs(x)
    soft = 0.0016
    flush = np.exp(-(((a - 0.040) / 0.017) ** 2) - ((y + 0.028) / 0.016) ** 2)
    _cover(image, 0.20 * flush, skin * np.array([1.02, 0.72, 0.70]))
    _cover(image, 0.28 * np.exp(-(((a - 0.031) / 0.018) ** 2) - ((y - 0.012) / 0.011) ** 2), skin * 0.62)
    if person.beard > 0:
        jaw = smoothstep(-y, 0.030, 0.055) * (1 - 0.9 * np.exp(-((x / 0.024) ** 2) - ((y + 0.056) / 0.009) ** 2))
        jaw = np.maximum(jaw, np.exp(-((x / 0.026) ** 4) - ((y + 0.042) / 0.006) ** 2))
        _cover(image, person.beard * 1.2 * jaw, np.array(person.hair_colour) * 0.9)
    lid = 0.0125 * (1 - ((a - 0.031) / 0.0175) ** 2)
    eye = smoothstep(np.minimum(0.62 * lid - (y - 0.010), 0.46 * lid + (y - 0.010)), -soft, soft)
    _cover(image, eye, np.array((0.93, 0.92, 0.90)))
    radius = np.hypot(a - 0.031, y - 0.0108)
    _cover(image, eye * smoothstep(0.0072 - radius, -soft, soft), np.array(person.eyes))
    _cover(image, eye * smoothstep(0.0036 - radius, -soft, soft), np.array((0.05, 0.05, 0.05)))
    lash = np.exp(-(((y - 0.010 - 0.62 * lid) / 0.0021) ** 2)) * (np.abs(a - 0.031) < 0.019)
    _cover(image, 0.85 * lash, np.array((0.12, 0.09, 0.08)))
    brow_y = 0.031 + 0.004 * (1 - ((a - 0.033) / 0.02) ** 2)
    brow = np.exp(-(((y - brow_y) / 0.0033) ** 2)) * smoothstep(0.021 - np.abs(a - 0.032), -0.003, 0.004)
    _cover(image, 0.80 * brow, np.minimum(np.array(person.hair_colour) * 0.8, 0.45))
    nostril = np.exp(-(((a - 0.0085) / 0.0042) ** 2) - ((y + 0.0355) / 0.0028) ** 2)
    _cover(image, 0.55 * nostril, skin * 0.35)
    lip_colour = skin * (1 - person.lips) + person.lips * np.array((0.74, 0.25, 0.27)) * (0.5 + 0.5 * skin[0])
    upper = 0.0075 * (1 - (x / 0.0255) ** 2) * (1 - 0.25 * np.exp(-((x / 0.004) ** 2)))
    lower = 0.0105 * (1 - (x / 0.0235) ** 2)
    lips = smoothstep(np.minimum(upper - (y + 0.056), lower + (y + 0.056)), -soft, soft)
    _cover(image, 0.9 * lips, lip_colour * 0.93)
    _cover(
        image,
        0.75 * np.exp(-(((y + 0.056) / 0.0016) ** 2)) * smoothstep(0.025 - a, 0, 0.004),
        skin * np.array([0.45, 0.25, 0.25]),
    )
    return image


HAIR_STYLES = (*HAIR, "bald")
