"""Loss weights: the published forms, and that no level overflows."""

import math

import pytest
import torch

from drape.diffusion.schedule import CosineSchedule, FlowSchedule, LinearSchedule
from drape.diffusion.weighting import clipped_snr, min_snr, sigmoid, uniform

LEVELS = torch.linspace(-20, 20, 401, dtype=torch.float64)
SNR = LEVELS.exp()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("x0", SNR.clamp(max=5)),
        ("eps", SNR.clamp(max=5) / SNR),
        ("v", SNR.clamp(max=5) / (SNR + 1)),
        ("flow", SNR.clamp(max=5) / (SNR.sqrt() + 1) ** 2),
    ],
)
def test_min_snr_has_the_published_form_for_each_target(kind, expected):
    torch.testing.assert_close(min_snr(LEVELS, kind), expected, rtol=1e-12, atol=0)


def test_min_snr_takes_its_gamma():
    torch.testing.assert_close(min_snr(LEVELS, "x0", gamma=2.0), SNR.clamp(max=2))


@pytest.mark.parametrize("weighting", [min_snr, sigmoid])
@pytest.mark.parametrize("kind", ["x0", "eps", "v", "flow"])
def test_a_weight_that_falls_towards_noise_is_finite_at_any_level_in_float32(kind, weighting):
    weight = weighting(torch.tensor([-200.0, 0.0, 200.0]), kind)
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
        ("flow", SNR.clamp(1, 5) / (SNR.sqrt() + 1) ** 2),
    ],
)
def test_clipped_snr_is_the_same_clip_in_x0_space_for_each_target(kind, expected):
    torch.testing.assert_close(clipped_snr(LEVELS, kind), expected, rtol=1e-12, atol=0)


def test_clipped_snr_keeps_pure_noise_in_the_loss_where_min_snr_drops_it():
    noise = torch.tensor([-12.0])
    assert min_snr(noise, "v") < 1e-4
    assert clipped_snr(noise, "v") > 0.99


@pytest.mark.parametrize(
    ("kind", "factor"), [("eps", 1.0), ("x0", SNR), ("v", SNR / (SNR + 1)), ("flow", SNR / (SNR.sqrt() + 1) ** 2)]
)
def test_sigmoid_has_the_published_form_on_the_noise_and_its_equal_on_each_target(kind, factor):
    expected = 1 / (1 + torch.exp(LEVELS - 2.0)) * factor
    torch.testing.assert_close(sigmoid(LEVELS, kind, bias=2.0), expected, rtol=1e-12, atol=0)


def test_sigmoid_on_x0_is_min_snr_with_a_round_corner():
    gamma = 5.0
    found = sigmoid(LEVELS, "x0", bias=math.log(gamma))
    torch.testing.assert_close(found, SNR * gamma / (SNR + gamma))
    sharp = min_snr(LEVELS, "x0", gamma)
    assert (found < sharp).all()
    assert (found >= sharp / 2).all()


def test_sigmoid_over_the_density_is_the_same_objective_whichever_schedule_draws_the_levels():
    """The mean over t of weight * error is an integral over log_snr; the error here stands for a net's."""
    t = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    means = []
    for schedule in (CosineSchedule(), CosineSchedule(shift=-1.4), FlowSchedule(), FlowSchedule(shift=-2.0)):
        log_snr = schedule.log_snr(t)
        error = 1 / (1 + (log_snr / 2 + 1).exp())
        means.append((sigmoid(log_snr, "eps", bias=-1.0) / schedule.density(log_snr) * error).mean().item())
    assert means == pytest.approx([means[0]] * 4, rel=1e-3)


@pytest.mark.parametrize("schedule", [CosineSchedule(), FlowSchedule(), LinearSchedule()])
def test_sigmoid_over_the_density_stays_moderate_on_velocity_and_flow(schedule):
    log_snr = schedule.log_snr(torch.linspace(0, 1, 1001, dtype=torch.float64))
    for kind in ("v", "flow"):
        assert (sigmoid(log_snr, kind) / schedule.density(log_snr)).max() < 10
