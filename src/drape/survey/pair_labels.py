"""Does a parse speak the labels it should, and does it show a person in a cloth?"""

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from drape.data import parse_labels as labels
from drape.data.parse_labels import ATR_NAMES, NAMES, PALETTE, is_any
from drape.survey.label_sets import between_share, looks_like_atr, neck_is_torso
from drape.survey.look import Look

Parse = UInt8[ndarray, "h w"]

PARSER_REMEDY = "Run the parser that the rest of the set was made with."


def check_labels(look: Look) -> None:
    """Ids, palette and meaning of both parses."""
    for kind in ("parse", "parse_agnostic"):
        picture = look.picture(kind)
        if picture is None or picture.mode not in ("P", "L"):
            continue
        if picture.file_format in ("JPEG", "WEBP"):
            found = f"is a {picture.file_format}, which changes label ids, expected a PNG"
            look.report("parse format", found, "Run the parser again and save a PNG.", of=(kind,))
            look.unusable.add(kind)
            continue
        if not _ids_are_known(look, kind, picture.pixels):
            continue
        if picture.palette is not None and not look.record.dresscode:
            _check_palette(look, kind, picture.pixels, picture.palette)
        if kind == "parse":
            _check_label_set(look, picture.pixels)
            _check_content(look)
            _check_interpolation(look, picture.pixels)


def _ids_are_known(look: Look, kind: str, parse: Parse) -> bool:
    names = ATR_NAMES if look.record.dresscode else NAMES
    unknown = np.unique(parse[parse >= len(names)])
    if not len(unknown) or (look.record.dresscode and looks_like_atr(parse) is False):
        return True
    shown = ", ".join(map(str, unknown[:6])) + (" ..." if len(unknown) > 6 else "")
    look.report(
        "label ids",
        f"holds {shown} on {float((parse >= len(names)).mean()):.1%} of its pixels, expected ids 0 to {len(names) - 1}",
        "Save the ids themselves: no colours, no gray levels, no 255 for 'void'.",
        of=(kind,),
    )
    return False


def _check_palette(look: Look, kind: str, parse: Parse, palette: UInt8[ndarray, "n 3"]) -> None:
    """A palette is for display only, but one that gives an id the colour of another label contradicts it."""
    standard = {tuple(colour): label for label, colour in enumerate(PALETTE.tolist())}
    seen = parse[:: max(1, len(parse) // 256), :: max(1, len(parse) // 256)]
    used = [int(label) for label in np.unique(seen) if label < len(palette)]
    meant = {
        label: standard[tuple(palette[label].tolist())] for label in used if tuple(palette[label].tolist()) in standard
    }
    wrong = {label: other for label, other in meant.items() if other != label}
    if len(meant) >= 0.8 * len(used) and len(wrong) >= 2:
        shown = ", ".join(
            f"{label} has the colour of {other} ({NAMES[other]})" for label, other in list(wrong.items())[:3]
        )
        look.report(
            "palette",
            f"has ids that its own palette contradicts: {shown}",
            "Map each pixel's colour back to its label: the ids were renumbered when the file was saved.",
            of=(kind,),
        )


def _check_label_set(look: Look, parse: Parse) -> None:
    verdict = looks_like_atr(parse)
    if verdict is True and not look.record.dresscode:
        look.report(
            "label set",
            "speaks ATR: its head is 11 and its upper clothes 4, expected CIHP's 13 and 5",
            "Map the ids with drape.data.parse_labels.ATR_TO_CIHP, or run a CIHP parser.",
            of=("parse",),
        )
    elif verdict is False and look.record.dresscode:
        look.report(
            "label set",
            "speaks CIHP or LIP: its face is 13 and its upper clothes 5, expected ATR's 11 and 4 in a DressCode folder",
            "Restore DressCode's own label maps.",
            of=("parse",),
        )
    elif not look.record.dresscode and neck_is_torso(parse):
        look.report(
            "label set",
            f"has label 10 on {float((parse == labels.NECK).mean()):.0%} of the picture: LIP's jumpsuits, "
            "where CIHP has the neck",
            "Map 10 to 6 (dress), or run a CIHP parser.",
            of=("parse",),
        )


def _check_interpolation(look: Look, parse: Parse) -> None:
    share = look.measure("labels in between", between_share(parse))
    if share is not None and share > look.limits.interpolated:
        look.unusable.add("parse")
        look.report(
            "parse interpolated",
            f"was resized as a picture: {share:.0%} of its label changes run through ids in between",
            "Resize the original parse with the nearest pixel.",
            of=("parse",),
        )


def _check_content(look: Look) -> None:
    parse = look.parse
    if parse is None:
        return
    person = look.measure("person share", float((parse != labels.BACKGROUND).mean())) or 0.0
    cloth = look.measure("worn share", float(is_any(parse, look.cloth_labels).mean())) or 0.0
    if person < look.limits.least_person:
        look.report("empty parse", "shows nobody: all is background", PARSER_REMEDY, of=("parse",))
        look.unusable.add("parse")
    elif cloth < look.limits.least_cloth:
        names = ", ".join(NAMES[label] for label in look.cloth_labels)
        look.report(
            "no cloth in parse",
            f"has next to no {names} ({cloth:.1%} of the picture): nothing would be exchanged",
            PARSER_REMEDY,
            of=("parse",),
            severity="warning",
        )
