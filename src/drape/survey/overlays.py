"""What is drawn over pictures: outlines of masks, skeletons; and the colours that say which is which.

Everything is drawn four times as large and shrunk, so lines are smooth; pixels of small pictures stay squares.
"""

from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from drape.data.pose import MIRRORED

FINE = 4
"""Times that overlays are drawn larger than they are shown."""

COMPUTED, SHIPPED, CLOTH = "#ff2fb3", "#00d0ff", "#1fbf4b"
"""Outlines: of the mask that drape computes, of the one that comes with the data, of a cloth's mask."""

JOINTS = (
    "nose", "neck", "R shoulder", "R elbow", "R wrist", "L shoulder", "L elbow", "L wrist", "R hip", "R knee",
    "R ankle", "L hip", "L knee", "L ankle", "R eye", "L eye", "R ear", "L ear",
)  # fmt: skip
"""COCO-18; left and right are the person's own."""

LIMBS: dict[str, tuple[str, tuple[tuple[int, ...], ...]]] = {
    "head and trunk": ("#93e01f", ((16, 14, 0, 15, 17), (0, 1), (8, 1, 11))),
    "right arm": ("#ff7a1a", ((1, 2, 3, 4),)),
    "left arm": ("#12b5ff", ((1, 5, 6, 7),)),
    "right leg": ("#ffd11a", ((8, 9, 10),)),
    "left leg": ("#5a6bff", ((11, 12, 13),)),
}
"""Colour and chains of joints by name: warm is the person's right, cool their left."""

Picture = Image.Image
Mask = Bool[ndarray, "h w"]
Pose = Float[ndarray, "18 3"]


def enlarged(rgb: UInt8[ndarray, "h w 3"], size: tuple[int, int], *, smooth: bool = True) -> Picture:
    """The picture as large as it fits into (width, height) `size`, its aspect kept.

    smooth   shrink by averaging, for photos; else colours stay what they are, for labels
    A picture of at most half the size is enlarged a whole number of times, so that its pixels are alike.
    """
    image = Image.fromarray(rgb)
    ratio = min(size[0] / image.width, size[1] / image.height)
    if ratio > 1:
        ratio = int(ratio) if ratio >= 2 else ratio
        return image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.NEAREST)
    shown = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    return image.resize(shown, Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)


def outlined(picture: Picture, mask: Mask, colour: str, width: float = 2.0) -> Picture:
    """The picture with the edge of a mask drawn on it, `width` pixels wide; the mask may be of any size."""
    size = picture.width * FINE, picture.height * FINE
    fine = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, _filter(mask, picture))) >= 128
    result = picture
    for reach, ink, opacity in ((width + 1.5, "#000000", 0.5), (width, colour, 1.0)):  # dark rim: seen on any ground
        side = 2 * round(reach * FINE / 2) + 1
        brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        stroke = cv2.morphologyEx(fine.astype(np.uint8), cv2.MORPH_GRADIENT, brush)
        cover = Image.fromarray(stroke * np.uint8(255 * opacity)).resize(picture.size, Image.Resampling.BOX)
        result = Image.composite(Image.new("RGB", picture.size, ink), result, cover)
    return result


def skeleton(picture: Picture, pose: Pose) -> Picture:
    """The picture with the visible joints of a pose and the limbs between them.

    pose   x, y in [0, 1] of width and height, visibility; COCO-18
    """
    size = picture.width * FINE, picture.height * FINE
    layer = Image.new("RGBA", size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    unit = max(size) / 256
    points = {i: (x * size[0], y * size[1]) for i, (x, y, seen) in enumerate(pose.tolist()) if seen > 0}
    for rim in (True, False):  # all rims first: no limb is cut by the rim of another
        for colour, chains in LIMBS.values():
            for a, b in (pair for chain in chains for pair in pairwise(chain)):
                if a in points and b in points:
                    pen.line((*points[a], *points[b]), "#000000" if rim else colour, round(unit * (4.4 if rim else 3)))
    for x, y in points.values():
        for radius, ink in ((4.2, "#000000"), (3.2, "#ffffff")):
            reach = radius * unit
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), ink)
    small = layer.resize(picture.size, Image.Resampling.BOX)
    return Image.alpha_composite(picture.convert("RGBA"), small).convert("RGB")


def dimmed(picture: Picture) -> Picture:
    """The picture pale and gray, for what is drawn on it to stand out."""
    gray = picture.convert("L").convert("RGB")
    return Image.blend(Image.blend(picture, gray, 0.6), Image.new("RGB", picture.size, "#8c8a86"), 0.5)


def missing(pose: Pose) -> str:
    """The joints that a pose does not show, in words: "knees, ankles, L ear"; empty if it shows all."""
    absent = {i for i in range(len(JOINTS)) if pose[i, 2] <= 0}
    words = []
    for i in sorted(absent):
        side, _, name = JOINTS[i].partition(" ")
        if name and MIRRORED[i] in absent:
            if side == "R":
                words.append(f"{name}s")
        else:
            words.append(JOINTS[i])
    return ", ".join(words)


def _filter(mask: Mask, picture: Picture) -> Image.Resampling:
    """Squares stay squares where the picture's pixels are seen, and large masks shrink smoothly."""
    return Image.Resampling.NEAREST if mask.shape[0] <= picture.height else Image.Resampling.BILINEAR
