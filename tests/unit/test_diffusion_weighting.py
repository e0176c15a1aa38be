"""Loss weights: the published forms, and that no level overflows."""

import pytest
import torch

from drape.diffusion.weighting import clipped_snr, min_snr, uniform

LEVELS = torch.linspace(-20, 20, 401, dtype=torch.float64)
SNR = LEVELS.exp()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("x0", SNR.clamp(max=5)),
        ("eps", SNR.clamp(max=5) / SNR),
        ("v", SNR.clamp(max=5) / (SNR + 1)),
    ],
)
def test_min_snr_has_the_published_form_for_each_target(kind, expected):
    torch.testing.assert_close(min_snr(LEVELS, kind), expected, rtol=1e-12, atol=0)


def test_min_snr_takes_its_gamma():
    torch.testing.assert_close(min_snr(LEVELS, "x0", gamma=2.0), SNR.clamp(max=2))


@pytest.mark.parametrize("kind", ["x0", "eps", "v"])
def test_min_snr_is_finite_at_any_level_in_float32(kind):
    weight = min_snr(torch.tensor([-200.0, 0.0, 200.0]), kind)
    assert weight.isfinite().all()
    assert (weight >= 0).all()


def test_uniform_weighs_every_level_alike():
    assert torch.equal(uniform(LEVELS, "v"), torch.ones_like(LEVELS))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("x0", SNR.clamp(1, 5)),
        ("eps", SNR.clamp(1, 5) / SNR),
        ("v", SNR.clamp(1, 5) / (SNR + 1)),
    ],
)
def test_clipped_snr_is_the_same_clip_in_x0_space_for_each_target(kind, expected):
    torch.testing.assert_close(clipped_snr(LEVELS, kind), expected, rtol=1e-12, atol=0)


def test_clipped_snr_keeps_pure_noise_in_the_loss_where_min_snr_drops_it():
    noise = torch.tensor([-12.0])
    assert min_snr(noise, "v") < 1e-4
    assert clipped_snr(noise, "v") > 0.99
