"""Sampling how people stand: turned, leaning, arms down, akimbo, raised, or across the body."""

import numpy as np

from drape.mannequin.rig import Arm, Figure, Pose

ARM_POSES = ("down", "akimbo", "pocket", "belly", "chest", "head", "up", "aside", "behind", "collar")
ARM_ODDS = np.array([0.40, 0.13, 0.10, 0.11, 0.05, 0.05, 0.02, 0.07, 0.03, 0.04])


def sample_figure(rng: np.random.Generator) -> Figure:
    """A figure between slight and stout, from broad-shouldered to wide-hipped."""
    curvy = rng.uniform(0, 1)
    stout = rng.normal(0, 1)
    build = 1.0 + 0.055 * np.clip(stout, -1.5, 2.0)
    return Figure(
        shoulders=float(np.clip(1.05 - 0.11 * curvy + 0.025 * rng.normal() + 0.015 * stout, 0.92, 1.12)),
        waist=float(np.clip(build * (1.06 - 0.13 * curvy) + 0.02 * rng.normal(), 0.88, 1.22)),
        hips=float(np.clip(build * (0.97 + 0.08 * curvy) + 0.02 * rng.normal(), 0.92, 1.18)),
        depth=float(np.clip(build + 0.03 * rng.normal(), 0.90, 1.2)),
        limbs=float(np.clip(build * (1.08 - 0.16 * curvy) + 0.02 * rng.normal(), 0.86, 1.2)),
        reach=float(rng.uniform(0.96, 1.04)),
        bust=float(np.clip(0.050 * (curvy - 0.35) / 0.65 + 0.008 * rng.normal(), 0.0, 0.055)),
        belly=float(np.clip(0.012 * stout + 0.006 * rng.normal(), 0.0, 0.045)),
        head=float(rng.uniform(0.97, 1.04)),
    )


def sample_pose(rng: np.random.Generator, figure: Figure) -> Pose:
    """A standing pose; both arms across the body are placed one above the other."""
    turn = float(np.clip(rng.normal(0, 0.25), -0.61, 0.61))
    sway = float(rng.normal(0, 0.03))
    left, right = (str(rng.choice(ARM_POSES, p=ARM_ODDS)) for _ in range(2))
    if rng.uniform() < 0.35:
        right = left
    both = left in ("belly", "chest") and right in ("belly", "chest")
    return Pose(
        turn=turn,
        sway=sway,
        lean=float(-0.8 * sway + rng.normal(0, 0.05)),
        bow=float(rng.normal(0.01, 0.04)),
        twist=float(rng.normal(0, 0.08)),
        head_turn=float(np.clip(-0.5 * turn + rng.normal(0, 0.18), -0.6, 0.6)),
        head_tilt=float(rng.normal(0, 0.07)),
        head_nod=float(rng.normal(0.03, 0.07)),
        left=_arm(rng, left, figure, 0.0),
        right=_arm(rng, right, figure, 0.055 if both else 0.0),
    )


def _arm(rng: np.random.Generator, kind: str, figure: Figure, raise_z: float) -> Arm:
    """One arm; `raise_z` lifts it off the other one when both lie across the body."""

    def near(*centre: float, spread: float = 0.02) -> tuple[float, float, float]:
        x, y, z = np.array(centre) + rng.normal(0, spread, 3)
        return float(x), float(y), float(z)

    shoulder, hip = 0.168 * figure.shoulders, 0.172 * figure.hips
    front = 0.110 * figure.depth + figure.belly + 0.068 + raise_z
    chest = 0.110 * figure.depth + 0.9 * figure.bust + 0.062 + raise_z
    hang = max(shoulder + 0.055, hip + 0.065)
    if kind == "down":
        spread = float(rng.uniform(0.0, 0.09))
        return Arm(wrist=near(hang + spread, 0.872, 0.03 + 0.5 * spread, spread=0.014), pole=(0.35, 0.0, -1.0),
                   hand_bend=0.1, hand_roll=float(rng.normal(0.25, 0.25)))  # fmt: skip
    if kind == "akimbo":
        return Arm(wrist=near(hip + 0.045, 1.015, 0.035, spread=0.012), pole=near(1.0, 0.0, -0.45, spread=0.1),
                   hand_bend=-0.5, hand_roll=0.3)  # fmt: skip
    if kind == "pocket":
        return Arm(
            wrist=near(hip + 0.035, 0.945, 0.075, spread=0.010), pole=near(1.0, 0.0, -0.7, spread=0.1), hand_bend=0.25
        )
    if kind == "belly":
        return Arm(
            wrist=(*near(0.035, 1.09 + raise_z, front, spread=0.03)[:2], front),
            pole=near(1.0, -0.7, 0.0, spread=0.1),
            hand_bend=0.12,
        )
    if kind == "chest":
        return Arm(
            wrist=(*near(-0.045, 1.185 + 0.6 * raise_z, chest, spread=0.02)[:2], chest),
            pole=near(1.0, -1.0, 0.2, spread=0.1),
        )
    if kind == "head":
        return Arm(wrist=near(0.135, 1.565, 0.0), pole=near(1.0, 0.2, 0.1, spread=0.1), hand_bend=0.5)
    if kind == "up":
        return Arm(wrist=near(0.30, 1.80, 0.05, spread=0.03), pole=(1.0, 0.0, -0.2))
    if kind == "aside":
        return Arm(
            wrist=near(shoulder + 0.28, 1.07, 0.14, spread=0.05), pole=near(0.6, -0.7, -0.5, spread=0.1), hand_bend=0.2
        )
    if kind == "behind":
        return Arm(wrist=near(hip - 0.03, 0.99, -0.175, spread=0.01), pole=(1.0, 0.0, -0.6))
    return Arm(
        wrist=near(0.055, 1.315, chest + 0.01, spread=0.015), pole=near(0.8, -1.0, 0.1, spread=0.1), hand_bend=0.2
    )
