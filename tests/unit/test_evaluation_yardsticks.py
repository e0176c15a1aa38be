"""The two analytic yardsticks against fields whose best denoisers are known."""

import json
import math

import pytest
import torch
from torch import Tensor

from drape.diffusion.prediction import add_noise
from drape.diffusion.schedule import CosineSchedule, alpha, sigma
from drape.evaluation.yardsticks import compute, spectrum

SCHEDULE = CosineSchedule()
HEIGHT, WIDTH = 16, 12


def white(count: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def known_spectrum() -> Tensor:
    """Power that falls with frequency, (h, w)."""
    y, x = torch.fft.fftfreq(HEIGHT)[:, None], torch.fft.fftfreq(WIDTH)[None]
    return (0.05 / (0.02 + y**2 + x**2)).double()


def coloured(count: int) -> Tensor:
    """Stationary Gaussian fields with `known_spectrum` in three colours mixed with each other, on a mean image."""
    mixing = torch.tensor([[1.0, 0.5, 0.2], [0.0, 0.8, 0.3], [0.0, 0.0, 0.4]])
    fields = torch.fft.ifft2(torch.fft.fft2(white(count)) * known_spectrum().sqrt()).real
    mean = torch.linspace(-0.5, 0.5, HEIGHT)[:, None].expand(HEIGHT, WIDTH)
    return torch.einsum("nchw,cd->ndhw", fields.float(), mixing) + mean


def true_wiener(log_snr: float) -> float:
    """The exact error of the best denoiser of `coloured`: colours that do not mix have the singular values' power."""
    mixing = torch.tensor([[1.0, 0.5, 0.2], [0.0, 0.8, 0.3], [0.0, 0.0, 0.4]], dtype=torch.float64)
    power = torch.linalg.svdvals(mixing).square()[:, None, None] * known_spectrum()
    snr = math.exp(log_snr)
    return (snr * power / (snr * power + 1)).mean().item()


def test_the_linear_filter_of_gaussian_fields_has_the_exact_error() -> None:
    found = compute(coloured(4_000), SCHEDULE, 16)
    for log_snr, error in zip(found.log_snr, found.wiener, strict=True):
        assert error == pytest.approx(true_wiener(log_snr), rel=0.01)


def test_the_linear_filter_reaches_its_error_when_it_is_applied() -> None:
    """Denoise by the filter the spectrum asks for, in colours that are known here, and measure."""
    fields = torch.fft.ifft2(torch.fft.fft2(white(2_000)) * known_spectrum().sqrt()).real.float()
    found = compute(fields, SCHEDULE, 4)
    for log_snr, error in zip(found.log_snr, found.wiener, strict=True):
        level = torch.full((len(fields),), log_snr)
        eps = torch.randn(fields.shape, generator=torch.Generator().manual_seed(1))
        a, s = alpha(level[0]), sigma(level[0])
        power = known_spectrum().float()
        gain = s / (a**2 * power + s**2)
        guess = torch.fft.ifft2(torch.fft.fft2(add_noise(fields, eps, level)) * gain).real
        assert (guess - eps).square().mean().item() == pytest.approx(error, rel=0.02)


def test_white_images_leave_a_filter_nothing_to_use() -> None:
    found = compute(white(4_000, scale=0.6), SCHEDULE, 8)
    assert found.wiener == pytest.approx(found.pass_through, rel=0.01)


def test_the_mean_of_the_pass_through_is_the_integral() -> None:
    """Under the cosine schedule the mean over t of a^2 P / (a^2 P + s^2) is p / (1 + p), p = sqrt(P)."""
    images = white(64)
    found = compute(images, SCHEDULE, 400)
    root = images.square().mean().sqrt().item()
    assert found.mean("pass_through") == pytest.approx(root / (1 + root), rel=1e-3)


def test_the_best_factor_on_the_noisy_image_has_the_pass_through_error() -> None:
    images = coloured(500)
    found = compute(images, SCHEDULE, 4)
    for log_snr, error in zip(found.log_snr, found.pass_through, strict=True):
        eps = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
        x_t = add_noise(images, eps, torch.full((len(images),), log_snr))
        factor = (x_t * eps).sum() / x_t.square().sum()
        assert (factor * x_t - eps).square().mean().item() == pytest.approx(error, rel=0.02)


def test_a_spectrum_keeps_the_power_of_the_images() -> None:
    images = coloured(200)
    around_mean = (images - images.mean(dim=0)).double().square().mean().item() * 200 / 199
    assert spectrum(images).mean().item() == pytest.approx(around_mean, rel=1e-6)
    assert (spectrum(white(4_000)) - 1).abs().mean() < 0.03


def test_a_mean_image_that_all_share_costs_the_filter_nothing() -> None:
    images = white(100)
    shifted = images + torch.linspace(-1, 1, WIDTH)
    assert compute(shifted, SCHEDULE, 4).wiener == pytest.approx(compute(images, SCHEDULE, 4).wiener, rel=1e-5)
    assert compute(shifted, SCHEDULE, 4).mean("pass_through") > compute(images, SCHEDULE, 4).mean("pass_through")


def test_errors_of_v_and_x0_are_those_of_eps_at_another_scale() -> None:
    found = compute(coloured(50), SCHEDULE, 4)  # one level in each quarter
    for q, log_snr in enumerate(found.log_snr):
        eps = found.quarters("wiener")[q]
        power = torch.sigmoid(torch.tensor(log_snr, dtype=torch.float64)).item()
        assert found.quarters("wiener", "v")[q] == pytest.approx(eps / power)
        assert found.quarters("wiener", "x0")[q] == pytest.approx(eps * (1 - power) / power)


def test_the_filter_is_never_worse_than_the_factor_and_both_fall_with_noise() -> None:
    found = compute(coloured(500), SCHEDULE, 16)
    assert all(w <= p for w, p in zip(found.wiener, found.pass_through, strict=True))
    for curve in (found.wiener, found.pass_through):
        assert list(curve) == sorted(curve, reverse=True)


def test_the_record_is_plain_data() -> None:
    record = compute(white(3), SCHEDULE, 8).to_dict()
    assert json.loads(json.dumps(record)) == record
    assert len(record["eps"]["wiener"]["quarters"]) == 4
    assert len(record["levels"]["t"]) == 8


@pytest.mark.parametrize(("count", "levels"), [(1, 8), (4, 3)])
def test_too_little_to_measure_is_an_error(count, levels) -> None:
    with pytest.raises(ValueError, match="at least"):
        compute(white(count), SCHEDULE, levels)
