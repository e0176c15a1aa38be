"""Facts about rest positions that no figure or pose changes: which limb, which side, which bones."""

from functools import cache
from typing import NamedTuple

import numpy as np

from drape.mannequin.anatomy import ARM_AXIS, ARM_NORMAL, FOREARM, MIRROR, SHOULDER, UPPER_ARM, rest_mesh
from drape.mannequin.implicit import Array

BONES = ("pelvis", "chest", "neck", "head", "l_up0", "l_up1", "l_up2", "l_fore", "l_hand",
         "r_up0", "r_up1", "r_up2", "r_fore", "r_hand")  # fmt: skip
REST_FRAME = np.stack([ARM_AXIS, ARM_NORMAL, np.array([0.0, 0, 1])], 1)


class Rest(NamedTuple):
    """n rest positions and what follows from them."""

    p: Array  # (n, 3)
    share: Array  # (n,) how much of an arm
    arm: Array  # (n, 3) arm coordinates
    side: Array  # (n,) back (-1) to front (+1)
    weights: Array  # (n, bones)


def facts(p: Array) -> Rest:
    """What follows from rest positions."""
    return Rest(p, arm_share(p), arm_coordinates(p), sides(p), skin_weights(p))


@cache
def facts_of(part: str) -> Rest:
    """The facts about the vertices of a part of `anatomy.rest_mesh`."""
    return facts(rest_mesh(part).vertices)


def smoothstep(x: Array, low: float | Array, high: float | Array) -> Array:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def arm_share(p: Array) -> Array:
    """How much a rest position belongs to an arm rather than to the trunk, in [0, 1]."""
    y = p[:, 1]
    line = 0.172 - 0.25 * np.clip(y - 1.33, 0.0, 0.1) + 0.5 * np.clip(1.30 - y, 0.0, 0.3)
    half = 0.010 + 0.034 * smoothstep(y, 1.25, 1.36)
    return smoothstep(np.abs(p[:, 0]), line - half, line + half) * (y > 0.5)


def arm_coordinates(p: Array) -> Array:
    """(along, across, forward) of rest positions about the nearer shoulder, metres; both sides alike."""
    q = p * np.where(p[:, :1] < 0, MIRROR, 1.0) - SHOULDER
    return q @ REST_FRAME


def trunk_centre(y: Array) -> Array:
    """Depth of the side seam at a height."""
    return np.interp(y, [0.8, 1.05, 1.3, 1.45], [-0.008, 0.0, -0.002, -0.018])


def sides(p: Array) -> Array:
    """Where a rest position lies between back (-1) and front (+1) of a cloth."""
    share = arm_share(p)
    centre = trunk_centre(p[:, 1]) * (1 - share) + SHOULDER[2] * share
    return np.clip((p[:, 2] - centre) / 0.05, -1.0, 1.0)


def skin_weights(p: Array) -> Array:
    """(n, len(BONES)) weights of rest positions, rows summing to one."""
    y, arm = p[:, 1], arm_share(p)
    along = arm_coordinates(p)[:, 0]
    chest, head = smoothstep(y, 0.96, 1.20), smoothstep(y, 1.47, 1.545)
    neck = smoothstep(y, 1.425, 1.49)
    fore = smoothstep(along, UPPER_ARM - 0.04, UPPER_ARM + 0.04)
    hand = smoothstep(along, UPPER_ARM + FOREARM - 0.02, UPPER_ARM + FOREARM + 0.015)
    u = np.clip(along / UPPER_ARM, 0.0, 1.0) * 2.0
    first, middle, last = np.clip(1 - u, 0, 1), 1 - np.abs(u - 1), np.clip(u - 1, 0, 1)
    limb = np.stack([first * (1 - fore), middle * (1 - fore), last * (1 - fore), fore * (1 - hand), fore * hand], 1)
    weights = np.zeros((len(p), len(BONES)))
    body = 1.0 - arm
    weights[:, 0] = body * (1 - chest)
    weights[:, 1] = body * chest * (1 - neck)
    weights[:, 2] = body * chest * neck * (1 - head)
    weights[:, 3] = body * chest * neck * head
    left = (p[:, 0] > 0)[:, None]
    weights[:, 4:9] = np.where(left, limb * arm[:, None], 0.0)
    weights[:, 9:14] = np.where(left, 0.0, limb * arm[:, None])
    return weights
