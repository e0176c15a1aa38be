"""Noising and targets, value by value, and the faults other code has had in them."""

import pytest
import torch

from drape.diffusion.prediction import add_noise, amplitudes, predict, target_of


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, 3, 8, 6, generator=generator) * 2 - 1, torch.randn(4, 3, 8, 6, generator=generator)


def test_noising_mixes_image_and_noise_not_noise_and_noise(pair):
    x0, eps = pair
    log_snr = torch.full((4,), 1.0986122887)  # SNR 3: alpha^2 = 3/4, sigma^2 = 1/4
    torch.testing.assert_close(add_noise(x0, eps, log_snr), 0.75**0.5 * x0 + 0.5 * eps)


def test_each_image_of_a_batch_has_its_own_level(pair):
    x0, eps = pair
    log_snr = torch.tensor([-15.0, -1.0, 1.0, 15.0])
    together = add_noise(x0, eps, log_snr)
    for i in range(4):
        assert torch.equal(together[i : i + 1], add_noise(x0[i : i + 1], eps[i : i + 1], log_snr[i : i + 1]))


def test_the_ends_are_the_noise_and_the_image(pair):
    x0, eps = pair
    assert torch.equal(add_noise(x0, eps, torch.full((4,), torch.inf)), x0)
    assert torch.equal(add_noise(x0, eps, torch.full((4,), -torch.inf)), eps)


def test_velocity_is_the_derivative_of_x_t_along_the_angle_of_noising(pair):
    x0, eps = (x.double() for x in pair)
    angle = torch.tensor([0.2, 0.6, 1.0, 1.4], dtype=torch.float64)  # x_t = cos(angle) x0 + sin(angle) eps
    step = 1e-6

    def noisy(angle):
        return add_noise(x0, eps, -2 * torch.log(torch.tan(angle)))

    derivative = (noisy(angle + step) - noisy(angle - step)) / (2 * step)
    velocity = target_of("v", x0, eps, -2 * torch.log(torch.tan(angle)))
    torch.testing.assert_close(velocity, derivative, rtol=0, atol=1e-8)


def test_eps_and_x0_targets_are_the_tensors_themselves(pair):
    x0, eps = pair
    log_snr = torch.zeros(4)
    assert target_of("eps", x0, eps, log_snr) is eps
    assert target_of("x0", x0, eps, log_snr) is x0


def test_flow_is_the_derivative_along_the_straight_line_from_image_to_noise(pair):
    """Flow matching is the same process: z = x_t / (alpha + sigma) runs along (1 - s) x0 + s eps."""
    x0, eps = (x.double() for x in pair)
    share = torch.tensor([0.01, 0.3, 0.7, 0.99], dtype=torch.float64)
    log_snr = 2 * torch.log((1 - share) / share)
    a, s = amplitudes(log_snr, x0)
    column = share.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(add_noise(x0, eps, log_snr) / (a + s), (1 - column) * x0 + column * eps)
    torch.testing.assert_close(target_of("flow", x0, eps, log_snr), eps - x0)  # d/ds of the right-hand side


@pytest.mark.parametrize("kind", ["v", "eps", "x0", "flow"])
def test_both_readings_of_any_output_give_back_x_t(pair, kind):
    x_t, output = pair
    log_snr = torch.tensor([-4.0, -1.0, 1.0, 4.0])
    x0, eps = predict(kind, output, x_t, log_snr)
    torch.testing.assert_close(add_noise(x0, eps, log_snr), x_t, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["v", "flow"])
def test_velocity_and_flow_decode_without_amplifying_errors_at_either_end(pair, kind):
    x0, eps = pair
    log_snr = torch.tensor([-15.0, -15.0, 15.0, 15.0])
    x_t, target = add_noise(x0, eps, log_snr), target_of(kind, x0, eps, log_snr)
    error = 1e-3
    decoded = predict(kind, target + error, x_t, log_snr)
    assert (decoded.x0 - x0).abs().max() <= error * 1.01
    assert (decoded.eps - eps).abs().max() <= error * 1.01


def test_levels_in_float64_leave_float32_images_in_float32(pair):
    x0, eps = pair
    log_snr = torch.zeros(4, dtype=torch.float64)
    assert add_noise(x0, eps, log_snr).dtype == torch.float32
    assert predict("v", eps, x0, log_snr).x0.dtype == torch.float32


def test_bfloat16_outputs_are_decoded_in_float32(pair):
    x_t, output = pair
    x0, eps = predict("v", output.bfloat16(), x_t, torch.zeros(4))
    assert x0.dtype == eps.dtype == torch.float32
