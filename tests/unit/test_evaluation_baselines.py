"""The baselines without learning, on little scenes whose right answer is drawn by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from drape.data.sample import TryOnSample
from drape.data.transforms import to_signed
from drape.errors import DataError
from drape.evaluation.baselines import covered_parts, mean_colour, shape_context, spline, true_warp, warped_cloth
from drape.evaluation.densepose import LOWER_ARMS, TORSO, UPPER_ARMS, body_parts, palette

WALL, SKIN, RED, BLUE = (0.5, 0.6, 0.7), (0.4, 0.1, -0.1), (0.9, -0.8, -0.8), (-0.8, -0.8, 0.9)


def colour(rgb):
    return torch.tensor(rgb).reshape(3, 1, 1)


def scene(size=(96, 72)):
    """A head, a trunk and two arms before a wall; a flat cloth, its upper half red and its lower half blue."""
    parts = np.zeros(size, np.uint8)
    parts[8:28, 28:44] = 23
    parts[28:72, 20:52] = 1
    parts[28:68, 10:20], parts[28:68, 52:62] = 15, 16
    densepose = to_signed(torch.from_numpy(palette()[parts].copy()).permute(2, 0, 1))
    mask = torch.zeros(1, *size)
    mask[:, 26:76, 6:66] = 1
    person = torch.where(torch.from_numpy(parts > 0), colour(SKIN), colour(WALL))
    cloth_mask = torch.zeros(1, *size)
    cloth_mask[:, 20:80, 16:56] = 1
    halves = torch.where(torch.arange(size[0])[:, None] < 50, colour(RED), colour(BLUE))
    return TryOnSample(
        cloth=torch.where(cloth_mask.bool(), halves, 1.0),
        cloth_mask=cloth_mask,
        agnostic=person * (1 - mask),
        agnostic_mask=mask,
        densepose=densepose,
        person_id="p",
        cloth_id="c",
        source="test",
        licence="CC0",
        cloth_kind="flat",
    )


def shirt(sleeve, size=(96, 96)):
    """Silhouette of a flat cloth with sleeves of a given length hanging at its sides."""
    mask = np.zeros(size, bool)
    mask[16:80, 34:62] = True
    mask[16 : 16 + sleeve, 22:32] = mask[16 : 16 + sleeve, 64:74] = True
    mask[16 : 16 + min(sleeve, 10), 22:74] = True
    return mask


def test_mean_colour_paints_the_mask_and_only_the_mask():
    sample = scene()
    found = mean_colour(sample)
    inside = sample.agnostic_mask[0].bool()
    mean = (torch.tensor(RED) + torch.tensor(BLUE)) / 2
    torch.testing.assert_close(found[:, inside], mean[:, None].expand(3, int(inside.sum())))
    assert torch.equal(found[:, ~inside], sample.agnostic[:, ~inside])


def test_mean_colour_does_not_see_the_background_of_the_cloth():
    sample = scene()
    other = replace(sample, cloth=torch.where(sample.cloth_mask.bool(), sample.cloth, -1.0))
    assert torch.equal(mean_colour(sample), mean_colour(other))


def test_the_warped_cloth_covers_the_trunk_from_collar_to_hem():
    found = warped_cloth(scene())
    for row, rgb in ((32, RED), (45, RED), (55, BLUE), (68, BLUE)):
        for column in (24, 36, 48):
            assert found[:, row, column].tolist() == pytest.approx(rgb, abs=0.1), (row, column)


def test_what_the_warped_cloth_leaves_bare_is_skin_and_wall():
    found = warped_cloth(scene())
    for row, column in ((40, 14), (60, 57)):  # arms: this cloth has no sleeves
        assert found[:, row, column].tolist() == pytest.approx(SKIN)
    for row, column in ((40, 7), (40, 64), (74, 36)):
        assert found[:, row, column].tolist() == pytest.approx(WALL)


def test_the_warped_cloth_leaves_everything_outside_the_mask_alone():
    sample = scene()
    before = sample.agnostic.clone()
    outside = ~sample.agnostic_mask[0].bool()
    assert torch.equal(warped_cloth(sample)[:, outside], sample.agnostic[:, outside])
    assert torch.equal(sample.agnostic, before)


def test_the_warped_cloth_never_wears_the_background_of_the_cloth():
    sample = scene()
    other = replace(sample, cloth=torch.where(sample.cloth_mask.bool(), sample.cloth, -1.0))
    assert torch.equal(warped_cloth(sample), warped_cloth(other))


def test_sleeves_cover_the_arms_as_far_as_the_silhouette_says():
    assert covered_parts(shirt(0)) == TORSO
    assert covered_parts(shirt(18)) == (*TORSO, *UPPER_ARMS)
    assert covered_parts(shirt(60)) == (*TORSO, *UPPER_ARMS, *LOWER_ARMS)


def test_a_person_without_a_visible_trunk_is_left_undressed():
    sample = scene()
    empty = replace(sample, densepose=torch.full_like(sample.densepose, -1.0))
    found = warped_cloth(empty)
    assert found.isfinite().all()
    assert found[:, 40, 36].tolist() == pytest.approx(WALL, abs=1.2)  # whatever is near, but no cloth
    assert not torch.allclose(found[:, 40, 36], torch.tensor(RED), atol=0.2)


def test_a_field_that_was_not_read_is_named():
    with pytest.raises(DataError, match=r"densepose.*Ask the reader"):
        warped_cloth(replace(scene(), densepose=None))


def test_true_warp_shows_the_cloth_where_there_is_one_and_the_truth_elsewhere():
    truth, cloth = torch.rand(3, 12, 9), torch.rand(3, 24, 18)
    y, x = torch.meshgrid((torch.arange(12) * 2 + 0.5) / 24, (torch.arange(9) * 2 + 0.5) / 18, indexing="ij")
    warp = torch.stack([x, y])
    warp[:, 6:] = float("nan")
    found = true_warp(truth, cloth, torch.ones(1, 24, 18), warp)
    torch.testing.assert_close(found[:, 1:6, 1:], cloth[:, 2:12:2, 2::2])  # the rim of the cloth is left out
    assert torch.equal(found[:, 6:], truth[:, 6:])


def test_true_warp_never_shows_the_background_of_the_cloth():
    truth, cloth, mask = torch.zeros(3, 12, 9), torch.ones(3, 24, 18), torch.zeros(1, 24, 18)
    mask[:, 4:20, 4:14] = 1
    cloth[:, 4:20, 4:14] = -0.5
    found = true_warp(truth, cloth, mask, torch.rand(2, 12, 9))
    torch.testing.assert_close(found, torch.full_like(found, -0.5))


def test_shape_context_ignores_position_and_size():
    points = np.random.default_rng(0).normal(size=(40, 2))
    context = shape_context(points)
    np.testing.assert_allclose(context, shape_context(points * 7 + 3), atol=1e-12)
    np.testing.assert_allclose(context.sum(axis=1), 1)
    assert np.abs(context - shape_context(points[:, ::-1])).max() > 0.05


def test_the_spline_undoes_a_stretch_and_a_shift():
    angle = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    source = np.stack([40 + 20 * np.sin(angle) + 4 * np.cos(2 * angle), 30 + 12 * np.cos(angle)], axis=1)
    target = (source - 25) * 1.6 + 10
    inside = np.array([[40.0, 30.0], [35.0, 28.0], [50.0, 33.0]])
    np.testing.assert_allclose(spline(target, source)((inside - 25) * 1.6 + 10), inside, atol=0.2)


def test_every_part_is_found_again_by_its_colour_also_after_compression():
    parts = np.arange(25, dtype=np.uint8).repeat(4).reshape(10, 10)
    image = to_signed(torch.from_numpy(palette()[parts].copy()).permute(2, 0, 1))
    assert np.array_equal(body_parts(image), parts)
    noisy = image + 0.02 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    assert (np.abs(body_parts(noisy).astype(int) - parts) <= 1).all()


def test_the_palette_is_the_one_measured_on_viton_hd():
    for part, rgb in ((1, (37, 60, 163)), (10, (22, 173, 185)), (15, (145, 191, 116)), (24, (249, 251, 14))):
        assert np.abs(palette()[part].astype(int) - rgb).max() <= 3
