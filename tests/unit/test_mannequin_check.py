"""The self-check finds every kind of lie: one planted violation per check."""

from dataclasses import replace

import numpy as np
import pytest

from drape.mannequin import make_cloth, make_person, make_sample, render_person_in
from drape.mannequin.check import LIMITS, WARP_MEAN, Finding, Stored, check_sample
from drape.mannequin.flat import lay_flat
from drape.mannequin.render import View

SIZE, SEED, INDEX, REACH = (128, 96), 3, 4, 14


@pytest.fixture(scope="module")
def truth() -> tuple[Stored, View, View, np.ndarray]:
    sample = make_sample(SEED, INDEX, SIZE)
    person, cloth = make_person(SEED, INDEX), make_cloth(SEED, INDEX)
    view = render_person_in(person, cloth, SIZE)
    swapped = render_person_in(person, make_cloth(SEED, INDEX + 1), SIZE)
    stored = Stored(
        image=sample.image.astype(float),
        agnostic=sample.agnostic.astype(float),
        counterfactual=sample.counterfactual.astype(float),
        mask=sample.agnostic_mask,
        parse=sample.parse,
        densepose=sample.densepose,
        warp=sample.warp.astype(np.float32),
        joints=sample.joints,
    )
    return stored, view, swapped, lay_flat(cloth, SIZE).albedo


def failing(truth: tuple[Stored, View, View, np.ndarray], **changes: np.ndarray) -> set[str]:
    """Names of the checks that a sample with these changes fails."""
    stored, view, swapped, texture = truth
    values = check_sample(replace(stored, **changes), view, swapped, texture, REACH)
    assert values.keys() == LIMITS.keys()
    limits = LIMITS | {"warp reproduces the cloth": 2 * WARP_MEAN}  # the promise is about the mean over many samples
    found = [Finding(k, v, limits[k], "", at_least=k.startswith("joints")) for k, v in values.items()]
    return {finding.name for finding in found if not finding.is_ok}


def test_an_honest_sample_passes(truth: tuple[Stored, View, View, np.ndarray]) -> None:
    assert failing(truth) == set()


def test_another_picture_is_not_the_person(truth: tuple[Stored, View, View, np.ndarray]) -> None:
    assert "image is the person" in failing(truth, image=truth[0].image[:, ::-1])


def test_a_changed_pixel_outside_the_mask_is_found(truth: tuple[Stored, View, View, np.ndarray]) -> None:
    agnostic = truth[0].agnostic.copy()
    row, column = np.argwhere(~truth[0].mask)[40]
    agnostic[row, column] += 40
    assert failing(truth, agnostic=agnostic) == {"agnostic = image, worst pixel"}
    assert "agnostic = image outside" in failing(truth, agnostic=truth[0].agnostic + 3)


def test_cloth_left_inside_the_mask_is_found(truth: tuple[Stored, View, View, np.ndarray]) -> None:
    assert failing(truth, agnostic=truth[0].image) == {"agnostic is gray inside"}


def test_a_single_pixel_of_old_cloth_outside_the_mask_is_found(truth: tuple[Stored, View, View, np.ndarray]) -> None:
    mask, agnostic = truth[0].mask.copy(), truth[0].agnostic.copy()
    row, column = np.argwhere(truth[1].cloth_share > 0)[100]
    mask[row, column] = False
    agnostic[row, column] = truth[0].image[row, column]
    assert failing(truth, mask=mask, agnostic=agnostic) == {
        "old cloth outside the mask",
        "cloth label outside the mask",
    }


def test_a_hand_labelled_hand_where_cloth_shines_through_is_still_found(
    truth: tuple[Stored, View, View, np.ndarray],
) -> None:
    mixed = np.argwhere((truth[1].cloth_share > 0) & (truth[1].cloth_share < 0.5))[3]
    mask, agnostic, parse = truth[0].mask.copy(), truth[0].agnostic.copy(), truth[0].parse.copy()
    mask[tuple(mixed)], parse[tuple(mixed)] = False, 14
    agnostic[tuple(mixed)] = truth[0].image[tuple(mixed)]
    assert failing(truth, mask=mask, agnostic=agnostic, parse=parse) == {"old cloth outside the mask"}


def test_a_warp_that_is_four_pixels_off_is_found(truth: tuple[Stored, View, View, np.ndarray]) -> None:
    assert failing(truth, warp=truth[0].warp + 4 / 96) == {"warp reproduces the cloth"}


def test_a_counterfactual_with_another_background_is_found(truth: tuple[Stored, View, View, np.ndarray]) -> None:
    assert "counterfactual = image far" in failing(truth, counterfactual=truth[0].counterfactual + 5)
    changed = truth[0].counterfactual.copy()
    changed[0, 0] += 60
    assert failing(truth, counterfactual=changed) == {"counterfactual, worst pixel"}


def test_joints_of_somebody_else_are_found(truth: tuple[Stored, View, View, np.ndarray]) -> None:
    swapped = truth[0].joints.copy()
    swapped[[2, 3, 4, 5, 6, 7]] = swapped[[5, 6, 7, 2, 3, 4]]
    assert "joints on their limbs" in failing(truth, joints=swapped)
    beside = truth[0].joints.copy()
    beside[5, :2] = 1.0
    assert "joints on the body" in failing(truth, joints=beside)
