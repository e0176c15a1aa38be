"""Is every picture of a pair what its kind should be: mode, upright, whole, not blank, channels in order?"""

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from drape.data.parse_labels import NUM_LABELS, PALETTE
from drape.survey import measures
from drape.survey.layout import KINDS
from drape.survey.look import MODES, Look
from drape.survey.opening import Picture

Rgb = UInt8[ndarray, "h w 3"]

PHOTOS = ("person", "cloth", "counterfactual", "worn_cloth")
INVERT = "Invert it: 255 less each level (and all pictures that were written the same way)."
PHOTO_REMEDY = "Restore the picture, or take the pair out of the list."


def check_pictures(look: Look) -> None:
    """Modes, bits, EXIF; then what shows in the pixels."""
    _ = look.odd  # sizes are reported first
    for kind, value in look.opened.items():
        if isinstance(value, Picture):
            _check_mode(look, kind, value)
            _check_upright(look, kind, value)
    for kind in PHOTOS:
        _check_whole(look, kind)
    _check_colours(look)
    _check_cloth_is_no_person(look)


def _check_mode(look: Look, kind: str, picture: Picture) -> None:
    content = KINDS[kind].content
    if content == "labels" and picture.mode in ("RGB", "RGBA"):
        colours = np.unique(picture.pixels[..., :3].astype(np.int64) @ np.array([1 << 16, 1 << 8, 1]))
        of_palette = bool(np.isin(colours, PALETTE.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])).all())
        look.report(
            "parse colours",
            f"is saved as {picture.mode} colours"
            + (f", {len(colours)} of the palette" if of_palette else "")
            + f", expected label ids 0 to {NUM_LABELS - 1} (mode P or L)",
            "Turn the palette's colours back into ids." if of_palette else "Run the parser again and save its ids.",
            of=(kind,),
        )
    elif picture.mode not in MODES[content]:
        wanted = " or ".join(MODES[content])
        look.report(
            "image mode", f"has mode {picture.mode}, expected {wanted}", f"Convert it to {wanted}.", of=(kind,)
        )  # fmt: skip
    elif picture.bits > 8:
        look.report(
            "image mode", f"has {picture.bits} bits a channel, expected 8", "Save it with 8 bits a channel.",
            of=(kind,), severity="warning",
        )  # fmt: skip


def _check_upright(look: Look, kind: str, picture: Picture) -> None:
    if picture.orientation in range(2, 9):
        words = {2: "mirrored", 3: "upside down", 4: "mirrored and upside down"}.get(picture.orientation, "on its side")
        look.report(
            "rotation",
            f"is stored {words}: its EXIF orientation is {picture.orientation}, which training does not apply",
            "Save it upright, without the EXIF tag.",
            of=(kind,),
        )


def _check_whole(look: Look, kind: str) -> None:
    rgb = look.rgb(kind)
    if rgb is None:
        return
    mean, deviation = cv2.meanStdDev(look.small(rgb))
    spread = look.measure(f"{kind} contrast", float(np.sqrt((deviation**2 + (mean - mean.mean()) ** 2).mean())))
    look.measure(f"{kind} brightness", float(mean.mean()))
    for channel, level in zip(("red", "green", "blue"), mean.ravel().tolist(), strict=True):
        look.measure(f"{kind} {channel}", level)
    if spread is not None and spread < look.limits.blank_spread:
        look.unusable.add(kind)
        look.report("blank picture", f"is one colour ({float(mean.mean()):.0f} of 255)", PHOTO_REMEDY, of=(kind,))
        return
    flat = (rgb.reshape(len(rgb), -1) == measures.GRAY).all(axis=1)[::-1]
    rows = 0 if flat[-1] else int(np.argmin(flat))  # a gray top is a gray background
    if rows >= max(2, round(look.limits.flat_bottom * len(rgb))):
        look.report(
            "damaged file",
            f"ends in {rows} rows of gray, as a JPEG does that was cut off",
            PHOTO_REMEDY,
            of=(kind,),
        )


def _check_colours(look: Look) -> None:
    rgb = look.rgb("person")
    if rgb is None:
        return
    red, green, blue = (look.small(rgb)[..., channel].astype(np.int16) for channel in range(3))
    if float(((np.abs(red - green) <= 4) & (np.abs(green - blue) <= 4)).mean()) > look.limits.colourless:
        look.report(
            "gray picture",
            "has no colour at all, though it is RGB",
            "Replace it by the colour picture: a net would learn gray people.",
            of=("person",),
            severity="warning",
        )
        return
    parse = look.parse
    if parse is None or parse.shape != rgb.shape[:2]:
        return
    warm = look.measure("skin warmth", measures.skin_is_warm(rgb, parse))
    if warm is not None and warm < look.limits.cold_skin and _is_inverted(look, rgb):
        look.report(
            "inverted picture", "is a negative: 255 less its levels fit the agnostic picture", INVERT, of=("person",)
        )
        look.unusable.add("person")
    elif warm is not None and warm < look.limits.cold_skin:
        look.report(
            "channel order",
            f"shows blue skin: red less blue is {warm:.0f} of 255 there, as in a picture saved as BGR",
            "Exchange red and blue (and in all pictures that were written the same way).",
            of=("person",),
        )


def _is_inverted(look: Look, rgb: Rgb) -> bool:
    """Whether the agnostic picture is that of the negative, and not of the picture with red and blue exchanged."""
    agnostic = look.rgb("shipped_agnostic")
    if agnostic is None or agnostic.shape != rgb.shape:
        return False
    outside = measures.shrunk(~measures.is_gray(agnostic))
    if not outside.any():
        return False
    tried = (255 - rgb, np.ascontiguousarray(rgb[..., ::-1]), rgb)
    apart = [float(measures.differs(agnostic, each)[outside].mean()) for each in tried]
    return apart[0] <= 0.1 and apart[0] < 0.5 * min(apart[1:])


def _check_cloth_is_no_person(look: Look) -> None:
    person, cloth = look.rgb("person"), look.rgb("cloth")
    if person is not None and cloth is not None and person.shape == cloth.shape and np.array_equal(person, cloth):
        look.report(
            "cloth is the person",
            "has the very pixels of the person's picture",
            "Restore the picture of the cloth.",
            of=("cloth", "person"),
        )
