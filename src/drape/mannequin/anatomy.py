"""The person in the rest pose: measures, and the solids of body, hands, head and hair.

Metres; y up from the floor, x towards the person's left (right in the picture), z towards the camera.
The rest pose stands upright with straight arms 50 degrees away from the body, palms towards the
body and thumbs forward, 1.70 m tall.
"""

from functools import cache

import numpy as np

from drape.mannequin.implicit import Array, Surface, cut, ellipsoid, loft, round_cone, surface, union

ARM_ANGLE = np.deg2rad(50.0)
SHOULDER = np.array([0.168, 1.378, -0.005])  # the left joint; the right one is its mirror image
ARM_AXIS = np.array([np.sin(ARM_ANGLE), -np.cos(ARM_ANGLE), 0.0])
ARM_NORMAL = np.array([np.cos(ARM_ANGLE), np.sin(ARM_ANGLE), 0.0])  # away from the body, across the arm
UPPER_ARM, FOREARM, HAND = 0.285, 0.250, 0.175
ELBOW = SHOULDER + UPPER_ARM * ARM_AXIS
WRIST = ELBOW + FOREARM * ARM_AXIS
HIP, KNEE = np.array([0.088, 0.89, 0.0]), np.array([0.098, 0.48, 0.005])
WAIST_Y, CHEST_Y, NECK_Y, CHIN_Y = 1.06, 1.20, 1.44, 1.475
HEAD = np.array([0.0, 1.588, 0.022])
MIRROR = np.array([-1.0, 1.0, 1.0])

# Half widths, half depths and depth centres of the trunk, from the crotch to the root of the neck.
TRUNK_Y = np.array([0.76, 0.84, 0.91, 0.98, 1.06, 1.15, 1.24, 1.31, 1.37, 1.41, 1.445])
TRUNK_WIDTH = np.array([0.158, 0.172, 0.170, 0.155, 0.138, 0.142, 0.154, 0.157, 0.142, 0.098, 0.058])
TRUNK_DEPTH = np.array([0.088, 0.108, 0.110, 0.100, 0.092, 0.098, 0.108, 0.108, 0.096, 0.076, 0.056])
TRUNK_CENTRE = np.array([-0.006, -0.012, -0.010, 0.000, 0.002, 0.002, 0.004, 0.000, -0.008, -0.014, -0.016])


def _arms(p: Array) -> Array:
    """Both arms at once: the field of the left one at |x|."""
    q = np.abs(p) * np.array([1.0, 0, 0]) + p * np.array([0.0, 1, 1])
    deltoid = ellipsoid(q, SHOULDER + 0.035 * ARM_AXIS, np.array([0.058, 0.066, 0.056]))
    upper = round_cone(q, SHOULDER + 0.02 * ARM_AXIS, ELBOW, 0.050, 0.0375)
    swell = ELBOW + 0.07 * ARM_AXIS
    fore = union(0.03, round_cone(q, ELBOW, swell, 0.036, 0.0395), round_cone(q, swell, WRIST, 0.0395, 0.0255))
    return union(0.03, union(0.03, deltoid, upper), fore)


def trunk(p: Array) -> Array:
    """Trunk with the shoulders' slope and the neck, without limbs."""
    q = np.abs(p) * np.array([1.0, 0, 0]) + p * np.array([0.0, 1, 1])
    torso = loft(p, TRUNK_Y, TRUNK_WIDTH, TRUNK_DEPTH, TRUNK_CENTRE)
    slope = round_cone(q, np.array([0.035, 1.425, -0.022]), np.array([0.155, 1.388, -0.008]), 0.042, 0.040)
    neck = round_cone(p, np.array([0.0, 1.39, -0.018]), np.array([0.0, 1.54, 0.004]), 0.062, 0.052)
    return union(0.05, union(0.06, torso, slope), neck)


def _thighs(p: Array) -> Array:
    q = np.abs(p) * np.array([1.0, 0, 0]) + p * np.array([0.0, 1, 1])
    return round_cone(q, HIP - np.array([0, 0.03, 0]), KNEE, 0.092, 0.056)


def body(p: Array) -> Array:
    """Trunk, arms down to the wrist and legs down to the knee."""
    return union(0.03, union(0.045, trunk(p), _arms(p)), _thighs(p))


def clothed(p: Array) -> Array:
    """The space under a close top: smoother than the body, and open below."""
    wider = np.maximum(TRUNK_WIDTH, np.interp(TRUNK_Y, [0.76, 0.9, 1.06, 1.24], [0.176, 0.172, 0.148, 0.152]))
    deeper = np.maximum(TRUNK_DEPTH, np.interp(TRUNK_Y, [0.76, 0.9, 1.06, 1.24], [0.118, 0.114, 0.102, 0.106]))
    torso = loft(p, np.r_[0.58, TRUNK_Y], np.r_[0.182, wider], np.r_[0.122, deeper], np.r_[-0.006, TRUNK_CENTRE], 2.2)
    q = np.abs(p) * np.array([1.0, 0, 0]) + p * np.array([0.0, 1, 1])
    sleeve = union(
        0.05,
        round_cone(q, SHOULDER, ELBOW, 0.061, 0.045),
        round_cone(q, ELBOW, WRIST + 0.06 * ARM_AXIS, 0.045, 0.034),
    )
    return union(0.05, union(0.04, torso, trunk(p)), union(0.03, _arms(p), sleeve)) - 0.007


def lower(p: Array) -> Array:
    """The space under trousers: hips and straight legs."""
    keep = p[:, 1] - 1.075
    legs = union(0.03, loft(p, TRUNK_Y, TRUNK_WIDTH, TRUNK_DEPTH, TRUNK_CENTRE), _thighs(p)) - 0.008
    return np.maximum(legs, keep)


def skirt(p: Array) -> Array:
    """The space under an A-line skirt."""
    y = np.array([0.50, 0.62, 0.76, 0.86, 0.93, 1.00, 1.075])
    return loft(
        p,
        y,
        np.array([0.262, 0.238, 0.208, 0.190, 0.179, 0.163, 0.146]),
        np.array([0.205, 0.182, 0.152, 0.130, 0.120, 0.110, 0.101]),
        np.array([-0.004, -0.004, -0.005, -0.010, -0.008, 0.0, 0.002]),
        2.0,
    )


def hand(p: Array) -> Array:
    """Left hand in arm coordinates about the wrist: along the arm, across it (outwards), forward."""
    palm = ellipsoid(p, np.array([0.050, 0.004, 0.0]), np.array([0.058, 0.017, 0.041]))
    wrist = round_cone(p, np.array([-0.03, 0, 0]), np.array([0.03, 0, 0]), 0.0255, 0.024)
    d = union(0.02, palm, wrist)
    fingers = ((0.026, 0.082, 0.0092), (0.009, 0.091, 0.0096), (-0.009, 0.086, 0.0092), (-0.026, 0.068, 0.0082))
    for z, length, radius in fingers:
        root, middle = np.array([0.085, 0.002, z]), np.array([0.085 + 0.5 * length, -0.004, z * 1.08])
        tip = np.array([0.085 + 0.92 * length, -0.022, z * 1.04])
        d = union(
            0.008,
            d,
            np.minimum(
                round_cone(p, root, middle, radius * 1.1, radius), round_cone(p, middle, tip, radius, radius * 0.8)
            ),
        )
    thumb = union(
        0.01,
        round_cone(p, np.array([0.02, -0.002, 0.025]), np.array([0.062, -0.012, 0.053]), 0.015, 0.0115),
        round_cone(p, np.array([0.062, -0.012, 0.053]), np.array([0.094, -0.02, 0.057]), 0.0112, 0.0085),
    )
    return union(0.016, d, thumb)


def head(p: Array) -> Array:
    """Skull, jaw, nose, ears, eye sockets and lips, about the middle of the head."""
    q = np.abs(p) * np.array([1.0, 0, 0]) + p * np.array([0.0, 1, 1])
    skull = ellipsoid(p, np.array([0.0, 0.024, -0.014]), np.array([0.0745, 0.091, 0.094]))
    face = ellipsoid(p, np.array([0.0, -0.020, 0.018]), np.array([0.0635, 0.086, 0.070]))
    jaw = round_cone(q, np.array([0.0, -0.090, 0.052]), np.array([0.040, -0.062, 0.012]), 0.024, 0.024)
    d = union(0.04, union(0.035, skull, face), jaw)
    d = cut(0.022, d, ellipsoid(q, np.array([0.031, 0.010, 0.101]), np.array([0.021, 0.013, 0.016])))
    nose = union(
        0.012,
        round_cone(p, np.array([0.0, 0.012, 0.080]), np.array([0.0, -0.026, 0.098]), 0.0085, 0.0115),
        ellipsoid(q, np.array([0.0095, -0.029, 0.088]), np.array([0.008, 0.0075, 0.010])),
    )
    lips = ellipsoid(p, np.array([0.0, -0.056, 0.080]), np.array([0.024, 0.010, 0.009]))
    ears = ellipsoid(q, np.array([0.0755, -0.006, -0.008]), np.array([0.010, 0.030, 0.019]))
    return union(0.012, union(0.012, union(0.014, d, nose), lips), ears)


def _scalp(p: Array, thickness: float, top: float) -> Array:
    """A shell over the skull, thicker at the crown."""
    skull = ellipsoid(p, np.array([0.0, 0.024, -0.014]), np.array([0.0765, 0.094, 0.097]))
    return skull - thickness - top * np.clip(p[:, 1] / 0.1, 0.0, 1.0)


def _face_opening(p: Array, hairline: float, width: float) -> Array:
    """Negative where hair must not be: in front of the face, below the hairline."""
    return np.maximum(
        np.maximum(
            np.abs(p[:, 0]) - width - 0.12 * np.clip(p[:, 1], -0.1, 0.0) * -1.0, p[:, 1] - hairline + 4.5 * p[:, 0] ** 2
        ),
        -(p[:, 2] - 0.012),
    )


def _short(p: Array) -> Array:
    cap = cut(0.012, _scalp(p, 0.004, 0.012), _face_opening(p, 0.070, 0.090))
    below = np.maximum(-0.020 - p[:, 1] + 0.25 * np.clip(p[:, 2], -0.1, 0.1) * 1.0, -0.06 - p[:, 1])
    return np.maximum(cap, below)


def _crop(p: Array) -> Array:
    cap = cut(0.008, _scalp(p, 0.0005, 0.003), _face_opening(p, 0.074, 0.090))
    return np.maximum(cap, 0.010 - 0.5 * p[:, 2] - 0.045 - p[:, 1])


def _bob(p: Array) -> Array:
    volume = union(
        0.05, _scalp(p, 0.010, 0.010), ellipsoid(p, np.array([0.0, -0.055, -0.022]), np.array([0.094, 0.085, 0.084]))
    )
    return np.maximum(cut(0.015, volume, _face_opening(p, 0.066, 0.064)), -0.118 - p[:, 1])


def _long(p: Array) -> Array:
    q = np.abs(p) * np.array([1.0, 0, 0]) + p * np.array([0.0, 1, 1])
    back = ellipsoid(p, np.array([0.0, -0.12, -0.062]), np.array([0.112, 0.20, 0.052]))
    locks = union(
        0.03,
        round_cone(q, np.array([0.074, -0.02, -0.01]), np.array([0.092, -0.15, 0.004]), 0.018, 0.026),
        round_cone(q, np.array([0.092, -0.15, 0.004]), np.array([0.094, -0.24, 0.030]), 0.026, 0.014),
    )
    volume = union(0.04, union(0.05, _scalp(p, 0.009, 0.010), back), locks)
    return cut(0.012, volume, _face_opening(p, 0.066, 0.063))


def _bun(p: Array) -> Array:
    cap = cut(0.010, _scalp(p, 0.003, 0.003), _face_opening(p, 0.070, 0.078))
    cap = np.maximum(cap, -0.055 - p[:, 1] + 0.5 * np.clip(p[:, 2], 0, 1))
    return union(0.012, cap, ellipsoid(p, np.array([0.0, 0.118, -0.048]), np.array([0.042, 0.036, 0.042])))


def _tail(p: Array) -> Array:
    cap = cut(0.010, _scalp(p, 0.003, 0.003), _face_opening(p, 0.070, 0.078))
    cap = np.maximum(cap, -0.055 - p[:, 1] + 0.5 * np.clip(p[:, 2], 0, 1))
    knot, end = np.array([0.0, 0.062, -0.115]), np.array([0.075, -0.16, -0.105])
    return union(
        0.02,
        cap,
        union(0.03, round_cone(p, np.array([0, 0.05, -0.1]), knot, 0.02, 0.03), round_cone(p, knot, end, 0.034, 0.014)),
    )


def _afro(p: Array) -> Array:
    wave = np.sin(p[:, 0] * 95) * np.sin(p[:, 1] * 95 + 1) * np.sin(p[:, 2] * 95 + 2)
    volume = ellipsoid(p, np.array([0.0, 0.046, -0.028]), np.array([0.118, 0.118, 0.118])) + 0.006 * wave
    return np.maximum(cut(0.015, volume, _face_opening(p, 0.066, 0.074)), -0.065 - p[:, 1])


def _side(p: Array) -> Array:
    """A fringe swept to one side over a wavy mid-length cut."""
    volume = union(
        0.05, _scalp(p, 0.011, 0.014), ellipsoid(p, np.array([0, -0.04, -0.03]), np.array([0.100, 0.09, 0.08]))
    )
    tilt = p + np.array([0.0, 1, 0]) * (0.35 * p[:, :1] + 0.012)
    return np.maximum(
        cut(0.012, volume, _face_opening(tilt, 0.066, 0.066)), -0.085 - p[:, 1] + 0.01 * np.sin(p[:, 0] * 90)
    )


HAIR = {
    "short": _short,
    "crop": _crop,
    "bob": _bob,
    "long": _long,
    "bun": _bun,
    "tail": _tail,
    "afro": _afro,
    "side": _side,
}


@cache
def rest_mesh(part: str) -> Surface:
    """The rest-pose mesh of a part: body, top, lower, skirt, hand, head, or a hair style of HAIR."""
    box = {
        "body": (body, (-0.70, 0.394, -0.17), (0.70, 1.61, 0.17), 0.0165),
        "top": (clothed, (-0.74, 0.55, -0.19), (0.74, 1.61, 0.19), 0.0170),
        "lower": (lower, (-0.24, 0.395, -0.17), (0.24, 1.10, 0.17), 0.0175),
        "skirt": (skirt, (-0.30, 0.48, -0.24), (0.30, 1.10, 0.24), 0.0200),
        "hand": (hand, (-0.06, -0.06, -0.07), (0.20, 0.05, 0.09), 0.0058),
        "head": (head, (-0.11, -0.15, -0.14), (0.11, 0.15, 0.14), 0.0082),
    }
    if part in HAIR:
        return surface(HAIR[part], np.array([-0.17, -0.34, -0.19]), np.array([0.17, 0.20, 0.15]), 0.0105)
    field, low, high, step = box[part]
    return surface(field, np.array(low), np.array(high), step)
