"""From any photo of a cloth to a mask, and to the flat product picture that the nets were trained on.

Two cases.  A product photo has one flat colour all along its border: whatever differs from it is cloth,
also a white cloth on near-white.  Any other photo goes through OpenCV's GrabCut (Rother et al. 2004)
with a border prior: what looks like the border is background, the middle is probably cloth.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from drape.data.transforms import Size, resize_mask, resize_rgb
from drape.errors import DataError

Rgb = UInt8[ndarray, "h w 3"]
BoolMask = Bool[ndarray, "h w"]
Plane = Float[ndarray, "h w"]

STUDIO_SIDE, PHOTO_SIDE = 512, 256  # longest side at which a product photo and any other photo are cut
FLAT_BORDER = 2.0  # CIELAB distance within which a border counts as one colour
CLEAR, FAINT = 3.0, 0.8  # CIELAB distance from the background of ordinary cloth, of white cloth on near-white
PLAUSIBLE_SHARE = (0.03, 0.95)  # of the photo that a cloth covers
WHITE = 255


def mask_of_photo(photo: Rgb) -> BoolMask:
    """True on the cloth.

    One cloth is expected, in the middle, with background around it; for other photos the mask is wrong, no error.
    """
    lab, border = _prepared(photo, STUDIO_SIDE)
    distance = np.linalg.norm(lab - np.median(lab[border], axis=0), axis=2)
    spread = float(np.percentile(distance[border], 99))
    if spread < FLAT_BORDER:
        clear, faint = (_cut_studio(distance, max(level, 2 * spread)) for level in (CLEAR, FAINT))
        mask = clear if clear.sum() > 0.75 * faint.sum() else faint
    else:
        mask = _cut_photo(*_prepared(photo, PHOTO_SIDE))
    return cv2.resize(mask.astype(np.float32), photo.shape[1::-1], interpolation=cv2.INTER_LINEAR) >= 0.5


def place_cloth(
    photo: Rgb, size: Size = (1024, 768), *, mask: BoolMask | None = None, margin: float = 0.05
) -> tuple[UInt8[ndarray, "hc wc 3"], Bool[ndarray, "hc wc"]]:
    """(cloth, mask) of `size`: the cloth alone, centred on white, filling its image but for `margin` on each side.

    mask    where the cloth is, if known; else `mask_of_photo` finds it
    Raises DataError if no cloth can be told from the background.
    """
    found = mask_of_photo(photo) if mask is None else mask
    share = float(found.mean())
    if not PLAUSIBLE_SHARE[0] <= share <= PLAUSIBLE_SHARE[1]:
        raise DataError(
            f"the photo shows no cloth that can be told from its background (found on {share:.0%} of it). "
            "Lay one cloth flat on a plain ground of another colour, with the ground visible all around."
        )
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    height, width = bottom - top, right - left
    scale = max(height / size[0], width / size[1]) / (1 - 2 * margin)  # photo pixels per pixel of the result
    canvas_height, canvas_width = max(height, round(size[0] * scale)), max(width, round(size[1] * scale))
    y, x = (canvas_height - height) // 2, (canvas_width - width) // 2
    cloth = np.full((canvas_height, canvas_width, 3), WHITE, dtype=np.uint8)
    alone = np.zeros((canvas_height, canvas_width), dtype=bool)
    cloth[y : y + height, x : x + width] = _on_white(photo, found)[top:bottom, left:right]
    alone[y : y + height, x : x + width] = found[top:bottom, left:right]
    return resize_rgb(cloth, size), resize_mask(alone, size)


def _prepared(photo: Rgb, side: int) -> tuple[Float[ndarray, "h2 w2 3"], Bool[ndarray, "h2 w2"]]:
    """The photo in CIELAB, its longest side shrunk to `side`, and which of its pixels are its border."""
    height, width = photo.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(16, round(width * scale)), max(16, round(height * scale))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    edge = max(2, round(0.03 * min(size)))
    border = np.ones(lab.shape[:2], dtype=bool)
    border[edge:-edge, edge:-edge] = False
    return lab, border


def _cut_studio(distance: Plane, level: float) -> BoolMask:
    """What differs from one flat background colour by more than `level`; gaps between sleeve and body stay open."""
    rough = cv2.morphologyEx((distance > level).astype(np.uint8), cv2.MORPH_CLOSE, _disc(9))
    ground = cv2.morphologyEx((distance <= level / 3.5).astype(np.uint8), cv2.MORPH_OPEN, _disc(3))
    opened = cv2.morphologyEx(np.where(ground, 0, rough).astype(np.uint8), cv2.MORPH_OPEN, _disc(3))
    mask = _filled(_largest(opened), 0.002)
    # An edge lies where the distance has half its height; outside it is the halo of JPEG and antialiasing.
    rim = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    halo = rim & (distance < 0.5 * cv2.dilate(distance, np.ones((7, 7), np.uint8)))
    return _largest(cv2.morphologyEx((mask & ~halo).astype(np.uint8), cv2.MORPH_OPEN, _disc(5)))


def _cut_photo(lab: Float[ndarray, "h w 3"], border: BoolMask) -> BoolMask:
    """GrabCut from a border prior; where that loses the middle, once more from an ellipse."""
    cv2.setRNGSeed(0)  # k-means and GrabCut start from random centres
    middle = _ellipse(lab.shape[:2], 0.28, 0.22)
    colours = _background_colours(lab[border], lab[middle])
    distance = np.linalg.norm(lab[:, :, None] - colours, axis=3).min(axis=2)
    level = max(5.0, min(20.0, float(np.percentile(distance[border], 90))))
    ground = distance <= level
    seed = np.where(~ground | _ellipse(lab.shape[:2], 0.2, 0.15), cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    seed[border & ground] = cv2.GC_BGD
    mask = _grab_cut(lab, seed)
    if (mask & middle).sum() < 0.5 * middle.sum():
        seed = np.where(_ellipse(lab.shape[:2], 0.5, 0.48), cv2.GC_PR_FGD, cv2.GC_BGD)
        seed[_ellipse(lab.shape[:2], 0.2, 0.15)] = cv2.GC_FGD
        mask = _grab_cut(lab, seed)
    return _filled(mask, 0.02, ~ground)


def _background_colours(border: Float[ndarray, "n 3"], middle: Float[ndarray, "m 3"]) -> Float[ndarray, "k 3"]:
    """The colours of the border, without those more common in the middle: there the cloth reaches the border."""
    _, members, colours = cv2.kmeans(
        border, 5, np.zeros((len(border), 1), np.int32), (3, 20, 1.0), 1, cv2.KMEANS_PP_CENTERS
    )
    share = np.bincount(members.ravel(), minlength=5) / len(border)
    apart = np.linalg.norm(middle[:, None] - colours, axis=2)
    near = np.bincount(apart.argmin(axis=1)[apart.min(axis=1) < 10], minlength=5) / len(middle)
    background = near <= 2.5 * share
    return colours[background] if background.any() else colours


def _grab_cut(lab: Float[ndarray, "h w 3"], seed: ndarray) -> BoolMask:
    image = np.round(cv2.cvtColor(lab, cv2.COLOR_LAB2BGR) * 255).clip(0, 255).astype(np.uint8)
    labels = seed.astype(np.uint8)
    cv2.grabCut(image, labels, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    cloth = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8)
    return _largest(cv2.morphologyEx(cv2.morphologyEx(cloth, cv2.MORPH_OPEN, _disc(3)), cv2.MORPH_CLOSE, _disc(5)))


def _on_white(photo: Rgb, mask: BoolMask) -> Rgb:
    """The cloth on white, its edge softened inwards so that no rim of the old background shows."""
    reach = max(1, round(0.004 * max(photo.shape[:2])))
    inside = cv2.erode(mask.astype(np.float32), _disc(2 * reach + 1))
    alpha = np.where(mask, cv2.blur(inside, (2 * reach + 1, 2 * reach + 1)), 0.0)[..., None]
    return np.round(photo * alpha + WHITE * (1 - alpha)).astype(np.uint8)


def _largest(mask: ndarray) -> BoolMask:
    """The largest connected part; the empty mask where there is none."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])) if count > 1 else np.zeros(mask.shape, dtype=bool)


def _filled(mask: BoolMask, share: float, like_cloth: BoolMask | None = None) -> BoolMask:
    """The mask without enclosed holes smaller than this share of the image.

    A hole that is not `like_cloth` is probably the ground between sleeve and body: only a quarter as large is filled.
    """
    count, parts, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8))
    small = stats[:, cv2.CC_STAT_AREA] < share * mask.size
    if like_cloth is not None:
        alike = np.bincount(parts[like_cloth], minlength=count) / np.bincount(parts.ravel(), minlength=count)
        small &= (alike > 0.5) | (stats[:, cv2.CC_STAT_AREA] < share / 4 * mask.size)
    outer = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    small[[0, *outer]] = False  # 0 is the mask itself; what touches the edge is no hole
    return mask | small[parts]


def _ellipse(shape: tuple[int, ...], ry: float, rx: float) -> BoolMask:
    """An ellipse in the middle; its half-axes are shares of height and width."""
    y, x = np.ogrid[0 : shape[0], 0 : shape[1]]
    return ((y + 0.5) / shape[0] - 0.5) ** 2 / ry**2 + ((x + 0.5) / shape[1] - 0.5) ** 2 / rx**2 < 1


def _disc(diameter: int) -> UInt8[ndarray, "d d"]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))
