"""Metrics inside a mask, against values worked out independently."""

import math

import pytest
import torch

from drape.evaluation.metrics import colour_error, psnr, ssim, swap_change


def noise(seed, batch=2, size=(24, 18)):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def left_half(batch=2, size=(24, 18)):
    mask = torch.zeros(batch, 1, *size)
    mask[..., : size[1] // 2] = 1
    return mask


def flat(*rgb, size=(24, 18)):
    """One image of a single colour given as sRGB bytes."""
    return (torch.tensor(rgb).reshape(1, 3, 1, 1) / 127.5 - 1).expand(1, 3, *size)


def test_psnr_of_an_error_of_one_tenth_of_the_range_is_20_db():
    truth, everywhere = noise(0) * 0.5, torch.ones(2, 1, 24, 18)
    assert psnr(truth + 0.2, truth, everywhere).tolist() == pytest.approx([20, 20], abs=1e-4)


def test_psnr_averages_the_squared_error_not_the_decibels():
    truth = torch.zeros(1, 3, 4, 4)
    found = truth.clone()
    found[..., :2] = 1.0  # half of the pixels wrong by half the range: mse 0.5
    assert psnr(found, truth, torch.ones(1, 1, 4, 4)).item() == pytest.approx(10 * math.log10(4 / 0.5), abs=1e-4)


def test_psnr_of_equal_images_is_infinite():
    assert psnr(noise(0), noise(0), left_half()).tolist() == [math.inf, math.inf]


@pytest.mark.parametrize("metric", [psnr, colour_error])
def test_pixels_outside_the_mask_never_count(metric):
    truth, found, mask = noise(0), noise(1), left_half()
    painted = torch.where(mask.bool(), found, 1.0)
    assert torch.equal(metric(found, truth, mask), metric(painted, truth, mask))
    assert not torch.equal(metric(found, truth, 1 - mask), metric(painted, truth, 1 - mask))


def test_ssim_counts_outside_pixels_only_within_its_window():
    truth, found, mask = noise(0, size=(24, 40)), noise(1, size=(24, 40)), torch.zeros(2, 1, 24, 40)
    mask[..., :12] = 1
    far = found.clone()
    far[..., 12 + 6 :] = 1.0  # more than half a window away
    torch.testing.assert_close(ssim(found, truth, mask), ssim(far, truth, mask))


@pytest.mark.parametrize("metric", [psnr, ssim, colour_error])
def test_each_image_is_measured_by_itself(metric):
    truth, found, mask = noise(0), noise(1), left_half()
    mask[1, :, :12] = 0
    alone = torch.cat([metric(found[i : i + 1], truth[i : i + 1], mask[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(metric(found, truth, mask), alone)


@pytest.mark.parametrize("metric", [psnr, ssim, colour_error])
def test_an_empty_mask_is_an_error_that_names_the_image(metric):
    mask = left_half()
    mask[1] = 0
    with pytest.raises(ValueError, match="mask 1 is empty"):
        metric(noise(0), noise(1), mask)


def test_ssim_is_one_for_equal_images_and_near_zero_for_unrelated_noise():
    assert ssim(noise(0), noise(0), left_half()).tolist() == pytest.approx([1, 1])
    assert ssim(noise(0), noise(1), left_half()).abs().max() < 0.15


def test_ssim_of_a_shift_in_brightness_is_its_luminance_term():
    truth = torch.full((1, 3, 24, 18), 0.2)
    found = torch.full((1, 3, 24, 18), 0.5)
    constant = (0.01 * 2) ** 2
    expected = (2 * 0.2 * 0.5 + constant) / (0.2**2 + 0.5**2 + constant)  # contrast and structure are 1: no variance
    assert ssim(found, truth, torch.ones(1, 1, 24, 18)).item() == pytest.approx(expected, abs=1e-5)


def test_ssim_equals_its_definition_at_one_pixel():
    """Wang et al. 2004, eq. 13, with an 11x11 Gaussian window of sigma 1.5, worked out here by hand."""
    x, y = noise(0, batch=1, size=(11, 11)), noise(1, batch=1, size=(11, 11))
    x, y = (0.6 * y + 0.4 * x).double(), y.double()
    profile = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    window = (profile[:, None] * profile) / profile.sum() ** 2
    mx, my = (window * x).sum(dim=(2, 3)), (window * y).sum(dim=(2, 3))
    vx, vy = (window * x * x).sum(dim=(2, 3)) - mx**2, (window * y * y).sum(dim=(2, 3)) - my**2
    cov = (window * x * y).sum(dim=(2, 3)) - mx * my
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    expected = ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    centre = torch.zeros(1, 1, 11, 11)
    centre[..., 5, 5] = 1
    assert ssim(x, y, centre).item() == pytest.approx(expected.item(), abs=1e-6)


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ValueError, match="10x18"):
        ssim(noise(0, size=(10, 18)), noise(1, size=(10, 18)), torch.ones(2, 1, 10, 18))


def test_colour_error_of_greys_and_of_black_and_white():
    everywhere = torch.ones(1, 1, 24, 18)
    assert colour_error(flat(0, 0, 0), flat(255, 255, 255), everywhere).item() == pytest.approx(100, abs=0.01)
    assert colour_error(flat(9, 99, 199), flat(9, 99, 199), everywhere).item() == 0
    # sRGB grey 119 is L* = 50.03, grey 122 is L* = 51.21; at L* near 50 the CIEDE2000 lightness weight is 1
    assert colour_error(flat(119, 119, 119), flat(122, 122, 122), everywhere).item() == pytest.approx(1.18, abs=0.02)


def test_colour_error_of_primaries_is_the_published_one():
    """Pure red to pure green: CIE76 170.6, CIEDE2000 86.6 (Sharma et al. 2005 formula, sRGB, D65)."""
    found = colour_error(flat(255, 0, 0), flat(0, 255, 0), torch.ones(1, 1, 24, 18)).item()
    assert found == pytest.approx(86.61, abs=0.05)


def test_colour_error_clips_what_no_screen_can_show():
    everywhere = torch.ones(1, 1, 24, 18)
    assert colour_error(flat(255, 255, 255) + 0.7, flat(255, 255, 255), everywhere).item() == 0


def test_a_swap_that_changes_the_cloth_only_has_a_large_ratio():
    mask, first = left_half(), noise(0)
    second = first + torch.where(mask.bool(), 0.3, -0.01)
    change = swap_change(first, second, mask)
    assert (change.inside, change.outside) == (pytest.approx(0.3, rel=1e-5), pytest.approx(0.01, rel=1e-4))
    assert change.ratio == pytest.approx(30, rel=1e-3)


def test_a_swap_ratio_without_any_change_outside_is_infinite_and_without_any_change_undefined():
    mask, first = left_half(), noise(0)
    assert swap_change(first, first + mask, mask).ratio == math.inf
    assert math.isnan(swap_change(first, first, mask).ratio)


def test_a_swap_needs_an_inside_and_an_outside():
    with pytest.raises(ValueError, match="everything or nothing"):
        swap_change(noise(0), noise(1), torch.ones(2, 1, 24, 18))
