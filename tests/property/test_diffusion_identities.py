"""Identities of the diffusion mathematics that hold at every level, for every target and schedule."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from drape.diffusion.guidance import guided
from drape.diffusion.prediction import Prediction, add_noise, amplitudes, predict, target_of
from drape.diffusion.schedule import CosineSchedule, FlowSchedule, LinearSchedule
from drape.diffusion.weighting import clipped_snr, min_snr, sigmoid

levels = st.floats(-15, 15)
kinds = st.sampled_from(["v", "eps", "x0", "flow"])
seeds = st.integers(0, 2**31)
shifts = st.floats(-6, 3)
schedules = st.one_of(st.builds(build, shift=shifts) for build in (CosineSchedule, FlowSchedule, LinearSchedule))


def images(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.rand(2, 3, 5, 4, generator=generator) * 2 - 1
    return x0.to(dtype), torch.randn(2, 3, 5, 4, generator=generator).to(dtype)


@given(kind=kinds, level=levels, seed=seeds)
def test_decoding_the_target_gives_back_image_and_noise(kind, level, seed):
    x0, eps = images(seed, torch.float64)
    log_snr = torch.full((2,), level, dtype=torch.float64)
    decoded = predict(kind, target_of(kind, x0, eps, log_snr), add_noise(x0, eps, log_snr), log_snr)
    torch.testing.assert_close(decoded.x0, x0, rtol=0, atol=1e-11)
    torch.testing.assert_close(decoded.eps, eps, rtol=0, atol=1e-11)


@given(kind=kinds, level=levels, seed=seeds)
def test_decoding_in_float32_loses_only_what_x_t_could_not_hold(kind, level, seed):
    x0, eps = images(seed, torch.float32)
    log_snr = torch.full((2,), level)
    decoded = predict(kind, target_of(kind, x0, eps, log_snr), add_noise(x0, eps, log_snr), log_snr)
    a, s = (float(x[0]) for x in amplitudes(log_snr, x0))
    rounding = 2e-6  # of values up to about 5
    torch.testing.assert_close(decoded.x0, x0, rtol=0, atol=rounding / (a if kind == "eps" else 1))
    torch.testing.assert_close(decoded.eps, eps, rtol=0, atol=rounding / (s if kind == "x0" else 1))


@given(schedule=schedules, t=st.floats(0, 1))
def test_every_schedule_inverts_exactly(schedule, t):
    time = torch.tensor([t], dtype=torch.float64)
    torch.testing.assert_close(schedule.t(schedule.log_snr(time)), time, rtol=0, atol=1e-11)


@given(weighting=st.sampled_from([min_snr, clipped_snr, sigmoid]), level=levels, seed=seeds)
def test_a_weighting_punishes_the_same_mistake_alike_under_every_target(weighting, level, seed):
    """weight(kind) * |target error|^2 is weight("x0") * |x0 error|^2, because it is the same mistake."""
    x0, eps = images(seed, torch.float64)
    log_snr = torch.full((2,), level, dtype=torch.float64)
    a, s = amplitudes(log_snr, x0)
    x_t, wrong = add_noise(x0, eps, log_snr), x0 + 0.1
    expected = weighting(log_snr, "x0") * 0.01
    for kind in ("v", "eps", "flow"):
        error = target_of(kind, wrong, (x_t - a * wrong) / s, log_snr) - target_of(kind, x0, eps, log_snr)
        found = weighting(log_snr, kind) * error.square().mean(dim=(1, 2, 3))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@given(scale=st.floats(0, 8), level=st.floats(-8, 8), seed=seeds)
def test_guidance_is_the_same_in_image_space_and_in_noise_space(scale, level, seed):
    x_t, other = images(seed, torch.float64)
    log_snr = torch.full((2,), level, dtype=torch.float64)

    def seeing(x0):
        return lambda x_t, log_snr: predict("x0", x0, x_t, log_snr)

    x0, eps = guided(seeing(other), seeing(other.flip(0)), scale)(x_t, log_snr)
    again = predict("eps", eps, x_t, log_snr)
    assert isinstance(again, Prediction)
    torch.testing.assert_close(again.x0, x0, rtol=1e-9, atol=1e-9)
