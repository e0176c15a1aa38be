"""The self-check finds every kind of lie: one planted violation per check."""

from dataclasses import replace

import numpy as np
import pytest

from drape.mannequin import make_sample
from drape.mannequin.check import AT_LEAST, LIMITS, WARP_MEAN, Finding, Stored, Truth, check_sample, draw_again

SIZE, SEED, INDEX = (128, 96), 3, 4
Both = tuple[Stored, Truth]


@pytest.fixture(scope="module")
def truth() -> Both:
    sample = make_sample(SEED, INDEX, SIZE)
    stored = Stored(
        image=sample.image.astype(float),
        agnostic=sample.agnostic.astype(float),
        counterfactual=sample.counterfactual.astype(float),
        mask=sample.agnostic_mask,
        parse=sample.parse,
        densepose=sample.densepose,
        warp=sample.warp.astype(np.float32),
        counterfactual_warp=sample.counterfactual_warp.astype(np.float32),
        joints=sample.joints,
        cloth=sample.cloth.astype(float),
        cloth_mask=sample.cloth_mask,
    )
    return stored, draw_again(SEED, "train", INDEX, SIZE, (), INDEX + 1)


def failing(truth: Both, **changes: np.ndarray) -> set[str]:
    """Names of the checks that a sample with these changes fails."""
    values = check_sample(replace(truth[0], **changes), truth[1])
    assert values.keys() == LIMITS.keys()
    limits = LIMITS | {"warp reproduces the cloth": 2 * WARP_MEAN}  # the promise is about the mean over many samples
    found = [Finding(k, v, limits[k], "", at_least=k in AT_LEAST) for k, v in values.items()]
    return {finding.name for finding in found if not finding.is_ok}


def test_an_honest_sample_passes(truth: Both) -> None:
    assert failing(truth) == set()


def test_another_picture_is_not_the_person(truth: Both) -> None:
    assert "image is the person" in failing(truth, image=truth[0].image[:, ::-1])


def test_a_changed_pixel_outside_the_mask_is_found(truth: Both) -> None:
    agnostic = truth[0].agnostic.copy()
    row, column = np.argwhere(~truth[0].mask)[40]
    agnostic[row, column] += 40
    assert failing(truth, agnostic=agnostic) == {"agnostic = image, worst pixel"}
    assert "agnostic = image outside" in failing(truth, agnostic=truth[0].agnostic + 3)


def test_cloth_left_inside_the_mask_is_found(truth: Both) -> None:
    assert failing(truth, agnostic=truth[0].image) == {"agnostic is gray inside"}


def test_a_single_pixel_of_old_cloth_outside_the_mask_is_found(truth: Both) -> None:
    mask, agnostic = truth[0].mask.copy(), truth[0].agnostic.copy()
    row, column = np.argwhere(truth[1].view.cloth_share > 0)[100]
    mask[row, column] = False
    agnostic[row, column] = truth[0].image[row, column]
    assert failing(truth, mask=mask, agnostic=agnostic) == {
        "old cloth outside the mask",
        "cloth label outside the mask",
    }


def test_a_hand_labelled_hand_where_cloth_shines_through_is_still_found(
    truth: Both,
) -> None:
    mixed = np.argwhere((truth[1].view.cloth_share > 0) & (truth[1].view.cloth_share < 0.5))[3]
    mask, agnostic, parse = truth[0].mask.copy(), truth[0].agnostic.copy(), truth[0].parse.copy()
    mask[tuple(mixed)], parse[tuple(mixed)] = False, 14
    agnostic[tuple(mixed)] = truth[0].image[tuple(mixed)]
    assert failing(truth, mask=mask, agnostic=agnostic, parse=parse) == {"old cloth outside the mask"}


def test_a_warp_that_is_four_pixels_off_is_found(truth: Both) -> None:
    assert failing(truth, warp=truth[0].warp + 4 / 96) == {"warp is as drawn", "warp reproduces the cloth"}


@pytest.mark.parametrize("name", ["warp", "counterfactual_warp"])
def test_a_warp_of_nothing_or_of_a_part_is_found(truth: Both, name: str) -> None:
    check = {"warp": "warp is as drawn", "counterfactual_warp": "other warp is as drawn"}[name]
    empty = np.full_like(truth[0].warp, np.nan)
    assert failing(truth, **{name: empty}) == {check}
    half = getattr(truth[0], name).copy()
    half[:, 48:] = np.nan
    assert failing(truth, **{name: half}) == {check}
    everywhere = np.where(np.isfinite(half), half, np.float32(0.5))
    assert check in failing(truth, **{name: everywhere})


def test_the_warp_of_the_own_cloth_is_not_that_of_the_other(truth: Both) -> None:
    assert "other warp is as drawn" in failing(truth, counterfactual_warp=truth[0].warp)


def test_a_counterfactual_that_is_the_old_person_is_found(truth: Both) -> None:
    assert failing(truth, counterfactual=truth[0].image) == {"counterfactual is as drawn"}


def test_another_cloth_and_a_mask_that_is_not_its_own_are_found(truth: Both) -> None:
    assert failing(truth, cloth=truth[0].cloth[::-1]) == {"cloth is the flat cloth"}
    other = truth[1].other
    assert failing(truth, cloth=other.image * 255, cloth_mask=other.mask >= 0.5) == {
        "cloth is the flat cloth",
        "cloth mask is the cloth's",
    }
    assert failing(truth, cloth_mask=np.zeros_like(truth[0].cloth_mask)) == {"cloth mask is the cloth's"}
    assert failing(truth, cloth_mask=~truth[0].cloth_mask) == {"cloth mask is the cloth's"}


def test_a_counterfactual_with_another_background_is_found(truth: Both) -> None:
    assert "counterfactual = image far" in failing(truth, counterfactual=truth[0].counterfactual + 5)
    changed = truth[0].counterfactual.copy()
    changed[0, 0] += 60
    assert failing(truth, counterfactual=changed) == {"counterfactual, worst pixel"}


def test_joints_of_somebody_else_or_of_nobody_are_found(truth: Both) -> None:
    swapped = truth[0].joints.copy()
    swapped[[2, 3, 4, 5, 6, 7]] = swapped[[5, 6, 7, 2, 3, 4]]
    assert "joints on their limbs" in failing(truth, joints=swapped)
    beside = truth[0].joints.copy()
    beside[5, :2] = 1.0
    assert "joints on the body" in failing(truth, joints=beside)
    assert failing(truth, joints=np.zeros_like(truth[0].joints)) == {"joints are the person's"}
    one_lost = truth[0].joints.copy()
    one_lost[0] = 0
    assert failing(truth, joints=one_lost) == {"joints are the person's"}
