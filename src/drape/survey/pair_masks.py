"""The masks of a pair and its agnostic picture: polarity, extent, and whether anything of the old cloth shows."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from drape.survey import measures
from drape.survey.layout import KINDS
from drape.survey.look import Look

Rgb = UInt8[ndarray, "h w 3"]
Mask = Bool[ndarray, "h w"]

CLEAR, FLAT, GROUND = 20.0, 8.0, 0.3
"""CIELAB distances from the rim's colour: of what is cloth for certain, within a flat rim, of the very background."""
MASK_REMEDY = "Cut the mask again from its picture."
AGNOSTIC_REMEDY = "Make it again from picture, parse and pose; drape does so itself with data.mask=computed."


def check_masks(look: Look) -> None:
    """Levels, extent and polarity of all masks; then the agnostic picture."""
    for kind in ("cloth_mask", "worn_cloth_mask", "shipped_mask"):
        _check_mask(look, kind)
    _check_cloth_mask(look)
    _check_cover(look)
    _measure_gray(look)


def _check_mask(look: Look, kind: str) -> None:
    levels = look.gray(kind)
    if levels is None:
        return
    word = KINDS[kind].word.removeprefix("the ")
    share = look.measure(f"{kind} share", float((levels >= 128).mean())) or 0.0
    between = look.measure(f"{kind} gray", float(((levels > 32) & (levels < 224)).mean())) or 0.0
    covered = rim_share(levels >= 128) if kind != "shipped_mask" else 0.0  # where people are cut off, so are masks
    if 0 < levels.max() <= 1:
        found, remedy = "holds 0 and 1, expected 0 and 255: every reader takes it for empty", "Multiply it by 255."
        _discard(look, kind, "mask levels", found, remedy)
    elif share < look.limits.empty_mask:
        _discard(look, kind, "empty mask", f"covers {share:.1%} of the picture: {word} is empty", MASK_REMEDY)
    elif share > look.limits.full_mask:
        _discard(look, kind, "full mask", f"covers {share:.1%} of the picture: {word} is full", MASK_REMEDY)
    elif covered > look.limits.inverted_ring:
        found = f"covers {covered:.0%} of the picture's rim: {word} is inverted"
        _discard(look, kind, "mask inverted", found, "Invert it: white on the cloth, black around it.")
    elif between > look.limits.gray_mask:
        look.report(
            "gray mask",
            f"is neither black nor white on {between:.0%} of its pixels",
            "Save it as black and white: 0 outside, 255 on what it covers.",
            of=(kind,),
            severity="warning",
        )


def _discard(look: Look, kind: str, problem: str, found: str, remedy: str) -> None:
    """Report a mask, and let nothing else be concluded from it."""
    look.report(problem, found, remedy, of=(kind,))
    look.unusable.add(kind)


def rim_share(mask: Mask) -> float:
    """Share of the outermost pixels that a mask covers."""
    return float(mask[rim(mask.shape[0], mask.shape[1])].mean())


def rim(height: int, width: int) -> Mask:
    """True on the outermost 64th of a picture's height, all around."""
    edge = max(1, height // 64)
    found = np.ones((height, width), dtype=bool)
    found[edge:-edge, edge:-edge] = False
    return found


def background_distance(rgb: Rgb) -> tuple[Float[ndarray, "h w"], float]:
    """CIELAB distance of each pixel from the colour of the rim, and how much the rim itself varies."""
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    edge = rim(*rgb.shape[:2])
    distance = np.linalg.norm(lab - np.median(lab[edge], axis=0), axis=2)
    return distance, float(np.percentile(distance[edge], 90))


def _check_cloth_mask(look: Look) -> None:
    """Whether clear cloth lies outside the mask: that of another cloth, or a shifted one."""
    rgb, mask = look.rgb("cloth"), look.mask("cloth_mask")
    if rgb is None or mask is None or rgb.shape[:2] != mask.shape:
        return
    rgb, mask = look.small(rgb), look.small(mask)
    distance, varies = background_distance(rgb)
    if varies > FLAT:
        return  # no product photo: nobody can tell cloth from background by its colour
    outside = float(((distance > CLEAR) & measures.shrunk(~mask)).sum() / mask.sum())
    ground = cv2.blur(distance, (3, 3) if len(mask) < 100 else (5, 5)) < GROUND
    inner = measures.shrunk(mask)
    inside = float(ground[inner].mean()) if inner.any() else 0.0
    look.measure("cloth outside mask", outside)
    look.measure("background in cloth mask", inside)
    excess = max(outside / look.limits.cloth_outside, inside / look.limits.cloth_inside)
    if excess > 1:
        look.report(
            "cloth mask",
            f"does not fit the cloth: an area of {outside:.0%} of it is cloth outside of it, and {inside:.0%} of it is "
            "background",
            MASK_REMEDY,
            of=("cloth_mask", "cloth"),
            severity="error"
            if outside > 2 * look.limits.cloth_outside
            else "warning",  # a white cloth may be all white
        )


def _check_cover(look: Look) -> None:
    """The shipped agnostic mask against the parse: inverted, or not over the cloth."""
    mask, parse = look.mask("shipped_mask"), look.parse
    if mask is None or parse is None or mask.shape != parse.shape:
        return
    cloth, background = measures.mask_cover(mask, parse, look.cloth_labels)
    look.measure("mask over cloth", cloth)
    look.measure("mask over background", background)
    if cloth is not None and cloth < 0.5 and (background or 0.0) > 0.5:
        found = f"covers {cloth:.0%} of the cloth and {background:.0%} of the background: it is inverted"
        _discard(look, "shipped_mask", "mask inverted", found, "Invert it: white where a net shall paint.")


def _agnostic_region(look: Look) -> Mask | None:
    """Where the agnostic picture must be gray for certain: on the cloth, or without a parse in the mask."""
    agnostic, worn = look.rgb("shipped_agnostic"), look.worn
    if agnostic is None:
        return None
    if worn is not None and worn.shape == agnostic.shape[:2] and worn.any():
        return worn
    mask = look.mask("shipped_mask")
    return None if mask is None or mask.shape != agnostic.shape[:2] else mask


def _measure_gray(look: Look) -> None:
    agnostic, region = look.rgb("shipped_agnostic"), _agnostic_region(look)
    if agnostic is not None and region is not None:
        look.measure("agnostic gray on cloth", measures.is_gray_inside(agnostic, region))


def check_leak(look: Look) -> None:
    """Whether the cloth is hidden in the agnostic picture: the one fault that makes try-on impossible to learn.

    Asked last: where picture, parse or agnostic picture belong to somebody else, it says nothing.
    """
    agnostic, person, region = look.rgb("shipped_agnostic"), look.rgb("person"), _agnostic_region(look)
    gray = look.numbers.get("agnostic gray on cloth", 1.0)
    strangers = {each.kind for each in look.blamed}
    if agnostic is None or person is None or region is None or agnostic.shape != person.shape:
        return
    if gray < look.limits.gray_inside and not strangers & {"person", "parse", "shipped_agnostic"}:
        _name_leak(look, agnostic, person, region, gray)


def _name_leak(look: Look, agnostic: Rgb, person: Rgb, region: Mask, gray: float) -> None:
    """What stands where gray should: the person, a shadow of them, or another colour."""
    inside = measures.shrunk(region)
    same = ~measures.differs(agnostic, person) & ~measures.is_gray(agnostic)
    shown = look.measure("agnostic shows cloth", float(same[inside].mean())) or 0.0
    contrast = look.measure("agnostic contrast", measures.leak(agnostic, person, region)) or 0.0
    files = ("shipped_agnostic", "person")
    if shown > look.limits.leaking:
        look.report(
            "leak", f"shows {shown:.0%} of the old cloth, which it should hide under gray", AGNOSTIC_REMEDY, of=files
        )
    elif contrast > look.limits.contrast_left:
        look.report(
            "leak",
            f"lets the old cloth shine through: {contrast:.0%} of its contrast is left",
            AGNOSTIC_REMEDY,
            of=files,
        )
    elif agnostic[inside].std(axis=0).max() < 12:
        colour = ", ".join(f"{value:.0f}" for value in np.median(agnostic[inside], axis=0))
        look.report(
            "agnostic fill", f"hides the cloth under ({colour}), expected the gray (128, 128, 128)", AGNOSTIC_REMEDY,
            of=files, severity="warning",
        )  # fmt: skip
    else:
        look.report(
            "agnostic", f"is gray on {gray:.0%} of the cloth, expected all of it", AGNOSTIC_REMEDY, of=files
        )  # fmt: skip
