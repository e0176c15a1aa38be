"""Agnostic masks: what must vanish, what must stay, and what must never happen."""

import time

import numpy as np
import pytest

from drape.data import parse_labels as labels
from drape.data.agnostic import (
    agnostic_mask,
    agnostic_mask_dress,
    agnostic_mask_lower,
    agnostic_mask_paper,
    agnostic_mask_v32,
    mask_of_gray,
    parse_agnostic_v32,
)

MASKS = [agnostic_mask, agnostic_mask_v32, agnostic_mask_paper, agnostic_mask_dress]


@pytest.mark.parametrize("mask_of", [*MASKS, parse_agnostic_v32])
def test_neither_parse_nor_joints_are_written_into(mask_of, parse, joints) -> None:
    before = parse.copy(), joints.copy()
    joints.flags.writeable = False
    mask_of(parse, joints)
    assert np.array_equal(parse, before[0])
    assert np.array_equal(joints, before[1])


def test_torso_and_arms_vanish_while_face_hands_and_trousers_stay(parse, joints) -> None:
    hidden = agnostic_mask_v32(parse, joints)
    assert hidden[parse == labels.UPPER].mean() > 0.99
    assert hidden[50, 48] and hidden[56, 28] and hidden[56, 68]  # torso, both elbows
    assert not hidden[parse == labels.FACE].any()
    assert not hidden[parse == labels.PANTS].any()
    assert not hidden[83, 26] and not hidden[83, 70]  # both hands


def test_all_of_the_cloth_vanishes_also_where_strokes_miss_it(parse, joints) -> None:
    wide = parse.copy()
    wide[60:70, 2:90] = labels.UPPER  # sleeves far wider than any stroke
    assert not agnostic_mask_v32(wide, joints)[wide == labels.UPPER].all()
    assert agnostic_mask(wide, joints)[wide == labels.UPPER].all()
    assert agnostic_mask_paper(wide, joints)[wide == labels.UPPER].all()


def test_the_parse_loses_cloth_neck_and_arms_but_not_hands(parse, joints) -> None:
    left = parse_agnostic_v32(parse, joints)
    assert not np.isin(left, [*labels.UPPER_CLOTHES, labels.NECK]).any()
    assert left[56, 28] == 0 and left[56, 68] == 0
    assert left[83, 26] == labels.RIGHT_ARM and left[83, 70] == labels.LEFT_ARM
    kept = ~np.isin(parse, [*labels.UPPER_CLOTHES, labels.NECK, labels.LEFT_ARM, labels.RIGHT_ARM])
    assert np.array_equal(left[kept], parse[kept])


def test_the_papers_mask_is_the_box_of_the_person_without_head_hands_and_lower_body(parse, joints) -> None:
    hidden = agnostic_mask_paper(parse, joints)
    rows, columns = np.nonzero(parse)
    box = np.zeros_like(hidden)
    box[rows.min() - 1 : rows.max() + 2, columns.min() - 1 : columns.max() + 2] = True  # a pixel of margin at this size
    stays = np.isin(parse, [*labels.HEAD, *labels.LOWER_BODY])
    assert not hidden[~box | stays].any()
    background = box & (parse == labels.BACKGROUND)
    assert hidden[background].all()
    assert not hidden[83, 26] and not hidden[83, 70]


def test_an_empty_parse_gives_an_empty_papers_mask(joints) -> None:
    assert not agnostic_mask_paper(np.zeros((128, 96), np.uint8), joints).any()


@pytest.mark.parametrize("missing", [(9, 12, 8), (9, 12), (9,), (12,), (9, 8), (1,), (4, 7), (3, 6), (2,)])
def test_missing_joints_still_give_a_mask_that_covers_the_cloth(missing, parse, joints) -> None:
    joints[list(missing)] = 0.0
    with np.errstate(all="raise"):  # both hips missing must not divide by zero
        hidden = agnostic_mask_v32(parse, joints)
    assert hidden[parse == labels.UPPER].mean() > 0.95
    assert not hidden[parse == labels.FACE].any()


@pytest.mark.parametrize("missing", [(2, 5), (2, 1), tuple(range(25))])
def test_without_shoulders_more_is_hidden_not_less(missing, parse, joints) -> None:
    joints[list(missing)] = 0.0
    hidden = agnostic_mask_v32(parse, joints)
    assert np.array_equal(hidden, agnostic_mask_paper(parse, joints))
    assert hidden[parse == labels.UPPER].all()


def test_an_arm_without_a_wrist_keeps_no_hand(parse, joints) -> None:
    joints[4] = 0.0
    hidden = agnostic_mask_paper(parse, joints)
    assert hidden[parse == labels.RIGHT_ARM].all()
    assert not hidden[83, 70]
    assert not (parse_agnostic_v32(parse, joints) == labels.RIGHT_ARM).any()


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_joint_that_is_not_finite_counts_as_missing(poison, parse, joints) -> None:
    missing = joints.copy()
    missing[3] = 0.0
    joints[3] = poison, poison, 0.9
    assert np.array_equal(agnostic_mask_v32(parse, joints), agnostic_mask_v32(parse, missing))


def test_joints_far_outside_the_image_are_drawn_off_stage(parse, joints) -> None:
    joints[4, :2] = -500.0, 900.0
    assert agnostic_mask_v32(parse, joints).shape == parse.shape


def test_shoulders_in_one_point_are_no_torso(parse, joints) -> None:
    joints[5] = joints[2]
    assert np.array_equal(agnostic_mask_v32(parse, joints), agnostic_mask_paper(parse, joints))


def test_the_same_person_is_hidden_alike_at_any_size(parse, joints) -> None:
    small = agnostic_mask_v32(parse, joints)
    large_joints = joints * [4, 4, 1]
    large = agnostic_mask_v32(parse.repeat(4, axis=0).repeat(4, axis=1), large_joints)
    shrunk = large.reshape(128, 4, 96, 4).mean(axis=(1, 3)) > 0.5
    assert (shrunk & small).sum() / (shrunk | small).sum() > 0.95


def test_a_lower_body_vanishes_in_its_box_while_the_top_stays(parse) -> None:
    hidden = agnostic_mask_lower(parse)
    assert hidden[parse == labels.PANTS].all()
    assert not hidden[parse == labels.UPPER].any()
    assert not hidden[np.isin(parse, [labels.LEFT_ARM, labels.RIGHT_ARM])].any()


def test_a_dress_vanishes_whole_while_head_and_hands_stay(parse, joints) -> None:
    dressed = np.where(np.isin(parse, [labels.UPPER, labels.PANTS]), np.uint8(labels.DRESS), parse)
    hidden = agnostic_mask_dress(dressed, joints)
    assert hidden[dressed == labels.DRESS].all()
    assert not hidden[np.isin(dressed, labels.HEAD)].any()
    assert not hidden[83, 26]


def test_the_mask_is_found_again_in_a_gray_image(parse, joints) -> None:
    mask = agnostic_mask_v32(parse.repeat(4, axis=0).repeat(4, axis=1), joints * [4, 4, 1])
    rgb = np.random.default_rng(0).integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    noise = np.random.default_rng(1).integers(-6, 7, rgb.shape)
    gray = np.where(mask[..., None], 128 + noise, rgb).astype(np.uint8)
    found = mask_of_gray(gray)
    assert (found & mask).sum() / (found | mask).sum() > 0.95


def test_both_agnostics_of_a_small_sample_take_under_four_milliseconds(parse, joints) -> None:
    def once() -> float:
        start = time.perf_counter()
        agnostic_mask_v32(parse, joints)
        parse_agnostic_v32(parse, joints)
        return time.perf_counter() - start

    assert min(once() for _ in range(20)) < 4e-3  # the best of many: other work on the machine is not our slowness
