"""Which pixels a person loses before a net sees them: everything that tells about the old cloth.

One implementation serves training, evaluation and try-on, so a mask never differs between them.
`agnostic_mask_v32` and `parse_agnostic_v32` follow HR-VITON's geometry (Lee et al., ECCV 2022, the
folders agnostic-v3.2 and image-parse-agnostic-v3.2); `agnostic_mask` adds what these leave of the cloth;
`agnostic_mask_paper` is the one of Zhu et al. 2023: the whole box of the person, with head, hands and
lower body pasted back.

HR-VITON's pixel constants belong to 768 pixels of width; here they scale with width / 768, so any
size works.  Joints are BODY_25 in pixels, (x, y, confidence); a joint with confidence 0, at (0, 0), far
outside or not finite counts as missing.  Nothing here writes into its arguments.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFilter

from drape.data import parse_labels as labels
from drape.data.parse_labels import is_any

NECK, R_SHOULDER, R_ELBOW, R_WRIST, L_SHOULDER, L_ELBOW, L_WRIST, MID_HIP, R_HIP = range(1, 10)
L_HIP = 12
ARMS = {labels.LEFT_ARM: (L_SHOULDER, L_ELBOW, L_WRIST), labels.RIGHT_ARM: (R_SHOULDER, R_ELBOW, R_WRIST)}
"""Joints of an arm from the shoulder down, by label."""

TORSO_LENGTH = 1.6
"""Shoulder-to-hip distance over shoulder width, where no hip was found (six people of VITON-HD: 1.2 to 1.9)."""

GRAY_TOLERANCE = 20  # JPEG noise at the edge of the gray reaches this far

Parse = UInt8[ndarray, "h w"]
Joints = Float[ndarray, "25 3"]
BoolMask = Bool[ndarray, "h w"]
Rgb = UInt8[ndarray, "h w 3"]
Point = np.ndarray  # (2,) float64: x, y in pixels
Points = dict[int, Point]


class _Brush:
    """Draws thick strokes and ellipses into a mask; sizes in pixels of a 768 wide image."""

    def __init__(self, height: int, width: int) -> None:
        self.scale = width / 768
        self._image = Image.new("L", (width, height))
        self._draw = ImageDraw.Draw(self._image)

    def stroke(self, start: Point, end: Point, width: int) -> None:
        ends = (float(start[0]), float(start[1]), float(end[0]), float(end[1]))
        self._draw.line(ends, 255, width=max(1, round(width * self.scale)))

    def ellipse(self, centre: Point, rx: int, ry: int) -> None:
        reach = np.array([rx, ry]) * self.scale
        self._draw.ellipse((*(centre - reach).tolist(), *(centre + reach).tolist()), 255, 255)

    def neck(self, joint: Point, half_width: int, height: int) -> None:
        start, end = joint - np.array([half_width, height]) * self.scale, joint + np.array([half_width, 0]) * self.scale
        self._draw.rectangle((*start.tolist(), *end.tolist()), 255, 255)

    def polygon(self, corners: Sequence[Point]) -> None:
        self._draw.polygon([tuple(corner.tolist()) for corner in corners], 255, 255)

    def mask(self) -> BoolMask:
        return np.asarray(self._image) != 0


def agnostic_mask_v32(parse: Parse, joints: Joints) -> BoolMask:
    """True where HR-VITON's agnostic-v3.2 paints gray: torso, neck and arms, but not face, hands and lower body.

    Without both shoulders there is no torso to draw: the answer is `agnostic_mask_paper`, which hides more.
    """
    points = _completed(_visible(joints, parse.shape))
    if points is None:
        return agnostic_mask_paper(parse, joints)
    unit = _unit(points, parse.shape[1])
    brush = _Brush(*parse.shape)
    _draw_torso(brush, points, unit)
    for arm in ARMS:
        _draw_arm(brush, points, unit, arm, wrist=5)
    kept = is_any(parse, (labels.SUNGLASSES, labels.FACE, *labels.LOWER_BODY)) | _hands(parse, points)
    return brush.mask() & ~kept


def agnostic_mask(parse: Parse, joints: Joints) -> BoolMask:
    """drape's own: `agnostic_mask_v32` and every pixel of upper clothes that its strokes miss.

    On six people of VITON-HD that adds up to 0.5 % of the cloth (a loose sleeve, a long hem), which
    a net would learn to look at: the old cloth must not show at all.
    """
    return agnostic_mask_v32(parse, joints) | is_any(parse, labels.UPPER_CLOTHES)


def agnostic_mask_paper(parse: Parse, joints: Joints) -> BoolMask:
    """True in the bounding box of the whole person, except head, hands and lower body.  [Zhu et al. 2023, sec. 3.1]

    Hands are arm pixels beyond the strokes along the arms; an arm without a wrist has no known hand and
    is hidden whole.  A parse without any person gives an empty mask.
    """
    hidden = _box(parse != labels.BACKGROUND)
    kept = is_any(parse, (*labels.HEAD, *labels.LOWER_BODY))
    points = _completed(_visible(joints, parse.shape))
    if points is not None:
        kept |= _hands(parse, points)
    return hidden & ~kept


def parse_agnostic_v32(parse: Parse, joints: Joints) -> Parse:
    """The parse with upper clothes, neck and arms set to background; hands stay.  [HR-VITON, image-parse-agnostic-v3.2]

    Without both shoulders no hand is known, and the arms go whole.
    """
    gone = is_any(parse, (*labels.UPPER_CLOTHES, labels.NECK, *ARMS))
    points = _completed(_visible(joints, parse.shape))
    if points is not None:
        gone &= ~_hands(parse, points)
    return np.where(gone, np.uint8(labels.BACKGROUND), parse)


def agnostic_mask_lower(parse: Parse) -> BoolMask:
    """True in the box of lower clothes and legs, except head, upper clothes, arms and shoes."""
    hidden = _box(is_any(parse, (*labels.LOWER_CLOTHES, labels.DRESS, labels.LEFT_LEG, labels.RIGHT_LEG)))
    return hidden & ~is_any(parse, (*labels.HEAD, *labels.UPPER_ONLY, *ARMS, *labels.SHOES))


def agnostic_mask_dress(parse: Parse, joints: Joints) -> BoolMask:
    """True where `agnostic_mask_v32` hides and in the box of dress, lower clothes and legs; not head, hands, shoes."""
    below = (labels.DRESS, *labels.LOWER_CLOTHES, labels.LEFT_LEG, labels.RIGHT_LEG)
    nothing_below = np.where(is_any(parse, below), np.uint8(labels.DRESS), parse)
    hidden = agnostic_mask_v32(nothing_below, joints) | _box(is_any(parse, below))
    kept = is_any(parse, (*labels.HEAD, *labels.SHOES))
    points = _completed(_visible(joints, parse.shape))
    if points is not None:
        kept |= _hands(parse, points)
    return hidden & ~kept


def mask_of_gray(agnostic: Rgb) -> BoolMask:
    """True where a shipped agnostic image is painted gray (128), found again through its JPEG noise.

    For data sets that ship agnostic-v3.2 but neither the mask nor what it is made from; IoU with the
    shipped masks is above 0.99 on fifteen people.  Gray clothes and walls of that very level count too.
    """
    near = np.abs(agnostic.astype(np.int16) - 128).max(axis=2) <= GRAY_TOLERANCE
    eroded: BoolMask = _mean_9x9(near) == 255
    return _mean_9x9(eroded) > 0


def _mean_9x9(mask: BoolMask) -> UInt8[ndarray, "h w"]:
    """255 where all of a pixel's 9x9 neighbours are True, 0 where none is."""
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.BoxBlur(4)))


def _box(mask: BoolMask) -> BoolMask:
    """The bounding box of the True pixels, filled, 1/96 of the width wider on each side; empty where there is none.

    Parsers stop short of the outline: in a tight box a rim of the old sleeve would show.
    """
    box = np.zeros(mask.shape, dtype=bool)
    if mask.any():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        reach = max(1, round(mask.shape[1] / 96))
        top, left = max(0, rows[0] - reach), max(0, columns[0] - reach)
        box[top : rows[-1] + 1 + reach, left : columns[-1] + 1 + reach] = True
    return box


def _visible(joints: Joints, shape: tuple[int, ...]) -> Points:
    """The joints that were found, as float64 points; those more than an image away from the image are nonsense."""
    size = np.array([shape[1], shape[0]])
    with np.errstate(invalid="ignore"):
        near = ((joints[:, :2] >= -size) & (joints[:, :2] <= 2 * size)).all(axis=1)
    found = near & (joints[:, 2] > 0) & (joints[:, :2] != 0).any(axis=1)
    return {int(index): joints[index, :2].astype(np.float64) for index in np.flatnonzero(found)}


def _completed(found: Points) -> Points | None:
    """Points with shoulders, neck, and hips at shoulder width about their midpoint; None without shoulders."""
    points = dict(found)
    for missing, other in ((R_SHOULDER, L_SHOULDER), (L_SHOULDER, R_SHOULDER)):
        if missing not in points and other in points and NECK in points:
            points[missing] = 2 * points[NECK] - points[other]
    if R_SHOULDER not in points or L_SHOULDER not in points:
        return None
    across = points[L_SHOULDER] - points[R_SHOULDER]
    breadth = float(np.hypot(*across))
    if breadth < 1e-6:
        return None
    points.setdefault(NECK, (points[L_SHOULDER] + points[R_SHOULDER]) / 2)
    middle, direction = _hips(points, across)
    points[R_HIP], points[L_HIP] = middle - direction * breadth / 2, middle + direction * breadth / 2
    return points


def _hips(points: Points, across: Point) -> tuple[Point, Point]:
    """Midpoint of the hips and the unit vector from the right one to the left one, whatever is missing."""
    unit = across / np.hypot(*across)
    right, left = points.get(R_HIP), points.get(L_HIP)
    if right is not None and left is not None:
        apart = float(np.hypot(*(left - right)))
        return (right + left) / 2, (left - right) / apart if apart > 1e-6 else unit
    if MID_HIP in points:
        return points[MID_HIP], unit
    if right is not None:
        return right + across / 2, unit
    if left is not None:
        return left - across / 2, unit
    shoulders = (points[L_SHOULDER] + points[R_SHOULDER]) / 2
    return shoulders + np.array([0.0, TORSO_LENGTH * np.hypot(*across)]), unit


def _unit(points: Points, width: int) -> int:
    """HR-VITON's length unit r, in pixels of a 768 wide image."""
    breadth = float(np.hypot(*(points[L_SHOULDER] - points[R_SHOULDER])))
    return int(breadth * 768 / width / 16) + 1


def _draw_torso(brush: _Brush, points: Points, unit: int) -> None:
    shoulders, hips = (points[R_SHOULDER], points[L_SHOULDER]), (points[R_HIP], points[L_HIP])
    for shoulder, hip in zip(shoulders, hips, strict=True):
        brush.ellipse(hip, 3 * unit, 6 * unit)
        brush.ellipse(shoulder, 5 * unit, 6 * unit)
        brush.stroke(shoulder, hip, 6 * unit)
    brush.stroke(*hips, 12 * unit)
    brush.stroke(*shoulders, 12 * unit)
    brush.polygon((shoulders[0], shoulders[1], hips[1], hips[0]))
    brush.neck(points[NECK], 5 * unit, 9 * unit)


def _draw_arm(brush: _Brush, points: Points, unit: int, arm: int, *, wrist: int) -> None:
    """Strokes between the joints that were found and discs on them; `wrist` is the last disc's radius, in units."""
    chain = ARMS[arm]
    found = [joint for joint in chain if joint in points]
    for start, end in pairwise(found):
        brush.stroke(points[start], points[end], 10 * unit)
    for joint in found:
        radius = wrist * unit if joint == chain[-1] else 5 * unit
        brush.ellipse(points[joint], radius, radius)


def _hands(parse: Parse, points: Points) -> BoolMask:
    """Arm pixels beyond the strokes down to the wrist; none for an arm whose wrist was not found."""
    hands = np.zeros(parse.shape, dtype=bool)
    for arm, chain in ARMS.items():
        if chain[-1] not in points:
            continue
        brush = _Brush(parse.shape[0], parse.shape[1])
        _draw_arm(brush, points, _unit(points, parse.shape[1]), arm, wrist=4)
        hands |= (parse == arm) & ~brush.mask()
    return hands
