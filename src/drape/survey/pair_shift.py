"""Are all ids of a parse one too high or one too low?  Then it fits the picture, and nothing else."""

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from drape.data.parse_labels import FACE, NUM_LABELS, UPPER, UPPER_CLOTHES, is_any
from drape.survey import measures
from drape.survey.look import Look

Parse = UInt8[ndarray, "h w"]
Pose = Float[ndarray, "18 3"]

LEAST_EVIDENCE = 2
"""Of joints, densepose and agnostic mask: each alone fits a wrong parse now and then."""


def check_shift(look: Look, pose: Pose | None) -> None:
    """Say so where a parse fits joints, densepose and mask once 1 is added to its ids or taken from them.

    Asked first: what reads the wrong ids finds another label set, another person, or no cloth.
    """
    picture = look.picture("parse")
    if picture is None or picture.mode not in ("P", "L") or look.record.dresscode:
        return
    parse = look.small(picture.pixels, labels=True)
    if all(_evidence(look, parse, pose)):
        return
    for step, word in ((1, "high"), (-1, "low")):
        tried = np.where(parse > 0, parse - np.uint8(step & 255), 0).astype(np.uint8)
        evidence = _evidence(look, tried, pose)
        has_all = tried.max() < NUM_LABELS and (tried == FACE).any() and is_any(tried, UPPER_CLOTHES).any()
        if has_all and len(evidence) >= LEAST_EVIDENCE and all(evidence):
            look.report(
                "label ids",
                f"has all ids one too {word}: faces are {FACE + step} and upper clothes {UPPER + step}, "
                f"expected {FACE} and {UPPER}",
                f"{'Take 1 from' if step > 0 else 'Add 1 to'} every id but the background's 0.",
                of=("parse",),
            )
            look.unusable.add("parse")
            return


def _evidence(look: Look, parse: Parse, pose: Pose | None) -> list[bool]:
    """Whether the files that can be compared fit a parse."""
    found: list[bool] = []
    if pose is not None:
        misfit, on_body = measures.pose_misfit(pose, parse), measures.joints_on_body(pose, parse)
        found.append(misfit is not None and misfit <= MOST_MISFIT and (on_body or 0.0) >= look.limits.on_body)
    parts = look.parts
    if parts is not None and parts.shape == parse.shape:
        found.append((measures.parts_agree(parts, parse) or 0.0) >= look.limits.parts_agree_tiny)
    mask = look.mask("shipped_mask")
    if mask is not None and (mask := look.small(mask)).shape == parse.shape:
        cloth, background = measures.mask_cover(mask, parse, look.cloth_labels)
        found.append((cloth or 0.0) >= look.limits.hidden_cloth and (background is None or background < 0.9))
    return found


MOST_MISFIT = 0.012
"""Mean distance of joints from their labels in shares of the height: one of a dozen may be in a wrong place."""
