"""Guidance and thresholding wrap a denoiser; the counting denoisers here show what they ask for."""

import pytest
import torch

from drape.diffusion.guidance import clipped, dynamically_clipped, guided, guided_in_one_batch
from drape.diffusion.prediction import Prediction, add_noise, amplitudes


class Constant:
    """A denoiser that always sees the same image, and remembers the batches it was asked about."""

    def __init__(self, value: float):
        self.value = value
        self.calls = []

    def __call__(self, x_t, log_snr):
        self.calls.append(x_t.shape[0])
        a, s = amplitudes(log_snr, x_t)
        x0 = torch.full_like(x_t, self.value)
        return Prediction(x0, (x_t - a * x0) / s)


@pytest.fixture
def x_t():
    return torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))


LEVEL = torch.tensor([-1.0, 0.0, 1.0])


def test_guidance_moves_away_from_the_null_prediction(x_t):
    x0, eps = guided(Constant(0.5), Constant(0.2), 2.0)(x_t, LEVEL)
    torch.testing.assert_close(x0, torch.full_like(x_t, 2.0 * 0.5 - 1.0 * 0.2))
    torch.testing.assert_close(add_noise(x0, eps, LEVEL), x_t)


def test_scale_zero_is_the_null_prediction(x_t):
    x0, _ = guided(Constant(0.5), Constant(0.2), 0.0)(x_t, LEVEL)
    torch.testing.assert_close(x0, torch.full_like(x_t, 0.2))


def test_guidance_asks_for_one_joint_null_state_and_no_more(x_t):
    conditional, null = Constant(0.5), Constant(0.2)
    guided(conditional, null, 2.0)(x_t, LEVEL)
    assert (conditional.calls, null.calls) == ([3], [3])


def test_scale_one_never_asks_for_the_null_state(x_t):
    null = Constant(0.2)
    x0, _ = guided(Constant(0.5), null, 1.0)(x_t, LEVEL)
    assert null.calls == []
    assert torch.equal(x0, torch.full_like(x_t, 0.5))


def test_outside_the_interval_the_null_state_is_never_asked_for(x_t):
    null = Constant(0.2)
    x0, _ = guided(Constant(0.5), null, 3.0, interval=(2.0, 5.0))(x_t, LEVEL)
    assert null.calls == []
    assert torch.equal(x0, torch.full_like(x_t, 0.5))


def test_the_interval_is_closed_and_judged_per_image(x_t):
    x0, _ = guided(Constant(0.5), Constant(0.0), 3.0, interval=(0.0, 1.0))(x_t, LEVEL)
    assert x0[:, 0, 0, 0].tolist() == pytest.approx([0.5, 1.5, 1.5])


def test_one_batch_gives_the_same_prediction_in_a_single_call(x_t):
    def denoise_pair(x_t, log_snr):
        a, s = amplitudes(log_snr, x_t)
        values = torch.tensor([0.5, 0.2]).repeat_interleave(len(x_t) // 2).reshape(-1, 1, 1, 1)
        x0 = values.expand_as(x_t)
        return Prediction(x0, (x_t - a * x0) / s)

    alone = Constant(0.5)
    expected = guided(Constant(0.5), Constant(0.2), 2.5)(x_t, LEVEL)
    found = guided_in_one_batch(alone, denoise_pair, 2.5)(x_t, LEVEL)
    torch.testing.assert_close(found, expected)
    assert alone.calls == []
    guided_in_one_batch(alone, denoise_pair, 1.0)(x_t, LEVEL)
    assert alone.calls == [3]


def test_clipping_keeps_x0_in_range_and_its_noise_consistent(x_t):
    x0, eps = clipped(Constant(1.7))(x_t, LEVEL)
    assert torch.equal(x0, torch.ones_like(x_t))
    torch.testing.assert_close(add_noise(x0, eps, LEVEL), x_t)


def test_clipping_leaves_an_image_in_range_alone(x_t):
    torch.testing.assert_close(clipped(Constant(-0.3))(x_t, LEVEL), Constant(-0.3)(x_t, LEVEL))
    torch.testing.assert_close(dynamically_clipped(Constant(-0.3))(x_t, LEVEL), Constant(-0.3)(x_t, LEVEL))


def test_dynamic_clipping_divides_each_image_by_its_own_quantile():
    x0 = torch.stack([torch.linspace(-4, 4, 300), torch.linspace(-2, 2, 300)]).reshape(2, 3, 10, 10)

    def denoise(x_t, log_snr):
        return Prediction(x0, x_t)

    found, _ = dynamically_clipped(denoise, quantile=0.5)(torch.zeros_like(x0), torch.zeros(2))
    limits = x0.flatten(1).abs().median(dim=1).values.reshape(2, 1, 1, 1)
    assert found.abs().amax(dim=(1, 2, 3)).tolist() == [1, 1]
    torch.testing.assert_close(found, (x0 / limits).clamp(-1, 1), rtol=0.02, atol=0)
