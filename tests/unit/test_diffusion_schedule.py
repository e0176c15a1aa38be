"""Schedules: ends, inverses, shifts and the ladder, against formulas written independently of the code."""

import math

import pytest
import torch
from scipy.integrate import quad

from drape.diffusion.prediction import add_noise
from drape.diffusion.schedule import (
    LOG_SNR_LIMIT,
    CosineSchedule,
    FlowSchedule,
    LinearSchedule,
    alpha,
    ddpm_betas,
    ladder,
    log_snr_of_betas,
    resolution_shift,
    sigma,
)
from drape.errors import ConfigError

SCHEDULES = {
    "cosine": CosineSchedule(),
    "cosine at 256x192": CosineSchedule(shift=resolution_shift(256, 192)),
    "cosine, narrow": CosineSchedule(log_snr_min=-6.0, log_snr_max=9.0),
    "flow": FlowSchedule(),
    "flow at 256x192": FlowSchedule(shift=resolution_shift(256, 192)),
    "flow, narrow": FlowSchedule(log_snr_min=-6.0, log_snr_max=9.0),
    "linear": LinearSchedule(),
    "linear, shifted": LinearSchedule(shift=-2.0),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
TIMES = torch.linspace(0, 1, 2001, dtype=torch.float64)


@every_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_snr_strictly_decreases_and_keeps_the_type_of_t(schedule, dtype):
    log_snr = schedule.log_snr(TIMES.to(dtype))
    assert (log_snr.diff() < 0).all()
    assert log_snr.dtype == dtype


@every_schedule
def test_the_powers_of_image_and_noise_sum_to_one(schedule):
    log_snr = schedule.log_snr(TIMES)
    torch.testing.assert_close(alpha(log_snr) ** 2 + sigma(log_snr) ** 2, torch.ones_like(TIMES), rtol=0, atol=1e-14)
    log_snr = log_snr.float()
    torch.testing.assert_close(alpha(log_snr) ** 2 + sigma(log_snr) ** 2, torch.ones(2001), rtol=0, atol=1e-6)


@every_schedule
def test_t_inverts_log_snr(schedule):
    torch.testing.assert_close(schedule.t(schedule.log_snr(TIMES)), TIMES, rtol=0, atol=1e-12)


@every_schedule
def test_float32_times_lose_nothing_to_the_formula(schedule):
    times = TIMES.float()
    exact = schedule.log_snr(times.double())
    torch.testing.assert_close(schedule.log_snr(times).double(), exact, rtol=1e-7, atol=1e-7)


@every_schedule
def test_the_noisiest_level_hides_the_image(schedule):
    end = schedule.log_snr(torch.ones(1, dtype=torch.float64))
    assert alpha(end).item() < 0.05


@every_schedule
def test_the_density_is_that_of_levels_at_uniform_times(schedule):
    levels = schedule.log_snr(TIMES).requires_grad_()
    (slope,) = torch.autograd.grad(schedule.t(levels).sum(), levels)
    torch.testing.assert_close(schedule.density(levels), -slope, rtol=1e-9, atol=0)
    levels = levels.detach().flip(0)
    low, high = levels[0].item(), levels[-1].item()
    whole, _ = quad(lambda level: schedule.density(torch.tensor(level, dtype=torch.float64)).item(), low, high)
    assert whole == pytest.approx(1, abs=1e-7)


def test_the_limit_is_a_fourteenth_of_a_grey_level():
    faintest = alpha(torch.tensor(-LOG_SNR_LIMIT)).item()
    assert faintest == pytest.approx(sigma(torch.tensor(LOG_SNR_LIMIT)).item())
    assert faintest == pytest.approx(5.5e-4, rel=0.01)
    assert (2 / 255) / faintest == pytest.approx(14, abs=0.5)


@pytest.mark.parametrize("build", [CosineSchedule, FlowSchedule])
def test_a_stretched_schedule_meets_its_stated_range_whatever_the_shift(build):
    for shift in (0.0, -2.8, 1.5):
        ends = build(shift=shift, log_snr_min=-12.0, log_snr_max=10.0).log_snr(TIMES[[0, -1]])
        assert ends.tolist() == pytest.approx([10, -12], abs=1e-9)


def test_cosine_alpha_is_a_cosine_of_time():
    wide = CosineSchedule(log_snr_min=-60.0, log_snr_max=60.0)  # as good as untruncated
    times = TIMES[1:-1]
    torch.testing.assert_close(alpha(wide.log_snr(times)), torch.cos(math.pi / 2 * times), rtol=0, atol=1e-9)


def test_flow_mixes_image_and_noise_in_the_shares_one_minus_t_and_t():
    wide = FlowSchedule(log_snr_min=-60.0, log_snr_max=60.0)  # as good as untruncated
    times = TIMES[1:-1]
    log_snr = wide.log_snr(times)
    share = sigma(log_snr) / (alpha(log_snr) + sigma(log_snr))
    torch.testing.assert_close(share, times, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (256, 192), (1024, 768), (32, 24)])
def test_the_resolution_shift_of_stable_diffusion_3_is_a_shift_of_log_snr(height, width):
    """t -> s t / (1 + (s - 1) t), s the root of the ratio of pixels to 64x64.  [Esser et al. 2024, eq. 23]"""
    s = math.sqrt(height * width / 64**2)
    plain = FlowSchedule(log_snr_min=-60.0, log_snr_max=60.0)
    shifted = FlowSchedule(shift=resolution_shift(height, width), log_snr_min=-60.0, log_snr_max=60.0)
    times = TIMES[100:-100]
    theirs = plain.log_snr(s * times / (1 + (s - 1) * times))
    torch.testing.assert_close(shifted.log_snr(times), theirs, rtol=0, atol=1e-8)


@pytest.mark.parametrize("build", [CosineSchedule, FlowSchedule])
def test_shift_adds_to_log_snr_at_equal_time(build):
    plain, shifted = (
        build(log_snr_min=-60.0, log_snr_max=60.0),
        build(shift=-1.4, log_snr_min=-60.0, log_snr_max=60.0),
    )
    times = TIMES[100:-100]
    torch.testing.assert_close(shifted.log_snr(times), plain.log_snr(times) - 1.4, rtol=0, atol=1e-9)


def test_resolution_shift_is_zero_at_64_and_falls_by_two_log_two_per_doubling():
    assert resolution_shift(64, 64) == 0
    assert resolution_shift(128, 128) == pytest.approx(-2 * math.log(2))
    assert resolution_shift(128, 32) == pytest.approx(0)
    assert resolution_shift(1024, 768) == pytest.approx(-5.2575, abs=1e-4)


def test_linear_integrates_betas_that_grow_linearly():
    schedule = LinearSchedule(log_snr_max=40.0)  # t = 0 is then as good as time 0
    for t in (0.1, 0.5, 0.9, 1.0):
        integral, _ = quad(lambda time: 0.1 + (20.0 - 0.1) * time, 0, t)
        alpha_bar = torch.sigmoid(schedule.log_snr(torch.tensor([t], dtype=torch.float64))).item()
        assert alpha_bar == pytest.approx(math.exp(-integral), rel=1e-9)


def test_linear_is_the_limit_of_the_discrete_betas():
    discrete = log_snr_of_betas(ddpm_betas(1000))
    continuous = LinearSchedule().log_snr(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    assert (discrete - continuous).abs()[9:].max() < 0.1
    finer = log_snr_of_betas(ddpm_betas(10_000) / 10)[9::10]
    assert (finer - continuous).abs()[9:].max() < 0.01


def test_log_snr_of_betas_is_that_of_the_cumulative_product():
    alpha_bar = torch.cumprod(1 - ddpm_betas(), dim=0)
    torch.testing.assert_close(log_snr_of_betas(ddpm_betas()), torch.log(alpha_bar / (1 - alpha_bar)))


@every_schedule
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_a_ladder_starts_at_the_noisiest_level_and_ends_clean(schedule, steps):
    levels = ladder(schedule, steps)
    assert levels.shape == (steps + 1,)
    assert levels.dtype == torch.float64
    assert levels[0] == schedule.log_snr(torch.ones(1, dtype=torch.float64))[0]
    assert (levels.diff() > 0).all()
    assert (alpha(levels[-1]), sigma(levels[-1])) == (1, 0)


def test_a_ladder_is_even_in_time():
    times = CosineSchedule().t(ladder(CosineSchedule(), 4)[:-1])
    assert times.tolist() == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_variance_of_a_noisy_image_is_the_sum_of_both_powers():
    generator = torch.Generator().manual_seed(0)
    x0 = 0.3 + 0.5 * torch.randn(64, 3, 32, 32, generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    for level in (-8.0, -2.0, 0.0, 2.0, 8.0):
        log_snr = torch.full((64,), level)
        expected = torch.sigmoid(log_snr[0]) * x0.var() + torch.sigmoid(-log_snr[0])
        assert add_noise(x0, eps, log_snr).var().item() == pytest.approx(expected.item(), rel=0.02)


@pytest.mark.parametrize(
    "build",
    [
        lambda: CosineSchedule(log_snr_min=5.0, log_snr_max=-5.0),
        lambda: FlowSchedule(log_snr_min=5.0, log_snr_max=-5.0),
        lambda: LinearSchedule(first=20.0, last=0.1),
        lambda: LinearSchedule(log_snr_max=-11.0),
        lambda: ladder(CosineSchedule(), 0),
    ],
    ids=["range upside down", "flow upside down", "betas that fall", "range below the end", "no steps"],
)
def test_an_impossible_schedule_says_what_to_set(build):
    with pytest.raises(ConfigError, match=r"must|Set"):
        build()
