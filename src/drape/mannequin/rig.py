"""Shape and pose: from the rest pose to the person in the picture.

Every vertex of body and clothes is a rest position.  `Skeleton.place` gives it the person's figure and moves
it with the bones that carry it; both depend on the position alone, so cloth follows the body.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numba
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
from drape.mannequin.rest import BONES, REST_FRAME, Rest

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


def shoulder_of(figure: Figure) -> Array:
    """The left shoulder joint of a figure."""
    return SHOULDER * np.array([figure.shoulders, 1.0, 1.0])


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
    return rotation(axis / sine, float(np.arctan2(sine, a @ b))) if sine > 1e-8 else np.eye(3)


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

    def place(self, rest: Rest, figure: Figure, *, is_cloth: bool = False) -> Array:
        """World positions (n, 3) of rest positions; cloth spans the hollow between the breasts."""
        sizes = np.array([figure.depth, figure.reach, figure.limbs, figure.bust, figure.belly, figure.shoulders])
        return _place(
            rest.p,
            rest.share,
            rest.arm,
            rest.weights,
            self.maps,
            _widths(figure),
            sizes,
            REST_FRAME,
            SHOULDER,
            is_cloth,
        )

    def carry(self, p: Array, bone: str) -> Array:
        """Deformed rest positions that belong to one bone alone."""
        m = self.maps[BONES.index(bone)]
        return p @ m[:, :3].T + m[:, 3]


def _widths(figure: Figure) -> Array:
    """Factors of the trunk's width at heights 0.4, 0.41, ... 1.7."""
    knots = np.array([0.5, 0.80, 0.90, 1.06, 1.24, 1.36, 1.46, 1.5])
    values = [figure.hips, figure.hips, figure.hips, figure.waist, 0.4 * figure.waist + 0.6 * figure.shoulders]
    return smooth_profile(np.linspace(0.4, 1.7, 131), knots, np.array([*values, figure.shoulders, 1.0, 1.0]))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _place(
    p: np.ndarray,
    share: np.ndarray,
    arm: np.ndarray,
    weights: np.ndarray,
    maps: np.ndarray,
    widths: np.ndarray,
    sizes: np.ndarray,
    frame: np.ndarray,
    shoulder: np.ndarray,
    is_cloth: bool,
) -> np.ndarray:
    """The figure's proportions, then linear blend skinning, vertex by vertex."""
    depth, reach, limbs, bust, belly, shoulders = sizes
    result = np.zeros(p.shape)
    q = np.zeros(3)
    for i in range(p.shape[0]):
        x, y, z = p[i]
        at = min(max((y - 0.4) * 100.0, 0.0), 129.999)
        k = int(at)
        q[0] = x * (widths[k] + (at - k) * (widths[k + 1] - widths[k]))
        q[1] = y
        high = min(max((y - 1.38) / 0.09, 0.0), 1.0)
        q[2] = z * (1.0 + (depth - 1.0) * (1.0 - high * high * (3.0 - 2.0 * high)))
        if z > 0.0 and share[i] < 1.0:
            front = min(z / 0.06, 1.0)
            front = front * front * (3.0 - 2.0 * front)
            inner = max(abs(x) - 0.078, 0.0) if is_cloth else abs(x) - 0.078
            swell = bust * np.exp(-((inner / 0.050) ** 2) - ((y - 1.262) / 0.055) ** 2)
            if is_cloth:
                swell += 0.8 * bust * np.exp(-((inner / 0.055) ** 2) - ((y - 1.20) / 0.055) ** 2)
            q[2] += front * (swell + belly * np.exp(-((x / 0.12) ** 2) - ((y - 1.02) / 0.10) ** 2))
        if share[i] > 0.0:
            a, n, f = arm[i, 0] * reach, arm[i, 1] * limbs, arm[i, 2] * limbs
            for j in range(3):
                limb = (
                    shoulder[j] * (shoulders if j == 0 else 1.0) + frame[j, 0] * a + frame[j, 1] * n + frame[j, 2] * f
                )
                limb = -limb if j == 0 and x < 0 else limb
                q[j] += share[i] * (limb - q[j])
        for b in range(weights.shape[1]):
            w = weights[i, b]
            if w > 0.0:
                for j in range(3):
                    result[i, j] += w * (
                        maps[b, j, 0] * q[0] + maps[b, j, 1] * q[1] + maps[b, j, 2] * q[2] + maps[b, j, 3]
                    )
    return result


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
    twist = float(np.arctan2(np.cross(across, hinge) @ upper, across @ hinge))
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
