"""Figures, poses and bones."""

from dataclasses import replace

import numpy as np
import pytest

from drape.mannequin.anatomy import FOREARM, UPPER_ARM
from drape.mannequin.poses import ARM_ODDS, ARM_POSES, sample_figure, sample_pose
from drape.mannequin.rest import arm_share, facts_of
from drape.mannequin.rig import Arm, Figure, Pose, build_skeleton, shoulder_of, solve_arm
from drape.mannequin.seeds import stream

SEEDS = range(40)
HANGING = Arm(wrist=(0.25, 0.88, 0.05), pole=(0.3, 0.0, -1.0))


def still() -> Pose:
    return Pose(left=HANGING, right=HANGING)


def test_a_stream_depends_on_its_keys_and_nothing_else() -> None:
    assert stream(1, "a", 2).integers(2**60) == stream(1, "a", 2).integers(2**60)
    assert len({int(stream(*keys).integers(2**60)) for keys in ((1, "a"), (1, "b"), (2, "a"), ("1a",))}) == 4
    assert int(stream("drape").integers(2**32)) == 1853665318, "the digest must never change"


@pytest.mark.parametrize("part", ["body", "top", "lower", "skirt"])
def test_the_bones_share_every_vertex_whole(part: str) -> None:
    weights = facts_of(part).weights
    assert np.allclose(weights.sum(1), 1.0)
    assert weights.min() >= 0.0


def test_the_odds_of_the_arm_poses_are_probabilities() -> None:
    assert len(ARM_ODDS) == len(ARM_POSES)
    assert ARM_ODDS.sum() == pytest.approx(1.0)


def test_hips_and_head_belong_to_no_arm_and_hands_to_an_arm_alone() -> None:
    p = np.array([[0.17, 0.92, 0.0], [0.0, 1.5, 0.0], [0.58, 1.03, 0.0], [-0.58, 1.03, 0.0]])
    assert np.allclose(arm_share(p), [0, 0, 1, 1])


@pytest.mark.parametrize("seed", SEEDS)
def test_an_arm_keeps_its_length_and_reaches_where_it_can(seed: int) -> None:
    figure = sample_figure(stream(seed))
    arm = sample_pose(stream(seed, "pose"), figure).left
    shoulder, elbow, wrist = solve_arm(arm, figure)
    assert np.linalg.norm(elbow - shoulder) == pytest.approx(UPPER_ARM * figure.reach, abs=1e-9)
    assert np.linalg.norm(wrist - elbow) == pytest.approx(FOREARM * figure.reach, abs=1e-9)
    wanted = np.array(arm.wrist)
    far = np.linalg.norm(wanted - shoulder)
    if 0.16 < far < 0.99 * (UPPER_ARM + FOREARM) * figure.reach:
        assert np.allclose(wrist, wanted, atol=1e-9)


def test_the_mirrored_pose_is_the_mirrored_person() -> None:
    figure = Figure(bust=0.03, waist=0.95)
    raised = replace(HANGING, wrist=(0.3, 1.7, 0.05))
    one = build_skeleton(Pose(left=raised, right=HANGING, turn=0.3, sway=0.05, lean=-0.04), figure)
    two = build_skeleton(Pose(left=HANGING, right=raised, turn=-0.3, sway=-0.05, lean=0.04), figure)
    for name, joint in one.joints.items():
        other = {"l": "r", "r": "l"}.get(name[0]) if name[1] == "_" else None
        assert np.allclose(joint * [-1, 1, 1], two.joints[f"{other}{name[1:]}" if other else name], atol=1e-9)


def test_joints_lie_inside_the_limbs_they_move() -> None:
    skeleton, rest = build_skeleton(still(), Figure()), facts_of("body")
    world = skeleton.place(rest, Figure())
    for name, low, high in (("l_elbow", 0.03, 0.045), ("l_wrist", 0.018, 0.035), ("r_elbow", 0.03, 0.045)):
        distance = np.linalg.norm(world - skeleton.joints[name], axis=1)
        assert low < distance.min() < high, name


def test_a_turn_rotates_and_a_figure_of_ones_changes_no_limb_length() -> None:
    rest = facts_of("body")
    front = build_skeleton(still(), Figure()).place(rest, Figure())
    turned = build_skeleton(replace(still(), turn=0.5), Figure()).place(rest, Figure())
    c, s = np.cos(0.5), np.sin(0.5)
    assert np.allclose(front @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]), turned, atol=1e-9)


def test_wider_hips_widen_the_hips_and_not_the_shoulders() -> None:
    rest, skeleton = facts_of("lower"), build_skeleton(still(), Figure())
    wide = skeleton.place(rest, Figure(hips=1.1))
    assert np.ptp(wide[:, 0]) / np.ptp(skeleton.place(rest, Figure())[:, 0]) == pytest.approx(1.1, abs=0.01)
    assert np.allclose(shoulder_of(Figure(hips=1.1)), shoulder_of(Figure()))


def test_cloth_spans_the_hollow_between_the_breasts() -> None:
    rest, skeleton, curvy = facts_of("top"), build_skeleton(still(), Figure()), Figure(bust=0.05)
    between = np.linalg.norm(rest.p - [0.0, 1.262, 0.13], axis=1).argmin()
    cloth, skin = (skeleton.place(rest, curvy, is_cloth=is_cloth)[between, 2] for is_cloth in (True, False))
    assert cloth > skin + 0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_people_stay_human(seed: int) -> None:
    figure = sample_figure(stream(seed, "figure"))
    pose = sample_pose(stream(seed, "pose"), figure)
    assert abs(pose.turn) <= np.deg2rad(35.1)
    assert 0.9 <= figure.shoulders <= 1.13
    assert 0.85 <= figure.waist <= 1.23
