"""Every number that a check of a pair compares with, each with what sound pairs have.

Calibrated on mannequins of 32x24 to 512x384 and on pairs of VITON-HD (docs/log.md): a sound pair stays on the good
side of each with room to spare.  Shares lie in [0, 1], distances in shares of the height, colours in levels of 255.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from drape.errors import ConfigError, did_you_mean, shortened


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Beyond a limit there is a problem; the comment says what sound pairs have."""

    # pictures
    blank_spread: float = 3.0  # standard deviation of a picture; sound 20 and more
    flat_bottom: float = 1 / 32  # share of the height that is one gray, as a cut JPEG leaves it; sound 0
    colourless: float = 0.999  # share of the person's pixels without any colour; sound below 0.9
    cold_skin: float = -10.0  # red less blue of skin; sound 25 to 90, exchanged channels the negative
    # parse
    interpolated: float = 0.15  # label changes over labels in between; sound below 0.07, interpolated 0.2 and more
    least_person: float = 0.01  # of the picture that is not background
    least_cloth: float = 0.002  # of the picture that is cloth
    # masks
    empty_mask: float = 0.005
    full_mask: float = 0.98
    gray_mask: float = 0.25  # share of a mask's pixels that are neither black nor white; sound below 0.1
    inverted_ring: float = 0.6  # share of the picture's rim that a mask covers; sound 0 to 0.3
    cloth_inside: float = 0.02  # share of a cloth mask on the very background; sound 0.000, another's up to 0.4
    cloth_outside: float = 0.03  # clear cloth outside the cloth mask over its area; sound 0.000, another's 0.1
    hidden_cloth: float = 0.9  # least share of the cloth in the agnostic mask; sound 0.99 and more
    # agnostic picture
    gray_inside: float = 0.97  # least share of gray in the mask; sound 1.000
    mask_off_gray: float = 0.005  # share of the mask without gray, and of the rest with it; sound 0.000
    leaking: float = 0.02  # share of the mask that still shows the person; sound 0.000
    contrast_left: float = 0.05  # of the person's contrast in the mask; sound 0.004 and less
    differs_outside: float = 0.02  # share of pixels unlike the picture; sound 0.000, another's 0.15 and more
    # pose
    outside_picture: float = 0.05  # how far beyond the picture a joint may lie; VITON-HD's reach 0.01
    few_joints: int = 4  # of nose, neck, shoulders and elbows; below the waist of hips, knees and ankles
    off_labels: float = 0.003  # mean distance of joints, but for one, from the labels they belong on; sound below 0.001
    on_body: float = 0.9  # least share of joints on the body; sound 1.0, with one joint in a wrong place 0.93
    swapped_sides: float = 0.43  # evidence from -1 to 1; sound -0.5, one in 7,500 up to 0.41
    off_skeleton: float = 0.003  # mean distance of the joints from the drawn skeleton; sound 0.000
    # colours of cloth and worn cloth
    exchanged_least: float = 8.0  # distance above which exchanged channels are looked for; sound 4, up to 13
    exchanged_share: float = 0.5  # of it that is left when red and blue are exchanged; sound above 1
    # what belongs together
    mirrored: float = 0.02  # what the mirrored parse explains more of the picture; sound -0.03 and less
    parse_fit: float = 0.7  # see pair_agree; at 96 pixels of height and more sound 0.79, half of another's below 0.3
    parse_fit_tiny: float = 0.35  # at 48 pixels and less, in between linear; sound 0.41, at 64 pixels 0.51
    parts_agree: float = 0.85  # least share of faces and arms in densepose's colours; sound 0.92, another's 0.8
    parts_agree_tiny: float = 0.7  # the same below 48 pixels of height; sound 0.79
    skeleton_on_body: float = 0.85  # least share of the drawn skeleton on the body; sound 0.89 and more
    parse_agnostic: float = 0.02  # share of its labels that the parse has not; sound 0.000, another's 0.06 and more
    # mannequins
    warp_covers: float = 0.2  # least share of the cloth that a warp explains; sound 0.6 and more
    warp_inside: float = 0.95  # least share of a warp that lies on the cloth; sound 1.000
    warp_colours: float = 25.0  # distance of the warped cloth's hue from the person's; sound below 14
    cloth_mirrored: float = 0.8  # of that distance left when the cloth is mirrored; sound 0.90 and more
    cloth_as_worn: float = 10.0  # distance up to which the mirrored cloth is the one that is worn; sound 4 to 13
    counterfactual_outside: float = 0.12  # share of pixels unlike the picture around the cloth; sound below 0.05
    counterfactual_inside: float = 0.02  # least share of pixels of the cloth that changed; sound 0.7 and more
    # the set as a whole
    mismatch_score: float = 5.0  # robust standard deviations that a pair's colours lie apart more than usual
    mismatch_closer: float = 0.05  # share of other clothes that suit better; of 18,500 sound pairs one had both
    mismatch_distance: float = 6.0  # CIELAB units below which no pair is wrong; sound pairs 2 to 3 in the middle
    shuffled_closer: float = 0.25  # the same share in the mean of a split; sound 0.00 to 0.11, shuffled 0.5


SIGNED = ("cold_skin", "swapped_sides", "mirrored")
"""Limits of what may be negative."""


def override(limits: Limits, settings: Iterable[str]) -> Limits:
    """`limits` with numbers such as "leaking=0.05".  Raises ConfigError for unknown names and senseless numbers."""
    known = {each.name: each.type for each in fields(Limits)}
    values: dict[str, float | int] = {}
    for setting in settings:
        name, _, text = (part.strip() for part in setting.partition("="))
        if name not in known:
            advice = did_you_mean(name, known, otherwise=f"Known: {', '.join(known)}.")
            raise ConfigError(f"there is no limit {shortened(name)!r}. {advice}")
        try:
            values[name] = int(text) if known[name] is int else float(text)
        except ValueError as error:
            raise ConfigError(
                f"--limit {name}: {shortened(text)!r} is no number. Write --limit {name}={getattr(limits, name)}."
            ) from error
        value = values[name]
        if not math.isfinite(value) or (value < 0 and name not in SIGNED):
            wanted = "a finite number" if name in SIGNED else "a finite number of 0 or more"
            raise ConfigError(
                f"--limit {name} is {shortened(text)}, expected {wanted}. It is {getattr(limits, name)} unless given."
            )
    return replace(limits, **values)  # type: ignore[arg-type]
