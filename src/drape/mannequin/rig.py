"""Shape and pose: from the rest pose to the person in the picture.

Every vertex of body and clothes is a rest position; `deform` gives it the person's figure, `skin_weights`
says which bones carry it (by position alone, so cloth follows body), and `Skeleton.apply` moves it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from drape.mannequin.anatomy import (
    ARM_AXIS,
    ARM_NORMAL,
    FOREARM,
    HAND,
    HEAD,
    HIP,
    KNEE,
    MIRROR,
    SHOULDER,
    UPPER_ARM,
)
from drape.mannequin.implicit import Array, smooth_profile

BONES = ("pelvis", "chest", "neck", "head", "l_up0", "l_up1", "l_up2", "l_fore", "l_hand",
         "r_up0", "r_up1", "r_up2", "r_fore", "r_hand")  # fmt: skip
REST_FRAME = np.stack([ARM_AXIS, ARM_NORMAL, np.array([0.0, 0, 1])], 1)
BEND, THROAT = np.array([0.0, 1.08, 0.0]), np.array([0.0, 1.455, -0.008])
PELVIS = np.array([0.0, 0.92, 0.0])


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Factors and offsets relative to the rest figure; 1 and 0 leave it unchanged."""

    shoulders: float = 1.0
    waist: float = 1.0
    hips: float = 1.0
    depth: float = 1.0
    limbs: float = 1.0  # radius of arms
    reach: float = 1.0  # length of arms
    bust: float = 0.0  # metres
    belly: float = 0.0  # metres
    head: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Where a wrist is, as seen for a left arm in the chest's frame (metres), and where the elbow points."""

    wrist: tuple[float, float, float]
    pole: tuple[float, float, float]
    hand_bend: float = 0.0  # radians, towards the palm
    hand_roll: float = 0.0  # radians, about the forearm


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Angles in radians: turn about the vertical, lean in the picture plane, bow towards the camera."""

    turn: float = 0.0
    sway: float = 0.0
    lean: float = 0.0
    bow: float = 0.0
    twist: float = 0.0
    head_turn: float = 0.0
    head_tilt: float = 0.0
    head_nod: float = 0.0
    left: Arm
    right: Arm


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
    centre = trunk_centre(p[:, 1]) * (1 - arm_share(p)) + SHOULDER[2] * arm_share(p)
    return np.clip((p[:, 2] - centre) / 0.05, -1.0, 1.0)


def _widths(figure: Figure, y: Array) -> Array:
    knots = np.array([0.5, 0.80, 0.90, 1.06, 1.24, 1.36, 1.46, 1.5])
    values = [figure.hips, figure.hips, figure.hips, figure.waist, 0.4 * figure.waist + 0.6 * figure.shoulders]
    return smooth_profile(y, knots, np.array([*values, figure.shoulders, 1.0, 1.0]))


def deform(p: Array, figure: Figure, *, is_cloth: bool = False) -> Array:
    """Rest positions with the figure's proportions; cloth spans the hollow between the breasts."""
    y = p[:, 1]
    inner = np.maximum(np.abs(p[:, 0]) - 0.078, 0.0) if is_cloth else np.abs(p[:, 0]) - 0.078
    front = smoothstep(p[:, 2], 0.0, 0.06)
    bust = figure.bust * np.exp(-((inner / 0.050) ** 2) - ((y - 1.262) / 0.055) ** 2)
    drop = figure.bust * 0.8 * np.exp(-((inner / 0.055) ** 2) - ((y - 1.20) / 0.055) ** 2) if is_cloth else 0.0
    belly = figure.belly * np.exp(-((p[:, 0] / 0.12) ** 2) - ((y - 1.02) / 0.10) ** 2)
    depth = 1.0 + (figure.depth - 1.0) * (1.0 - smoothstep(y, 1.38, 1.47))
    trunk = np.stack([p[:, 0] * _widths(figure, y), y, p[:, 2] * depth + front * (bust + drop + belly)], 1)
    side = np.where(p[:, :1] < 0, MIRROR, 1.0)
    local = arm_coordinates(p) * np.array([figure.reach, figure.limbs, figure.limbs])
    arm = (shoulder_of(figure) + local @ REST_FRAME.T) * side
    share = arm_share(p)[:, None]
    return trunk * (1.0 - share) + arm * share


def shoulder_of(figure: Figure) -> Array:
    """The left shoulder joint of a figure."""
    return SHOULDER * np.array([figure.shoulders, 1.0, 1.0])


def skin_weights(p: Array) -> Array:
    """(n, len(BONES)) weights of rest positions, rows summing to one."""
    y, arm = p[:, 1], arm_share(p)
    along = arm_coordinates(p)[:, 0]
    chest, head = smoothstep(y, 0.96, 1.20), smoothstep(y, 1.47, 1.545)
    neck = smoothstep(y, 1.425, 1.49)
    fore, hand = smoothstep(along, UPPER_ARM - 0.04, UPPER_ARM + 0.04), np.zeros(len(p))
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


def rotation(axis: Array, angle: float) -> Array:
    """Rodrigues' formula about a unit axis."""
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0.0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)


def _about(point: Array, turn: Array) -> Array:
    """Affine map (4, 4) that turns about `point`."""
    m = np.eye(4)
    m[:3, :3], m[:3, 3] = turn, point - turn @ point
    return m


def _unit(v: Array) -> Array:
    return v / np.linalg.norm(v)


def _swing(a: Array, b: Array) -> Array:
    """The smallest rotation that takes unit a to unit b."""
    axis = np.cross(a, b)
    sine = np.linalg.norm(axis)
    return rotation(axis / sine, np.arctan2(sine, a @ b)) if sine > 1e-8 else np.eye(3)


def solve_arm(arm: Arm, figure: Figure) -> tuple[Array, Array, Array]:
    """Shoulder, elbow and wrist of a left arm in the chest's frame: two-bone inverse kinematics."""
    upper, fore = UPPER_ARM * figure.reach, FOREARM * figure.reach
    rest, wrist = shoulder_of(figure), np.array(arm.wrist)
    raised = np.clip((wrist[1] - rest[1] + 0.15) / 0.5, 0.0, 1.0)
    shoulder = rest + raised * np.array([-0.018, 0.030, 0.0]) - (1 - raised) * np.array([0.010, 0.014, 0.0])
    reach = wrist - shoulder
    distance = np.clip(np.linalg.norm(reach), 0.16, 0.992 * (upper + fore))
    direction = _unit(reach)
    cosine = (upper**2 + distance**2 - fore**2) / (2 * upper * distance)
    pole = np.array(arm.pole) - np.dot(arm.pole, direction) * direction
    sine = np.sqrt(max(0.0, 1 - cosine**2))
    elbow = shoulder + upper * (cosine * direction + sine * _unit(pole))
    return shoulder, elbow, shoulder + distance * direction


class Skeleton(NamedTuple):
    """Posed bones: affine maps (bones, 3, 4) from the figure's rest position to the world, and joints."""

    maps: Array
    joints: dict[str, Array]

    def apply(self, p: Array, weights: Array) -> Array:
        """Linear blend skinning of deformed rest positions."""
        blended = (weights @ self.maps.reshape(len(self.maps), 12)).reshape(-1, 3, 4)
        return np.einsum("nij,nj->ni", blended[:, :, :3], p) + blended[:, :, 3]

    def carry(self, p: Array, bone: str) -> Array:
        """Deformed rest positions that belong to one bone alone."""
        m = self.maps[BONES.index(bone)]
        return p @ m[:, :3].T + m[:, 3]


def _arm_maps(arm: Arm, figure: Figure) -> tuple[list[Array], dict[str, Array]]:
    """The five bones of a left arm in the chest's frame, and its joints."""
    rest = shoulder_of(figure)
    shoulder, elbow, wrist = solve_arm(arm, figure)
    upper, fore = _unit(elbow - shoulder), _unit(wrist - elbow)
    swing = _swing(ARM_AXIS, upper)
    hinge = np.cross(fore, upper)
    bent = np.linalg.norm(hinge)
    hinge = hinge / bent if bent > 0.08 else swing @ ARM_NORMAL
    across = swing @ ARM_NORMAL
    twist = np.arctan2(np.cross(across, hinge) @ upper, across @ hinge)
    maps = []
    for share in (0.1, 0.55, 1.0):
        m = np.eye(4)
        m[:3, :3] = rotation(upper, share * twist) @ swing
        m[:3, 3] = shoulder - m[:3, :3] @ rest
        maps.append(m)
    frame = np.stack([fore, _unit(hinge - (hinge @ fore) * fore), np.zeros(3)], 1)
    frame[:, 2] = np.cross(frame[:, 0], frame[:, 1])
    rest_elbow = rest + UPPER_ARM * figure.reach * ARM_AXIS
    rest_wrist = rest_elbow + FOREARM * figure.reach * ARM_AXIS
    turn = frame @ REST_FRAME.T
    roll = rotation(fore, arm.hand_roll)
    bend = rotation(frame[:, 2], -arm.hand_bend)
    for rotate, at, origin in ((turn, elbow, rest_elbow), (roll @ bend @ turn, wrist, rest_wrist)):
        m = np.eye(4)
        m[:3, :3], m[:3, 3] = rotate, at - rotate @ origin
        maps.append(m)
    fingers = wrist + HAND * 0.6 * (roll @ bend @ turn @ ARM_AXIS)
    return maps, {"shoulder": shoulder, "elbow": elbow, "wrist": wrist, "hand": fingers}


def build_skeleton(pose: Pose, figure: Figure) -> Skeleton:
    """The posed bones of a figure."""
    x, y, z = np.eye(3)
    pelvis = _about(PELVIS, rotation(y, pose.turn) @ rotation(z, pose.sway))
    chest = pelvis @ _about(BEND, rotation(z, pose.lean) @ rotation(x, pose.bow) @ rotation(y, pose.twist))
    look = rotation(y, pose.head_turn) @ rotation(z, pose.head_tilt) @ rotation(x, pose.head_nod)
    half = rotation(y, 0.5 * pose.head_turn) @ rotation(z, 0.5 * pose.head_tilt) @ rotation(x, 0.5 * pose.head_nod)
    head, neck = chest @ _about(THROAT, look), chest @ _about(THROAT, half)
    left, left_joints = _arm_maps(pose.left, figure)
    right, right_joints = _arm_maps(pose.right, figure)
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    maps = [pelvis, chest, neck, head, *(chest @ m for m in left), *(chest @ flip @ m @ flip for m in right)]
    joints = {f"l_{k}": _move(chest, v) for k, v in left_joints.items()}
    joints |= {f"r_{k}": _move(chest, v * MIRROR) for k, v in right_joints.items()}
    hips = HIP * np.array([figure.hips, 1, 1])
    joints |= {"l_hip": _move(pelvis, hips), "r_hip": _move(pelvis, hips * MIRROR)}
    knee = KNEE * np.array([figure.hips, 1, 1])
    joints |= {"l_knee": _move(pelvis, knee), "r_knee": _move(pelvis, knee * MIRROR)}
    for name, at in (("nose", (0, -0.024, 0.104)), ("l_eye", (0.031, 0.012, 0.082)), ("l_ear", (0.077, -0.006, -0.008)),
                     ("r_eye", (-0.031, 0.012, 0.082)), ("r_ear", (-0.077, -0.006, -0.008))):  # fmt: skip
        joints[name] = _move(head, HEAD + figure.head * np.array(at, float))
    joints["neck"] = 0.5 * (joints["l_shoulder"] + joints["r_shoulder"])
    return Skeleton(np.stack(maps)[:, :3], joints)


def _move(m: Array, p: Array) -> Array:
    return m[:3, :3] @ p + m[:3, 3]


def hand_positions(p: Array, figure: Figure) -> Array:
    """Vertices of the hand mesh (arm coordinates about the wrist) at the left wrist in the rest pose."""
    wrist = shoulder_of(figure) + (UPPER_ARM + FOREARM) * figure.reach * ARM_AXIS
    scale = np.array([1.0, 0.5 + 0.5 * figure.limbs, 0.5 + 0.5 * figure.limbs])
    return wrist + (p * scale) @ REST_FRAME.T


